"""Which number formats each unit can take on a runtime that takes layers, not ONNX files, as own kernels
do, and why not the others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.formats import FP32, element_types, is_integer, weight_bits
from hw_profiles.graph.layer import Layer
from hw_profiles.reference.integer_sums import IntegerSums
from hw_profiles.runtimes.runtime import Runtime
from supernet.formats.loading import load_format
from supernet.imported.folding import CLIPPED, fold
from supernet.imported.model import ImportedModel, Unit
from supernet.ptq.policy_graph import FOLLOWING, policy_layer
from supernet.registry import FORMATS

STORED_BITS = (8, 4)  # of one weight, as own kernels read them: others take a byte too
MOST_NAMED = 6  # units in one message


@dataclass(frozen=True)
class UnitFormats:
    """What a unit can be in.

    Attributes:
        allowed: number formats, `fp32` first; none where nothing runs the unit.
        refused: why not, by number format.
        follows: whether it computes on integers where its neighbours do, without being asked.
    """

    allowed: tuple[str, ...] = (FP32,)
    refused: Mapping[str, str] = field(default_factory=dict)
    follows: bool = False


def layer_formats(model: ImportedModel, runtime: Runtime) -> Mapping[str, UnitFormats]:
    """Return what each unit of a model can be in, by unit: what a runtime says of its layers, once transposes
    and reshapes are folded."""
    folded = fold(model)
    layers: dict[str, list[Layer]] = {}
    for name, layer in zip(folded.workload.names, folded.workload.layers, strict=True):
        layers.setdefault(name.removesuffix(CLIPPED), []).append(layer)
    sums = runtime.describe().sums
    formats: dict[str, UnitFormats] = {}
    for unit in model.units:
        if unit.name in folded.moved:
            formats[unit.name] = UnitFormats(follows=True)
        elif unit.name in folded.refusals:
            formats[unit.name] = UnitFormats((), {FP32: folded.refusals[unit.name]})
        else:
            formats[unit.name] = _formats(unit, layers[unit.name], runtime, sums)
    return formats


def _formats(unit: Unit, layers: Sequence[Layer], runtime: Runtime, sums: IntegerSums) -> UnitFormats:
    refused: dict[str, str] = {}
    for fmt in (FP32, *_offered(sums)) if unit.weighted else (FP32, FOLLOWING):
        variants = layers if fmt == FP32 else layers[:1]  # a clip behind integers is their range
        if why := next(filter(None, (_refusal(layer, fmt, runtime) for layer in variants)), None):
            refused[fmt] = why.replace("Opaque:", f"{unit.op}:")
    if FP32 in refused:
        return UnitFormats((), refused)
    if not unit.weighted:
        return UnitFormats(refused=refused, follows=FOLLOWING not in refused)
    return UnitFormats((FP32, *(fmt for fmt in _offered(sums) if fmt not in refused)), refused)


def _refusal(layer: Layer, fmt: str, runtime: Runtime) -> str | None:
    try:
        variant = policy_layer(layer, fmt)
    except TrilobitError as error:
        return str(error)
    return None if runtime.supports(variant) else runtime.why_not(variant)


def _offered(sums: IntegerSums) -> list[str]:
    """Return the formats of integers that are offered: those for exact sums only where others saturate."""
    integers = [fmt for fmt in FORMATS if element_types(fmt).multiplied and is_integer(load_format(fmt).on)]
    return [
        fmt
        for fmt in integers
        if weight_bits(fmt) in STORED_BITS and (sums.reduced or not element_types(fmt).unsigned)
    ]


def require_covered(model: ImportedModel, formats: Mapping[str, UnitFormats], engine: str) -> None:
    """Raise unless every unit of a model runs on own kernels.

    Args:
        formats: of its units.
        engine: what the kernels are called after.

    Raises:
        TrilobitError: names the units that have none, and why.
    """
    ends = (*model.inputs, *model.outputs)
    if len(ends) != 2:
        raise TrilobitError(
            f"a library reads one tensor and gives one; the model reads {', '.join(model.inputs)} and gives "
            f"{', '.join(model.outputs)}: use --device ort"
        )
    if others := [name for name in ends if model.dtypes[name] != "float32"]:
        raise TrilobitError(
            f"a library reads and gives float32; {others[0]} is {model.dtypes[others[0]]}: use --device ort"
        )
    reasons: dict[str, list[str]] = {}
    for name, unit in formats.items():
        if not unit.allowed:
            reasons.setdefault(unit.refused[FP32], []).append(name)
    if reasons:
        parts = [f"{_named(names)}: {why}" for why, names in reasons.items()]
        total = sum(map(len, reasons.values()))
        raise TrilobitError(
            f"{total} of {len(model.units)} units have no kernel of {engine}: {' - '.join(parts)}; "
            "`--device ort` runs them"
        )


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
