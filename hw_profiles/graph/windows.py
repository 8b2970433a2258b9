"""`Windows`: where the windows of a layer lie on its maps, whatever their shape, stride and padding."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.attributes import Attributes
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.tensor_type import BATCH, TensorType

_REMEMBERED = 2**12


@dataclass(frozen=True, slots=True)
class Windows:
    """Where the windows of a layer lie; of a layer without windows, one for each position.

    Attributes:
        channels, height, width: of the first tensor that it reads; features are a map of 1 x 1.
        rows, columns: windows below and beside each other.
        kernel, strides, dilations: (down, across).
        pads: (top, left, bottom, right), as far as windows reach.
    """

    channels: int
    height: int
    width: int
    rows: int
    columns: int
    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of what it reads."""
        return self.channels, self.height, self.width

    @property
    def pixels(self) -> int:
        """Positions of a map that it reads."""
        return self.height * self.width

    @property
    def pointwise(self) -> bool:
        """Whether each position is a window of its own."""
        return self.kernel == self.strides == (1, 1) and not any(self.pads)

    @property
    def whole(self) -> bool:
        """Whether its one window is the whole map."""
        return self.kernel == (self.height, self.width) and self.rows == self.columns == 1 and not self.padded

    @property
    def padded(self) -> bool:
        """Whether windows reach beyond the map."""
        return any(self.pads)


@lru_cache(_REMEMBERED)
def windows_of(layer: Layer) -> Windows:
    """Return the windows of a layer on one map, or one row of features.

    Raises:
        TrilobitError: it reads something else.
    """
    if layer.op == "MatMul":  # rows of features are the pixels of one row
        sizes = [int(size) for size in layer.inputs[0].shape[1:]]
        return Windows(sizes[-1], 1, prod(sizes[:-1]), 1, prod(sizes[:-1]))
    channels, height, width = map_shape(layer.inputs[0])
    if layer.op == "Gemm":  # on what is flattened
        return Windows(channels * height * width, 1, 1, 1, 1)
    if layer.op not in ("Conv", "MaxPool", "AveragePool"):
        return Windows(channels, height, width, height, width)
    _, rows, columns = map_shape(layer.outputs[0])
    a = layer.values
    kernel = a.integers("weight")[2:] if layer.op == "Conv" else a.integers("kernel_shape")
    if len(kernel) != 2:
        raise TrilobitError(f"{layer.key()!r} has no windows on maps")
    strides, dilations, (top, left) = _pair(a, "strides"), _pair(a, "dilations"), a.integers("pads", 4)[:2]
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    # how far the last windows reach: what `ceil_mode` adds is in it, what no window reaches is not
    bottom = (rows - 1) * strides[0] + spans[0] - height - top
    right = (columns - 1) * strides[1] + spans[1] - width - left
    pads = (top, left, max(bottom, 0), max(right, 0))
    return Windows(channels, height, width, rows, columns, (kernel[0], kernel[1]), strides, dilations, pads)


def map_shape(x: TensorType) -> tuple[int, int, int]:
    """Return (channels, height, width) of one example; features are a map of 1 x 1.

    Raises:
        TrilobitError: it is neither, has several examples, or open dimensions.
    """
    batch, *sizes = x.shape or ("",)
    if batch not in (BATCH, 1) or len(sizes) not in (1, 3) or not all(type(size) is int for size in sizes):
        raise TrilobitError(f"a tensor of {x} is neither maps nor features of one example")
    channels, height, width = (*map(int, sizes), 1, 1)[:3]
    return channels, height, width


def _pair(a: Attributes, name: str) -> tuple[int, int]:
    values: Sequence[int] = a.integers(name, 2)
    return values[0], values[1]
