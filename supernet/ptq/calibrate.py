"""From a trained subnet to a `QuantizedGraph`: fold batch norm, observe ranges, round the weights."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from hw_profiles.graph.formats import QuantParams, needs_scale
from hw_profiles.graph.layer import INPUT
from hw_profiles.graph.lowering import lower
from hw_profiles.graph.workload import Workload
from hw_profiles.reference.integer_sums import IntegerSums
from supernet.formats.loading import load_activation_format, load_weight_format
from supernet.graph.quantized_graph import (
    Parameters,
    QuantizedGraph,
    cache_names,
    cache_params,
    keeps_codes,
)
from supernet.graph.subnet import Subnet
from supernet.layers.elastic import ConvNorm
from supernet.layers.plain import PlainConv
from supernet.layers.stored import Prefixed

CURVE_END = 3.0  # from -3 to 3 h-swish and h-sigmoid are curved


@dataclass(frozen=True)
class Ranges:
    """Smallest and largest value seen of the network's input and of each layer's (first) output, by name."""

    image: tuple[float, float]
    layers: Mapping[str, tuple[float, float]]


def observe(subnet: Subnet, images: Tensor) -> Ranges:
    """Run the fp32 subnet on calibration examples, images (n, c, h, w) or tokens (n, t), and record every
    tensor's range, by the names of its lowered workload.

    Ranges depend on the architecture only: one observation serves every quantization policy of it.
    """
    with torch.no_grad():
        tensors = subnet.tensors(images)
    layers: dict[str, tuple[float, float]] = {}
    for producer, tensor in zip(subnet.workload.producers, tensors, strict=True):
        layers.setdefault(subnet.workload.names[producer], _range(tensor))
    return Ranges(_range(images), layers)


def quantize(
    subnet: Subnet, workload: Workload, ranges: Ranges, sums: IntegerSums = IntegerSums.EXACT
) -> QuantizedGraph:
    """Return the network that `workload` describes: the subnet's weights in its formats, its integer tensors
    in the observed ranges.

    Args:
        subnet: in evaluation mode, of the same architecture.
        workload: with its quantization policy; names of layers with weights are the subnet's once it is
            lowered.
        sums: of the device that it is made for.
    """
    workload = lower(workload)
    curves = {
        workload.producers[source]: curve.nonlinearity
        for curve, (source, *_) in zip(workload.layers, workload.inputs, strict=True)
        if curve.kind == "act" and source >= 0
    }
    parameters: dict[str, Parameters] = {}
    tensors: dict[str, QuantParams] = {}
    for position, (name, layer) in enumerate(zip(workload.names, workload.layers, strict=True)):
        if "weight" in layer.values:
            weight, bias = folded(subnet.layer(name))
            parameters[name] = Parameters(load_weight_format(layer.weight_format, sums).encode(weight), bias)
        if keeps_codes(layer):
            for key, source in zip(cache_names(name), workload.inputs[position][1:], strict=False):
                tensors[key] = cache_params(max(map(abs, _range_of(workload, source, ranges))))
        if not needs_scale(layer.out_format):
            continue
        if layer.keeps_codes:
            tensors[name] = tensors[workload.names[workload.producers[workload.inputs[position][0]]]]
        else:
            low, high = (
                ranges.layers[name] if name in ranges.layers else _converted_range(workload, position, ranges)
            )
            if position in curves:
                low, high = before_curve(curves[position], high)
            tensors[name] = load_activation_format(layer.out_format).params(low, high)
    return QuantizedGraph(workload, parameters, tensors)


def before_curve(activation: str, high: float) -> tuple[float, float]:
    """Return the range of values that matters to an h-swish or h-sigmoid whose results reach `high`: below -3
    both give 0, above 3 an h-sigmoid gives 1.

    >>> before_curve("hswish", 5.0), before_curve("hsigmoid", 1.0)
    ((-3.0, 5.0), (-3.0, 3.0))
    """
    if activation == "hsigmoid":
        return -CURVE_END, CURVE_END
    # x (x + 3) / 6 = high where the curve is a parabola; a straight line from 3 on
    return -CURVE_END, high if high > CURVE_END else (math.sqrt(9 + 24 * max(high, 0.0)) - 3) / 2


def _range(tensor: Tensor) -> tuple[float, float]:
    low, high = torch.aminmax(tensor)
    return float(low), float(high)


def _converted_range(workload: Workload, position: int, ranges: Ranges) -> tuple[float, float]:
    """A conversion, or a chain of two, has the range of what it converts; a curve by itself that of the layer
    which fuses it in fp32.
    """
    (source,) = workload.inputs[position]
    return _range_of(workload, source, ranges)


def _range_of(workload: Workload, source: int, ranges: Ranges) -> tuple[float, float]:
    """Return the range of a tensor, or of what was converted to it."""
    while source != INPUT:
        producer = workload.producers[source]
        if workload.names[producer] in ranges.layers:
            return ranges.layers[workload.names[producer]]
        (source,) = workload.inputs[producer]
    return ranges.image


def folded(layer: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    """Return the weight of a layer and its bias, empty without, batch norm folded into both."""
    if isinstance(layer, ConvNorm | PlainConv):
        weight, bias = layer.folded()
    else:
        assert isinstance(layer, nn.Linear | Prefixed)
        weight, bias = layer.weight, layer.weight.new_zeros(0) if layer.bias is None else layer.bias
    return weight.detach().numpy().astype(np.float32), bias.detach().numpy().astype(np.float32)
