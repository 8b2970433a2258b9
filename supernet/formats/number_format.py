"""`NumberFormat`: what a name such as `int4` stands for, as weights and as activations."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from hw_profiles.graph.formats import ELEMENTS, ElementType, ElementTypes, Int, QuantParams
from supernet.formats.onnx_weights import OnnxType, in_onnx, onnx_type
from supernet.formats.weight_format import SMALLEST_SCALE, WeightFormat


@dataclass(frozen=True)
class ActivationFormat:
    """A number format of activations: element type x granularity x when scales are found.

    Attributes:
        element: what a code is.
        scaling: `static` scales are found by calibration and stored; `dynamic` ones by each inference; `none`
            where values need none.
    """

    element: ElementType
    scaling: Literal["static", "dynamic", "none"]

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


@dataclass(frozen=True)
class NumberFormat:
    """A number format of the registry.

    Attributes:
        name: as registered.
        weight: as a format of weights.
        activation: as a format of tensors; None where only weights can have it.
        on: name of the format of the activations that such weights run on unless told otherwise.
    """

    name: str
    weight: WeightFormat
    activation: ActivationFormat | None
    on: str

    @property
    def elements(self) -> ElementTypes:
        """What graphs and runtimes need to know of it."""
        tensor = self.activation
        return ElementTypes(
            self.weight.element,
            None if tensor is None else tensor.element,
            scaled=self.weight.needs_scale if tensor is None else tensor.needs_scale,
            multiplied=self.weight.on_integer_kernels,
            unsigned=self.weight.offset > 0,
        )

    @property
    def bits(self) -> int:
        """Bits of a weight, scales not counted."""
        return self.weight.bits


def builtin(name: str, *, on: str) -> NumberFormat:
    """Return the format of the elements that `hw_profiles.graph.formats` has under this name."""
    elements = ELEMENTS[name]
    scaling: Literal["static", "none"] = "static" if elements.scaled else "none"
    activation = None if elements.tensor is None else ActivationFormat(elements.tensor, scaling)
    offset = 2 ** (elements.weight.bits - 1) if elements.unsigned else 0
    return NumberFormat(name, WeightFormat(elements.weight, offset=offset), activation, on)


def _scale(value: float) -> float:
    return float(np.float32(max(value, SMALLEST_SCALE)))
