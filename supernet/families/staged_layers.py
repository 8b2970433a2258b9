"""The layers of staged networks by position: the one place that `workload`, the cost terms, the memory terms
and the elastic network take them from.

All blocks of a stage are of one type, a chain of convolutions (`BLOCKS`). A block adds what it reads to what
it gives where it is not the first of its stage, as shapes are equal there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from hw_profiles.graph.blocks import divisible
from hw_profiles.graph.builder import WorkloadBuilder
from hw_profiles.graph.layer import INPUT, Layer, LayerSpec
from hw_profiles.graph.workload import Workload
from supernet.families.mbconv_layers import stored_and_computed

Channels = Literal["entry", "middle", "out"]
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Part:
    """One convolution of a block.

    Attributes:
        name: unique in the block.
        reads, gives: which of the block's channel counts; equal in a depthwise convolution.
        spatial: whether it has the block's kernel; else its kernel is 1.
        strided: whether it has the block's stride.
        depthwise: one filter per channel.
        activation: fused into it.
    """

    name: str
    reads: Channels
    gives: Channels
    spatial: bool = False
    strided: bool = False
    depthwise: bool = False
    activation: str = "relu"

    @property
    def channels(self) -> frozenset[Channels]:
        """The channel counts that it depends on."""
        return frozenset((self.reads, self.gives))


@dataclass(frozen=True)
class BlockType:
    """A chain of convolutions.

    Attributes:
        parts: the last of them has no activation.
        ends: activation of the block: of its sum, or of its last convolution where there is no sum.
    """

    parts: tuple[Part, ...]
    ends: str = "none"

    @property
    def expands(self) -> bool:
        """Whether it has channels in the middle to choose."""
        return any("middle" in part.channels for part in self.parts)

    @property
    def last(self) -> Part:
        """The convolution whose format is the block's."""
        return self.parts[-1]


BLOCKS: Mapping[str, BlockType] = {
    "inverted": BlockType(  # Sandler et al. 2018, arXiv:1801.04381
        (
            Part("expand", "entry", "middle"),
            Part("depthwise", "middle", "middle", spatial=True, strided=True, depthwise=True),
            Part("project", "middle", "out", activation="none"),
        )
    ),
    "fused": BlockType(  # Tan & Le 2021, arXiv:2104.00298, without squeeze-and-excitation
        (
            Part("expand", "entry", "middle", spatial=True, strided=True),
            Part("project", "middle", "out", activation="none"),
        )
    ),
    "bottleneck": BlockType(  # He et al. 2016, arXiv:1512.03385
        (
            Part("reduce", "entry", "middle"),
            Part("conv", "middle", "middle", spatial=True, strided=True),
            Part("restore", "middle", "out", activation="none"),
        ),
        ends="relu",
    ),
    "separable": BlockType(  # two depthwise-separable convolutions: Howard et al. 2017, arXiv:1704.04861
        (
            Part("depthwise1", "entry", "entry", spatial=True, strided=True, depthwise=True),
            Part("pointwise1", "entry", "out"),
            Part("depthwise2", "out", "out", spatial=True, depthwise=True),
            Part("pointwise2", "out", "out", activation="none"),
        ),
        ends="relu",
    ),
}


@dataclass(frozen=True)
class Stage:
    """One stage: its block type, and what is elastic in it.

    Attributes:
        block: one of `BLOCKS`.
        widths: allowed output channels of all of its blocks, ascending, multiples of 8: the width window.
        stride: of the first block.
        depths: allowed numbers of blocks, ascending.
        kernels: allowed kernels of a block, ascending and odd.
        percents: allowed middle channels of a block as a share of its output channels; of a type without
            middle channels they say nothing.
    """

    STRICT: ClassVar[bool] = True  # in a file of spaces, a mistyped field is no default

    block: str
    widths: tuple[int, ...]
    stride: int
    depths: tuple[int, ...]
    kernels: tuple[int, ...] = (3, 5)
    percents: tuple[int, ...] = (100,)

    @property
    def type(self) -> BlockType:
        """The chain of convolutions."""
        return BLOCKS[self.block]


@dataclass(frozen=True, slots=True)
class Sizes:
    """One block: its output channels, those in its middle, and its kernel."""

    width: int
    expanded: int
    kernel: int


@dataclass(frozen=True, slots=True)
class StagedArch:
    """A decoded architecture: input resolution in pixels, and the living blocks, stage by stage."""

    resolution: int
    stages: tuple[tuple[Sizes, ...], ...]


def middle_channels(width: int, percent: int) -> int:
    """Channels in the middle of a block of `width` channels.

    >>> [middle_channels(24, percent) for percent in (50, 100, 300)]
    [16, 24, 72]
    """
    return divisible(width * percent / 100)


# -- single layers; `fmt` is the choice of a layer, which sets the formats of its weights and activations --


def convolution(
    stage: Stage, part: Part, shape: Shape, sizes: Sizes, *, stride: int, summed: bool, fmt: str
) -> Layer:
    """A part of a block of that stage; `shape` is that of the tensor it reads."""
    channels = {"entry": shape[0], "middle": sizes.expanded, "out": sizes.width}
    ends = part is stage.type.last and not summed
    return LayerSpec(
        "conv",
        shape,
        channels[part.gives],
        sizes.kernel if part.spatial else 1,
        stride if part.strided else 1,
        shape[0] if part.depthwise else 1,
        stage.type.ends if ends else part.activation,
        *stored_and_computed(fmt),
    )


def add(stage: Stage, shape: Shape, found: str, computed: str) -> Layer:
    """A residual sum; `computed` is the activation format of the branch, `found` that of the shortcut."""
    op = "add" if found == computed else "add_converted"
    return LayerSpec(op, shape, shape[0], activation=stage.type.ends, activation_format=computed)


# -- parts of networks: the tensor they read -> the tensor they give ---------------------------------


def append_block(
    net: WorkloadBuilder, entry: int, name: str, stage: Stage, sizes: Sizes, b: int, formats: Sequence[str]
) -> int:
    """Append block `b` of a stage; `formats` are the choices of its parts."""
    x, stride = entry, stage.stride if b == 0 else 1
    for part, fmt in zip(stage.type.parts, formats, strict=True):
        spec = convolution(stage, part, net.shape(x), sizes, stride=stride, summed=b > 0, fmt=fmt)
        x = net.add(f"{name}.{part.name}", spec, x)
    if b > 0:
        x = net.add(f"{name}.add", add(stage, net.shape(x), net.format(entry), net.format(x)), x, entry)
    return x


@dataclass(frozen=True)
class Ends:
    """What comes before and after the stages, of fixed widths.

    Attributes:
        stem_width, stem_stride: of the convolution that reads the image.
        head_width: channels of the last convolution.
        classes: that the classifier tells apart.
    """

    stem_width: int
    stem_stride: int
    head_width: int
    classes: int

    def append_stem(self, net: WorkloadBuilder, fmt: str) -> int:
        """Append what reads the image."""
        formats = stored_and_computed(fmt)
        spec = LayerSpec("stem", net.shape(INPUT), self.stem_width, 3, self.stem_stride, 1, "relu", *formats)
        return net.add("stem", spec, INPUT)

    def append_tail(self, net: WorkloadBuilder, x: int, head: str, classifier: str) -> int:
        """Append the last convolution, pooling and the classifier."""
        width, formats = self.head_width, stored_and_computed(head)
        x = net.add("head", LayerSpec("conv", net.shape(x), width, 1, 1, 1, "relu", *formats), x)
        x = net.add("pool", LayerSpec("pool", net.shape(x), width, activation_format=formats[1]), x)
        weight, activation = stored_and_computed(classifier)
        shape = (width, 1, 1)
        spec = LayerSpec("linear", shape, self.classes, weight_format=weight, activation_format=activation)
        return net.add("classifier", spec, x)

    def tail_alone(self, shape: Shape, head: str, classifier: str, found: str) -> Workload:
        """Last convolution, pooling and classifier; `found` is the activation format of what they read."""
        net = WorkloadBuilder(shape, found)
        self.append_tail(net, INPUT, head, classifier)
        return net.build()


def entry_size(ends: Ends, stages: Sequence[Stage], resolution: int, s: int, b: int) -> int:
    """Height and width of the tensor that block `b` of stage `s` reads; `s` past the end is the head."""
    size = -(-resolution // ends.stem_stride)
    for stage in stages[: s + (b > 0)]:
        size = -(-size // stage.stride)
    return size
