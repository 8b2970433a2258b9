"""Integers of any width up to 8 bits: per-channel symmetric weights, per-tensor unsigned activations.

Weight codes are symmetric, in [-(2^(b-1) - 1), 2^(b-1) - 1]: as many steps on both sides of an exact zero.
Activation codes are in [0, 2^b - 1] with a zero point. Unsigned activations with signed weights are the one
pair that ONNX Runtime runs fast on x86; unless a choice says otherwise, weights of fewer bits run on 8-bit
activations too.

Where the kernels for that pair saturate (`hw_profiles.reference.integer_sums`), int8 has codes of 7 bits, in
the type
and at the speed of 8; `int8-exact` has all 8 everywhere, stored with a zero point of 128: unsigned weights
have other kernels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from supernet.formats.format import Array, QuantParams

SMALLEST_SCALE = 1e-8  # an all-zero channel still needs a scale above 0


@dataclass(frozen=True)
class Integer:
    """See `supernet.formats.format.Format`.

    Attributes:
        activations: whether tensors can have this format, or only weights.
    """

    name: str
    bits: int
    onnx_weight_type: str
    activation_format: str = "int8"
    activations: bool = True

    @property
    def largest_weight(self) -> int:
        """The largest weight code; the smallest is its negative."""
        return int(2 ** (self.bits - 1) - 1)

    @property
    def largest_activation(self) -> int:
        """The largest activation code; the smallest is 0."""
        return int(2**self.bits - 1)

    def quantize_weight(self, weight: Array) -> tuple[NDArray[np.int8], Array]:
        """Codes round(w / s) with s = max|w| / `largest_weight` per output channel."""
        flat, largest = weight.reshape(len(weight), -1), self.largest_weight
        scale = np.maximum(np.abs(flat).max(axis=1) / largest, SMALLEST_SCALE).astype(np.float32)
        codes = np.clip(np.rint(flat / scale[:, None]), -largest, largest).astype(np.int8)
        return codes.reshape(weight.shape), scale

    def dequantize_weight(self, codes: NDArray[np.int8], scale: Array) -> Array:
        """codes * scale per output channel."""
        shape = (-1,) + (1,) * (codes.ndim - 1)
        return (codes.astype(np.float32) * scale.reshape(shape)).astype(np.float32)

    def activation_params(self, low: float, high: float) -> QuantParams | None:
        """Scale and zero point so that [min(low, 0), max(high, 0)] fills all codes and 0 is exact.

        A non-negative range (after a ReLU) gets zero point 0, so that the runtime can drop the ReLU.
        """
        if not self.activations:
            return None
        low, high, largest = min(low, 0.0), max(high, 0.0), self.largest_activation
        scale = float(np.float32(max((high - low) / largest, SMALLEST_SCALE)))
        return QuantParams(scale, int(np.clip(np.rint(-low / scale), 0, largest)), largest)


INT8 = Integer("int8", 8, "INT8")
INT8_REDUCED = Integer("int8", 7, "INT8", activations=False)  # of weights, on devices whose sums may saturate
INT8_EXACT = Integer("int8-exact", 8, "UINT8", activations=False)
INT6 = Integer("int6", 6, "INT8")  # ONNX has no 6-bit type: one code per byte
INT4 = Integer("int4", 4, "INT4")
INT2 = Integer("int2", 2, "INT2", activations=False)
