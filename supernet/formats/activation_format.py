"""`ActivationFormat`: what a number format means for tensors."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from hw_profiles.graph.formats import ElementType, Int, QuantParams
from supernet.formats.onnx_weights import OnnxType, in_onnx, onnx_type
from supernet.formats.quantized_tensor import SMALLEST_SCALE, Array


@dataclass(frozen=True)
class ActivationFormat:
    """A number format of activations: element type x granularity x when scales are found.

    Attributes:
        element: what a code is.
        scaling: `static` scales are found by calibration and stored; `dynamic` ones by each inference; `none`
            where values need none.
        group: numbers in a row, along the last dimension, that share a dynamic scale; 0 for the whole tensor.
    """

    element: ElementType
    scaling: Literal["static", "dynamic", "none"]
    group: int = 0

    @property
    def needs_scale(self) -> bool:
        """Whether tensors are codes with a stored scale."""
        return self.scaling == "static"

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return self.element.bits

    @property
    def integer(self) -> bool:
        """Whether kernels can multiply its codes as integers."""
        return isinstance(self.element, Int) and self.needs_scale

    @property
    def computed(self) -> bool:
        """Whether simulation and files have such tensors: scaled integers of up to 8 bits, scaled floats of
        an ONNX type, and floats that need no scale."""
        if self.scaling == "none":
            return self.element.native
        stored = self.bits <= 8 if isinstance(self.element, Int) else in_onnx(self.element)
        return stored and self.scaling == "static"

    @property
    def stored_as(self) -> OnnxType:
        """ONNX tensor type of the codes: integers of fewer bits are those of 8, clipped."""
        return "UINT8" if isinstance(self.element, Int) else onnx_type(self.element)

    def params(self, low: float, high: float) -> QuantParams:
        """Return scale and zero point with which [min(low, 0), max(high, 0)] fills all codes and 0 is exact.

        A non-negative range (after a ReLU) gets zero point 0, so that the runtime can drop the ReLU.

        Raises:
            ValueError: tensors of this format have no stored scale.
        """
        if not self.needs_scale:
            raise ValueError(f"tensors of {self.element} with {self.scaling} scaling have no stored scale")
        low, high = min(low, 0.0), max(high, 0.0)
        if not isinstance(self.element, Int):
            return QuantParams(_scale(max(-low, high) / self.element.largest), 0)
        largest = self.element.largest
        scale = _scale((high - low) / largest)
        return QuantParams(scale, int(np.clip(np.rint(-low / scale), 0, largest)), largest)

    def rounded(self, real: Array) -> Array:
        """Return a tensor (..., k) rounded with the scales that an inference finds for it: unsigned codes as
        DynamicQuantizeLinear has them, symmetric ones by group.

        Raises:
            ValueError: scales are not dynamic.
        """
        if self.scaling != "dynamic" or not isinstance(self.element, Int):
            raise ValueError(f"scales of {self.element} are {self.scaling}")
        if self.element.codes == "unsigned":
            return _rounded_with_zero_point(real, self.element)
        size = self.group or real.shape[-1]
        short = -real.shape[-1] % size
        blocks = np.pad(real, [(0, 0)] * (real.ndim - 1) + [(0, short)]).reshape(*real.shape[:-1], -1, size)
        scale = np.maximum(np.abs(blocks).max(axis=-1, keepdims=True) / self.element.largest, SMALLEST_SCALE)
        whole = (np.rint(blocks / scale) * scale).reshape(*real.shape[:-1], -1)
        return np.asarray(whole[..., : real.shape[-1]], np.float32)


def _rounded_with_zero_point(real: Array, element: Int) -> Array:
    low, high = min(float(real.min()), 0.0), max(float(real.max()), 0.0)
    scale = np.float32((np.float32(high) - np.float32(low)) / np.float32(element.largest)) or np.float32(1)
    zero = np.clip(np.rint(-np.float32(low) / scale), 0, element.largest)
    codes = np.clip(np.rint(real / scale) + zero, 0, element.largest)
    return np.asarray((codes - zero) * scale, np.float32)


def _scale(value: float) -> float:
    return float(np.float32(max(value, SMALLEST_SCALE)))
