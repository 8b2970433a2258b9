"""Number formats by name, and the pair of them that a choice of a layer stands for."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.formats import ELEMENTS, FP32, UNCHOSEN, needs_scale
from hw_profiles.reference.integer_sums import IntegerSums
from hw_profiles.registry import load
from supernet.formats.activation_format import ActivationFormat
from supernet.formats.number_format import NumberFormat
from supernet.formats.weight_format import WeightFormat
from supernet.registry import FORMATS


@dataclass(frozen=True, slots=True)
class Precision:
    """Number formats of one layer, names of the registry `supernet.registry.FORMATS`.

    As text it is what `parse_precision` reads.
    """

    weight: str = FP32
    activation: str = FP32

    def __str__(self) -> str:
        alone = self.weight == self.activation and load_format(self.weight).on == self.activation
        return self.weight if alone else f"{self.weight}/{self.activation}"


QuantPolicy = Mapping[str, Precision]  # layer name -> precision


@cache
def load_format(name: str) -> NumberFormat:
    """Return the number format registered as `name`.

    Raises:
        TrilobitError: no such format.
    """
    number_format: NumberFormat = load("trilobit.formats", FORMATS, name)
    return number_format


def load_weight_format(name: str, sums: IntegerSums = IntegerSums.EXACT) -> WeightFormat:
    """Return what `name` means for the weights of a network that is made for a device which adds so.

    Raises:
        TrilobitError: no such format.
    """
    return load_format(name).weight.made_for(sums)


def load_activation_format(name: str) -> ActivationFormat:
    """Return what `name` means for tensors.

    Raises:
        TrilobitError: no such format, one that only weights can have, or one that neither simulation nor
            files have, such as one whose scales each inference would find.
    """
    activation = load_format(name).activation
    if activation is None:
        raise TrilobitError(f"{name} is a number format of weights only; no tensor has it")
    if not activation.computed:
        tensors = ", ".join(fmt for fmt, elements in ELEMENTS.items() if elements.tensor is not None)
        raise TrilobitError(
            f"no tensor can be in {name}: nothing computes or writes {activation.element} with scales "
            f"{activation.scaling!r}; allowed are 'static' ones of integers of up to 8 bits and of floats "
            f"that ONNX has, and 'none' of fp32 and fp16. Choose WEIGHTS/ACTIVATIONS with one of {tensors}"
        )
    return activation


def tensor_needs_scale(name: str) -> bool:
    """Return whether a layer's output in this format is codes with a scale.

    Raises:
        TrilobitError: as `load_activation_format`, for a format that is chosen.
    """
    return needs_scale(name) if name in UNCHOSEN else load_activation_format(name).needs_scale


def parse_precision(choice: str) -> Precision:
    """Return the number formats that one choice of a layer stands for: `int4` are 4-bit weights on the
    activations that such weights usually run on, `int4/int6` are 4-bit weights on 6-bit activations.

    Any pair can be written; a device's runtime says which it has kernels for (`Backend.supports`).

    >>> parse_precision("int4"), parse_precision("int4/int6")
    (Precision(weight='int4', activation='int8'), Precision(weight='int4', activation='int6'))

    Raises:
        TrilobitError: no such format, or activations in one that `load_activation_format` refuses.
    """
    weight, given, activation = choice.partition("/")
    usual = load_format(weight).on
    if not given:
        activation = usual
    load_activation_format(activation)
    return Precision(weight, activation)


def policy_precision(choice: str) -> Precision:
    """Return the number formats that a choice stands for in a network whose tensors are fp32 or codes:
    weights of a format without codes for tensors are those of an fp32 product, `fp16` among them.

    >>> policy_precision("int4"), policy_precision("fp16")
    (Precision(weight='int4', activation='int8'), Precision(weight='fp16', activation='fp32'))

    Raises:
        TrilobitError: no such format.
    """
    precision = parse_precision(choice)
    return precision if needs_scale(precision.activation) else Precision(precision.weight)
