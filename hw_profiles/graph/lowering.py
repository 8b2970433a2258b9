"""From units to the layers that run: a whole block becomes its convolutions, its squeeze-and-excitation and
its sum.

Costs are looked up for units, since that is what tables hold; networks are trained, simulated, exported and
kept in memory layer by layer.
"""

from collections.abc import Callable
from dataclasses import replace

from hw_profiles.graph.blocks import block_convolutions
from hw_profiles.graph.consumer import Consumer
from hw_profiles.graph.formats import needs_scale
from hw_profiles.graph.key import FUSED
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.ops import OPS
from hw_profiles.graph.tensor_type import TensorType
from hw_profiles.graph.workload import Workload

# Curves that no integer kernel applies on the way out; clipping to the range of codes does the others.
CURVES = ("hswish", "hsigmoid")


def is_lowered(layer: Layer) -> bool:
    """Return whether a layer is left as it is."""
    return layer.op != "InvertedResidual" and not _split(layer)


def lower(work: Workload) -> Workload:
    """Return the same network without any whole block, and without a curve behind an integer convolution.

    Of a block called `b`, the convolutions are `b.expand`, `b.depthwise`, `b.reduce`, `b.excite` and
    `b.project`, where it has them; `b.pool` and `b.scale` are the ends of squeeze-and-excitation, and `b.add`
    is the residual sum. A curve that an integer convolution `c` cannot fuse becomes a layer of its own,
    `c.hswish` or `c.hsigmoid`. All else keeps its name. Lowering again changes nothing.

    >>> from hw_profiles.graph.layer import map_layer
    >>> from hw_profiles.graph.workload import single
    >>> block = map_layer("mbconv", (16, 8, 8), 16, 3, activation="relu", expanded=64, residual=True)
    >>> lower(single(block)).names
    ('mbconv.expand', 'mbconv.depthwise', 'mbconv.project', 'mbconv.add')
    """
    if all(map(is_lowered, work.layers)):
        return work
    net = _Lowered()
    for name, layer, sources in zip(work.names, work.layers, work.inputs, strict=True):
        net.unit(name, layer, tuple(map(net.now, sources)))
    layers, outputs = tuple(net.layers), tuple(map(net.now, work.outputs))
    return Workload(tuple(net.names), layers, tuple(net.inputs), work.in_format, work.feeds, outputs)


class _Lowered:
    """Layers under construction, and which of their tensors each tensor of the units is."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.layers: list[Layer] = []
        self.inputs: list[tuple[int, ...]] = []
        self._tensors = 0
        self._now: list[int] = []

    def now(self, tensor: int) -> int:
        """Return the tensor that one of the units has become."""
        return tensor if tensor < 0 else self._now[tensor]

    def unit(self, name: str, layer: Layer, sources: tuple[int, ...]) -> None:
        """Append all layers of one unit."""
        first = LOWERING[layer.op](self, name, layer, *sources)
        self._now += range(first, first + len(layer.outputs))

    def block(self, name: str, block: Layer, block_input: int) -> int:
        """Append expand, depthwise, squeeze-and-excitation, project, sum; return the output."""
        x = block_input
        for part, convolution in block_convolutions(block).items():
            if part == "reduce":
                x = self._squeezed(name, block, x)
            elif part != "excite":
                x = self.layer(f"{name}.{part}", convolution, x)
        if block.residual:
            total = self.layers[-1].outputs[0]
            x = self.layer(f"{name}.add", Layer.of("Add", total, total), x, block_input)
        return x

    def _squeezed(self, name: str, block: Layer, x: int) -> int:
        """Scale every channel by a number that two convolutions make of all channels' means (Hu et al. 2018,
        arXiv:1709.01507).
        """
        parts, maps = block_convolutions(block), self.layers[-1].outputs[0]
        scale = self.layer(f"{name}.pool", Layer.of("GlobalAveragePool", maps), x)
        for part in ("reduce", "excite"):
            scale = self.layer(f"{name}.{part}", parts[part], scale)
        return self.layer(f"{name}.scale", Layer.of("Mul", maps, self.layers[-1].outputs[0]), x, scale)

    def layer(self, name: str, layer: Layer, *sources: int) -> int:
        """Append a layer, and a curve that it cannot fuse; return the first tensor that it gives."""
        if not _split(layer):
            return self._append(name, layer, sources)
        linear = self._append(name, replace(layer, activation="none"), sources)
        return self._append(
            f"{name}.{layer.activation}", curve(layer.activation, layer.outputs[0]), (linear,)
        )

    def _append(self, name: str, layer: Layer, sources: tuple[int, ...]) -> int:
        self.names.append(name)
        self.layers.append(layer)
        self.inputs.append(sources)
        self._tensors += len(layer.outputs)
        return self._tensors - len(layer.outputs)


LOWERING: Consumer[Callable[..., int]] = Consumer(
    "lowering",
    {op: _Lowered.block if op == "InvertedResidual" else _Lowered.layer for op in OPS},
    otherwise="it is not known how it is made of layers",
)


def curve(activation: str, x: TensorType) -> Layer:
    """Return an activation that could be fused as a layer by itself."""
    op, attributes = FUSED[activation]
    return Layer(op, (x,), tuple(attributes.items()))


def _split(layer: Layer) -> bool:
    return layer.activation in CURVES and needs_scale(layer.activation_format)
