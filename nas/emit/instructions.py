"""What a policy changes in a prepared model, decided before anything is done: which tensors become codes,
which readers dequantize them and how, and how each product is written.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.formats import FP32, QuantParams, in_integers
from supernet.formats.loading import Precision, load_activation_format, load_format, policy_precision
from supernet.graph.quantized_graph import Parameters
from supernet.imported.following import (
    FOLLOWERS,
    FOLLOWS,
    GIVES_REALS,
    INTEGER,
    REAL,
    integer_units,
    keeps_scale,
    on_codes,
    operands,
)
from supernet.imported.model import ImportedModel, Unit
from supernet.imported.rescaling import GATED, rescalings
from supernet.ptq.quantization import Policy, Quantization

WIDER = 2.0  # times the range of what a hard swish reads; beyond that it is computed in real numbers
CALLER = ""  # the reader of what the network gives
# operations that ONNX Runtime computes on integers where all around them is quantized
_FUSED = ("Add", "Mul", "Concat", "GlobalAveragePool", "AveragePool", "LeakyRelu", "Sigmoid", "Softmax")
_OF_MAPS = ("Conv", "ConvTranspose")
_CHANNEL_AXES = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": -1}  # of what products read
Form = Literal["scalar", "channel", "arithmetic"]
Writing = Literal["integers", "reals", "product", "cast"]


@dataclass(frozen=True)
class Quantize:
    """A tensor becomes codes, once for all that read them.

    Attributes:
        given: whether the unit that computes it gives codes, so that nobody reads its real numbers.
    """

    tensor: str
    params: QuantParams
    given: bool


@dataclass(frozen=True)
class Dequantize:
    """A reader of codes sees real numbers.

    Attributes:
        reader: the unit; `CALLER` for the network's output.
        form: by one scale, which the runtime fuses with what reads it; by a scale repeated for each channel,
            or by arithmetic, which it does not.
        channels, axis: how many channels there are, and where.
    """

    tensor: str
    reader: str
    params: QuantParams
    form: Form = "scalar"
    channels: int = 1
    axis: int = 1


@dataclass(frozen=True, eq=False)
class Product:
    """Stored numbers of a unit are replaced.

    Attributes:
        parameters: None where the model's own weight is cast.
        written: for kernels on integers; as real numbers made of codes at load; with the whole product; or as
            the numbers that they are, in a shorter type.
        rank: dimensions of what it gives.
        scale: of the codes that it reads; 0 where it reads real numbers.
    """

    unit: Unit
    weight_format: str
    parameters: Parameters | None
    written: Writing
    rank: int
    scale: float = 0.0


@dataclass(frozen=True, eq=False)
class Instructions:
    """All of a policy.

    Attributes:
        integer: names of the units that compute on integers.
    """

    quantize: tuple[Quantize, ...]
    dequantize: tuple[Dequantize, ...]
    products: tuple[Product, ...]
    integer: frozenset[str]


def completed(model: ImportedModel, policy: Policy) -> dict[str, str]:
    """Return the number format of every unit: what follows its neighbours is `int8` where it does so."""
    integer = _integer(model, policy)
    return {
        unit.name: policy.get(unit.name, "int8" if computes else FP32)
        for unit, computes in zip(model.units, integer, strict=True)
    }


def instructions(quantization: Quantization, policy: Policy) -> Instructions:
    """Return what makes the file of a policy from the model.

    Raises:
        TrilobitError: the policy names no unit of the model, or a format that nothing was rounded to.
    """
    model = quantization.model
    _check_names(model, policy)
    integer = frozenset(
        unit.name for unit, computes in zip(model.units, _integer(model, policy), strict=True) if computes
    )
    params = _params(quantization, integer)
    quantize = tuple(_quantized(model, integer, params))
    codes = {each.tensor: each for each in quantize}
    return Instructions(
        quantize,
        tuple(_dequantized(model, integer, codes)),
        tuple(_products(quantization, policy, integer, params)),
        integer,
    )


def _check_names(model: ImportedModel, policy: Policy) -> None:
    names = {unit.name for unit in model.units}
    if unknown := [name for name in policy if name not in names]:
        raise TrilobitError(
            f"the model has no unit {unknown[0]!r}; it has {', '.join(sorted(names)[:8])} ..."
        )


def _integer(model: ImportedModel, policy: Policy) -> list[bool]:
    choices = np.array([[_choice(unit, policy) for unit in model.units]], np.int8)
    return [bool(computes) for computes in integer_units(model, choices)[0]]


def _choice(unit: Unit, policy: Policy) -> int:
    if unit.name not in policy:
        return FOLLOWS if unit.op in FOLLOWERS else REAL
    precision = policy_precision(policy[unit.name])
    return INTEGER if in_integers(precision.weight, precision.activation) else REAL


def _params(quantization: Quantization, integer: frozenset[str]) -> dict[str, QuantParams]:
    """Return scale and zero point of tensors; of what moves or rescales values, those that follow from what
    it reads."""
    model = quantization.model
    lines = rescalings(model)
    params = dict(quantization.tensors)
    params |= _reaching(model, integer, params)
    for unit in model.units:
        source = unit.inputs[0] if unit.inputs else ""
        if unit.name not in integer or source not in params:
            continue
        if unit.op != GATED and unit.name in lines:
            params.update(dict.fromkeys(unit.outputs, lines[unit.name].params(params[source])))
        elif keeps_scale(unit):
            params.update(dict.fromkeys(unit.outputs, params[source]))
    return params


def _reaching(
    model: ImportedModel, integer: frozenset[str], params: Mapping[str, QuantParams]
) -> dict[str, QuantParams]:
    """Return new ranges of tensors that hard curves read: some code must mean the value from which on a curve
    is above 0; where nobody else reads the tensor, what is below needs no code.
    """
    lines, begins = rescalings(model), dict[str, float]()
    for unit in reversed(model.units):
        if unit.name not in integer:
            continue
        begin = lines[unit.name].begins if unit.name in lines else None
        if begin is not None and unit.op == GATED and _widens(params.get(unit.inputs[0]), begin):
            continue
        if begin is None and keeps_scale(unit):
            begin = min((begins[tensor] for tensor in unit.outputs if tensor in begins), default=None)
        if begin is not None:
            begins[unit.inputs[0]] = min(begin, begins.get(unit.inputs[0], begin))
    reaching = {}
    for tensor, begin in begins.items():
        if tensor in params and begin <= 0:
            known = params[tensor]
            low, high = -known.zero_point * known.scale, (known.largest - known.zero_point) * known.scale
            curved = all(unit.name in integer and unit.name in lines for unit in model.readers[tensor])
            alone = curved and tensor not in model.outputs
            reaching[tensor] = load_activation_format("int8").params(
                begin if alone else min(low, begin), high
            )
    return reaching


def _widens(known: QuantParams | None, begin: float) -> bool:
    """Return whether the range of a tensor would have to become so wide that its steps are lost."""
    if known is None:
        return True
    high = (known.largest - known.zero_point) * known.scale
    return high - begin > WIDER * known.largest * known.scale


def _quantized(
    model: ImportedModel, integer: frozenset[str], params: Mapping[str, QuantParams]
) -> Iterator[Quantize]:
    """Yield each tensor that integer units read, or give in codes."""
    read = {tensor: None for unit in model.units if unit.name in integer for tensor in operands(unit)}
    given = {
        tensor: None
        for unit in model.units
        if unit.name in integer
        for tensor in unit.outputs
        if unit.op not in GIVES_REALS or tensor in read
    }
    for tensor in {**read, **given}:
        if tensor not in params:
            raise TrilobitError(f"the range of {tensor!r} is not known: calibrate the model with this format")
        yield Quantize(tensor, params[tensor], tensor in given)


def _dequantized(
    model: ImportedModel, integer: frozenset[str], codes: Mapping[str, Quantize]
) -> Iterator[Dequantize]:
    given = frozenset(each.tensor for each in codes.values() if each.given)
    for unit in model.units:  # of which those that compute on the codes themselves see no real numbers
        of_codes = set(operands(unit)) if unit.name in integer else set()
        if of_codes and on_codes(model, unit):
            continue
        for tensor in dict.fromkeys(unit.inputs):
            if tensor in of_codes:
                yield Dequantize(tensor, unit.name, codes[tensor].params)
            elif tensor in given:
                yield _read_as_reals(model, unit, codes[tensor], given)
    for tensor in dict.fromkeys(model.outputs):
        if tensor in given:
            yield Dequantize(tensor, CALLER, codes[tensor].params)


def _read_as_reals(model: ImportedModel, unit: Unit, codes: Quantize, given: frozenset[str]) -> Dequantize:
    """Return how a unit that computes in real numbers reads codes, so that the runtime leaves it alone.

    With one scale ONNX Runtime takes an fp32 product between codes for one that was forgotten, and rounds its
    weights to 8 bits (WeightBiasQuantization); a sum whose output is quantized becomes one on integers.
    """
    read = Dequantize(codes.tensor, unit.name, codes.params)
    if unit.op in _CHANNEL_AXES and unit.weighted:
        axis = _CHANNEL_AXES[unit.op]
        channels = model.shapes[codes.tensor][axis]
        many = channels > 1 and (unit.op in _OF_MAPS or channels in model.constants[unit.weight].shape)
        return replace(read, form="channel" if many else "arithmetic", channels=channels, axis=axis)
    fused = unit.op in _CHANNEL_AXES or unit.op in _FUSED
    only_codes = all(tensor in given for tensor in operands(unit))
    return replace(read, form="arithmetic" if fused and only_codes else "scalar")


def _products(
    quantization: Quantization, policy: Policy, integer: frozenset[str], params: Mapping[str, QuantParams]
) -> Iterator[Product]:
    for unit in quantization.model.units:
        precision = policy_precision(policy.get(unit.name, FP32))
        if not unit.weighted or precision == Precision():
            continue
        rank = len(quantization.model.shapes[unit.outputs[0]])
        weight_format = load_format(precision.weight).weight
        if not weight_format.needs_scale:
            yield Product(unit, precision.weight, None, "cast", rank)
            continue
        key = (unit.name, policy[unit.name])
        if key not in quantization.parameters:
            raise TrilobitError(f"the weights of {unit.name!r} were not rounded to {policy[unit.name]}")
        parameters = quantization.parameters[key]
        scale = params[operands(unit)[0]].scale if unit.name in integer else 0.0
        whole = weight_format.whole(unit.op)
        written: Writing = "integers" if unit.name in integer else "product" if whole else "reals"
        yield Product(unit, precision.weight, parameters, written, rank, scale)
