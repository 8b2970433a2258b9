"""`LayerSpec`, one fused unit that runs on a device, and the key by which profiles know it."""

import math
from dataclasses import dataclass

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
