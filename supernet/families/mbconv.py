"""Inverted-residual networks: MobileNetV2 blocks with MobileNetV3's elastic kernels (Cai et al. 2020,
arXiv:1908.09791).

Elastic are the input resolution, the depth of each stage, the kernel and the expanded channels of each block
(the pruning dimension, in multiples of 8), and the number format of every convolution and of the classifier.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hw_profiles.graph.builder import DEPTHWISE, GraphBuilder, Precision
from supernet.derive.choosing import Choose
from supernet.families.choices import blocks, of_stage, precision, resolution
from supernet.families.family import DEFAULT_FORMATS, Family
from supernet.families.parts import append_stem, append_tail
from supernet.space.space import Choice

PARTS = ("expand", "depthwise", "project")


@dataclass(frozen=True)
class Stage:
    """One stage: its output width, stride of its first block, and what is elastic in it.

    Attributes:
        width: output channels of every block.
        stride: stride of the first block's depthwise convolution.
        depths: allowed numbers of blocks, ascending.
        expanded: allowed expanded channels, ascending, multiples of 8.
        kernels: allowed depthwise kernels, ascending and odd.
    """

    width: int
    stride: int
    depths: tuple[int, ...]
    expanded: tuple[int, ...]
    kernels: tuple[int, ...] = (3, 5, 7)


@dataclass(frozen=True)
class MBConvFamily(Family):
    """Stem, stages of inverted residuals, a pointwise convolution, pooling, classifier."""

    name: str
    resolutions: tuple[int, ...]
    stem_width: int
    stages: tuple[Stage, ...]
    head_width: int
    in_channels: int
    classes: int
    formats: tuple[str, ...] = DEFAULT_FORMATS
    stem_stride: int = 2

    def choices(self) -> list[Choice]:
        genes = [resolution(self.resolutions), precision("stem", self.formats)]
        for s, stage in enumerate(self.stages):
            genes.append(of_stage(s, "depth", stage.depths))
            for block in blocks(s, stage.depths):
                genes += [block("kernel", stage.kernels), block("expanded", stage.expanded, "pruning")]
                genes += [block.precision(part, self.formats) for part in PARTS]
        return [*genes, *(precision(layer, self.formats) for layer in ("head", "classifier"))]

    def build(self, net: GraphBuilder, choose: Choose) -> None:
        def formats(block: str, part: str) -> Precision:
            return choose.format(f"{block}.{part}")

        x = append_stem(net, self.stem_width, self.stem_stride, choose.format)
        x = append_stages(net, choose, x, self.stages, formats)
        append_tail(net, x, self.head_width, self.classes, choose.format)


def append_stages(
    net: GraphBuilder,
    choose: Choose,
    x: int,
    stages: Sequence[Stage],
    formats: Callable[[str, str], Precision],
    *,
    activation: str = "relu",
) -> int:
    """Append stages of inverted residuals that read `x`; `formats` gives the precision of one of `PARTS` of a
    block, by their names.
    """
    for s, stage in enumerate(stages):
        residual = stage.stride == 1 and net.shape(x)[0] == stage.width

        def block(
            block_input: int, b: int, s: int = s, stage: Stage = stage, residual: bool = residual
        ) -> int:
            name, (expand, depthwise, project) = f"s{s}.b{b}", PARTS
            expanded, ends = choose(f"{name}.expanded"), formats(name, project)
            y = net.conv(
                f"{name}.{expand}",
                block_input,
                expanded,
                activation=activation,
                precision=formats(name, expand),
            )
            y = net.conv(
                f"{name}.{depthwise}",
                y,
                expanded,
                kernel=choose(f"{name}.kernel"),
                stride=1 if b else stage.stride,
                groups=DEPTHWISE,
                activation=activation,
                precision=formats(name, depthwise),
            )
            y = net.conv(f"{name}.{project}", y, stage.width, precision=ends)
            return net.add(f"{name}.add", y, block_input, precision=ends) if b or residual else y

        x = choose.repeat(choose(f"s{s}.depth") if len(stage.depths) > 1 else stage.depths[0], x, block)
    return x


def digits_mbconv(
    *, in_channels: int, classes: int, formats: tuple[str, ...] = DEFAULT_FORMATS
) -> MBConvFamily:
    """Return the embedded default: small enough that scanned digits show a trade-off, yet more than 10^12
    networks.
    """
    return MBConvFamily(
        name="digits-mbconv",
        resolutions=(6, 14, 28),
        stem_width=8,
        stages=(
            Stage(8, 1, (1, 2), (8, 16, 24, 32)),
            Stage(16, 2, (1, 2, 3, 4), (8, 24, 40, 64)),
            Stage(32, 2, (1, 2, 3, 4), (16, 48, 80, 128)),
        ),
        head_width=96,
        in_channels=in_channels,
        classes=classes,
        formats=formats,
    )


def cifar_mbconv(
    *, in_channels: int, classes: int, formats: tuple[str, ...] = DEFAULT_FORMATS
) -> MBConvFamily:
    """Return the CNN family at CIFAR size: 3 to 22 MMACs. Halving the map in the first block rather than in
    the stem
    keeps the one convolution that sees single pixels.
    """
    return MBConvFamily(
        name="cifar-mbconv",
        resolutions=(24, 28, 32),
        stem_width=16,
        stages=(
            Stage(24, 2, (2, 3), (32, 48, 64), (3, 5)),
            Stage(48, 2, (2, 3, 4), tuple(range(96, 193, 32))),
            Stage(96, 2, (2, 3, 4), tuple(range(192, 385, 64))),
        ),
        head_width=320,
        in_channels=in_channels,
        classes=classes,
        formats=formats,
        stem_stride=1,
    )
