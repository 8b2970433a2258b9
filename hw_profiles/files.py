"""Atomic writes, and JSON files that carry their schema. Nothing half-written ever stands under its final
name.
"""

import contextlib
import fnmatch
import hashlib
import json
import os
import platform
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hw_profiles.errors import TrilobitError


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write `data` to `path` so that a reader sees the old file or the whole new one, also after a power cut.

    Its permissions are what the umask says.

    Raises:
        OSError: the folder cannot be written, or the disk is full; the old file is then still whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    payload = data.encode() if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.{_writer()}.part")
    try:
        with open(temporary, "xb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _sync_folder(folder: Path) -> None:
    """Make the new name survive a power cut too; some file systems cannot, and do not need to."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _writer() -> str:
    """Return who writes: a name that no other living process has."""
    return f"{os.getpid()}@{platform.node()}"


def entries_below(folder: Path) -> Iterator[Path]:
    """Yield every file and folder below, however deep (`Path.rglob` gives up after a thousand folders in each
    other), without following links to folders.

    Raises:
        OSError: one of the folders cannot be read, or lies deeper than the system takes paths.
    """
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                yield Path(entry.path)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))


def remove_abandoned(folder: Path) -> None:
    """Remove what processes of this machine were writing somewhere in `folder` when they were killed."""
    for path in entries_below(folder) if folder.exists() else ():
        if not fnmatch.fnmatch(path.name, ".*.part"):
            continue
        pid, _, node = path.name.removesuffix(".part").rpartition("@")
        writer = pid.rpartition(".")[2]
        if node == platform.node() and writer.isdigit() and not _alive(int(writer)):
            path.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def write_json(
    path: Path, document: dict[str, Any], *, indent: int | None = 1, checksum: bool = False
) -> None:
    """Write `document`, which must carry its `"schema": "<name>/<n>"`, atomically as JSON.

    Args:
        checksum: let it carry `checksum_of` all else in it, which `read_json` then compares.
    """
    if "schema" not in document:
        raise ValueError(f"{path.name}: every file carries a schema")
    whole = {**document, "checksum": checksum_of(document)} if checksum else document
    write_atomic(path, json_text(whole, indent=indent))


def json_text(document: Mapping[str, Any], *, indent: int | None = 1) -> str:
    """Return `document` as it is written."""
    return json.dumps(document, indent=indent, allow_nan=False) + "\n"


def checksum_of(document: Mapping[str, Any]) -> str:
    """Return the SHA-256 of plain data as compact JSON with sorted names."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def read_json(path: Path, *schemas: str) -> dict[str, Any]:
    """Return the document in `path`, of one of `schemas` (such as `profile/1`), without its checksum.

    Raises:
        TrilobitError: the file is missing, cannot be read, is not JSON (truncated, say), carries another
            schema or a checksum that does not match.
    """
    schema = " or ".join(schemas)
    try:
        text = path.read_text(encoding="utf-8")
        document = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except FileNotFoundError:
        raise TrilobitError(f"{path}: no such file; expected a {schema} file there") from None
    except OSError as error:
        raise TrilobitError(f"{path}: cannot be read ({error.strerror}); give a {schema} file") from None
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else error
        raise TrilobitError(
            f"{path}: not whole JSON ({why}); delete it and run the stage that writes it again"
        ) from None
    named_schema = document.get("schema") if isinstance(document, dict) else None
    if named_schema not in schemas:
        raise TrilobitError(
            f"{path}: schema {_named(named_schema)}, but this version reads {schema!r}; use the version that "
            "wrote it, or have this one write it again (what belongs to a run: in another folder, -o)"
        )
    stated = document.pop("checksum", None)
    if stated is not None and stated != checksum_of(document):
        raise TrilobitError(
            f"{path}: its checksum does not match: changed or damaged since it was written; have it written "
            "again, or take its `checksum` out if you changed it yourself"
        )
    return dict(document)


def _named(schema: object) -> str:
    """Return what stands in the place of a schema, in a few words."""
    return repr(schema[:60]) if isinstance(schema, str) else "None" if schema is None else "that is no text"


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; of a name that stands twice two readers may take different values.

    Raises:
        ValueError: a name stands twice.
    """
    document = dict(pairs)
    if len(document) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands twice")
    return document
