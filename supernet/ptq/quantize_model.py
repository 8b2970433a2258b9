"""From an imported model and calibration samples to the numbers of every format that its units may take."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hw_profiles.graph.formats import QuantParams, needs_scale
from hw_profiles.reference.integer_sums import IntegerSums
from supernet.data.samples import Samples
from supernet.formats.loading import Precision, load_weight_format, policy_precision
from supernet.formats.weight_format import WeightFormat
from supernet.graph.quantized_graph import Parameters
from supernet.imported.following import FOLLOWERS, FOLLOWS, INTEGER, REAL, integer_units, operands
from supernet.imported.model import ImportedModel, Unit
from supernet.ptq.channel_ties import channel_ties
from supernet.ptq.equalisation import JUDGED_ROWS, Judge, equalise
from supernet.ptq.error_feedback import LEARNED_MACS_PER_S, learning_macs
from supernet.ptq.histogram import Histogram
from supernet.ptq.observation import Observation, TensorStatistics, observe
from supernet.ptq.product import Product
from supernet.ptq.products import output_bounds, read_nodes, read_products
from supernet.ptq.quantization import Compensation, Quantization
from supernet.ptq.ranges import Range, Reader, choose_range
from supernet.ptq.settings import PtqSettings
from supernet.ptq.sharing import shared_scales
from supernet.ptq.unit_rounding import UnitInputs, round_unit, unit_inputs

Array = NDArray[np.float32]
Formats = Mapping[str, Sequence[str]]
_UNBOUNDED = (-np.inf, np.inf)
_NEAREST = ("ConvTranspose",)  # operations whose weight is rounded in the shape that it has


def quantize_model(
    model: ImportedModel,
    calibration: Samples,
    formats: Formats,
    *,
    sums: IntegerSums = IntegerSums.EXACT,
    rng: np.random.Generator,
    settings: PtqSettings | None = None,
) -> Quantization:
    """Return scales of tensors, and rounded weights of every unit in every format that it may take.

    Args:
        calibration: examples; labels are not looked at.
        formats: by unit, names of the registry; what `fp32` needs is nothing.
        sums: of the device that it is made for.

    Raises:
        TrilobitError: there is no sample, or one makes a tensor NaN or infinite.
    """
    settings = settings or PtqSettings()
    products = {
        name: product
        for name, product in read_products(model).items()
        if any(map(_rounds, formats.get(name, ())))
    }
    scaled = _scaled_tensors(model, formats)
    observed = tuple(dict.fromkeys((*scaled, *(product.source for product in products.values()))))
    model, equalised = _equalised(model, calibration, formats, products, scaled, sums, rng, settings)
    if equalised:
        products = {name: product for name, product in read_products(model).items() if name in products}
    observation = observe(model, calibration, observed, products, rng=rng, settings=settings)
    tensors, chosen = _choose_ranges(model, scaled, observation, products)
    compensations = [*equalised, *chosen]
    parameters: dict[tuple[str, str], Parameters] = {}
    learned = _learned(products, formats, settings)
    for name, product in products.items():
        static, rows = tensors.get(product.source), observation.rows[name]
        inputs: dict[QuantParams | None, UnitInputs] = {}
        for fmt in filter(_rounds, formats[name]):
            codes = static if needs_scale(policy_precision(fmt).activation) else None
            if codes not in inputs:
                inputs[codes] = unit_inputs(product, rows, codes)
            weight_format = _weight_format(fmt, sums)
            parameters[name, fmt], bought = round_unit(
                inputs[codes], fmt, weight_format, learned=(name, fmt) in learned
            )
            compensations += bought
    parameters |= _stored_as_they_are(model, formats, products, sums)
    return Quantization(model, tensors, parameters, tuple(compensations))


def _equalised(
    model: ImportedModel,
    calibration: Samples,
    formats: Formats,
    products: Mapping[str, Product],
    scaled: Sequence[str],
    sums: IntegerSums,
    rng: np.random.Generator,
    settings: PtqSettings,
) -> tuple[ImportedModel, tuple[Compensation, ...]]:
    """Return the model with evened-out channels, found in a first look at the tensors that can be scaled."""
    ties = channel_ties(model)
    tied = {name for tie in ties for name in tie.tensors}
    readers = {name: product for name, product in products.items() if product.source in tied}
    if not readers:
        return model, ()
    seen = tuple(tied & {*scaled, *(product.source for product in readers.values())})
    look = replace(settings, rows=min(settings.rows, JUDGED_ROWS))
    observation = observe(model, calibration, sorted(seen), readers, rng=rng, settings=look)
    return equalise(model, ties, observation, readers, _judges(formats, sums), scaled)


def _stored_as_they_are(
    model: ImportedModel, formats: Formats, products: Mapping[str, Product], sums: IntegerSums
) -> dict[tuple[str, str], Parameters]:
    """Return the numbers of units whose product is none of rows with a matrix, rounded to nearest."""
    parameters = {}
    for unit in model.units:
        if unit.op not in _NEAREST or unit.name in products:
            continue
        weight = model.constants[unit.weight].astype(np.float32)
        bias = model.constants.get(unit.bias, np.zeros(0)).astype(np.float32).reshape(-1)
        for fmt in filter(_rounds, formats.get(unit.name, ())):
            parameters[unit.name, fmt] = Parameters(_weight_format(fmt, sums).encode(weight), bias)
    return parameters


def _learned(
    products: Mapping[str, Product], formats: Formats, settings: PtqSettings
) -> set[tuple[str, str]]:
    """Return the units and formats whose rounding is learned within the time that there is, cheap ones first;
    counted in multiply-adds, so that the same call gives the same numbers on every machine."""
    costs = {
        (name, fmt): learning_macs(product)
        for name, product in products.items()
        for fmt in filter(_rounds, formats[name])
    }
    ordered = sorted(costs, key=lambda key: costs[key])
    spent = np.cumsum([costs[key] for key in ordered])
    return set(ordered[: int((spent <= settings.rounding_s * LEARNED_MACS_PER_S).sum())])


def _judges(formats: Formats, sums: IntegerSums) -> dict[str, tuple[Judge, ...]]:
    """Return the formats of each unit that scaled channels are judged by: the narrowest, and the widest of
    those whose inputs are rounded to stored scales."""
    judges = {}
    for unit, names in formats.items():
        every = [
            Judge(fmt, weight_format, needs_scale(policy_precision(fmt).activation))
            for fmt in filter(_rounds, names)
            if (weight_format := _weight_format(fmt, sums)).needs_scale
        ]
        by_bits = sorted(every, key=lambda judge: judge.weight_format.bits)
        widest = [judge for judge in by_bits if judge.static][-1:]
        if by_bits:
            judges[unit] = tuple({judge.format: judge for judge in (*widest, by_bits[0])}.values())
    return judges


def _weight_format(fmt: str, sums: IntegerSums) -> WeightFormat:
    return load_weight_format(policy_precision(fmt).weight, sums)


def _rounds(fmt: str) -> bool:
    return policy_precision(fmt) != Precision()


def _scaled_tensors(model: ImportedModel, formats: Formats) -> tuple[str, ...]:
    """Return the floating-point tensors that are codes in some policy: what units with stored scales, and
    those that follow them, read and give."""
    choices = np.array([[_choice(unit, formats) for unit in model.units]], np.int8)
    names = (
        name
        for unit, computes in zip(model.units, integer_units(model, choices)[0], strict=True)
        if computes
        for name in (*operands(unit), *unit.outputs)
    )
    return tuple(name for name in dict.fromkeys(names) if np.dtype(model.dtypes[name]).kind == "f")


def _choice(unit: Unit, formats: Formats) -> int:
    if any(needs_scale(policy_precision(fmt).activation) for fmt in formats.get(unit.name, ())):
        return INTEGER
    return FOLLOWS if unit.op in FOLLOWERS else REAL


def _choose_ranges(
    model: ImportedModel, scaled: Iterable[str], observation: Observation, products: Mapping[str, Product]
) -> tuple[dict[str, QuantParams], list[Compensation]]:
    """Return scale and zero point of every tensor, and what the choice of ranges bought."""
    nodes = read_nodes(model)
    bounds = {name: output_bounds(model, unit, nodes) for unit in model.units for name in unit.outputs}
    readers: dict[str, list[Reader]] = {}
    for name, product in products.items():
        readers.setdefault(product.source, []).append(Reader(product, observation.rows[name]))
    tensors: dict[str, QuantParams] = {}
    compensations: list[Compensation] = []
    for group in shared_scales(model, scaled):
        statistics = [observation.tensors[name] for name in group]
        low, high, histogram = _together(statistics)
        inside = _intersection([bounds.get(name, _UNBOUNDED) for name in group])
        of_group = [reader for name in group for reader in readers.get(name, ())]
        rule, params, errors = choose_range(histogram, low, high, of_group, inside)
        tensors.update(dict.fromkeys(group, params))
        if errors[rule] < errors["min-max"]:
            compensations.append(
                Compensation(f"range by {rule}", group[0], "", errors["min-max"], errors[rule])
            )
    return tensors, compensations


def _together(statistics: Sequence[TensorStatistics]) -> tuple[float, float, Histogram]:
    """Return least value, largest value and counts of tensors of one scale."""
    histogram = statistics[0].histogram
    for other in statistics[1:]:
        histogram = histogram.merged(other.histogram)
    return min(each.low for each in statistics), max(each.high for each in statistics), histogram


def _intersection(bounds: Sequence[Range]) -> Range:
    return max(low for low, _ in bounds), min(high for _, high in bounds)
