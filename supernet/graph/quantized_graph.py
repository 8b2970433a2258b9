"""`QuantizedGraph`: a workload with the numbers in it, ready to be simulated or exported: the noun between
training and export.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hw_profiles.graph.formats import QuantParams, accumulator_codes, is_integer
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.lowering import is_lowered
from hw_profiles.graph.workload import Workload
from supernet.formats.loading import tensor_needs_scale
from supernet.formats.quantized_tensor import QuantizedTensor

CACHE_CODES = 127
SMALLEST_REACH = 1e-6  # of what is kept: a scale is above 0


@dataclass(frozen=True, eq=False)
class Parameters:
    """Weights of one layer, batch norm folded, as they are stored.

    Attributes:
        weight: in the layer's `stored_shape`, (out, in / groups, k, k) of a convolution and (out, in) of a
            linear layer or a matrix product, in the layer's weight format.
        bias: (out,) float32 real values; empty without.
    """

    weight: QuantizedTensor
    bias: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class QuantizedGraph:
    """A lowered workload, the parameters of its weighted layers, and the quantization of its integer tensors.

    Attributes:
        parameters: by layer name, for every layer with a weight.
        tensors: by layer name, for every layer whose output is an integer tensor; by `cache_names`, of the
            keys and values that an attention keeps as codes.
    """

    workload: Workload
    parameters: Mapping[str, Parameters]
    tensors: Mapping[str, QuantParams]

    def __post_init__(self) -> None:
        for name, layer in zip(self.workload.names, self.workload.layers, strict=True):
            if not is_lowered(layer):
                raise ValueError(f"{name} is a unit, not a layer that runs; lower the workload")
            if "weight" in layer.values and name not in self.parameters:
                raise ValueError(f"{name} has no parameters")
            if tensor_needs_scale(layer.out_format) and name not in self.tensors:
                raise ValueError(f"{name} gives {layer.out_format}, but its quantization is not known")
            if keeps_codes(layer) and not self.tensors.keys() >= {*cache_names(name)}:
                raise ValueError(f"{name} keeps codes, but their quantization is not known")

    def input_params(self, position: int) -> tuple[QuantParams | None, ...]:
        """Return the quantization of what a layer reads, by the layer's position; None where they are
        floating point.
        """
        work = self.workload
        producers = (work.producers[i] if i >= 0 else None for i in work.inputs[position])
        return tuple(None if i is None else self.tensors.get(work.names[i]) for i in producers)


def keeps_codes(layer: Layer) -> bool:
    """Return whether a layer is attention whose keys and values are kept as codes, with a stored scale."""
    return layer.op == "Attention" and is_integer(layer.values.text("cache"))


def cache_names(layer: str) -> tuple[str, str]:
    """Return the names of the keys and values that the attention called `layer` keeps."""
    return f"{layer}.1", f"{layer}.2"


def cache_params(reach: float) -> QuantParams:
    """Return how values up to a magnitude are kept in a cache as codes of 8 bits: -127 to 127, zero exact."""
    return QuantParams(max(reach, SMALLEST_REACH) / CACHE_CODES, 0, CACHE_CODES)


def bias_codes(parameters: Parameters, input_scale: float) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return the bias as int32 codes at scale s_x * s_w, and that scale (out,).

    It is what an integer kernel adds to its accumulator.
    """
    scale = (np.float32(input_scale) * parameters.weight.channel_scales).astype(np.float32)
    return accumulator_codes(parameters.bias, scale), scale
