"""Text of files: read or mapped as bytes, and divided into parts so that no file is in two of them."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.files import entries_below
from supernet.data.archives import is_plain
from supernet.data.tokens import Bytes

PARTS = ("train", "validation", "test")
HELD_OUT = 0.1  # of the files, or of a single file's bytes, for validation, and as much for the test
MOST_IN_MEMORY = 2**28  # bytes of a file that is read; a larger one is mapped
MOST_OF_FOLDER = 2**30  # bytes that files are joined to in memory
SEPARATOR = b"\0"  # after each file: where a text ends is predicted too, and no text has this byte

_MARKS = {  # position and bytes that packed files begin with
    "zip": (0, b"PK\x03\x04"),
    "gzip": (0, b"\x1f\x8b"),
    "xz": (0, b"\xfd7zXZ"),
    "zstandard": (0, b"\x28\xb5\x2f\xfd"),
    "tar": (257, b"ustar"),
}
T = TypeVar("T")


def read_text(path: Path, *, seed: int) -> dict[str, Bytes]:
    """Return train, validation and test text: of a folder by file, of a single file its first eight tenths
    and one tenth each of what follows.

    Raises:
        TrilobitError: nothing there, too few files, an archive, or more than fits into memory.
    """
    if path.is_dir():
        return _read_folder(path, seed)
    if not path.is_file():
        raise TrilobitError(f"{path}: no such file or folder of text")
    whole = _content(path)
    bounds = [round(len(whole) * share) for share in (0, 1 - 2 * HELD_OUT, 1 - HELD_OUT, 1)]
    return {part: whole[bounds[i] : bounds[i + 1]] for i, part in enumerate(PARTS)}


def joined(texts: Iterable[Bytes]) -> Bytes:
    """Return texts as one, each with `SEPARATOR` after it."""
    mark = np.frombuffer(SEPARATOR, np.uint8)
    pieces = [piece for text in texts for piece in (text, mark)]
    return np.concatenate(pieces) if pieces else np.zeros(0, np.uint8)


def by_part(files: Mapping[str, T], source: str, *, seed: int) -> dict[str, list[T]]:
    """Return what files hold by part, in an order as good as random: a file's part follows from its path and
    the seed alone, whatever else there is, but that a part which would be left empty gets the next file.

    Args:
        files: by path inside the source.
        source: what to call it.

    Raises:
        TrilobitError: fewer files than parts.
    """
    if len(files) < len(PARTS):
        raise TrilobitError(
            f"{source}: {len(files)} file{'' if len(files) == 1 else 's'} of different text, and training, "
            f"validation and test need one each; add some, or give one file, which is divided by position"
        )
    points = {name: _point(name, seed) for name in files}
    order = sorted(files, key=lambda name: (points[name], name))
    tests = min(max(1, sum(point < HELD_OUT for point in points.values())), len(order) - 2)
    held_out = max(tests + 1, sum(point < 2 * HELD_OUT for point in points.values()))
    held_out = min(held_out, len(order) - 1)
    names = {"train": order[held_out:], "validation": order[tests:held_out], "test": order[:tests]}
    return {part: [files[name] for name in names[part]] for part in PARTS}


def different(texts: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return texts by path without those that another one is equal to: a copy of a training text must not be
    in the test.
    """
    first: dict[bytes, str] = {}
    for name in sorted(texts):
        first.setdefault(hashlib.sha256(texts[name]).digest(), name)
    return {name: texts[name] for name in sorted(first.values())}


def _point(name: str, seed: int) -> float:
    """Return a number in 0..1 that follows from a path and a seed."""
    digest = hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:7]) / 2**56


def _read_folder(folder: Path, seed: int) -> dict[str, Bytes]:
    paths = [
        path
        for path in sorted(entries_below(folder))
        if path.is_file() and is_plain(path.relative_to(folder).as_posix())
    ]
    if not paths:
        raise TrilobitError(f"{folder}: no files in it; give a text file, or a folder of them")
    total = sum(path.stat().st_size for path in paths)
    if total > MOST_OF_FOLDER:
        raise TrilobitError(
            f"{folder}: {total:,} bytes in files, and at most {MOST_OF_FOLDER:,} are joined in memory; write "
            "them into one file, which is read where it lies"
        )
    texts = {path.relative_to(folder).as_posix(): _content(path).tobytes() for path in paths}
    parts = by_part({name: text for name, text in different(texts).items() if text}, str(folder), seed=seed)
    return {part: joined(_array(text) for text in inside) for part, inside in parts.items()}


def _array(text: bytes) -> Bytes:
    return np.frombuffer(text, np.uint8)


def _content(path: Path) -> Bytes:
    """Return a file's bytes; of a large file they stay where they are until they are looked at.

    Raises:
        TrilobitError: it is an archive, whose bytes are no text.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        kind = _packed(file.read(512))
        if kind:
            raise TrilobitError(f"{path}: {kind} data, whose bytes are no text; unpack it first")
        if size <= MOST_IN_MEMORY:
            file.seek(0)
            return _array(file.read(MOST_IN_MEMORY))
    return np.memmap(path, np.uint8, mode="r")


def _packed(head: bytes) -> str:
    """Return what kind of archive begins like this; empty where it is none that is known."""
    kinds: Sequence[str] = [kind for kind, (at, mark) in _MARKS.items() if head[at:].startswith(mark)]
    return kinds[0] if kinds else ""
