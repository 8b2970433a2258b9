"""The small ResNet that MLPerf Tiny classifies CIFAR-10 with (Banbury et al. 2021, arXiv:2106.07597): what a
searched network is compared with, trained by the same recipe on the same images. A space of one architecture,
in which only number formats are to be chosen.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from hw_profiles.graph.builder import GraphBuilder
from supernet.derive.choosing import Choose
from supernet.families.choices import blocks, precision, resolution
from supernet.families.family import DEFAULT_FORMATS, Family
from supernet.space.space import Choice

WIDTHS = (16, 32, 64)
PARTS = ("conv1", "conv2")
PROJECTION = "shortcut"


@dataclass(frozen=True)
class CifarResNet(Family):
    """A 3x3 convolution, stages of basic blocks (He et al. 2016, arXiv:1512.03385, section 4.2), pooling,
    classifier. Shortcuts are 1x1 convolutions where a stage halves the map.

    Attributes:
        depth: blocks of a stage.
        widths: channels of each stage.
        resolutions: of the image, ascending.
    """

    name: str
    depth: int
    in_channels: int
    classes: int
    formats: tuple[str, ...] = DEFAULT_FORMATS
    widths: tuple[int, ...] = WIDTHS
    resolutions: tuple[int, ...] = (32,)

    def choices(self) -> list[Choice]:
        genes = [resolution(self.resolutions), precision("stem", self.formats)]
        for s in range(len(self.widths)):
            for b, block in enumerate(blocks(s, (self.depth,))):
                genes += [block.precision(part, self.formats) for part in _parts(s, b)]
        return [*genes, precision("classifier", self.formats)]

    def build(self, net: GraphBuilder, choose: Choose) -> None:
        x = net.stem("stem", net.input, self.widths[0], activation="relu", precision=choose.format("stem"))
        for s, width in enumerate(self.widths):
            for b in range(self.depth):
                name, stride = f"s{s}.b{b}", 2 if s and not b else 1
                formats = {part: choose.format(f"{name}.{part}") for part in _parts(s, b)}
                y = net.conv(
                    f"{name}.conv1",
                    x,
                    width,
                    kernel=3,
                    stride=stride,
                    activation="relu",
                    precision=formats["conv1"],
                )
                y = net.conv(f"{name}.conv2", y, width, kernel=3, precision=formats["conv2"])
                if PROJECTION in formats:
                    shortcut = f"{name}.{PROJECTION}"
                    x = net.conv(shortcut, x, width, stride=stride, precision=formats[PROJECTION])
                x = net.add(f"{name}.add", y, x, activation="relu", precision=formats["conv2"])
        mean = net.global_pool("pool", x)
        net.linear("classifier", mean, self.classes, precision=choose.format("classifier"))


def _parts(s: int, b: int) -> Iterator[str]:
    """Yield the convolutions of a block."""
    yield from PARTS
    if s and not b:
        yield PROJECTION


def cifar_resnet8(
    *, in_channels: int, classes: int, formats: tuple[str, ...] = DEFAULT_FORMATS
) -> CifarResNet:
    """Return MLPerf Tiny's ResNet-8: one block a stage, 12.5 MMACs."""
    return CifarResNet("cifar-resnet8", 1, in_channels, classes, formats)
