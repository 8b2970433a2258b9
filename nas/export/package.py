"""An exported network as a folder and as one file to hand on."""

import contextlib
import hashlib
import io
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hw_profiles.errors import TrilobitError
from hw_profiles.files import read_json, write_atomic, write_json
from nas.export.card import model_card

MANIFEST = "manifest.json"
MANIFEST_SCHEMA = "export/2"
CARD = "README.md"
CHECKED = ("id", "seed", "files", "input", "answers", "classes", "accuracy", "device", "latency")
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # in every archive, so that equal networks are equal files


def file_entries(files: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    """Hash and size of each file, for the manifest."""
    return {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in files.items()
    }


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an exported network, with all that is checked again elsewhere in it.

    Raises:
        TrilobitError: there is none, it is of another version, or something is missing.
    """
    manifest = read_json(folder / MANIFEST, MANIFEST_SCHEMA)
    if missing := [name for name in CHECKED if name not in manifest]:
        raise TrilobitError(f"{folder / MANIFEST}: without {', '.join(missing)}; not exported by `nas`")
    return manifest


def hash_of(path: Path) -> str:
    """The SHA-256 of a file as the manifest keeps it, or `missing`."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"


def write_network(folder: Path, files: Mapping[str, bytes], manifest: Mapping[str, Any]) -> Path:
    """Write the folder of one network, `FOLDER.zip` with the same in it, and give the manifest's path.

    The manifest comes last, so a folder with one is whole.
    """
    path = folder / MANIFEST
    written = {**files, CARD: model_card(manifest).encode()}
    with contextlib.suppress(TrilobitError):  # an earlier export may have had a library, say
        for name in read_manifest(folder)["files"].keys() - written.keys():
            (folder / Path(name).name).unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    for name, data in written.items():
        write_atomic(folder / name, data)
    write_json(path, dict(manifest))
    write_atomic(archive_of(folder), _archive(folder.name, {**written, MANIFEST: path.read_bytes()}))
    return path


def remove_network(folder: Path) -> None:
    """Remove what `write_network` wrote."""
    shutil.rmtree(folder)
    archive_of(folder).unlink(missing_ok=True)


def archive_of(folder: Path) -> Path:
    """The zip beside a network's folder."""
    return folder.with_name(f"{folder.name}.zip")


def _archive(name: str, files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, data in files.items():
            archive.writestr(zipfile.ZipInfo(f"{name}/{file}", _LONG_AGO), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
