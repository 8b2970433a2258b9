"""What `nas export` wrote into its folder. It replaces and removes that and nothing else: whatever somebody
put there, or changed, is kept.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from hw_profiles.documents import read_document, write_document
from hw_profiles.files import write_atomic

RECORD = "written.json"
NOTHING: Mapping[str, str] = {}
KEPT = "kept"  # folder for what stood where a network's file has to be


def _inside(name: str) -> None:
    """Refuse a path that leads out of the folder."""
    if name.startswith("/") or set(name.split("/")) & {"", ".", ".."}:
        raise ValueError(f"{name[:40]!r} is not a path in the folder")


@dataclass(frozen=True)
class Record:
    """What an export wrote, and what it did not.

    Attributes:
        files: SHA-256 of each file that was written, by its path in the folder: of each version that may
            stand there, since a power cut may leave the one before.
        left_out: of the networks that were asked for, why each of the others was not exported, by id.
    """

    SCHEMA: ClassVar[str] = "written/1"
    REMEDY: ClassVar[str] = "delete it: what is in its folder then counts as yours and is kept"
    files: Mapping[Annotated[str, _inside], tuple[str, ...]]
    left_out: Mapping[str, str] = field(default_factory=dict)

    def wrote(self, folder: Path, name: str) -> bool:
        """Return whether the file is there as `nas export` left it."""
        path = folder / name
        plain = _is_plain(path) and not path.parent.is_symlink()
        return name in self.files and plain and _hash(path.read_bytes()) in self.files[name]


def replace_written(
    folder: Path, files: Mapping[str, bytes], left_out: Mapping[str, str] = NOTHING
) -> list[str]:
    """Write files, by their paths in `folder`, and remove those of an earlier call that are none of them.

    Args:
        left_out: see `Record`.

    Returns:
        The paths in `folder` that are kept although they are none of `files`: what this did not write.

    Raises:
        OSError: the folder cannot be written.
    """
    earlier = _read(folder)
    hashes = {name: (_hash(data),) for name, data in files.items()}
    both = {name: (*earlier.files.get(name, ()), *hashes.get(name, ())) for name in {*earlier.files, *hashes}}
    for name in files:
        _set_aside(folder, name, earlier, files[name])
    write_document(folder / RECORD, Record(both))
    for name, data in files.items():
        write_atomic(folder / name, data)
    for name in earlier.files.keys() - files.keys():
        if earlier.wrote(folder, name):
            (folder / name).unlink()
            with contextlib.suppress(OSError):  # others are in it
                (folder / name).parent.rmdir()
    write_document(folder / RECORD, Record(hashes, left_out))
    return sorted({*_others(folder, files)})


def left_out(folder: Path) -> Mapping[str, str]:
    """Return why networks that the last export was asked for are not there, by id."""
    return _read(folder).left_out


def say_left_out(left_out: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Say of each network why it was not exported."""
    for name, why in left_out.items():
        say(f"not exported, {name}: {why}")


def written_networks(folder: Path, manifest: str) -> list[Path]:
    """Return the folders with a manifest of that name: those written here where that is known, else all."""
    folders = sorted(path.parent for path in folder.glob(f"*/{manifest}"))
    recorded = _read(folder).files if (folder / RECORD).is_file() else None
    return [path for path in folders if recorded is None or f"{path.name}/{manifest}" in recorded]


def _read(folder: Path) -> Record:
    return read_document(folder / RECORD, Record) if (folder / RECORD).exists() else Record({})


def _set_aside(folder: Path, name: str, earlier: Record, data: bytes) -> None:
    """Move what is not ours out of the way of a file, into `kept`."""
    path = folder / name
    if not path.is_symlink() and not path.exists():
        return
    if earlier.wrote(folder, name) or (_is_plain(path) and path.read_bytes() == data):
        return
    target, version = folder / KEPT / name, 1
    while target.exists():
        version += 1
        target = folder / KEPT / f"{name}.{version}"
    target.parent.mkdir(parents=True, exist_ok=True)
    path.rename(target)


def _others(folder: Path, files: Mapping[str, bytes]) -> Iterator[str]:
    """Yield what is in the folder and its networks' folders, and was not written here."""
    written = {RECORD, *files, *(name.partition("/")[0] for name in files)}
    for path in folder.iterdir():
        if path.name not in written:
            yield path.name
        elif path.is_dir():
            yield from (
                name for inner in path.iterdir() if (name := f"{path.name}/{inner.name}") not in written
            )


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
