"""`UnitNumbers`: the numbers in one unit, and codes as arrays hold them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from hw_profiles.graph.formats import QuantParams, code_range

Array = NDArray[Any]
# in arrays, by format: those of 8 bits have a zero point, those of 16 have none
STORED: Mapping[str, DTypeLike] = {"fp32": np.float32, "int8": np.uint8, "int16": np.int16}


@dataclass(frozen=True, eq=False)
class UnitNumbers:
    """The numbers in one unit. What the unit does not have is None.

    Attributes:
        inputs: one per tensor that it reads; None where that is fp32.
        output: None where it gives fp32.
        weight: (out, in / groups, k, k): int8 codes, or real values where the weight format is fp32.
        scale: (out,) float32; the real weight is code * scale.
        bias: (out,): float32 real values, or int32 codes at scale s_x * s_w.
    """

    inputs: tuple[QuantParams | None, ...]
    output: QuantParams | None = None
    weight: NDArray[np.int8 | np.float32] | None = None
    scale: NDArray[np.float32] | None = None
    bias: NDArray[np.int32 | np.float32] | None = None

    @property
    def parameters(self) -> tuple[Array, Array, Array]:
        """(weight, scale, bias) of a weighted unit.

        Raises:
            ValueError: it has none.
        """
        if self.weight is None or self.scale is None or self.bias is None:
            raise ValueError("the unit has no weights")
        return self.weight, self.scale, self.bias

    @property
    def written(self) -> QuantParams:
        """Quantization of an integer output.

        Raises:
            ValueError: the output has none.
        """
        return _known(self.output)

    def input(self, position: int = 0) -> QuantParams:
        """Return the quantization of an integer input.

        Raises:
            ValueError: the input has none.
        """
        return _known(self.inputs[position])

    def scale_of(self, position: int = 0) -> float:
        """Return the scale of an integer input, as arrays of float32 hold it."""
        return float(np.float32(self.input(position).scale))

    @property
    def written_scale(self) -> float:
        """The scale of an integer output, likewise."""
        return float(np.float32(self.written.scale))


def _known(params: QuantParams | None) -> QuantParams:
    if params is None:
        raise ValueError("a tensor of real numbers has no scale")
    return params


def as_codes(values: ArrayLike, fmt: str) -> Array:
    """Return integers, the zero point added, as codes of a format: clipped to its range."""
    return np.asarray(np.clip(np.asarray(values), *code_range(fmt)), STORED[fmt])
