"""An exported network as a folder and as one file to hand on."""

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hw_profiles.files import json_text
from nas.emit.to_onnx import described
from nas.export.card import model_card
from nas.export.manifest import SCHEMA
from nas.export.manifests import AnyManifest, manifest_of
from nas.export.seal import CARD, CLAIMS, MANIFEST, MODEL_FILE, SIGNATURE, claims_of, digest_of, file_entries
from nas.export.signature import sign
from nas.export.tuned_card import tuned_card
from nas.export.tuned_manifest import TunedManifest

_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # in every archive, so that equal networks are equal files


def network_files(
    name: str,
    files: Mapping[str, bytes],
    claims: Mapping[str, Any],
    *,
    schema: str = SCHEMA,
    key: Path | None = None,
) -> dict[str, bytes]:
    """Return the folder of one network and `NAME.zip` with the same in it, as files by their paths.

    The ONNX file gets the digest of the claims; the card and the manifest are made here. The manifest comes
    after what it lists.

    Args:
        files: the ONNX file among them.
        claims: all of the manifest but `schema`, `files` and `digest`.
        schema: of the manifest, one of `nas.export.manifests.KINDS`.
        key: to sign the manifest with; None leaves that out.

    Raises:
        TrilobitError: the claims are not what a manifest must hold, or the key cannot be used.
    """
    document = {"schema": schema, **claims}
    stamped = described(files[MODEL_FILE], {CLAIMS: claims_of(document)})
    written = {**files, MODEL_FILE: stamped}
    document["files"] = file_entries(written)
    document["digest"] = digest_of(document)
    written[CARD] = _card(manifest_of(document, Path(name, MANIFEST))).encode()
    document["files"] = file_entries(written)
    document["digest"] = digest_of(document)
    written[MANIFEST] = json_text(document).encode()
    if key is not None:
        written[SIGNATURE] = sign(written[MANIFEST], key)
    folder = {f"{name}/{file}": data for file, data in written.items()}
    return {**folder, f"{name}.zip": _archive(folder)}


def _card(manifest: AnyManifest) -> str:
    return tuned_card(manifest) if isinstance(manifest, TunedManifest) else model_card(manifest)


def hash_of(path: Path) -> str:
    """Return the SHA-256 of a file as the manifest keeps it; `missing` where there is no plain file."""
    if not path.is_file() or path.is_symlink():
        return "missing"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _archive(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, _LONG_AGO), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
