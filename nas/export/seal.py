"""What is common to the manifests of all exported networks: names of files, their hashes, and what the
digests cover.

`digest` covers everything in the manifest but itself, the hashes of the other files among it. The claims are
everything but `digest` and `files`; their digest stands in the metadata of the ONNX file, which could not
hold one that covers its own hash. A digest shows that something was changed by accident or in part. Whoever
changes everything can compute new ones: only a signature shows who made it.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from hw_profiles.errors import TrilobitError
from hw_profiles.files import checksum_of, read_json

MANIFEST, SIGNATURE, CARD, MODEL_FILE = "manifest.json", "manifest.sig", "README.md", "model.onnx"
DECODER_FILE = "decoder.onnx"  # of a decoder, with a key-value cache
EXITS_FILE = "exits.onnx"  # of a decoder and of those that it begins with
CLAIMS = "trilobit.claims"  # key of the ONNX file's metadata
REMEDY = "fetch the folder again, or export the network again"
LARGEST_FILE = 2**31  # bytes: more than an ONNX file can have


def _file_name(name: str) -> None:
    """Refuse what would lead out of the folder, or be something else on another system."""
    if (
        name in ("", ".", "..", MANIFEST, SIGNATURE)
        or set(name) & set('/\\:*?"<>|')
        or not name.isprintable()
    ):
        raise ValueError(f"{name[:40]!r} is not the name of a file in the folder")


def _digest(text: str) -> None:
    if len(text) != 64 or set(text) - set("0123456789abcdef"):
        raise ValueError("not a SHA-256 in hexadecimal digits")


def _share(value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{value:g} is not a share from 0 to 1")


def _positive(value: float) -> None:
    if not value > 0:
        raise ValueError(f"{value:g} is not above 0")


def _not_negative(value: float) -> None:
    if value < 0:
        raise ValueError(f"{value:g} is below 0")


def _at_most_a_file(value: int) -> None:
    if not 0 <= value <= LARGEST_FILE:
        raise ValueError(f"{value} bytes; at most {LARGEST_FILE} are")


def _with_a_model(files: Mapping[str, Any]) -> None:
    if MODEL_FILE not in files:
        raise ValueError(f"without {MODEL_FILE}")


FileName = Annotated[str, _file_name]
Digest = Annotated[str, _digest]
Share = Annotated[float, _share]
Seconds = Annotated[float, _positive]
Count = Annotated[int, _positive]
NotNegative = Annotated[float, _not_negative]
Natural = Annotated[int, _not_negative]


@dataclass(frozen=True)
class FileEntry:
    """Hash and size of one file.

    Attributes:
        sha256: hexadecimal digest of its bytes.
        bytes: its size.
    """

    sha256: Digest
    bytes: Annotated[int, _at_most_a_file]


Files = Annotated[Mapping[FileName, FileEntry], _with_a_model]


def read_raw(folder: Path, *schemas: str) -> dict[str, Any]:
    """Return the manifest in a folder as it is written, for its digests.

    Args:
        schemas: of what it may be.

    Raises:
        TrilobitError: there is none, or it is of another version.
    """
    document = read_json(folder / MANIFEST, *schemas)
    try:
        digest_of(document)
    except ValueError:  # 1e999, which JSON can write and no number is
        raise TrilobitError(f"{folder / MANIFEST}: a number is too large; {REMEDY}") from None
    return document


def digest_of(document: Mapping[str, Any]) -> str:
    """Return the digest of a whole manifest: of everything in it but `digest`."""
    return _digest_without(document, "digest")


def claims_of(document: Mapping[str, Any]) -> str:
    """Return the digest of what a manifest claims: of everything but `digest` and `files`."""
    return _digest_without(document, "digest", "files")


def _digest_without(document: Mapping[str, Any], *names: str) -> str:
    rest = {name: value for name, value in document.items() if name not in names}
    return checksum_of(rest)


def file_entries(files: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    """Return hash and size of each file, for a manifest."""
    return {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in files.items()
    }
