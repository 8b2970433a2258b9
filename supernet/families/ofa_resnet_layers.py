"""The layers of once-for-all's ResNet50 by position: the one place that `workload`, the cost terms and the
memory terms take them from.

The network is a ResNet50-D (He et al. 2019, arXiv:1812.01187): a stem of 3x3 convolutions instead of one of
7x7, and shortcuts that average 2x2 pixels before their convolution instead of skipping three of four.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hw_profiles.graph.blocks import divisible
from hw_profiles.graph.builder import WorkloadBuilder
from hw_profiles.graph.layer import INPUT, Layer, LayerSpec
from hw_profiles.graph.workload import Workload
from supernet.families.mbconv_layers import stored_and_computed

Shape = tuple[int, int, int]

PARTS = ("conv1", "conv2", "conv3")  # of every block; the first of a stage also has a `shortcut`
STEM = ("stem.in", "stem.middle", "stem.out")


@dataclass(frozen=True)
class Stem:
    """What is elastic before the first stage.

    Attributes:
        inner: allowed channels of the first convolution and of the residual one behind it, ascending.
        widths: allowed channels of the last convolution, ascending.
    """

    inner: tuple[int, ...]
    widths: tuple[int, ...]


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        widths: allowed output channels of its blocks, ascending, multiples of 8.
        stride: stride of the first block.
        depths: allowed numbers of blocks, ascending.
    """

    widths: tuple[int, ...]
    stride: int
    depths: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """One block: its output channels, and the channels and the kernel of its middle convolution."""

    width: int
    expanded: int
    kernel: int = 3


@dataclass(frozen=True, slots=True)
class StemSizes:
    """Channels in the stem and after it, and whether it has its residual convolution."""

    inner: int
    width: int
    deep: bool


@dataclass(frozen=True)
class ResNetArch:
    """A decoded architecture: input resolution in pixels, and the living blocks, stage by stage."""

    resolution: int
    stem: StemSizes
    stages: tuple[tuple[Bottleneck, ...], ...]


def parts(b: int) -> tuple[str, ...]:
    """The convolutions of block `b` of a stage."""
    return PARTS if b else (*PARTS, "shortcut")


def expanded_channels(width: int, percent: int) -> int:
    """Channels between the 1x1 convolutions of a block of `width` channels.

    >>> [expanded_channels(256, percent) for percent in (20, 25, 35)]
    [48, 64, 88]
    """
    return divisible(round(width * percent / 100))


def entry_size(stages: Sequence[Stage], resolution: int, s: int, b: int) -> int:
    """Height and width of the tensor that block `b` of stage `s` reads; `s` past the end is the pooling."""
    size = -(-resolution // 4)  # the stem halves it twice
    for stage in stages[: s + (b > 0)]:
        size = -(-size // stage.stride)
    return size


# -- single layers; `fmt` is the choice of a layer, which sets the formats of its weights and activations --


def convolution(shape: Shape, width: int, kernel: int, stride: int, activation: str, fmt: str) -> Layer:
    """A convolution over all channels inside the network."""
    return LayerSpec("conv", shape, width, kernel, stride, 1, activation, *stored_and_computed(fmt))


def part(which: str, shape: Shape, block: Bottleneck, stride: int, fmt: str) -> Layer:
    """One of `PARTS`, or `shortcut`, which reads what was averaged; `shape` is that of the tensor it
    reads.
    """
    match which:
        case "conv1":
            return convolution(shape, block.expanded, 1, 1, "relu", fmt)
        case "conv2":
            return convolution(shape, block.expanded, block.kernel, stride, "relu", fmt)
    return convolution(shape, block.width, 1, 1, "none", fmt)


def add(shape: Shape, found: str, computed: str, activation: str = "relu") -> Layer:
    """A residual sum; `computed` is the activation format of the branch, `found` that of the shortcut."""
    op = "add" if found == computed else "add_converted"
    return LayerSpec(op, shape, shape[0], activation=activation, activation_format=computed)


def average_pooling(shape: Shape, stride: int, found: str) -> Layer:
    """What halves the shortcut, in the activation format that it finds."""
    return LayerSpec("avgpool", shape, shape[0], stride, stride, activation_format=found)


def max_pooling(shape: Shape, found: str) -> Layer:
    """The end of the stem, in the activation format that it finds."""
    return LayerSpec("maxpool", shape, shape[0], 3, 2, activation_format=found)


def global_pooling(shape: Shape, found: str) -> Layer:
    """What the classifier reads, in the activation format that it finds."""
    return LayerSpec("pool", shape, shape[0], activation_format=found)


def linear(width: int, classes: int, fmt: str) -> Layer:
    """The classifier."""
    weight, activation = stored_and_computed(fmt)
    shape = (width, 1, 1)
    return LayerSpec("linear", shape, classes, weight_format=weight, activation_format=activation)


# -- parts of networks: the tensor they read -> the tensor they give ---------------------------------


def append_stem(net: WorkloadBuilder, sizes: StemSizes, formats: Sequence[str]) -> int:
    """Append what reads the image; `formats` are the choices of `STEM`."""
    first, middle, last = formats
    shape = net.shape(INPUT)
    spec = LayerSpec("stem", shape, sizes.inner, 3, 2, 1, "relu", *stored_and_computed(first))
    x = net.add(STEM[0], spec, INPUT)
    if sizes.deep:
        y = net.add(STEM[1], convolution(net.shape(x), sizes.inner, 3, 1, "relu", middle), x)
        x = net.add("stem.add", add(net.shape(x), net.format(x), net.format(y), "none"), y, x)
    x = net.add(STEM[2], convolution(net.shape(x), sizes.width, 3, 1, "relu", last), x)
    return net.add("stem.pool", max_pooling(net.shape(x), net.format(x)), x)


def append_shortcut(
    net: WorkloadBuilder, entry: int, name: str, block: Bottleneck, stride: int, fmt: str
) -> int:
    """Append what stands beside the convolutions of a stage's first block."""
    x = entry
    if stride > 1:  # before any conversion, which then has fewer numbers to convert
        x = net.add(f"{name}.avgpool", average_pooling(net.shape(x), stride, net.format(x)), x)
    return net.add(f"{name}.shortcut", part("shortcut", net.shape(x), block, 1, fmt), x)


def append_block(
    net: WorkloadBuilder, entry: int, name: str, block: Bottleneck, stride: int, formats: Sequence[str]
) -> int:
    """Append a block that reads the tensor `entry`; `formats` are the choices of `PARTS` and, in the first
    block of a stage, of its shortcut.
    """
    shortcut = x = entry
    if len(formats) > len(PARTS):
        shortcut = append_shortcut(net, entry, name, block, stride, formats[-1])
    for which, fmt in zip(PARTS, formats, strict=False):
        x = net.add(f"{name}.{which}", part(which, net.shape(x), block, stride, fmt), x)
    total = add(net.shape(x), net.format(shortcut), net.format(x))
    return net.add(f"{name}.add", total, x, shortcut)


def append_tail(net: WorkloadBuilder, x: int, classes: int, fmt: str) -> int:
    """Append pooling, in the format that it finds, and classifier."""
    x = net.add("pool", global_pooling(net.shape(x), net.format(x)), x)
    return net.add("classifier", linear(net.shape(x)[0], classes, fmt), x)


# -- the same as networks by themselves, for their memory; `found` is the activation format of what they read


def stem_alone(shape: Shape, sizes: StemSizes, formats: Sequence[str]) -> Workload:
    """From the image to the tensor after the stem."""
    net = WorkloadBuilder(shape)
    append_stem(net, sizes, formats)
    return net.build()


def block_alone(shape: Shape, block: Bottleneck, stride: int, formats: Sequence[str], found: str) -> Workload:
    """A block."""
    net = WorkloadBuilder(shape, found)
    append_block(net, INPUT, "block", block, stride, formats)
    return net.build()


def opening_alone(
    shape: Shape, block: Bottleneck, stride: int, first: str, shortcut: str, found: str
) -> Workload:
    """Shortcut and first convolution of a block, and something that still waits for the shortcut."""
    net = WorkloadBuilder(shape, found)
    waiting = append_shortcut(net, INPUT, "block", block, stride, shortcut)
    net.add("block.conv1", part("conv1", shape, block, stride, first), INPUT)
    net.add("block.wait", global_pooling(net.shape(waiting), net.format(waiting)), waiting)
    return net.build()


def tail_alone(shape: Shape, classes: int, fmt: str, found: str) -> Workload:
    """Pooling and classifier."""
    net = WorkloadBuilder(shape, found)
    append_tail(net, INPUT, classes, fmt)
    return net.build()
