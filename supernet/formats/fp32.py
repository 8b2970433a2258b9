"""32-bit floating point: the identity."""

from dataclasses import dataclass

import numpy as np

from supernet.formats.format import Array, QuantParams


@dataclass(frozen=True)
class Fp32:
    """See `supernet.formats.format.Format`."""

    name: str = "fp32"
    bits: int = 32
    activation_format: str = "fp32"
    onnx_weight_type: str = "FLOAT"

    def quantize_weight(self, weight: Array) -> tuple[Array, Array]:
        return weight, np.ones(len(weight), np.float32)

    def dequantize_weight(self, codes: Array, scale: Array) -> Array:
        return codes

    def activation_params(self, low: float, high: float) -> QuantParams | None:
        return None


FP32 = Fp32()
