"""What a number format must offer."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class QuantParams:
    """Per-tensor activation quantization: real value = scale * (code - zero_point), codes in [0, largest]."""

    scale: float
    zero_point: int
    largest: int = 255


class Format(Protocol):
    """A number format: how weights and activations are stored in it."""

    @property
    def name(self) -> str:
        """Name, as registered."""
        ...

    @property
    def bits(self) -> int:
        """Bits per weight."""
        ...

    @property
    def activation_format(self) -> str:
        """Name of the format that a layer with such weights computes in unless told otherwise: its own, or a
        wider one.
        """
        ...

    @property
    def onnx_weight_type(self) -> str:
        """Name of the ONNX tensor type that holds the weight codes."""
        ...

    def quantize_weight(self, weight: Array) -> tuple[NDArray[np.float32 | np.float16 | np.int8], Array]:
        """Codes of a weight (out, ...), and the scale (out,) of each output channel."""
        ...

    def dequantize_weight(self, codes: NDArray[np.float32 | np.float16 | np.int8], scale: Array) -> Array:
        """The real values that codes stand for."""
        ...

    def activation_params(self, low: float, high: float) -> QuantParams | None:
        """Parameters for activations of this format seen in [low, high]; None where it needs none, being a
        floating-point format, or where it is for weights only.
        """
        ...
