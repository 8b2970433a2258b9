"""16-bit floating point, for execution providers that have it; ONNX Runtime's own CPU kernels do not."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from supernet.formats.format import Array


@dataclass(frozen=True)
class Fp16:
    """See `supernet.formats.format.Format`."""

    name: str = "fp16"
    bits: int = 16
    activation_format: str = "fp16"
    onnx_weight_type: str = "FLOAT16"

    def quantize_weight(self, weight: Array) -> tuple[NDArray[np.float16], Array]:
        """The nearest half-precision values; finite ones, since an overflow would poison everything."""
        limit = np.finfo(np.float16).max
        return np.clip(weight, -limit, limit).astype(np.float16), np.ones(len(weight), np.float32)

    def dequantize_weight(self, codes: NDArray[np.float16], scale: Array) -> Array:
        return codes.astype(np.float32)

    def activation_params(self, low: float, high: float) -> None:
        return None


FP16 = Fp16()
