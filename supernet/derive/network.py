"""The elastic network of a traced family: every layer that has stored numbers once, as large as any network
needs it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from hw_profiles.graph.layer import MATRIX, Layer
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
from supernet.layers.stored import Prefixed
from supernet.space.varying import constant

MATRICES = ("Gemm", "MatMul")
NORMS = ("LayerNormalization", "RMSNormalization")  # their weight begins as 1; a bias has its shape
MATRIX_STD = 0.02  # first weights of a matrix between tokens, whatever its size (Dosovitskiy et al. 2021)


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
        """Run images (n, c, h, w) or tokens (n, t): logits (n, ..., classes) of the subnet `arch`, or of a
        workload in fp32.

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
    """Return all sizes that each layer with a weight can have, by its name in the lowered workload."""
    sizes: dict[str, list[Layer]] = {}
    for layer in trace.layers:
        for spec in constant(layer.spec).values:
            work = lower(single(spec))
            for name, part in zip(work.names, work.layers, strict=True):
                if "weight" in part.values:
                    sizes.setdefault(layer.name + name.removeprefix(spec.kind), []).append(part)
    return sizes


def elastic_layer(specs: Sequence[Layer], eps: float = 1e-5) -> nn.Module:
    """Return a layer that can have any of these sizes: a convolution of maps with batch norm whose channels
    are prefixes and whose kernels are crops, a matrix, or any stored numbers of which prefixes count.
    """
    first, shape = specs[0], [max(sizes) for sizes in zip(*(s.stored_shape for s in specs), strict=True)]
    if first.kind in ("conv", "stem"):
        inputs = max(spec.in_shape[0] for spec in specs)
        return ElasticConvNorm(inputs, shape[0], shape[-1], depthwise=first.depthwise, eps=eps)
    bias = bias_shape(first)
    if first.op in MATRICES and len(shape) == MATRIX:
        outputs, inputs = shape
        return nn.Linear(inputs, outputs, bias=bias is not None)
    return Prefixed(shape, None if bias is None else shape[: len(bias)])


def bias_shape(spec: Layer) -> tuple[int, ...] | None:
    """Return the shape of the bias beside a weight; None without."""
    if "bias" not in spec.values or not spec.values.integer("bias"):
        return None
    return spec.stored_shape if spec.op in NORMS else spec.stored_shape[:1]


def initialise(net: ElasticNet, largest: Workload, *, rng: np.random.Generator) -> None:
    """Draw the first weights: He-normal for convolutions, small for linear layers, matrices and tables, 1 for
    norms; and each block with an identity beside it begins as that.
    """
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    for module in net.modules():
        if isinstance(module, ElasticConvNorm | ElasticConv):
            depthwise = isinstance(module, ElasticConvNorm) and module.depthwise
            fan_out = module.weight[0, 0].numel() * (1 if depthwise else len(module.weight))
            nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5, generator=generator)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for name, layer in zip(largest.names, largest.layers, strict=True):
        if "weight" in layer.values:
            _initialise_stored(net.layer(name), layer, generator)
    start_as_identities(net, largest)


def _initialise_stored(module: nn.Module, layer: Layer, generator: torch.Generator) -> None:
    if layer.op in NORMS:
        nn.init.ones_(module.get_parameter("weight"))
    elif layer.op == "MatMul":
        nn.init.normal_(module.get_parameter("weight"), std=MATRIX_STD, generator=generator)
    elif isinstance(module, Prefixed):
        fan_in = module.weight[0].numel() if layer.weighted else MATRIX_STD**-2
        nn.init.normal_(module.weight, std=fan_in**-0.5, generator=generator)


def start_as_identities(net: ElasticNet, largest: Workload) -> None:
    """Have each block that adds what it reads to what it gives begin as an identity."""
    for name in _ends_of_blocks(largest):
        layer = net.layer(name)
        last = layer.norm if isinstance(layer, ElasticConvNorm) else layer
        nn.init.zeros_(last.get_parameter("weight"))


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
        work,
        {name: static_layer(elastic.layer(name), spec) for name, spec in named if "weight" in spec.values},
    )


def static_layer(layer: nn.Module, spec: Layer) -> nn.Module:
    """Return a layer of fixed sizes with copies of what an elastic one computes with at these."""
    sized = sized_layer(layer, spec)
    outputs, inputs = len(sized.weight), int(spec.inputs[0].shape[1])
    static: nn.Linear | Prefixed | ConvNorm | PlainConv
    weight: Tensor
    bias: Tensor | None
    if isinstance(layer, nn.Linear):
        static = nn.Linear(sized.weight.shape[1], outputs, bias=sized.bias is not None)
        weight, bias = static.weight, static.bias
    elif isinstance(layer, Prefixed):
        static = Prefixed(sized.weight.shape, None if sized.bias is None else sized.bias.shape)
        weight, bias = static.weight, static.bias
    elif sized.norm is None:
        static = PlainConv(inputs, outputs, activation=spec.activation, bias=sized.bias is not None)
        weight, bias = static.conv.weight, static.conv.bias
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
