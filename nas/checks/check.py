"""What an exported network must answer, wherever it runs: made-up images that anyone can make again, and the
labels that the simulation gave them. No image of the user's data leaves with a network. Imports no torch.
"""

import hashlib
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError

IMAGES = 200  # one of them may differ and the agreement is still 99.5 %
PATCH = 4  # pixels: white noise alone looks the same to a network everywhere
WIDEST = 1e6  # mean and deviation of pixels in 0..1 that leave float32 its precision
MADE_UP_BYTES = 2**27  # of all made-up images together; 200 of (384, 384, 3) are fewer


class DisagreementError(TrilobitError):
    """A file or a library does not do what its network says: it is not shipped."""


def made_up_images(n: int, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return (n, h, w, c) pixels in patches; the same everywhere and always, since they are only integer
    arithmetic: SplitMix64 (Steele et al. 2014, doi:10.1145/2714064.2660195).

    Args:
        shape: (h, w, c).
    """
    h, w, c = shape
    rows, columns = -(-h // PATCH), -(-w // PATCH)
    z = np.arange(1, n * rows * columns * c + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    patches = ((z ^ (z >> np.uint64(31))) >> np.uint64(56)).astype(np.uint8).reshape(n, rows, columns, c)
    return patches.repeat(PATCH, axis=1).repeat(PATCH, axis=2)[:, :h, :w]


@dataclass(frozen=True)
class Input:
    """What a network reads.

    Attributes:
        shape: (h, w, c) of an image.
        mean, std: of each channel in 0..1: pixels / 255 minus mean, over std.
        pixels: whether the file does that itself and reads (batch, h, w, c) uint8; otherwise it reads (batch,
            c, h, w) float32.
    """

    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pixels: bool = False

    def __post_init__(self) -> None:
        if min(self.shape) < 1 or not len(self.mean) == len(self.std) == self.shape[2]:
            raise ValueError("needs a shape (h, w, c) from 1, and a mean and a deviation for each channel")
        if not (min(self.std) >= 1 / WIDEST and max(*map(abs, self.mean), *self.std) <= WIDEST):
            raise ValueError(
                f"its means must be within +-{WIDEST:,.0f}, its standard deviations from 1/{WIDEST:,.0f} to "
                f"{WIDEST:,.0f}"
            )

    def holds(self, images: int) -> bool:
        """Return whether so many images are few enough to be made up."""
        return images * math.prod(self.shape) <= MADE_UP_BYTES

    def normalised(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return (n, h, w, c) pixels as (n, c, h, w), in the arithmetic of
        `supernet.data.pixels.normalised`.
        """
        mean, std = (np.array(values, np.float32) * np.float32(255) for values in (self.mean, self.std))
        return np.ascontiguousarray(((pixels.astype(np.float32) - mean) / std).transpose(0, 3, 1, 2))

    def to_json(self) -> dict[str, Any]:
        """Return it for a manifest."""
        return asdict(self)


@dataclass(frozen=True)
class Answers:
    """What a network answers to the first `images` made-up images.

    Attributes:
        images: how many, from the first.
        labels, largest_logits: of each image.
        sha256: of all logits, where every bit of them is decided; None where it is not.
    """

    images: int
    labels: tuple[int, ...]
    largest_logits: tuple[float, ...]
    sha256: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.images == len(self.labels) == len(self.largest_logits):
            raise ValueError(f"needs a label and a largest logit for each of {self.images} images, 1 or more")
        if min(self.labels) < 0:
            raise ValueError("a label is below 0")

    def to_json(self) -> dict[str, Any]:
        """Return it for a manifest; without a hash where there is none."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def answers_of(logits: NDArray[np.float32], *, exact: bool = False) -> Answers:
    """Return what a manifest keeps of (n, classes) logits.

    Args:
        exact: whether every bit of them must be the same everywhere.
    """
    return Answers(
        len(logits),
        tuple(logits.argmax(axis=1).tolist()),
        tuple(float(f"{value:.6g}") for value in logits.max(axis=1)),
        digest(logits) if exact else None,
    )


def digest(logits: NDArray[np.float32]) -> str:
    """Return a hash that is the same for logits that are equal bit by bit, and for no others."""
    return hashlib.sha256(np.ascontiguousarray(logits + 0.0, "<f4").tobytes()).hexdigest()  # -0 is 0


def agreement(logits: NDArray[np.float32], answers: Answers) -> tuple[float, float]:
    """Return the share of equal labels of (n, classes) logits, and the largest difference of a largest
    logit.
    """
    largest = np.array(answers.largest_logits)
    share = float((logits.argmax(axis=1) == np.array(answers.labels)).mean())
    return share, float(np.abs(logits.max(axis=1) - largest).max())
