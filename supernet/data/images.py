"""Labelled images as arrays, and what a source holds before it is split into parts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # (n, h, w, c)
Labels = NDArray[np.int64]  # (n,)


@dataclass(frozen=True, eq=False)
class Images:
    """Images of one size with their labels.

    Attributes:
        pixels: (n, h, w, c) uint8, c is 1 or 3.
        labels: (n,) int64, index of the class.
    """

    pixels: Pixels
    labels: Labels

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or self.labels.shape != self.pixels.shape[:1]:
            raise ValueError(
                f"not (n, h, w, c) pixels and (n,) labels: {self.pixels.shape}, {self.labels.shape}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice | NDArray[Any]) -> "Images":
        """Return the images of these rows: a slice (no copy), indices or a mask."""
        return Images(self.pixels[rows], self.labels[rows])


@dataclass(frozen=True, eq=False)
class Source:
    """What was read, as its publisher divided it.

    Attributes:
        name: what to call it in reports.
        classes: class names; a label is an index into them.
        parts: `train`, and `test` or `validation` where the publisher has them.
    """

    name: str
    classes: tuple[str, ...]
    parts: Mapping[str, Images]
