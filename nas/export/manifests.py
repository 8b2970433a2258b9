"""The manifests of all kinds of exported networks, by their schemas."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hw_profiles.documents import MismatchError, parse
from hw_profiles.errors import TrilobitError
from nas.export.manifest import SCHEMA, WITHOUT_DIGEST, Manifest
from nas.export.seal import MANIFEST, REMEDY, read_raw
from nas.export.tuned_manifest import TUNED_SCHEMA, TunedManifest

AnyManifest = Manifest | TunedManifest
KINDS: Mapping[str, type[Manifest] | type[TunedManifest]] = {
    SCHEMA: Manifest,
    WITHOUT_DIGEST: Manifest,
    TUNED_SCHEMA: TunedManifest,
}


def read_any(folder: Path) -> AnyManifest:
    """Return what the manifest in a folder says; whether that is true is not looked at.

    Raises:
        TrilobitError: there is none, it is of another version, or a field is not what it must be.
    """
    return manifest_of(read_document(folder), folder / MANIFEST)


def read_document(folder: Path) -> dict[str, Any]:
    """Return the manifest in a folder as it is written, for its digests.

    Raises:
        TrilobitError: there is none, or it is of another version.
    """
    return read_raw(folder, *KINDS)


def manifest_of(document: Mapping[str, Any], path: Path) -> AnyManifest:
    """Return a document of one of the `KINDS` as nouns.

    Raises:
        TrilobitError: a field is not what it must be; the message names `path` and it.
    """
    try:
        return parse(KINDS[document["schema"]], document)
    except MismatchError as error:
        raise TrilobitError(f"{path}: {error}; {REMEDY}") from None
