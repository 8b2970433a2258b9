"""The elastic network of a traced family: every weighted layer once, as large as any network needs it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from hw_profiles.graph.layer import Layer
from hw_profiles.graph.lowering import lower
from hw_profiles.graph.workload import Workload, single
from supernet.derive.trace import Trace
from supernet.graph.executor import (
    Unquantized,
    batch_normalised,
    layered,
    run,
    running_normalised,
    sized_layer,
)
from supernet.graph.subnet import Subnet
from supernet.layers.elastic import ConvNorm, ElasticConvNorm
from supernet.layers.plain import ElasticConv, PlainConv
from supernet.space.varying import constant


class Runnable(Protocol):
    """What an elastic network must know of a subnet to run as it."""

    @property
    def lowered(self) -> Workload: ...


class ElasticNet(nn.Module):
    """Runs any network of a family on one set of weights.

    Args:
        layers: elastic layers by their names in the lowered workload, in order.
        path: from such a name to where the layer is among the modules.
    """

    def __init__(self, layers: Mapping[str, nn.Module], path: Callable[[str], str] = str) -> None:
        super().__init__()
        self._paths = {name: path(name) for name in layers}
        for name, layer in layers.items():
            _place(self, self._paths[name].split("."), layer)

    @property
    def ends(self) -> tuple[str, str]:
        """Paths of the layer that reads the image and of the one that gives the logits."""
        paths = [*self._paths.values()]
        return paths[0], paths[-1]

    def layer(self, name: str) -> nn.Module:
        """Return the elastic layer that the lowered workload calls `name`."""
        return self.get_submodule(self._paths[name])

    def forward(self, x: Tensor, arch: Runnable | Workload) -> Tensor:
        """Run images (n, c, h, w): logits (n, classes) of the subnet `arch`, or of a workload in fp32.

        In training mode batch statistics normalise, and the running ones are left alone: they would mix all
        subnets' statistics; evaluation recalibrates them on the extracted subnet (Yu & Huang 2019,
        arXiv:1903.05134, section 3).
        """
        compute = batch_normalised if self.training else running_normalised
        work = arch if isinstance(arch, Workload) else arch.lowered
        return run(self, Unquantized(), work, x, compute)[-1]


def _place(parent: nn.Module, path: Sequence[str], layer: nn.Module) -> None:
    """Register a layer by its path, with empty modules on the way."""
    for part in path[:-1]:
        if part not in parent._modules:
            parent.add_module(part, nn.Module())
        parent = parent.get_submodule(part)
    parent.add_module(path[-1], layer)


def layer_sizes(trace: Trace) -> dict[str, list[Layer]]:
    """Return all sizes that each weighted layer can have, by its name in the lowered workload."""
    sizes: dict[str, list[Layer]] = {}
    for layer in trace.layers:
        for spec in constant(layer.spec).values:
            work = lower(single(spec))
            for name, part in zip(work.names, work.layers, strict=True):
                if part.weighted:
                    sizes.setdefault(layer.name + name.removeprefix(spec.kind), []).append(part)
    return sizes


def elastic_layer(specs: Sequence[Layer], eps: float = 1e-5) -> nn.Module:
    """Return a layer that can have any of these sizes: a convolution with batch norm whose channels are
    prefixes and whose kernels are crops, or a linear layer.
    """
    inputs, outputs = max(spec.in_shape[0] for spec in specs), max(spec.out_channels for spec in specs)
    first = specs[0]
    if first.kind == "linear":
        return nn.Linear(inputs, outputs)
    kernel = max(spec.kernel for spec in specs)
    return ElasticConvNorm(inputs, outputs, kernel, depthwise=first.depthwise, eps=eps)


def initialise(net: ElasticNet, largest: Workload, *, rng: np.random.Generator) -> None:
    """Draw the first weights: He-normal for convolutions, small for linear layers; and each block with an
    identity beside it begins as that.
    """
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    for module in net.modules():
        if isinstance(module, ElasticConvNorm | ElasticConv):
            depthwise = isinstance(module, ElasticConvNorm) and module.depthwise
            fan_out = module.weight[0, 0].numel() * (1 if depthwise else len(module.weight))
            nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5, generator=generator)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01, generator=generator)
            nn.init.zeros_(module.bias)
    start_as_identities(net, largest)


def start_as_identities(net: ElasticNet, largest: Workload) -> None:
    """Have each block that adds what it reads to what it gives begin as an identity."""
    for name in _ends_of_blocks(largest):
        norm = net.layer(name).norm
        assert isinstance(norm, nn.BatchNorm2d)
        nn.init.zeros_(norm.weight)


def _ends_of_blocks(work: Workload) -> Iterator[str]:
    """Yield the layers after which a tensor is added that other layers read too: the last ones of blocks."""
    for position, (layer, sources) in enumerate(zip(work.layers, work.inputs, strict=True)):
        if layer.is_add:
            branch, shortcut = sources
            shared = sum(shortcut in read for read in work.inputs) > 1 and shortcut not in work.inputs[branch]
            if shared and work.layers[branch].weighted and position:
                yield work.names[branch]


def extract(net: nn.Module, workload: Workload) -> Subnet:
    """Return a network by itself, in fp32, with copies of the weights and statistics that `net` runs with."""
    elastic, work = layered(net), lower(workload)
    named = zip(work.names, work.layers, strict=True)
    return Subnet(
        work, {name: static_layer(elastic.layer(name), spec) for name, spec in named if spec.weighted}
    )


def static_layer(layer: nn.Module, spec: Layer) -> nn.Module:
    """Return a layer of fixed sizes with copies of what an elastic one computes with at these."""
    sized, (inputs, outputs) = sized_layer(layer, spec), (spec.in_shape[0], spec.out_channels)
    static: nn.Linear | ConvNorm | PlainConv
    if spec.kind == "linear":
        static = nn.Linear(inputs, outputs)
        weight, bias = static.weight, static.bias
    elif sized.norm is None:
        static = PlainConv(inputs, outputs, activation=spec.activation, bias=sized.bias is not None)
        weight, bias = static.conv.weight, static.conv.bias  # type: ignore[assignment]
    else:
        static = ConvNorm(
            inputs,
            outputs,
            spec.kernel,
            stride=spec.stride,
            groups=spec.groups,
            activation=spec.activation,
            eps=sized.norm.eps,
        )
        weight, bias = static.conv.weight, None
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(static.norm, name).data.copy_(getattr(sized.norm, name)[:outputs])
    with torch.no_grad():
        weight.copy_(sized.weight)
        if bias is not None and sized.bias is not None:
            bias.copy_(sized.bias)
    return static
