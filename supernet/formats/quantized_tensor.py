"""`QuantizedTensor`: a weight as codes with their scales, and `Granularity`: which weights share one."""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Codes = NDArray[Any]

SMALLEST_SCALE = 1e-8  # numbers that are all zero still need a scale


@dataclass(frozen=True, slots=True)
class Granularity:
    """How many weights share a scale: all, those of an output channel, or so many in a row of these.

    Attributes:
        group: weights of a channel that share a scale, in the order of the flattened channel; 0 for all.
        channels: whether channels have scales of their own.
    """

    group: int = 0
    channels: bool = True

    def __str__(self) -> str:
        return f"group of {self.group}" if self.group else "channel" if self.channels else "tensor"

    def scale_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the scales of a weight (out, ...): (), (out,) or (out, groups)."""
        if not self.channels:
            return ()
        return (shape[0], -(-prod(shape[1:]) // self.group)) if self.group else shape[:1]

    def blocks(self, weight: Array) -> Array:
        """Return (rows, groups, weights of a group), filled up with zeros, of a weight (out, ...)."""
        flat = weight.reshape(len(weight) if self.channels else 1, -1)
        size = self.group or flat.shape[1]
        groups = -(-flat.shape[1] // size)
        padded = np.pad(flat, ((0, 0), (0, groups * size - flat.shape[1])))
        return padded.reshape(len(flat), groups, size)

    def whole(self, blocks: Codes, shape: tuple[int, ...]) -> Codes:
        """Return the weight of this shape whose `blocks` these are."""
        flat = blocks.reshape(len(blocks), -1)
        return np.ascontiguousarray(flat[:, : prod(shape) // len(flat)]).reshape(shape)


PER_TENSOR, PER_CHANNEL = Granularity(channels=False), Granularity()


@dataclass(frozen=True, eq=False)
class QuantizedTensor:
    """A weight as it is stored.

    Attributes:
        codes: (out, ...): integers, floats of a native type, or codes of small floats and codebooks as uint8.
        scales: () , (out,) or (out, groups) float32, see `Granularity`; None where values need none.
        zero_points: codes that stand for 0, of the shape of the scales; None where that is the code 0.
    """

    codes: Codes
    scales: Array | None = None
    zero_points: NDArray[np.uint8] | None = None

    @property
    def channel_scales(self) -> Array:
        """(out,) scales of output channels; ones where values need none."""
        if self.scales is None:
            return np.ones(len(self.codes), np.float32)
        if self.scales.ndim > 1:
            raise ValueError("scales are those of groups, not of channels")
        return np.broadcast_to(self.scales, len(self.codes))
