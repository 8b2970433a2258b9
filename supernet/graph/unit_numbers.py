"""The numbers of a network's layers as the arithmetic of units takes them (`hw_profiles.reference`)."""

from typing import Any

import numpy as np

from hw_profiles.graph.formats import QuantParams
from hw_profiles.reference.unit_numbers import UnitNumbers
from supernet.graph.quantized_graph import Parameters, QuantizedGraph


def unit_numbers(network: QuantizedGraph) -> dict[str, UnitNumbers]:
    """Return the numbers of each layer by its name."""
    return {name: numbers_of(network, position) for position, name in enumerate(network.workload.names)}


def numbers_of(network: QuantizedGraph, position: int) -> UnitNumbers:
    """Return the numbers of one layer."""
    name = network.workload.names[position]
    return UnitNumbers(
        tuple(map(_quantization, network.input_params(position))),
        _quantization(network.tensors.get(name)),
        *_parameters(network.parameters.get(name)),
    )


def _quantization(params: QuantParams | None) -> QuantParams | None:
    return None if params is None else QuantParams(params.scale, params.zero_point)


def _parameters(parameters: Parameters | None) -> tuple[Any, ...]:
    if parameters is None:
        return ()
    codes = parameters.weight.codes
    shape = codes.shape + (1, 1) * (codes.ndim == 2)  # a linear layer is a 1x1 convolution
    bias = parameters.bias if len(parameters.bias) else np.zeros(len(codes), np.float32)
    return codes.reshape(shape), parameters.weight.channel_scales, bias
