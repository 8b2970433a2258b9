"""A space of dense 3x3 convolutions whose maps are halved by max pools, at CIFAR size
(docs/concepts/spaces.md).
"""

from supernet.families.family import DEFAULT_FORMATS
from supernet.families.staged import Stage, StagedFamily

MIDDLE = (50, 100)  # channels of a block's first convolution, % of those that the block gives


def cifar_pooled(
    *, in_channels: int, classes: int, formats: tuple[str, ...] = DEFAULT_FORMATS
) -> StagedFamily:
    """Return networks of 2.5 to 94 MMACs shaped like those that learn CIFAR-10 fastest (Jordan 2024,
    arXiv:2404.00498): two convolutions a stage, and between them the largest of each window.

    `stem` sees single pixels: what a training recipe may set to whitening filters and freeze; a narrow stem
    has the first of them. Later stages may have a second block, which adds what it reads and begins as an
    identity, so that all depths begin equal. Channels are multiples of 16, as kernels compute.
    """
    return StagedFamily(
        name="cifar-pooled",
        resolutions=(20, 24, 28, 32),
        stem_widths=(16, 32),
        stem_stride=1,
        stages=(
            Stage("pooled", (16, 32, 48), 2, (1,), (3,), MIDDLE),
            Stage("pooled", (48, 64, 96, 128), 2, (1, 2), (3,), MIDDLE),
            Stage("pooled", (96, 128, 160, 192), 2, (1, 2), (3,), MIDDLE),
        ),
        head_width=256,
        in_channels=in_channels,
        classes=classes,
        formats=formats,
    )
