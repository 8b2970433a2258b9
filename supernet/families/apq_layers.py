"""The layers of APQ's networks by position (Wang et al. 2020, arXiv:2006.08509): ProxylessNAS's stages
between a stem, a first block and a head that never change.
"""

from dataclasses import dataclass

from hw_profiles.graph.builder import WorkloadBuilder
from hw_profiles.graph.layer import INPUT, Layer, LayerSpec
from supernet.families.mbconv_layers import MBConvLayers, Stage, stored_and_computed

RESOLUTION = 224
STEM_WIDTH, FIRST_WIDTH, FIRST_KERNEL, HEAD_WIDTH = 32, 16, 3, 1280
ENDS = ("stem", "first.depthwise", "first.project", "head", "classifier")  # layers that never change
FIXED_FORMAT = "int8"  # of the ends in a quantized network
LEAST, MOST, STEP = 4, 6, 8  # expanded channels: times the position's input channels, from, to; in steps of
POSITIONS = (  # of every stage: width, stride and the allowed depths
    (24, 2, (2, 3, 4)),
    (40, 2, (2, 3, 4)),
    (80, 2, (2, 3, 4)),
    (96, 1, (2, 3, 4)),
    (192, 2, (2, 3, 4)),
    (320, 1, (1,)),
)


@dataclass(frozen=True)
class ApqLayers(MBConvLayers):
    """`stem_width` counts the channels after the first block, which the stages read.

    That block has no expanding convolution, since it would add no channels.
    """

    def stem(self, resolution: int, fmt: str) -> Layer:
        shape = (self.in_channels, resolution, resolution)
        return LayerSpec("stem", shape, STEM_WIDTH, 3, 2, 1, self.activation, *stored_and_computed(fmt))

    def first_block(self, resolution: int, fmt: str) -> dict[str, Layer]:
        """The convolutions of the first block by name."""
        size, formats = -(-resolution // 2), stored_and_computed(fmt)
        shape, depthwise = (STEM_WIDTH, size, size), (FIRST_KERNEL, 1, STEM_WIDTH)
        return {
            "first.depthwise": LayerSpec("conv", shape, STEM_WIDTH, *depthwise, self.activation, *formats),
            "first.project": LayerSpec("conv", shape, self.stem_width, 1, 1, 1, "none", *formats),
        }

    def append_stem(self, net: WorkloadBuilder, fmt: str) -> int:
        """Append stem and first block."""
        resolution = net.shape(INPUT)[1]
        x = net.add("stem", self.stem(resolution, fmt), INPUT)
        for name, layer in self.first_block(resolution, fmt).items():
            x = net.add(name, layer, x)
        return x


def apq_layers(in_channels: int, classes: int) -> ApqLayers:
    """The layers for images of `in_channels` and `classes` classes."""
    stages = tuple(Stage(width, stride, depths, ()) for width, stride, depths in POSITIONS)
    return ApqLayers(in_channels, FIRST_WIDTH, stages, HEAD_WIDTH, classes, activation="relu6")


def expanded_widths(entry_width: int) -> tuple[int, ...]:
    """Allowed expanded channels of a position that reads a tensor of `entry_width` channels.

    >>> expanded_widths(16)
    (64, 72, 80, 88, 96)
    """
    return tuple(range(LEAST * entry_width, MOST * entry_width + 1, STEP))
