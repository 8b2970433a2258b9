"""How training images are changed at random, as a recipe. Needs no torch."""

from dataclasses import dataclass

STRONGEST = 30  # magnitude of RandAugment


@dataclass(frozen=True)
class Augmentation:
    """Changes of training images; a task that knows better ignores them.

    Attributes:
        pad: random shift in pixels.
        flip: whether half of the images are mirrored.
        mirrored: which of the images are mirrored, where that is not to be drawn.
        cutout: side in pixels of the square that is blanked out; 0 for none.
        mixup: parameter of the Beta distribution that two images are mixed by; 0 for none.
        randaugment: strength of RandAugment, 1 to `STRONGEST`; 0 for none.
    """

    pad: int = 0
    flip: bool = False
    cutout: int = 0
    mixup: float = 0.0
    randaugment: int = 0
    mirrored: tuple[bool, ...] | None = None
