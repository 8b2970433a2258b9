"""Frozen descriptions of what runs on a device: `LayerSpec` (one fused unit) and `Workload` (a graph of
them).

A tensor has one format. Where two neighbours disagree, the change is a layer of its own (`quantize`,
`dequantize`), because on real devices it costs real time: 1 to 36 us where a whole block takes 10 to 60 us.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from hw_profiles.errors import TrilobitError

FP32 = "fp32"
FLOATS = (FP32, "fp16")  # formats whose tensors need no scale
INPUT = -1  # as an input index: the network's own input

OPS = (
    *("stem", "conv", "linear", "add", "add_converted", "pool", "quantize", "dequantize", "mbconv"),
    *("mul", "act"),
    *("maxpool", "avgpool"),
)
ACTIVATIONS = ("none", "relu", "relu6", "hswish", "hsigmoid")


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One fused unit, for example convolution + bias + activation.

    Attributes:
        op: one of `OPS`. `stem` is a convolution that reads the image, `pool` global average pooling;
            `linear` reads a
            `(channels, 1, 1)` tensor and always gives fp32; `add_converted` is an `add` whose shortcut went
            through a format
            conversion: engines that fuse sums into convolutions cannot fuse that one. `mbconv` is a whole
            inverted-residual block, the unit of published tables that measured blocks; `kernel` and `stride`
            are those of its depthwise convolution. `mul` scales every channel of its first input by what its
            second has for it, and `act` is an activation by itself, behind an integer convolution that
            cannot fuse it; both only occur in what `hw_profiles.graph.lowering` makes of a network.
            `maxpool` takes
            the largest of each window, padded as a convolution; `avgpool` the mean of each window of
            `stride`, which is also its `kernel`, or of what of it is inside the map.
        in_shape: (channels, height, width) of the input; of one of the two equal inputs for a sum, of the
            first for a product.
        out_channels: channels of the output.
        kernel, stride, groups: of a convolution, padded with `kernel // 2` on every side, or of a pooling
            window; `groups` is 1 or `in_channels`.
        activation: one of `ACTIVATIONS`, fused into the unit; in a `mbconv` after its first and its depthwise
            convolution.
        weight_format: number format of the stored weights; `fp32` where there are none.
        activation_format: number format the unit computes in. For `quantize` the format it produces, for
            `dequantize` the one
            it reads.
        expanded: channels between the pointwise convolutions of a `mbconv`; 0 for every other op.
        squeeze: whether a `mbconv` has squeeze-and-excitation.
        residual: whether a `mbconv` adds its input to its output.
    """

    op: str
    in_shape: tuple[int, int, int]
    out_channels: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    activation: str = "none"
    weight_format: str = FP32
    activation_format: str = FP32
    expanded: int = 0
    squeeze: bool = False
    residual: bool = False

    def __post_init__(self) -> None:
        if self.op not in OPS:
            raise TrilobitError(f"unknown op {self.op!r}; known: {', '.join(OPS)}")
        if min(*self.in_shape, self.out_channels, self.kernel, self.stride, self.groups) < 1:
            raise TrilobitError(f"sizes must be at least 1: {self.key()}")
        if (self.op == "mbconv") != (self.expanded > 0):
            raise TrilobitError(f"an mbconv, and only that, has expanded channels: {self.key()}")
        if self.activation not in ACTIVATIONS:
            raise TrilobitError(f"unknown activation {self.activation!r}; known: {', '.join(ACTIVATIONS)}")

    @property
    def in_shapes(self) -> tuple[tuple[int, int, int], ...]:
        """(channels, height, width) of each tensor that it reads."""
        if self.op == "mul":
            return (self.in_shape, (self.in_shape[0], 1, 1))
        return (self.in_shape,) * (2 if self.is_add else 1)

    @property
    def out_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the output."""
        if self.op in ("pool", "linear"):
            return (self.out_channels, 1, 1)
        _, height, width = self.in_shape
        return (self.out_channels, math.ceil(height / self.stride), math.ceil(width / self.stride))

    @property
    def in_format(self) -> str:
        """Number format of the input tensor."""
        return FP32 if self.op == "quantize" else self.activation_format

    @property
    def out_format(self) -> str:
        """Number format of the output tensor."""
        return FP32 if self.op in ("dequantize", "linear") else self.activation_format

    @property
    def depthwise(self) -> bool:
        """One filter per channel."""
        return self.groups == self.in_shape[0] > 1

    @property
    def is_add(self) -> bool:
        """Whether it is a residual sum: two equal inputs, the branch first."""
        return self.op in ("add", "add_converted")

    @property
    def keeps_codes(self) -> bool:
        """Whether it only chooses among the values that it reads, so that integers need no new scale."""
        return self.op == "maxpool"

    @property
    def weighted(self) -> bool:
        """Whether it has weights: a convolution or a linear layer."""
        return self.op in ("stem", "conv", "linear")

    def key(self) -> str:
        """A readable identity that never changes within profile schema 1.

        >>> LayerSpec("conv", (8, 16, 16), 24, activation="relu").key()
        'conv 8x16x16>24 k1s1g1 relu w=fp32 a=fp32'
        """
        shape = "x".join(map(str, self.in_shape))
        block = f" e{self.expanded}{'+se' * self.squeeze}{'+id' * self.residual}" if self.expanded else ""
        return (
            f"{self.op} {shape}>{self.out_channels} "
            f"k{self.kernel}s{self.stride}g{self.groups} {self.activation} "
            f"w={self.weight_format} a={self.activation_format}{block}"
        )


def parse_key(key: str) -> LayerSpec:
    """The inverse of `LayerSpec.key`.

    Raises:
        TrilobitError: `key` was not written by `LayerSpec.key`.
    """
    try:
        op, shapes, geometry, activation, weight, act, *block = key.split(" ")
        expanded, *extras = block[0][1:].split("+") if block else ("0",)
        in_shape, out_channels = shapes.split(">")
        channels, height, width = map(int, in_shape.split("x"))
        kernel, rest = geometry[1:].split("s")
        stride, groups = rest.split("g")
        spec = LayerSpec(
            op,
            (channels, height, width),
            int(out_channels),
            int(kernel),
            int(stride),
            int(groups),
            activation,
            weight.removeprefix("w="),
            act.removeprefix("a="),
            int(expanded),
            "se" in extras,
            "id" in extras,
        )
    except ValueError:
        spec = None
    if spec is None or spec.key() != key:
        raise TrilobitError(f"not a layer key of profile schema 1: {key!r}")
    return spec


@dataclass(frozen=True)
class Workload:
    """Layers in topological order with the tensors they read. The last layer's output is the network's.

    Attributes:
        names: one unique name per layer, for example `s1.b0.expand`.
        layers: one spec per layer.
        inputs: for each layer the indices of the layers it reads; `INPUT` is the network's input.
        in_format: number format of the network's input: fp32, but for an integer layer taken by itself.

    Raises:
        ValueError: two neighbours disagree about the shape or the format of the tensor between them.
    """

    names: tuple[str, ...]
    layers: tuple[LayerSpec, ...]
    inputs: tuple[tuple[int, ...], ...]
    in_format: str = FP32

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.layers) == len(self.inputs) == len(set(self.names)):
            raise ValueError("names (unique), layers and inputs must be equally many")
        for position, (name, layer, sources) in enumerate(
            zip(self.names, self.layers, self.inputs, strict=True)
        ):
            if len(sources) != len(layer.in_shapes):
                raise ValueError(f"{name} reads {len(layer.in_shapes)} tensors, but {len(sources)} are given")
            for source, shape in zip(sources, layer.in_shapes, strict=True):
                if not INPUT <= source < position:
                    raise ValueError(f"{name} reads layer {source}, which does not come before it")
                producer = self.layers[source] if source != INPUT else None
                image = (self.in_shape, self.in_format)
                found = (producer.out_shape, producer.out_format) if producer else image
                if found != (shape, layer.in_format):
                    raise ValueError(f"{name} reads {(shape, layer.in_format)}, but its input is {found}")

    @cached_property
    def _hash(self) -> int:
        return hash((self.names, self.layers, self.inputs, self.in_format))

    def __hash__(self) -> int:
        return self._hash  # computed once: tables look up the same parts millions of times

    @property
    def in_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the network's input."""
        return self.layers[0].in_shape


def single(layer: LayerSpec) -> Workload:
    """One layer as a workload by itself; both inputs of a sum are the network's."""
    return Workload((layer.op,), (layer,), ((INPUT,) * len(layer.in_shapes),), layer.in_format)


class WorkloadBuilder:
    """Grows a `Workload` layer by layer and inserts the format conversions.

    A tensor is quantized once for all that read it in one format, but dequantized for each: that is how
    engines that fuse DequantizeLinear -> op -> QuantizeLinear groups run it, whatever the graph says. From
    one integer format to another it goes through fp32.
    """

    def __init__(self, in_shape: tuple[int, int, int], in_format: str = FP32) -> None:
        self._in_shape, self._in_format = in_shape, in_format
        self._names: list[str] = []
        self._layers: list[LayerSpec] = []
        self._inputs: list[tuple[int, ...]] = []
        self._quantized: dict[tuple[int, str], int] = {}

    def shape(self, tensor: int) -> tuple[int, int, int]:
        """Shape of a tensor, named by the index of the layer that gives it."""
        return self._in_shape if tensor == INPUT else self._layers[tensor].out_shape

    def format(self, tensor: int) -> str:
        """Number format of a tensor."""
        return self._in_format if tensor == INPUT else self._layers[tensor].out_format

    def add(self, name: str, layer: LayerSpec, *tensors: int) -> int:
        """Append `layer` reading `tensors`, converted to the layer's format where they have another; gives
        its index.
        """
        sources = tuple(self._as_format(tensor, layer.in_format) for tensor in tensors)
        return self._append(name, layer, sources)

    def build(self) -> Workload:
        """The finished workload."""
        return Workload(tuple(self._names), tuple(self._layers), tuple(self._inputs), self._in_format)

    def _append(self, name: str, layer: LayerSpec, sources: tuple[int, ...]) -> int:
        self._names.append(name)
        self._layers.append(layer)
        self._inputs.append(sources)
        return len(self._layers) - 1

    def _as_format(self, tensor: int, wanted: str) -> int:
        found = self.format(tensor)
        if found == wanted:
            return tensor
        if (tensor, wanted) in self._quantized:
            return self._quantized[tensor, wanted]
        origin, result = "input" if tensor == INPUT else self._names[tensor], tensor
        for layer in conversion(self.shape(tensor), found, wanted):
            name = f"{origin}.{layer.op}"
            unique = f"{name}.{len(self._names)}" if name in self._names else name
            result = self._append(unique, layer, (result,))
        if wanted != FP32:
            self._quantized[tensor, wanted] = result
        return result


def conversion(shape: tuple[int, int, int], found: str, wanted: str) -> tuple[LayerSpec, ...]:
    """The boundary layers that turn a tensor of format `found` into `wanted`: none, one, or two where neither
    is fp32, since every change goes through fp32.

    >>> [layer.op for layer in conversion((8, 4, 4), "int8", "int4")]
    ['dequantize', 'quantize']
    """
    if found == wanted:
        return ()
    steps = [("dequantize", found)] * (found != FP32) + [("quantize", wanted)] * (wanted != FP32)
    return tuple(LayerSpec(op, shape, shape[0], activation_format=fmt) for op, fmt in steps)


def conversions(shape: tuple[int, int, int], found: str, wanted: Iterable[str]) -> tuple[LayerSpec, ...]:
    """The boundary layers between a tensor of format `found` and readers that want `wanted`, as
    `WorkloadBuilder` sets them: it is quantized once for each format, but dequantized for each reader.

    >>> [layer.op for layer in conversions((8, 4, 4), "fp32", ("int8", "int8"))]
    ['quantize']
    """
    formats = list(wanted)
    once = [fmt for i, fmt in enumerate(formats) if fmt == FP32 or fmt not in formats[:i]]
    return tuple(layer for fmt in once for layer in conversion(shape, found, fmt))


def _conv_macs(layer: LayerSpec) -> int:
    channels, height, width = layer.out_shape
    return channels * height * width * layer.kernel**2 * layer.in_shape[0] // layer.groups


def divisible(value: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `value`, at most 10 % below it (MobileNet's rule)."""
    nearest = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * value else nearest


def block_convolutions(block: LayerSpec) -> dict[str, LayerSpec]:
    """The convolutions of a `mbconv` by name, in order: `expand`, `depthwise`, `reduce` and `excite` of
    squeeze-and-excitation, `project`; each in the block's formats.

    There is no expanding convolution where it would not add channels, and the squeeze leaves a quarter of the
    expanded ones: once-for-all's MobileNetV3 (Cai et al. 2020, arXiv:1908.09791).
    """
    middle, activation = block.expanded, block.activation
    formats = (block.weight_format, block.activation_format)
    parts = {}
    if middle != block.in_shape[0]:
        parts["expand"] = LayerSpec("conv", block.in_shape, middle, 1, 1, 1, activation, *formats)
    shape = (middle, *block.in_shape[1:])
    depthwise = LayerSpec("conv", shape, middle, block.kernel, block.stride, middle, activation, *formats)
    parts["depthwise"] = depthwise
    if block.squeeze:
        squeezed = divisible(middle / 4)
        parts["reduce"] = LayerSpec("conv", (middle, 1, 1), squeezed, 1, 1, 1, "relu", *formats)
        parts["excite"] = LayerSpec("conv", (squeezed, 1, 1), middle, 1, 1, 1, "hsigmoid", *formats)
    parts["project"] = LayerSpec("conv", depthwise.out_shape, block.out_channels, 1, 1, 1, "none", *formats)
    return parts


_MACS: Mapping[str, Callable[[LayerSpec], int]] = {
    "stem": _conv_macs,
    "conv": _conv_macs,
    "linear": lambda layer: layer.in_shape[0] * layer.out_channels,
    "mbconv": lambda layer: sum(map(_conv_macs, block_convolutions(layer).values())),
}


def _conv_params(layer: LayerSpec) -> int:
    return layer.out_channels * (layer.kernel**2 * layer.in_shape[0] // layer.groups + 1)


_PARAMS: Mapping[str, Callable[[LayerSpec], int]] = {
    "stem": _conv_params,
    "conv": _conv_params,
    "linear": lambda layer: layer.out_channels * (layer.in_shape[0] + 1),
    "mbconv": lambda layer: sum(map(_conv_params, block_convolutions(layer).values())),
}


def macs(layer: LayerSpec) -> int:
    """Multiply-adds of one layer; one fused multiply-add is 1 MAC. Only convolutions, linear layers and whole
    blocks have any.

    >>> macs(LayerSpec("conv", (8, 16, 16), 24))
    49152
    """
    return _MACS[layer.op](layer) if layer.op in _MACS else 0


def params(layer: LayerSpec) -> int:
    """Weights and biases of one layer, batch norm folded."""
    return _PARAMS[layer.op](layer) if layer.op in _PARAMS else 0
