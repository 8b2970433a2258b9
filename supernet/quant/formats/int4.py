"""4-bit weights on 8-bit activations: stored two per byte, computed by the same integer kernels as int8.

Per-channel symmetric codes in [-7, 7]: the same number of steps on both sides, as for int8.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from supernet.quant.formats.format import Array, QuantParams
from supernet.quant.formats.int8 import INT8, SMALLEST_SCALE


@dataclass(frozen=True)
class Int4:
    """See `supernet.quant.formats.format.Format`."""

    name: str = "int4"
    bits: int = 4
    activation_format: str = "int8"
    onnx_weight_type: str = "INT4"

    def quantize_weight(self, weight: Array) -> tuple[NDArray[np.int8], Array]:
        """Codes round(w / s) in [-7, 7] with s = max|w| / 7 per output channel."""
        flat = weight.reshape(len(weight), -1)
        scale = np.maximum(np.abs(flat).max(axis=1) / 7, SMALLEST_SCALE).astype(np.float32)
        codes = np.clip(np.rint(flat / scale[:, None]), -7, 7).astype(np.int8)
        return codes.reshape(weight.shape), scale

    def dequantize_weight(self, codes: NDArray[np.int8], scale: Array) -> Array:
        """codes * scale per output channel."""
        return INT8.dequantize_weight(codes, scale)

    def activation_params(self, low: float, high: float) -> QuantParams:
        """Those of int8, which such a layer computes in."""
        return INT8.activation_params(low, high)


INT4 = Int4()
