"""Text as numbers: bytes as tokens, in windows of one long text, or as texts of their own.

A token is one byte, so nothing is learned or looked up to read a text, and any bytes are one.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]  # (b,), or mapped from a file
Rows = NDArray[np.int64]  # (n,)
Ids = NDArray[np.int64]  # (n, length)

BYTES = 256  # different tokens of a text without padding
PADDING = BYTES  # the token of positions behind the end of a text: their attention mask is `ids != PADDING`

_BLOCK = 2**24  # bytes of a text that are hashed together: it may be mapped from a file


class TokenExamples(Protocol):
    """Rows of tokens."""

    def __len__(self) -> int: ...

    @property
    def length(self) -> int:
        """Tokens of each."""
        ...

    @property
    def ids(self) -> Ids:
        """(n, length) tokens."""
        ...

    def contents(self) -> Iterator[bytes | memoryview]:
        """Yield everything that they are made of, for a hash."""
        ...


@dataclass(frozen=True, eq=False)
class Windows:
    """Stretches of one length of one text; only those that are asked for are copied.

    Attributes:
        text: (b,) uint8 bytes.
        starts: (n,) int64 where each window begins.
        length: tokens of a window.
        labels: (b,) uint8 class of every byte; None where there are none, and the byte after a window is of
            interest instead.
    """

    text: Bytes
    starts: Rows
    length: int
    labels: Bytes | None = None

    def __post_init__(self) -> None:
        if len(self.starts) and (self.starts.min() < 0 or self.starts.max() > self.last):
            raise ValueError(f"windows outside a text of {len(self.text)} bytes")
        if self.labels is not None and self.labels.shape != self.text.shape:
            raise ValueError(f"not one label a byte: {self.labels.shape}, {self.text.shape}")

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, rows: slice | NDArray[Any]) -> "Windows":
        """Return the windows of these rows: a slice, indices or a mask."""
        return Windows(self.text, self.starts[rows], self.length, self.labels)

    @property
    def last(self) -> int:
        """Where the last window that fits may begin, the byte after it included where that is the answer."""
        return len(self.text) - self.length - (self.labels is None)

    @property
    def ids(self) -> Ids:
        """(n, length) int64, the bytes."""
        return self._gathered(self.text, 0)

    @property
    def next_ids(self) -> Ids:
        """(n, length) int64, after every byte the one that follows it."""
        return self._gathered(self.text, 1)

    @property
    def answers(self) -> Ids:
        """(n, length) int64, the class of every byte.

        Raises:
            ValueError: there are none.
        """
        if self.labels is None:
            raise ValueError("a text without labels")
        return self._gathered(self.labels, 0)

    def moved(self, by: Rows) -> "Windows":
        """Return windows that begin `by` (n,) bytes later, as far as there is text."""
        return Windows(self.text, np.minimum(self.starts + by, self.last), self.length, self.labels)

    def contents(self) -> Iterator[bytes | memoryview]:
        """Yield everything that they are made of, for a hash."""
        yield repr((len(self.text), self.length)).encode()
        yield np.ascontiguousarray(self.starts).data
        for array in (self.text,) if self.labels is None else (self.text, self.labels):
            for start in range(0, len(array), _BLOCK):
                yield np.ascontiguousarray(array[start : start + _BLOCK]).data

    def _gathered(self, array: Bytes, ahead: int) -> Ids:
        taken: Ids = array[self.starts[:, None] + np.arange(ahead, self.length + ahead)].astype(np.int64)
        return taken


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts with a class each, cut to one length.

    Attributes:
        text: (b,) uint8 bytes of all, one text after the other.
        starts, ends: (n,) int64 where each text is in it; none is longer than `length`.
        labels: (n,) int64 index of the class.
        length: tokens of each; behind the end of a text they are `PADDING`.
    """

    text: Bytes
    starts: Rows
    ends: Rows
    labels: Rows
    length: int

    def __post_init__(self) -> None:
        sizes = self.ends - self.starts
        if not len(self.starts) == len(self.ends) == len(self.labels):
            raise ValueError("not one start, end and label a text")
        if len(sizes) and not 0 <= sizes.min() <= sizes.max() <= self.length:
            raise ValueError(f"texts of other than 0 to {self.length} bytes")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice | NDArray[Any]) -> "Texts":
        """Return the texts of these rows: a slice, indices or a mask."""
        return Texts(self.text, self.starts[rows], self.ends[rows], self.labels[rows], self.length)

    @property
    def ids(self) -> Ids:
        """(n, length) int64: the bytes, then `PADDING`."""
        ids = np.full((len(self), self.length), PADDING, np.int64)
        columns = np.arange(self.length)
        mask = columns < (self.ends - self.starts)[:, None]
        ids[mask] = self.text[(self.starts[:, None] + columns)[mask]]
        return ids

    def contents(self) -> Iterator[bytes | memoryview]:
        """Yield everything that they are made of, for a hash."""
        yield repr(self.length).encode()
        for array in (self.text, self.starts, self.ends, self.labels):
            yield np.ascontiguousarray(array).data


def windows_over(text: Bytes, length: int, step: int, labels: Bytes | None = None) -> Windows:
    """Return all windows of `length` tokens that begin every `step` bytes and fit into a text."""
    last = len(text) - length - (labels is None)
    return Windows(text, np.arange(0, last + 1, step, dtype=np.int64), length, labels)


def spread(windows: Windows, most: int) -> Windows:
    """Return at most so many of the windows, evenly from first to last."""
    if len(windows) <= most:
        return windows
    return windows[np.linspace(0, len(windows) - 1, most).astype(np.int64)]


def fingerprint_of(*parts: TokenExamples) -> str:
    """Return a hash of everything in these examples."""
    digest = hashlib.sha256()
    for part in parts:
        for content in part.contents():
            digest.update(content)
    return digest.hexdigest()[:16]
