"""A quantization policy: which number formats each layer's weights and activations take."""

from collections.abc import Mapping
from dataclasses import dataclass

# formats whose weights run on activations of the same format unless a choice says otherwise
OWN_ACTIVATIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True, slots=True)
class Precision:
    """Number formats of one layer, names of the registry `supernet.families.family.FORMATS`.

    As text it is what `supernet.families.family.parse_precision` reads.
    """

    weight: str = "fp32"
    activation: str = "fp32"

    def __str__(self) -> str:
        alone = self.weight == self.activation and self.weight in OWN_ACTIVATIONS
        return self.weight if alone else f"{self.weight}/{self.activation}"


QuantPolicy = Mapping[str, Precision]  # layer name -> precision
