"""The values that each weight of a unit may take in a format of integers, and codes of real weights."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hw_profiles.graph.formats import Int
from supernet.formats.quantized_tensor import QuantizedTensor
from supernet.formats.weight_format import WeightFormat

Array = NDArray[np.float32]
Wide = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class WeightGrid:
    """A scale for every weight: value = scale (code - zero), with codes from `smallest` to `largest`.

    Attributes:
        scales, zeros: in the shape of the weight.
        smallest, largest: codes.
        stored_scales, stored_zeros: as `QuantizedTensor` has them.
    """

    scales: Wide
    zeros: Wide
    smallest: int
    largest: int
    stored_scales: Array
    stored_zeros: NDArray[np.uint8] | None

    def codes(self, weight: Wide) -> Wide:
        """Return the nearest codes of real values."""
        return np.clip(np.rint(weight / self.scales) + self.zeros, self.smallest, self.largest)

    def values(self, codes: Wide) -> Wide:
        """Return the real values of codes."""
        return np.asarray((codes - self.zeros) * self.scales)

    def encoded(self, values: Wide, shape: tuple[int, ...]) -> QuantizedTensor:
        """Return real values of the grid as a weight of its stored shape."""
        dtype = np.uint8 if self.smallest == 0 else np.int8
        codes = self.codes(values).reshape(shape).astype(dtype)
        return QuantizedTensor(codes, self.stored_scales, self.stored_zeros)


def is_grid(weight_format: WeightFormat) -> bool:
    """Return whether a format's values are a grid of integers."""
    return isinstance(weight_format.element, Int) and weight_format.needs_scale


def weight_grid(weight_format: WeightFormat, weight: Array, ranges: Array | float = 1.0) -> WeightGrid:
    """Return the grid of a weight (out, ...).

    Args:
        ranges: share of the range of its weights that each scale covers, (rows, groups) of
            `Granularity.blocks` or one for all.
    """
    assert isinstance(weight_format.element, Int)
    granularity = weight_format.granularity
    blocks = granularity.blocks(weight) * np.float32(np.asarray(ranges)[..., None])
    scales, zeros = weight_format.scales(blocks)

    def spread(numbers: Array) -> Wide:
        whole = granularity.whole(np.broadcast_to(numbers[..., None], blocks.shape), weight.shape)
        return np.asarray(whole, np.float64)

    stored = granularity.scale_shape(weight.shape)
    return WeightGrid(
        spread(scales),
        np.zeros(weight.shape) if zeros is None else spread(zeros),
        weight_format.element.smallest,
        weight_format.element.largest,
        scales.reshape(stored),
        None if zeros is None else zeros.astype(np.uint8).reshape(stored),
    )
