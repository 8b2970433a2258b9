"""A quantization policy: which number formats each layer's weights and activations take."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Precision:
    """Number formats of one layer, names of the registry `supernet.family.FORMATS`."""

    weight: str = "fp32"
    activation: str = "fp32"

    def __str__(self) -> str:
        return self.weight if self.weight == self.activation else f"{self.weight}/{self.activation}"


QuantPolicy = Mapping[str, Precision]  # layer name -> precision
