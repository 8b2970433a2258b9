"""Runs a workload, formats and all, on an elastic supernet or on an extracted subnet: fake-quantized training
and calibration see exactly the quantization points of the simulation and of the exported file.

The layers of a network are reached by name, their sizes come from the workload. So any policy of any
architecture runs on the one set of weights, with nothing copied and nothing remembered.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import singledispatch
from itertools import accumulate
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.formats import needs_scale
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.lowering import CURVES, lower
from hw_profiles.graph.workload import Workload
from supernet.graph.operations import TORCH, Constants, as_stored, computed, execute
from supernet.layers.activation import ACTIVATE
from supernet.layers.elastic import ConvNorm, ElasticConvNorm
from supernet.layers.plain import ElasticConv, PlainConv
from supernet.layers.stored import Prefixed

IMAGE = "image"  # key of the network's own input, where that is real numbers


class LayeredNet(Protocol):
    """A network whose weighted layers have the names of the lowered workload: elastic or extracted."""

    def layer(self, name: str) -> nn.Module: ...


def layered(net: nn.Module) -> LayeredNet:
    """Return `net` as a network whose layers are known by name.

    Raises:
        TrilobitError: it has no method `layer`.
    """
    if not callable(getattr(net, "layer", None)):
        raise TrilobitError(
            f"{type(net).__name__} cannot run quantized: it needs a method layer(name) that gives its "
            "elastic layers by the names of the lowered workload"
        )
    return cast("LayeredNet", net)


class Quantizers(Protocol):
    """What rounds weights, tensors and biases; real values in, real values out."""

    def weight(self, name: str, weight: Tensor, fmt: str) -> Tensor:
        """Return the weight (out, ...) of the layer `name` as `fmt` stores it."""
        ...

    def tensor(self, key: str, x: Tensor, fmt: str) -> Tensor:
        """Return the tensor of this key, see `tensor_keys`, as `fmt` stores it."""
        ...

    def bias(self, step: "Step", bias: Tensor, factor: Tensor) -> Tensor:
        """Return a folded bias (out,) as an integer layer adds it; `factor` (out,) is in the weight."""
        ...


class Unquantized:
    """Leaves all values as they are."""

    def weight(self, name: str, weight: Tensor, fmt: str) -> Tensor:
        return weight

    def tensor(self, key: str, x: Tensor, fmt: str) -> Tensor:
        return x

    def bias(self, step: "Step", bias: Tensor, factor: Tensor) -> Tensor:
        return bias


@dataclass(frozen=True)
class Step:
    """One weighted layer of a lowered workload.

    Attributes:
        name: of the layer.
        layer: its sizes and formats.
        source: key of the tensor that it reads; None where that is floating point.
    """

    name: str
    layer: Layer
    source: str | None


@dataclass(frozen=True)
class SizedLayer:
    """What a layer computes with at the sizes of a spec; views of its own parameters.

    Attributes:
        norm: a batch norm, of which the first output channels count; None without.
    """

    weight: Tensor
    bias: Tensor | None = None
    norm: nn.BatchNorm2d | None = None


# by layer: mean and variance of each channel before its norm
Statistics = Mapping[str, tuple[Tensor, Tensor]]
# of a weighted layer, its parameters (the weight rounded), what it reads -> what its activation gets
Compute = Callable[[Step, SizedLayer, Tensor], Tensor]


@singledispatch
def sized_layer(layer: nn.Module, spec: Layer) -> SizedLayer:
    """Return the parameters of `layer` at the sizes of `spec`; other kinds of layers register themselves."""
    raise TypeError(f"{type(layer).__name__} is not registered with supernet.graph.executor.sized_layer")


@sized_layer.register
def _(layer: ElasticConvNorm, spec: Layer) -> SizedLayer:
    weight = layer.sliced_weight(spec.in_shape[0], spec.out_channels, spec.kernel)
    return SizedLayer(weight, norm=layer.norm)


@sized_layer.register
def _(layer: ConvNorm, spec: Layer) -> SizedLayer:
    return SizedLayer(layer.conv.weight, norm=layer.norm)


@sized_layer.register
def _(layer: ElasticConv, spec: Layer) -> SizedLayer:
    bias = None if layer.bias is None else layer.bias[: spec.out_channels]
    return SizedLayer(layer.weight[: spec.out_channels, : spec.in_shape[0]], bias)


@sized_layer.register
def _(layer: PlainConv, spec: Layer) -> SizedLayer:
    return SizedLayer(layer.conv.weight, layer.conv.bias)


@sized_layer.register
def _(layer: nn.Linear, spec: Layer) -> SizedLayer:
    outputs, inputs = spec.stored_shape
    bias = None if layer.bias is None else layer.bias[:outputs]
    return SizedLayer(layer.weight[:outputs, :inputs], bias)


@sized_layer.register
def _(layer: Prefixed, spec: Layer) -> SizedLayer:
    return SizedLayer(*layer.sliced(spec.stored_shape))


def forward(
    net: LayeredNet,
    quantizers: Quantizers,
    workload: Workload,
    images: Tensor,
    *,
    statistics: Statistics | None = None,
) -> Tensor:
    """Return logits (n, ..., classes) of images (n, c, h, w) or tokens (n, t), by `workload` with the weights
    of `net`.

    Args:
        statistics: what batch norms normalise with, folded as on a device, biases rounded; None takes each
            batch's own, as in training.
    """
    compute = batch_normalised if statistics is None else folded(quantizers, statistics)
    return run(net, quantizers, workload, images, compute)[-1]


def run(
    net: LayeredNet, quantizers: Quantizers, workload: Workload, images: Tensor, compute: Compute
) -> list[Tensor]:
    """Return every tensor of the lowered workload, in order, as real values."""
    work = lower(workload)
    keys, first = tensor_keys(work), _first_tensors(work)

    def step(position: int, x: list[Tensor]) -> Sequence[Tensor]:
        name, layer, source = work.names[position], work.layers[position], work.inputs[position][:1]
        if layer.weighted:
            weighted = Step(name, layer, keys[source[0]] if source[0] >= 0 else None)
            sized = sized_layer(net.layer(name), layer)
            rounded = quantizers.weight(name, sized.weight, layer.weight_format)
            y = compute(weighted, replace(sized, weight=rounded), x[0])
            outputs: Sequence[Tensor] = (ACTIVATE[layer.activation](y),)
        elif "weight" in layer.values:
            sized = sized_layer(net.layer(name), layer)
            outputs = computed(layer, x, Constants(sized.weight, sized.bias))
        else:
            outputs = computed(layer, x)
        if layer.keeps_codes:
            return outputs
        own = keys[first[position] : first[position] + len(outputs)]
        return [
            y if key is None else quantizers.tensor(key, y, layer.out_format)
            for key, y in zip(own, outputs, strict=True)
        ]

    return execute(work, (images,), step)


def _first_tensors(work: Workload) -> list[int]:
    """Return the first tensor that each layer gives."""
    ends = list(accumulate(len(layer.outputs) for layer in work.layers))
    return [end - len(layer.outputs) for end, layer in zip(ends, work.layers, strict=True)]


def recalibrated(
    net: LayeredNet, quantizers: Quantizers, workload: Workload, batches: Iterable[Tensor]
) -> Statistics:
    """Return batch-norm statistics of this very policy: the mean over `batches` of inputs.

    They differ from policy to policy as they do from subnet to subnet.
    """
    moments: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def compute(step: Step, sized: SizedLayer, x: Tensor) -> Tensor:
        y, norm = _product(step.layer, x, sized.weight, sized.bias), sized.norm
        if norm is None:
            return y
        mean, variance = y.new_zeros(y.shape[1]), y.new_zeros(y.shape[1])
        moments.setdefault(step.name, []).append((mean, variance))
        return F.batch_norm(y, mean, variance, *_affine(norm, y), True, 1.0, norm.eps)

    with torch.no_grad():
        for images in batches:
            run(net, quantizers, workload, images, compute)
    return {
        name: (torch.stack([m for m, _ in layer]).mean(0), torch.stack([v for _, v in layer]).mean(0))
        for name, layer in moments.items()
    }


def batch_normalised(step: Step, sized: SizedLayer, x: Tensor) -> Tensor:
    """Compute a layer whose batch norm takes mean and variance of the batch itself."""
    y, norm = _product(step.layer, x, sized.weight, sized.bias), sized.norm
    return y if norm is None else F.batch_norm(y, None, None, *_affine(norm, y), True, 0.0, norm.eps)


def running_normalised(step: Step, sized: SizedLayer, x: Tensor) -> Tensor:
    """Compute a layer whose batch norm takes the first channels of its running mean and variance."""
    y, norm = _product(step.layer, x, sized.weight, sized.bias), sized.norm
    if norm is None:
        return y
    assert norm.running_mean is not None
    assert norm.running_var is not None
    running = norm.running_mean[: y.shape[1]], norm.running_var[: y.shape[1]]
    return F.batch_norm(y, *running, *_affine(norm, y), False, 0.0, norm.eps)


def folded(quantizers: Quantizers, statistics: Statistics) -> Compute:
    """Return how to compute layers with their batch norm folded into weight and bias, as on a device."""

    def compute(step: Step, sized: SizedLayer, x: Tensor) -> Tensor:
        factor, bias = folding(step.name, sized, statistics)
        weight = sized.weight * factor.view(-1, *(1,) * (sized.weight.ndim - 1))
        return _product(step.layer, x, weight, quantizers.bias(step, bias, factor))

    return compute


def folding(name: str, sized: SizedLayer, statistics: Statistics) -> tuple[Tensor, Tensor]:
    """Return (out,) what the batch norm of a layer multiplies each channel by, and what is added then."""
    norm, weight = sized.norm, sized.weight
    if norm is None:
        bias = weight.new_zeros(len(weight)) if sized.bias is None else sized.bias
        return weight.new_ones(len(weight)), bias
    mean, variance = statistics[name]
    factor = norm.weight[: len(weight)] / torch.sqrt(variance + norm.eps)
    return factor, norm.bias[: len(weight)] - mean * factor


def tensor_keys(work: Workload) -> tuple[str | None, ...]:
    """Return for each tensor of a lowered workload the name of what it is a rounding of; None where it is
    floating point.

    A tensor has one name in every policy: that of the layer which gives it, whether that layer rounds it
    itself or a conversion does, and `IMAGE` for the network's input. Behind a convolution that fuses its
    curve in fp32 it is the name of the layer that the curve is by itself when lowered.
    """
    return tuple(
        _key(work, producer) if needs_scale(x.format) else None
        for x, producer in zip(work.types, work.producers, strict=True)
    )


def _key(work: Workload, position: int) -> str:
    layer = work.layers[position]
    while layer.is_conversion or layer.keeps_codes:
        (source,) = work.inputs[position]
        if source < 0:
            return IMAGE
        position = work.producers[source]
        layer = work.layers[position]
    fused = layer.activation in CURVES
    return f"{work.names[position]}.{layer.activation}" if fused else work.names[position]


def _product(layer: Layer, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    (y,) = TORCH[layer.op](layer, [x], Constants(as_stored(layer, weight), bias))
    return y


def _affine(norm: nn.BatchNorm2d, y: Tensor) -> tuple[Tensor, Tensor]:
    return norm.weight[: y.shape[1]], norm.bias[: y.shape[1]]
