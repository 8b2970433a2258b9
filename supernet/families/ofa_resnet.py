"""The space of once-for-all's ResNet50 as published (`ofa_resnet50`; Cai et al. 2020, arXiv:1908.09791).

Elastic are the input resolution, the residual convolution of the stem, the depth of each stage, the channels
of the stem and of each stage, the middle channels of each block, and the number format of every convolution
and of the classifier.

The network is a ResNet50-D (He et al. 2019, arXiv:1812.01187): a stem of 3x3 convolutions instead of one of
7x7, and shortcuts that average 2x2 pixels before their convolution instead of skipping three of four.
"""

from dataclasses import dataclass

from hw_profiles.graph.blocks import divisible
from hw_profiles.graph.builder import GraphBuilder
from supernet.derive.choosing import Choose
from supernet.families.choices import blocks, of_stage, precision, resolution
from supernet.families.family import DEFAULT_FORMATS, Family
from supernet.space.space import Choice
from supernet.space.varying import elementwise

RESOLUTIONS = tuple(range(128, 225, 16))
PERCENTS = (20, 25, 35)  # middle channels of a block as a share of its output channels
MULTIPLIERS = (0.65, 0.8, 1.0)  # of the widths below
STEM_WIDTHS = tuple(divisible(64 * multiplier) for multiplier in MULTIPLIERS)
STEM_INNER = tuple(divisible(width // 2) for width in STEM_WIDTHS)  # the first two are equal
STAGE_WIDTHS = (256, 512, 1024, 2048)
BASE_DEPTHS, EXTRA_DEPTHS = (2, 2, 4, 2), (0, 1, 2)
STEM = ("stem.in", "stem.middle", "stem.out")
PARTS = ("conv1", "conv2", "conv3")  # of every block; the first of a stage also has a `shortcut`


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


def parts(b: int) -> tuple[str, ...]:
    """Return the convolutions of block `b` of a stage."""
    return PARTS if b else (*PARTS, "shortcut")


@elementwise
def expanded_channels(width: int, percent: int) -> int:
    """Return the channels between the 1x1 convolutions of a block of `width` channels.

    >>> [expanded_channels(256, percent) for percent in (20, 25, 35)]
    [48, 64, 88]
    """
    return divisible(round(width * percent / 100))


@dataclass(frozen=True)
class OfaResNetFamily(Family):
    """Stem, stages of elastic bottlenecks, pooling, classifier."""

    name: str
    resolutions: tuple[int, ...]
    stem: Stem
    stages: tuple[Stage, ...]
    percents: tuple[int, ...]
    in_channels: int
    classes: int
    formats: tuple[str, ...] = DEFAULT_FORMATS

    def choices(self) -> list[Choice]:
        deep = (("stem.depth", (1,)),)
        first, middle, last = STEM
        genes = [
            resolution(self.resolutions),
            Choice("stem.depth", (0, 1), role="depth"),  # residual convolutions
            Choice("stem.inner", self.stem.inner, "pruning", role="inner"),
            Choice("stem.width", self.stem.widths, "pruning", role="width"),
            precision(first, self.formats),
            precision(middle, self.formats, deep),
            precision(last, self.formats),
        ]
        for s, stage in enumerate(self.stages):
            genes.append(of_stage(s, "depth", stage.depths))
            genes.append(of_stage(s, "width", stage.widths, "pruning"))
            for block in blocks(s, stage.depths):
                genes.append(block("expand", self.percents, "pruning"))
                genes += [block.precision(part, self.formats) for part in parts(block.block)]
        return [*genes, precision("classifier", self.formats)]

    def build(self, net: GraphBuilder, choose: Choose) -> None:
        x = self._append_stem(net, choose)
        for s, stage in enumerate(self.stages):

            def block(block_input: int, b: int, s: int = s, stage: Stage = stage) -> int:
                return append_block(net, choose, block_input, s, b, 1 if b else stage.stride)

            x = choose.repeat(choose(f"s{s}.depth"), x, block)
        net.linear(
            "classifier", net.global_pool("pool", x), self.classes, precision=choose.format("classifier")
        )

    def _append_stem(self, net: GraphBuilder, choose: Choose) -> int:
        first, middle, last = STEM
        inner, formats = choose("stem.inner"), choose.format

        def deepened(x: int) -> int:
            y = net.conv(middle, x, inner, kernel=3, activation="relu", precision=formats(middle))
            return net.add("stem.add", y, x)

        x = net.stem(first, net.input, inner, stride=2, activation="relu", precision=formats(first))
        x = choose.when(choose("stem.depth") > 0, x, deepened)
        width = choose("stem.width")
        x = net.conv(last, x, width, kernel=3, activation="relu", precision=formats(last))
        return net.max_pool("stem.pool", x, 3, 2)

    def module_path(self, name: str) -> str:
        return f"stem.{STEM.index(name)}" if name in STEM else super().module_path(name)


def append_block(net: GraphBuilder, choose: Choose, block_input: int, s: int, b: int, stride: int) -> int:
    """Append a block that reads the tensor `block_input`."""
    name, width = f"s{s}.b{b}", choose(f"s{s}.width")
    expanded = expanded_channels(width, choose(f"{name}.expand"))
    conv1, conv2, conv3, convolved = (f"{name}.{part}" for part in (*PARTS, "shortcut"))
    shortcut = block_input
    if b == 0:
        if stride > 1:  # before any conversion, which then has fewer numbers to convert
            shortcut = net.avg_pool(f"{name}.avgpool", shortcut, stride, stride)
        shortcut = net.conv(convolved, shortcut, width, precision=choose.format(convolved))
    x = net.conv(conv1, block_input, expanded, activation="relu", precision=choose.format(conv1))
    sizes = {"kernel": 3, "stride": stride}
    x = net.conv(conv2, x, expanded, **sizes, activation="relu", precision=choose.format(conv2))
    x = net.conv(conv3, x, width, precision=choose.format(conv3))
    return net.add(f"{name}.add", x, shortcut, activation="relu")


def ofa_resnet50(
    *, in_channels: int, classes: int, formats: tuple[str, ...] = DEFAULT_FORMATS
) -> OfaResNetFamily:
    """Return the published space, where networks that are one and the same are one: the first two
    multipliers of the
    stem's inner channels give the same number.
    """
    return OfaResNetFamily(
        name="ofa-resnet50",
        resolutions=RESOLUTIONS,
        stem=Stem(tuple(sorted(set(STEM_INNER))), STEM_WIDTHS),
        stages=tuple(
            Stage(
                tuple(divisible(width * multiplier) for multiplier in MULTIPLIERS),
                1 if s == 0 else 2,
                tuple(base + extra for extra in EXTRA_DEPTHS),
            )
            for s, (width, base) in enumerate(zip(STAGE_WIDTHS, BASE_DEPTHS, strict=True))
        ),
        percents=PERCENTS,
        in_channels=in_channels,
        classes=classes,
        formats=formats,
    )
