"""Which units of an imported model own kernels cover, in which formats, and why not the others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.formats import FP32, element_types, is_integer, weight_bits
from hw_profiles.graph.layer import Layer
from hw_profiles.runtimes.runtime import Runtime
from supernet.formats.loading import load_format
from supernet.imported.folding import CLIPPED, fold
from supernet.imported.model import ImportedModel, Unit
from supernet.ptq.policy_graph import FOLLOWING, policy_layer
from supernet.registry import FORMATS

MOST_NAMED = 6  # units in one message


@dataclass(frozen=True)
class Coverage:
    """One unit on a runtime's own kernels.

    Attributes:
        allowed: number formats, `fp32` first; none where nothing runs the unit.
        refused: why not, by number format.
        moved: whether it only moves numbers, which is folded into how others read them.
    """

    allowed: tuple[str, ...]
    refused: Mapping[str, str] = field(default_factory=dict)
    moved: bool = False


def coverage(model: ImportedModel, runtime: Runtime) -> Mapping[str, Coverage]:
    """Return what covers each unit of a model, by unit."""
    folded = fold(model)
    layers: dict[str, list[Layer]] = {}
    for name, layer in zip(folded.workload.names, folded.workload.layers, strict=True):
        layers.setdefault(name.removesuffix(CLIPPED), []).append(layer)
    exact = runtime.describe().sums.reduced
    covered: dict[str, Coverage] = {}
    for unit in model.units:
        if unit.name in folded.moved:
            covered[unit.name] = Coverage((FP32,), moved=True)
        elif unit.name in folded.refusals:
            covered[unit.name] = Coverage((), {FP32: folded.refusals[unit.name]})
        else:
            covered[unit.name] = _covered(unit, layers[unit.name], runtime, exact)
    return covered


def _covered(unit: Unit, layers: Sequence[Layer], runtime: Runtime, exact: bool) -> Coverage:
    refused: dict[str, str] = {}
    allowed = []
    for fmt in (FP32, *_offered(unit, exact)):
        variants = layers if fmt == FP32 else layers[:1]  # a clip behind integers is their range
        why = next(filter(None, (_refusal(layer, fmt, runtime) for layer in variants)), None)
        if why is None:
            allowed.append(fmt)
        else:
            refused[fmt] = why
    return Coverage(tuple(allowed) if FP32 not in refused else (), refused)


def _refusal(layer: Layer, fmt: str, runtime: Runtime) -> str | None:
    try:
        variant = policy_layer(layer, fmt)
    except TrilobitError as error:
        return str(error)
    return None if runtime.supports(variant) else runtime.why_not(variant)


def _offered(unit: Unit, exact: bool) -> list[str]:
    """Return the formats of integers that are worth a trial: of codes that are stored alike the widest only,
    and those for exact sums only where others saturate.
    """
    if not unit.weighted:
        return [FOLLOWING]
    integers = [fmt for fmt in FORMATS if element_types(fmt).multiplied and is_integer(load_format(fmt).on)]
    return [
        fmt
        for fmt in integers
        if weight_bits(fmt) in _STORED_BITS and (exact or not element_types(fmt).unsigned)
    ]


_STORED_BITS = (8, 4)  # of one weight in a library: others take a byte too


def require_covered(model: ImportedModel, runtime: Runtime) -> None:
    """Raise unless every unit of a model runs on a runtime's own kernels.

    Raises:
        TrilobitError: names the units that have none, and why.
    """
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise TrilobitError(
            f"a library reads one tensor and gives one; the model reads {', '.join(model.inputs)} and gives "
            f"{', '.join(model.outputs)}: use --device ort"
        )
    if others := [name for name in (*model.inputs, *model.outputs) if model.dtypes[name] != "float32"]:
        raise TrilobitError(
            f"a library reads and gives float32; {others[0]} is {model.dtypes[others[0]]}: use --device ort"
        )
    reasons: dict[str, list[str]] = {}
    for name, unit in coverage(model, runtime).items():
        if not unit.allowed:
            reasons.setdefault(unit.refused[FP32], []).append(name)
    if reasons:
        parts = [f"{_named(names)}: {why}" for why, names in reasons.items()]
        total = sum(map(len, reasons.values()))
        raise TrilobitError(
            f"{total} of {len(model.units)} units are not covered by {runtime.describe().engine}'s kernels - "
            f"{' - '.join(parts)}; `--device ort` runs them"
        )


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
