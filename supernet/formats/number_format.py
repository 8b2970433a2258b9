"""`NumberFormat`: what a name such as `int4` stands for, as weights and as activations."""

from dataclasses import dataclass
from typing import Literal

from hw_profiles.graph.formats import ELEMENTS, FP32, ElementTypes
from supernet.formats.activation_format import ActivationFormat
from supernet.formats.quantized_tensor import Granularity
from supernet.formats.weight_format import WeightFormat


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
            multiplied=self.weight.on_integer_kernels and self.weight.operand is None,
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


def rounding_operand(name: str, operand: ActivationFormat) -> NumberFormat:
    """Return the format of weights, of elements that `hw_profiles.graph.formats` has under this name, whose
    products round what they multiply them with; scales are of channels, or of the groups of that.
    """
    element = ELEMENTS[name].weight
    weight = WeightFormat(element, Granularity(operand.group), operand=operand)
    return NumberFormat(name, weight, None, on=FP32)
