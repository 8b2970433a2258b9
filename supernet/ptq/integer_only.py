"""From a trained subnet to a network in integers only: scales of all that lies between its layers, chosen
from calibration so that the integer operators compute what they stand for (I-ViT, arXiv:2207.01405).
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil, floor, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn, no_grad

from hw_profiles.graph.attention import spelled_out
from hw_profiles.graph.formats import QuantParams, code_range, needs_scale
from hw_profiles.graph.integer_only import MOVES, NARROW, WIDE, integer_only
from hw_profiles.graph.layer import INPUT
from hw_profiles.graph.workload import Workload
from hw_profiles.reference import integer_transformer_ops as ops
from hw_profiles.reference.integer_sums import IntegerSums
from hw_profiles.reference.integer_transformer_units import CURVE, CURVE_BITS, CURVES
from supernet.formats.loading import load_activation_format, load_weight_format
from supernet.formats.quantized_tensor import SMALLEST_SCALE
from supernet.graph.quantized_graph import Parameters, QuantizedGraph
from supernet.graph.subnet import Subnet
from supernet.ptq.calibrate import folded
from supernet.ptq.histogram import histogram_of
from supernet.ptq.integer_refit import refitted
from supernet.ptq.ranges import least_squares_range

Array = NDArray[np.floating[Any]]
Range = tuple[float, float]

HEADROOM = 2.0  # of 16-bit codes: how far values may go beyond those of calibration
JUDGED = 2**17  # numbers that a range is judged by: the largest are few
LOW_ENDS = (-2.0, -2.5, -3.0, -3.5, -4.0, -5.0)  # where a GELU may be cut: below, it is nearly 0
GELU_WIDTH = 0.9 * ops.MOST_SHIFTS / (ops.GELU_SLOPE * ops.LOG2_E)  # scales are made a little larger
SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)  # of an observed end
TABLE_SHARES = (*SHARES, 0.4, 0.3, 0.2)  # curves become flat


@dataclass(frozen=True, eq=False)
class _Observed:
    """What calibration showed of each tensor of a network, by the name of its layer, or "" for the input.

    Attributes:
        values: (examples, ...), real.
        readers: the operations that read it, through any moves.
    """

    values: Mapping[str, Array]
    readers: Mapping[str, frozenset[str]]


def quantize_integer_only(
    subnet: Subnet, images: Tensor, sums: IntegerSums = IntegerSums.EXACT, *, weight_format: str = NARROW
) -> QuantizedGraph:
    """Return the subnet as a network in integers only.

    Args:
        subnet: in evaluation mode.
        images: calibration examples (n, ...).
        sums: of the device that it is made for.
        weight_format: of all matrices and filters.

    Raises:
        TrilobitError: a layer has no integer-only form (which, and why).
    """
    subnet = _spelled_out(subnet)
    work = integer_only(subnet.workload, weight_format)
    observed = _observed(subnet, images)
    parameters, tensors = dict[str, Parameters](), dict[str, QuantParams]()
    for position, (name, layer) in enumerate(zip(work.names, work.layers, strict=True)):
        if "weight" in layer.values:
            weight, bias = folded(subnet.layer(name))
            parameters[name] = Parameters(load_weight_format(layer.weight_format, sums).encode(weight), bias)
        if not needs_scale(layer.out_format):
            continue
        source = work.inputs[position][0]
        if layer.op in MOVES and needs_scale(layer.in_format):
            tensors[name] = tensors[work.names[source]]
        else:
            real = _origin(work, position)
            tensors[name] = _params(real, layer.out_format, observed)
    network = QuantizedGraph(work, parameters, tensors)
    return refitted(network, images.numpy(), observed.values, lambda name: folded(subnet.layer(name)), sums)


def _spelled_out(subnet: Subnet) -> Subnet:
    """Return the subnet without attention: its products are layers, and queries come divided."""
    work, factors = spelled_out(subnet.workload)
    modules: dict[str, nn.Module] = {}
    for name, layer in zip(work.names, work.layers, strict=True):
        if "weight" in layer.values:
            modules[name] = _multiplied(subnet.layer(name), factors.get(name, 1.0))
    return Subnet(work, modules)


def _multiplied(layer: nn.Module, factor: float) -> nn.Module:
    """Return a layer whose output is multiplied."""
    if factor == 1:
        return layer
    copied = copy.deepcopy(layer)
    with no_grad():
        for parameter in copied.parameters():
            parameter.mul_(factor)
    return copied


def _origin(work: Workload, position: int) -> str:
    """Return the name of the layer whose real values an integer tensor holds; "" for the network's input."""
    while work.layers[position].op == "QuantizeLinear":
        (source,) = work.inputs[position]
        if source == INPUT:
            return ""
        position = source
    return work.names[position]


def _observed(subnet: Subnet, images: Tensor) -> _Observed:
    work = subnet.workload
    with no_grad():
        tensors = [tensor.numpy() for tensor in subnet.tensors(images)]
    values = {name: tensors[i].astype(np.float32) for i, name in enumerate(work.names)}
    for layer, (scores, *masks) in zip(work.layers, work.inputs, strict=True):
        if layer.op == "Softmax" and masks:  # what is hidden is in no range
            hidden = np.broadcast_to(tensors[masks[0]] == 0, tensors[scores].shape)
            values[work.names[scores]][hidden] = -np.inf
    readers: list[set[str]] = [set() for _ in work.names]
    feeds: set[str] = set()
    for position in reversed(range(len(work.layers))):
        op = work.layers[position].op
        own = readers[position] if op in MOVES else {op}
        for source in work.inputs[position]:
            (readers[source] if source >= 0 else feeds).update(own)
    named = dict(zip(work.names, map(frozenset, readers), strict=True))
    return _Observed({**values, "": images.numpy().astype(np.float32)}, {**named, "": frozenset(feeds)})


def _params(name: str, fmt: str, observed: _Observed) -> QuantParams:
    """Return the scale and the zero point of a tensor."""
    values, readers = observed.values[name], observed.readers[name]
    if fmt == WIDE:
        return _wide(values, "LayerNormalization" in readers)
    low, high = float(values.min(where=np.isfinite(values), initial=np.inf)), float(values.max())
    for op, choose in _RANGES.items():
        if op in readers:
            return choose(_some_rows(values), low, high)
    histogram = histogram_of(values, low, high)
    return _narrow(*least_squares_range(histogram, low, high))


def _narrow(low: float, high: float) -> QuantParams:
    return load_activation_format(NARROW).params(low, high)


def _wide(values: Array, normalised: bool) -> QuantParams:
    """Return a scale of 16 bits without a zero point; of what is normalised one at which each row's sum of
    squares has 32 bits.
    """
    largest = code_range(WIDE)[1]
    scale = max(HEADROOM * float(np.abs(values).max()) / largest, SMALLEST_SCALE)
    if normalised:
        rows = values.astype(np.float64).reshape(-1, values.shape[-1])
        squares = ((rows - rows.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
        scale = max(scale, HEADROOM * sqrt(float(squares.max()) / ops.WIDEST))
    return QuantParams(float(np.float32(scale)), 0, largest)


def _some_rows(values: Array) -> Array:
    """Return rows of a tensor, evenly from all of it."""
    rows = values.reshape(-1, values.shape[-1])
    return rows[:: max(values.size // JUDGED, 1)].astype(np.float64)


def _gelu_range(rows: Array, low: float, high: float) -> QuantParams:
    """Return the codes before a GELU with which ShiftGELU is nearest to it.

    Its exponential must not reach its floor within the codes, and its reciprocal is the coarser the wider
    they are: the range is cut where that costs least.
    """
    exact = ops.gelu(rows)
    ends = {max(end, low) for end in LOW_ENDS}
    ranges = [(end, min(share * high, GELU_WIDTH + end)) for end in ends for share in SHARES]
    return _least(ranges, ops.GELU_SLOPE, lambda params: _gelu_error(rows, exact, params))


def _gelu_error(rows: Array, exact: Array, params: QuantParams) -> float:
    zero, scale = params.zero_point, params.scale
    reach = ops.GELU_SLOPE * ops.LOG2_E * scale * params.largest
    if reach > ops.MOST_SHIFTS:
        return float("inf")
    n = ops.gelu_shifts(scale, low=-zero, high=params.largest - zero, **CURVE)
    approximation = ops.shift_gelu(_codes(rows, params), scale, n=n, **CURVE)
    return float(((approximation * (scale / 2 ** (CURVE_BITS - 1)) - exact) ** 2).mean())


def _softmax_range(rows: Array, low: float, high: float) -> QuantParams:
    """Return the codes of scores with which Shiftmax is nearest to a softmax; -inf is hidden."""
    rows = rows[np.isfinite(rows).any(axis=1)]
    seen = np.isfinite(rows)
    exact = np.exp(rows - rows.max(axis=1, keepdims=True))
    exact /= exact.sum(axis=1, keepdims=True)
    shown = np.where(seen, rows, low)

    def error(params: QuantParams) -> float:
        approximation = ops.shiftmax(_codes(shown, params), params.scale, mask=seen, **CURVE)
        return float(((approximation / 2 ** (CURVE_BITS - 1) - exact) ** 2).mean())

    return _least([(a * low, b * high) for a in SHARES for b in SHARES], 1.0, error)


def _table_range(op: str, rows: Array, low: float, high: float) -> QuantParams:
    """Return the codes before a curve that is a table, of which the curve is nearest to its own."""
    exact = CURVES[op](rows)

    def error(params: QuantParams) -> float:
        return float(((CURVES[op](_codes(rows, params) * params.scale) - exact) ** 2).mean())

    ranges = [(a * low, b * high) for a in TABLE_SHARES for b in TABLE_SHARES]
    return min((_narrow(*ends) for ends in ranges), key=error)


# of what is read by an operator that looks at scales as they are
_RANGES: Mapping[str, Callable[[Array, float, float], QuantParams]] = {
    "Gelu": _gelu_range,
    "Softmax": _softmax_range,
    **{op: partial(_table_range, op) for op in CURVES},
}


def _codes(rows: Array, params: QuantParams) -> NDArray[np.int64]:
    codes = np.rint(rows / params.scale)
    return np.asarray(np.clip(codes, -params.zero_point, params.largest - params.zero_point), np.int64)


def _least(ranges: Sequence[Range], slope: float, error: Callable[[QuantParams], float]) -> QuantParams:
    """Return the codes of the range with the least error; their scale is such that one halving of the
    exponential takes a whole number of steps, which is what it is rounded to.
    """
    candidates = {_stepped(_narrow(*ends), slope) for ends in ranges}
    return min(sorted(candidates, key=lambda params: params.scale), key=error)


def _stepped(params: QuantParams, slope: float) -> QuantParams:
    steps = floor(1 / (slope * params.scale))
    if steps < 1:
        return params
    scale = np.float32(1 / (slope * steps))
    while ceil(1 / (slope * float(scale))) > steps:  # rounded to float32
        scale = np.nextafter(scale, np.float32(np.inf))
    return QuantParams(float(scale), params.zero_point, params.largest)
