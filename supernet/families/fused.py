"""A space of dense convolutions at CIFAR size, designed for int8 on processors (docs/concepts/spaces.md)."""

from supernet.families.family import DEFAULT_FORMATS
from supernet.families.staged import Stage, StagedFamily

MIDDLE = (50, 100)  # channels of a block's first 3x3 convolution, % of those that the block gives


def cifar_fused(
    *, in_channels: int, classes: int, formats: tuple[str, ...] = DEFAULT_FORMATS
) -> StagedFamily:
    """Return networks of 1.4 to 65 MMACs whose multiply-adds are dense convolutions on small maps.

    `stem` sees single pixels: what a training recipe may set to whitening filters and freeze; a narrow stem
    has the first of them. The first block of a stage halves the map in its dense convolution, where that
    costs least; every other block adds what it reads and begins as an identity, so that all depths begin
    equal. Channels are multiples of 16 where kernels compute 16 at a time, however few of them are asked for.
    The largest map has one dense convolution a block, of either kernel; smaller ones have two.
    """
    return StagedFamily(
        name="cifar-fused",
        resolutions=(20, 24, 28, 32),
        stem_widths=(16, 32),
        stem_stride=1,
        stages=(
            Stage("fused-relu", (16, 32, 48), 2, (1, 2), (3, 5), MIDDLE),
            Stage("basic", (48, 64, 96), 2, (1, 2), (3,), MIDDLE),
            Stage("basic", (96, 128, 192), 2, (1, 2), (3,), MIDDLE),
        ),
        head_width=256,
        in_channels=in_channels,
        classes=classes,
        formats=formats,
    )
