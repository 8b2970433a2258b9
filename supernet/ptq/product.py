"""A weighted unit as the matrix product that it is: rows of inputs times stored numbers.

A convolution multiplies patches of its input, of any number of dimensions, strides, dilations, pads and
groups; a row is a patch. Every step of post-training quantization after the observation is then a product of
a few sampled rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Window:
    """How a convolution takes patches: by spatial dimension.

    Attributes:
        kernel, strides, dilations: of the filter.
        before: zeros before the first pixel.
        after: zeros after the last.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    def outputs(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Return how many patches there are in a map of these sizes, by dimension."""
        reach = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        padded = [size + a + b for size, a, b in zip(sizes, self.before, self.after, strict=True)]
        return tuple((p - r) // s + 1 for p, r, s in zip(padded, reach, self.strides, strict=True))


@dataclass(frozen=True, eq=False)
class Product:
    """A unit's product, y = activation(W x + b), on rows x.

    Attributes:
        unit: its name.
        source: tensor that the rows are of.
        weight: (groups, out / groups, k) of one row each.
        bias: (out,); zeros without.
        shape: of the weight as `Parameters` stores it: (out, in / groups, ...) of a convolution, otherwise
            (out, in).
        correctable: whether the unit adds a bias, or can be made to without a further operation.
        bounds: least and largest value that the unit's activation lets through.
        window: of a convolution.
        transposed: whether rows are the columns of its input.
    """

    unit: str
    source: str
    weight: Array
    bias: Array
    shape: tuple[int, ...]
    correctable: bool = True
    bounds: tuple[float, float] = (-np.inf, np.inf)
    window: Window | None = None
    transposed: bool = False

    @property
    def groups(self) -> int:
        """Groups of channels that are multiplied by themselves."""
        return len(self.weight)

    @property
    def row_size(self) -> int:
        """Numbers of a row, of all groups."""
        return int(self.weight.shape[0] * self.weight.shape[2])

    @property
    def stored(self) -> Array:
        """The weight in its stored shape, (out, ...)."""
        return self.weight.reshape(self.shape)

    @property
    def channel_axis(self) -> int:
        """Dimension of its input that is summed over."""
        return 1 if self.window is not None else 0 if self.transposed else -1

    def by_group(self, weight: Array) -> Array:
        """Return a weight of the stored shape as (groups, out / groups, k)."""
        return weight.reshape(self.weight.shape)

    def sums(self, rows: Array, weight: Array | None = None) -> Array:
        """Return W x (n, out) of rows (groups, n, k), without the bias, by the own weight or another."""
        matrix = self.weight if weight is None else weight
        result = np.matmul(rows, matrix.transpose(0, 2, 1))  # (groups, n, out / groups)
        return np.ascontiguousarray(result.transpose(1, 0, 2)).reshape(rows.shape[1], -1)

    def activated(self, sums: Array) -> Array:
        """Return what the unit gives for sums (n, out) to which its bias is added."""
        low, high = self.bounds
        return sums if low == -np.inf and high == np.inf else np.clip(sums, low, high)

    def rows_of(self, tensor: Array, n: int, rng: np.random.Generator) -> Array:
        """Return `n` rows (groups, n, k) of one input of the unit, at random places; all where there are
        fewer.
        """
        if self.window is not None:
            return _patches(tensor, self.window, self.groups, n, rng)
        matrix = tensor.T if self.transposed else tensor.reshape(-1, tensor.shape[-1])
        return np.ascontiguousarray(matrix[_places(len(matrix), n, rng)][None])


def _places(total: int, n: int, rng: np.random.Generator) -> Indices:
    return np.arange(total) if total <= n else rng.choice(total, n, replace=False, shuffle=False)


def _patches(tensor: Array, window: Window, groups: int, n: int, rng: np.random.Generator) -> Array:
    """Return patches (groups, n, channels of a group x kernel) of maps (batch, channels, ...); outside of the
    map there are zeros."""
    batch, channels, *sizes = tensor.shape
    counts = window.outputs(sizes)
    example, *corner = np.unravel_index(_places(batch * prod(counts), n, rng), (batch, *counts))
    offsets = np.indices(window.kernel).reshape(len(sizes), -1)
    inside: Any = True
    flat: Any = 0
    for dim, size in enumerate(sizes):
        start = corner[dim] * window.strides[dim] - window.before[dim]
        place = start[:, None] + offsets[dim] * window.dilations[dim]  # (n, kernel)
        inside = inside & (place >= 0) & (place < size)
        flat = flat * size + np.clip(place, 0, size - 1)
    maps = tensor.reshape(batch, channels, -1)
    patches = maps[example[:, None, None], np.arange(channels)[:, None], flat[:, None, :]]
    patches = np.where(inside[:, None, :], patches, np.float32(0)).astype(np.float32, copy=False)
    by_group = patches.reshape(len(example), groups, -1)
    return np.ascontiguousarray(by_group.transpose(1, 0, 2))
