"""8-bit integers: per-channel symmetric weights in [-127, 127], per-tensor unsigned activations.

Unsigned activations with signed weights are the one pair that ONNX Runtime runs fast on x86.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from supernet.quant.formats.format import Array, QuantParams

SMALLEST_SCALE = 1e-8  # an all-zero channel still needs a scale above 0


@dataclass(frozen=True)
class Int8:
    """See `supernet.quant.formats.format.Format`."""

    name: str = "int8"
    bits: int = 8
    activation_format: str = "int8"
    onnx_weight_type: str = "INT8"

    def quantize_weight(self, weight: Array) -> tuple[NDArray[np.int8], Array]:
        """Codes round(w / s) in [-127, 127] with s = max|w| / 127 per output channel."""
        flat = weight.reshape(len(weight), -1)
        scale = np.maximum(np.abs(flat).max(axis=1) / 127, SMALLEST_SCALE).astype(np.float32)
        codes = np.clip(np.rint(flat / scale[:, None]), -127, 127).astype(np.int8)
        return codes.reshape(weight.shape), scale

    def dequantize_weight(self, codes: NDArray[np.int8], scale: Array) -> Array:
        """codes * scale per output channel."""
        shape = (-1,) + (1,) * (codes.ndim - 1)
        return (codes.astype(np.float32) * scale.reshape(shape)).astype(np.float32)

    def activation_params(self, low: float, high: float) -> QuantParams:
        """Scale and zero point so that [min(low, 0), max(high, 0)] fills 0..255 and 0 is exact.

        A non-negative range (after a ReLU) gets zero point 0, so that the runtime can drop the ReLU.
        """
        low, high = min(low, 0.0), max(high, 0.0)
        scale = float(np.float32(max((high - low) / 255, SMALLEST_SCALE)))
        return QuantParams(scale, int(np.clip(np.rint(-low / scale), 0, 255)))


INT8 = Int8()
