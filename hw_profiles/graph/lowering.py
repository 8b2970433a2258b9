"""From units to the layers that run: a whole block becomes its convolutions, its squeeze-and-excitation and
its sum.

Costs are looked up for units, since that is what tables hold; networks are trained, simulated, exported and
kept in memory layer by layer.
"""

from dataclasses import replace

from hw_profiles.graph.blocks import block_convolutions
from hw_profiles.graph.layer import FLOATS, INPUT, LayerSpec
from hw_profiles.graph.workload import Workload

# Curves that no integer kernel applies on the way out; clipping to the range of codes does the others.
CURVES = ("hswish", "hsigmoid")


def is_lowered(layer: LayerSpec) -> bool:
    """Whether a layer is left as it is."""
    return layer.op != "mbconv" and (layer.op == "act" or not _split(layer))


def lower(work: Workload) -> Workload:
    """The same network without any `mbconv`, and without a curve behind an integer convolution.

    Of a block called `b`, the convolutions are `b.expand`, `b.depthwise`, `b.reduce`, `b.excite` and
    `b.project`, where it has them; `b.pool` and `b.scale` are the ends of squeeze-and-excitation, and `b.add`
    is the residual sum. A curve that an integer convolution `c` cannot fuse becomes a layer of its own,
    `c.hswish` or `c.hsigmoid`. All else keeps its name. Lowering again changes nothing.

    >>> from hw_profiles.graph.workload import single
    >>> block = LayerSpec("mbconv", (16, 8, 8), 16, 3, activation="relu", expanded=64, residual=True)
    >>> lower(single(block)).names
    ('mbconv.expand', 'mbconv.depthwise', 'mbconv.project', 'mbconv.add')
    """
    if all(map(is_lowered, work.layers)):
        return work
    net = _Lowered()
    for name, layer, sources in zip(work.names, work.layers, work.inputs, strict=True):
        net.unit(name, layer, tuple(INPUT if source == INPUT else net.ends[source] for source in sources))
    return Workload(tuple(net.names), tuple(net.layers), tuple(net.inputs), work.in_format)


class _Lowered:
    """Layers under construction, and where each unit's output is among them."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.layers: list[LayerSpec] = []
        self.inputs: list[tuple[int, ...]] = []
        self.ends: list[int] = []

    def unit(self, name: str, layer: LayerSpec, sources: tuple[int, ...]) -> None:
        """Append all layers of one unit."""
        if layer.op == "mbconv":
            self.ends.append(self._block(name, layer, *sources))
        else:
            self.ends.append(self._layer(name, layer, *sources))

    def _block(self, name: str, block: LayerSpec, entry: int) -> int:
        """Expand, depthwise, squeeze-and-excitation, project, sum; gives where its output is."""
        x = entry
        for part, convolution in block_convolutions(block).items():
            if part == "reduce":
                x = self._squeezed(name, block, x)
            elif part != "excite":
                x = self._layer(f"{name}.{part}", convolution, x)
        if block.residual:
            add = LayerSpec("add", self.layers[x].out_shape, block.out_channels)
            x = self._layer(f"{name}.add", replace(add, activation_format=block.activation_format), x, entry)
        return x

    def _squeezed(self, name: str, block: LayerSpec, x: int) -> int:
        """Every channel scaled by a number that two convolutions make of all channels' means (Hu et al. 2018,
        arXiv:1709.01507).
        """
        parts, shape = block_convolutions(block), self.layers[x].out_shape
        pool = LayerSpec("pool", shape, shape[0], activation_format=block.activation_format)
        scale = self._layer(f"{name}.pool", pool, x)
        for part in ("reduce", "excite"):
            scale = self._layer(f"{name}.{part}", parts[part], scale)
        return self._layer(f"{name}.scale", replace(pool, op="mul"), x, scale)

    def _layer(self, name: str, layer: LayerSpec, *sources: int) -> int:
        if not _split(layer):
            return self._append(name, layer, sources)
        before = self._append(name, replace(layer, activation="none"), sources)
        shape, activation = layer.out_shape, layer.activation
        curve = LayerSpec("act", shape, shape[0], activation=activation)
        curve = replace(curve, activation_format=layer.activation_format)
        return self._append(f"{name}.{activation}", curve, (before,))

    def _append(self, name: str, layer: LayerSpec, sources: tuple[int, ...]) -> int:
        self.names.append(name)
        self.layers.append(layer)
        self.inputs.append(sources)
        return len(self.layers) - 1


def _split(layer: LayerSpec) -> bool:
    return layer.activation in CURVES and layer.activation_format not in FLOATS
