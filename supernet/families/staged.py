"""Staged networks: in every stage one block type and one window of output widths (SpaceEvo, Wang et al. 2023,
arXiv:2303.08308).

Elastic are the input resolution, the depth and the width of each stage, the kernel and the middle channels of
each block, and the number format of every convolution and of the classifier. `nas spaces design` chooses
block types and windows for a device and writes the space as a file; `staged_file` reads it.

All blocks of a stage are of one type, a chain of convolutions (`BLOCKS`). A block adds what it reads to what
it gives where it is not the first of its stage, as shapes are equal there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from hw_profiles.graph.blocks import divisible
from hw_profiles.graph.builder import DEPTHWISE, GraphBuilder, Precision
from supernet.derive.choosing import Choose
from supernet.families.choices import blocks, of_stage, precision, resolution
from supernet.families.family import DEFAULT_FORMATS, Family
from supernet.families.parts import append_stem, append_tail
from supernet.space.space import Choice
from supernet.space.varying import elementwise

Channels = Literal["entry", "middle", "out"]
POOLED = 3  # pixels high and wide: windows of a max pool


@dataclass(frozen=True)
class Part:
    """One convolution of a block.

    Attributes:
        name: unique in the block.
        gives: which of the block's channel counts.
        spatial: whether it has the block's kernel; else its kernel is 1.
        strided: whether it has the block's stride.
        pooled: whether the largest of each window is taken of what it gives, at the block's stride.
        depthwise: one filter per channel.
        activation: fused into it.
    """

    name: str
    gives: Channels
    spatial: bool = False
    strided: bool = False
    pooled: bool = False
    depthwise: bool = False
    activation: str = "relu"


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
        return any(part.gives == "middle" for part in self.parts)


BLOCKS: Mapping[str, BlockType] = {
    "inverted": BlockType(  # Sandler et al. 2018, arXiv:1801.04381
        (
            Part("expand", "middle"),
            Part("depthwise", "middle", spatial=True, strided=True, depthwise=True),
            Part("project", "out", activation="none"),
        )
    ),
    "fused": BlockType(  # Tan & Le 2021, arXiv:2104.00298, without squeeze-and-excitation
        (Part("expand", "middle", spatial=True, strided=True), Part("project", "out", activation="none"))
    ),
    "basic": BlockType(  # He et al. 2016, arXiv:1512.03385
        (
            Part("conv1", "middle", spatial=True, strided=True),
            Part("conv2", "out", spatial=True, activation="none"),
        ),
        ends="relu",
    ),
    "pooled": BlockType(  # Jordan 2024, arXiv:2404.00498: the largest of each window in place of a stride
        (
            Part("conv1", "middle", spatial=True, pooled=True),
            Part("conv2", "out", spatial=True, activation="none"),
        ),
        ends="relu",
    ),
    "fused-relu": BlockType(  # the same as He et al. 2016, arXiv:1512.03385, end a block: nothing is negative
        (Part("conv", "middle", spatial=True, strided=True), Part("project", "out", activation="none")),
        ends="relu",
    ),
    "bottleneck": BlockType(  # He et al. 2016, arXiv:1512.03385
        (
            Part("reduce", "middle"),
            Part("conv", "middle", spatial=True, strided=True),
            Part("restore", "out", activation="none"),
        ),
        ends="relu",
    ),
    "separable": BlockType(  # two depthwise-separable convolutions: Howard et al. 2017, arXiv:1704.04861
        (
            Part("depthwise1", "entry", spatial=True, strided=True, depthwise=True),
            Part("pointwise1", "out"),
            Part("depthwise2", "out", spatial=True, depthwise=True),
            Part("pointwise2", "out", activation="none"),
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


@elementwise
def middle_channels(width: int, percent: int) -> int:
    """Return the channels in the middle of a block of `width` channels.

    >>> [middle_channels(24, percent) for percent in (50, 100, 300)]
    [16, 24, 72]
    """
    return divisible(width * percent / 100)


def append_block(
    net: GraphBuilder,
    block_input: int,
    name: str,
    stage: Stage,
    b: int,
    sizes: Sizes,
    formats: Sequence[Precision | str],
) -> int:
    """Append block `b` of a stage; `formats` are those of its parts."""
    channels = {"entry": net.shape(block_input)[0], "middle": sizes.expanded, "out": sizes.width}
    x = block_input
    for part, fmt in zip(stage.type.parts, formats, strict=True):
        ends = part is stage.type.parts[-1] and b == 0
        x = net.conv(
            f"{name}.{part.name}",
            x,
            channels[part.gives],
            kernel=sizes.kernel if part.spatial else 1,
            stride=stage.stride if part.strided and b == 0 else 1,
            groups=DEPTHWISE if part.depthwise else 1,
            activation=stage.type.ends if ends else part.activation,
            precision=fmt,
        )
        if part.pooled and b == 0 and stage.stride > 1:
            x = net.max_pool(f"{name}.pool", x, POOLED, stage.stride)
    if not b:
        return x
    return net.add(f"{name}.add", x, block_input, activation=stage.type.ends, precision=formats[-1])


@dataclass(frozen=True)
class StagedFamily(Family):
    """Stem, stages of one block type each, a pointwise convolution, pooling, classifier.

    Attributes:
        stem_widths: allowed channels of the stem, ascending.
    """

    name: str
    resolutions: tuple[int, ...]
    stem_widths: tuple[int, ...]
    stages: tuple[Stage, ...]
    head_width: int
    in_channels: int
    classes: int
    formats: tuple[str, ...] = DEFAULT_FORMATS
    stem_stride: int = 2

    def choices(self) -> list[Choice]:
        genes = [resolution(self.resolutions), precision("stem", self.formats)]
        if len(self.stem_widths) > 1:
            genes.append(Choice("stem.width", self.stem_widths, "pruning", role="width"))
        for s, stage in enumerate(self.stages):
            genes.append(of_stage(s, "depth", stage.depths))
            genes.append(of_stage(s, "width", stage.widths, "pruning"))
            for block in blocks(s, stage.depths):
                genes.append(block("kernel", stage.kernels))
                genes += [block("expand", stage.percents, "pruning")] if stage.type.expands else []
                genes += [block.precision(part.name, self.formats) for part in stage.type.parts]
        return [*genes, *(precision(layer, self.formats) for layer in ("head", "classifier"))]

    def build(self, net: GraphBuilder, choose: Choose) -> None:
        stem_width = choose("stem.width") if len(self.stem_widths) > 1 else self.stem_widths[0]
        x = append_stem(net, stem_width, self.stem_stride, choose.format)
        for s, stage in enumerate(self.stages):

            def block(block_input: int, b: int, s: int = s, stage: Stage = stage) -> int:
                name, width = f"s{s}.b{b}", choose(f"s{s}.width")
                percent = choose(f"{name}.expand") if stage.type.expands else 100
                sizes = Sizes(width, middle_channels(width, percent), choose(f"{name}.kernel"))
                formats = [choose.format(f"{name}.{part.name}") for part in stage.type.parts]
                return append_block(net, block_input, name, stage, b, sizes, formats)

            x = choose.repeat(choose(f"s{s}.depth"), x, block)
        append_tail(net, x, self.head_width, self.classes, choose.format)


def digits_staged(
    *, in_channels: int, classes: int, formats: tuple[str, ...] = DEFAULT_FORMATS
) -> StagedFamily:
    """Return a family with one stage of every block type, at the size of the embedded digits."""
    return StagedFamily(
        name="digits-staged",
        resolutions=(14, 28),
        stem_widths=(8,),
        stages=(
            Stage("fused", (8, 16), 1, (1, 2), (3,), (100, 200)),
            Stage("inverted", (16, 24), 2, (1, 2), (3, 5), (100, 300)),
            Stage("bottleneck", (24, 32), 2, (1, 2), (3, 5), (50, 100)),
            Stage("separable", (32, 48), 1, (1, 2), (3, 5)),
        ),
        head_width=96,
        in_channels=in_channels,
        classes=classes,
        formats=formats,
    )
