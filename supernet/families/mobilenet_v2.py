"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381, table 2) at several widths: what a searched network is
compared with. A space of one architecture, in which only number formats are to be chosen.
"""

from supernet.families.family import DEFAULT_FORMATS
from supernet.families.mbconv import MBConvFamily, Stage

# expansion, channels, blocks, stride of the first
ROWS = (
    *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
    *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
)
STEM, HEAD = 32, 1280  # channels
SMALL = 64  # pixels up to which the first two halvings are left out, as it is usually trained on CIFAR


def mobilenet_v2(
    width: float,
    *,
    resolution: int,
    in_channels: int,
    classes: int,
    formats: tuple[str, ...] = DEFAULT_FORMATS,
) -> MBConvFamily:
    """Return the network whose channels are `width` times the published ones, in multiples of 8.

    It differs in two ways: a ReLU is not cut off at 6, and the first block has a pointwise convolution before
    its depthwise one as all others do.
    """
    read_channels, small = scaled(STEM, width), resolution <= SMALL
    stages = []
    for row, (expansion, channels, blocks, stride) in enumerate(ROWS):
        out = scaled(channels, width)
        first = 1 if small and row == 1 else stride
        stages.append(Stage(out, first, (1,), (expansion * read_channels,), (3,)))
        if blocks > 1:  # they read more channels than the first one, so they expand to others
            stages.append(Stage(out, 1, (blocks - 1,), (expansion * out,), (3,)))
        read_channels = out
    return MBConvFamily(
        name=f"mobilenet-v2-w{width:g}",
        resolutions=(resolution,),
        stem_width=scaled(STEM, width),
        stages=tuple(stages),
        head_width=scaled(HEAD, max(width, 1.0)),
        in_channels=in_channels,
        classes=classes,
        formats=formats,
        stem_stride=1 if small else 2,
    )


def scaled(channels: int, width: float) -> int:
    """Return the nearest multiple of 8, at least 8, and never less than nine tenths.

    >>> scaled(24, 0.5), scaled(32, 0.35)
    (16, 16)
    """
    rounded = max(8, int(channels * width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels * width else rounded
