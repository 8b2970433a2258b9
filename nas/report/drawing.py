"""A network as columns to draw: one per layer, grouped by block."""

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hw_profiles.documents import MismatchError, parse
from hw_profiles.graph.consumer import Consumer
from hw_profiles.graph.counts import macs
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.ops import OPS
from nas.report.run_files import Network
from nas.report.units import TIMES

_SIGNS = {"Add": "+", "GlobalAveragePool": "avg", "Gemm": "fc", "QuantizeLinear": "", "DequantizeLinear": ""}


@dataclass(frozen=True)
class Column:
    """One layer.

    Attributes:
        kind: `layer` (has weights), `plain` (has none) or `conversion`.
        height: output channels as a share of the widest layer drawn, 0..1.
        channels: of the output.
        label: the kernel, for example 5x5; a sign for layers without one.
        number_format: what it computes in.
        title: the layer in words.
    """

    kind: str
    height: float
    channels: int
    label: str
    number_format: str
    title: str


@dataclass(frozen=True)
class Block:
    """Columns that belong together under one name, for example `s1.b0`."""

    name: str
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class _Chosen:
    """One block of an architecture: its kernel and, in channels or as a factor, how far it expands."""

    kernel: int
    expanded: int | None = None
    expand: int | None = None

    @property
    def text(self) -> str:
        """Short for both."""
        size = self.expanded or self.expand
        return f"k{self.kernel}" + (f"·{size}" if size else "")


def blocks(network: Network, *, widest: int) -> tuple[Block, ...]:
    """Return the layers by block; `widest` is the channel count that is drawn full height."""
    named = zip(_block_names(network), network.layers, strict=True)
    return tuple(
        Block(block, tuple(_column(name, layer, widest) for _, (name, layer) in group))
        for block, group in itertools.groupby(named, key=lambda pair: pair[0])
    )


def widest_of(networks: Sequence[Network]) -> int:
    """Return most output channels of any layer."""
    return max((channels(layer) for network in networks for _, layer in network.layers), default=1)


def summary(network: Network) -> str:
    """Return input size, work, formats and conversions in one line."""
    layers = [layer for _, layer in network.layers]
    conversions = sum(layer.is_conversion for layer in layers)
    parts = [f"{read} input"] if (read := read_by(network)) else []
    parts.append(f"{sum(macs(layer) for layer in layers) / 1e6:.2f} MMACs")
    parts.append(format_shares(network))
    parts.append(f"{conversions} format conversion{'' if conversions == 1 else 's'}")
    return " · ".join(parts)


def read_by(network: Network) -> str:
    """Return how large what it reads is; empty where that is not known."""
    for size, unit in (("resolution", "px"), ("length", "tokens")):
        if size in network.arch:
            return f"{network.arch[size]} {unit}"
    return ""


def format_shares(network: Network) -> str:
    """Return the share of the layers with a searched format that are in each format but fp32."""
    formats = Counter(network.policy.values())
    total = formats.total()
    low = [f"{100 * count / total:.0f} % {name}" for name, count in sorted(formats.items()) if name != "fp32"]
    return (", ".join(low) + " layers") if low else "all layers fp32"


def short_arch(network: Network) -> str:
    """Return kernel and expansion of every block, stages apart by bars; empty for families without such.

    >>> network = Network("a", {"stages": [[{"kernel": 3, "expanded": 16}], [{"kernel": 5, "expanded": 32}]]},
    ...                   {}, (), {}, {})
    >>> short_arch(network)
    'k3·16 | k5·32'
    """
    try:
        stages = parse(tuple[tuple[_Chosen, ...], ...], network.arch.get("stages", []))
    except MismatchError:
        return ""
    return " | ".join(", ".join(block.text for block in stage) for stage in stages)


def layer_kind(layer: Layer) -> str:
    """Return what kind of work a layer is: the groups of the device view."""
    if layer.op == "InvertedResidual":
        return f"block {_window(layer)}"
    if layer.op != "Conv":
        return "add" if layer.is_add else layer.kind
    if layer.depthwise:
        return f"depthwise {_window(layer)}"
    return "stem" if layer.kind == "stem" else _window(layer)


def square(side: int) -> str:
    """Return a kernel by its side."""
    return f"{side}{TIMES}{side}"


def layer_format(layer: Layer) -> str:
    """Return the number format that a layer computes in."""
    return layer.weight_format if layer.weight_format != "fp32" else layer.activation_format


def _block_names(network: Network) -> list[str]:
    """Return the block of each layer; a conversion belongs to the layer that reads it."""
    names: list[str] = []
    block = ""
    for name, layer in reversed(network.layers):
        if not layer.is_conversion or not block:
            block = name.rpartition(".")[0] or name
        names.append(block)
    return names[::-1]


def _column(name: str, layer: Layer, widest: int) -> Column:
    has_weights = layer.weighted or layer.op == "InvertedResidual"
    kind = "layer" if has_weights else "conversion" if layer.is_conversion else "plain"
    number_format = layer_format(layer)
    what = f"to {number_format}" if layer.op == "QuantizeLinear" else number_format
    title = f"{name}: {layer_kind(layer)}, {what}, gives {_extent(layer)}"
    width = channels(layer)
    return Column(kind, width / widest, width, LABELS[layer.op](layer), number_format, title)


def channels(layer: Layer) -> int:
    """Return the channels of maps, or the features of rows, that a layer gives; 0 where they are open."""
    shape = layer.outputs[0].shape
    size = shape[1] if len(shape) in (2, 4) else shape[-1] if shape else 1
    return size if isinstance(size, int) else 0


def _extent(layer: Layer) -> str:
    _, *shape = layer.outputs[0].shape or (1,)
    if len(shape) == 3:
        return f"{shape[0]} channels of {shape[1]}{TIMES}{shape[2]}"
    return f"{shape[0]} features" if len(shape) == 1 else TIMES.join(map(str, shape))


def _window(layer: Layer) -> str:
    if layer.op == "InvertedResidual":
        return square(layer.kernel)
    kernel = layer.values.integers("weight")[2:]
    return TIMES.join(map(str, kernel))


LABELS: Consumer[Callable[[Layer], str]] = Consumer(
    "drawing",
    {
        **{op: lambda layer: _SIGNS.get(layer.op, layer.kind) for op in OPS},
        "Conv": _window,
        "InvertedResidual": _window,
    },
    otherwise="it has no label",
)
