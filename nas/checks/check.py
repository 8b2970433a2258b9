"""What an exported network must answer, wherever it runs: made-up examples that anyone can make again, and
the labels that the simulation gave them. No example of the user's data leaves with a network. Needs no torch.
"""

import hashlib
import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError

IMAGES = 200  # or tokens: one of them may differ and the agreement is still 99.5 %
PATCH = 4  # pixels: white noise alone looks the same to a network everywhere
WIDEST = 1e6  # mean and deviation of pixels in 0..1 that leave float32 its precision
BYTES = 256  # tokens that are text
MADE_UP_BYTES = 2**27  # of all made-up images together; 200 of (384, 384, 3) are fewer

AnsweredFor = Literal["examples", "tokens"]  # what a network of text says something of


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
    patches = (_mixed(n * rows * columns * c) >> np.uint64(56)).astype(np.uint8).reshape(n, rows, columns, c)
    return patches.repeat(PATCH, axis=1).repeat(PATCH, axis=2)[:, :h, :w]


def _mixed(n: int) -> NDArray[np.uint64]:
    """Return the first numbers of SplitMix64 with seed 0."""
    z = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray(z ^ (z >> np.uint64(31)))


@dataclass(frozen=True)
class Input:
    """What a network of images reads.

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

    @property
    def size(self) -> int:
        """Pixels along a side."""
        return self.shape[0]

    @property
    def dtype(self) -> str:
        """Type of what the file reads."""
        return "uint8" if self.pixels else "float32"

    @property
    def file_shape(self) -> tuple[int, ...]:
        """Shape of one example as the file reads it."""
        h, w, c = self.shape
        return self.shape if self.pixels else (c, h, w)

    @property
    def asked(self) -> int:
        """How many made-up examples are enough."""
        return IMAGES

    def answer_shape(self, examples: int, classes: int) -> tuple[int, ...]:
        """Return the shape of what a network gives for so many examples."""
        return (examples, classes)

    def made_up(self, n: int) -> NDArray[Any]:
        """Return the first `n` made-up images as the file reads them."""
        pixels = made_up_images(n, self.shape)
        return pixels if self.pixels else self.normalised(pixels)

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
class TextInput:
    """What a network of text reads: ids (batch, length) int64.

    Attributes:
        length: tokens of a text.
        vocabulary: ids are below it: 256 bytes and, where texts are filled up, 256 for "behind the end".
        answers: what the network says something of: each example, or each of its tokens.
    """

    length: int
    vocabulary: int
    answers: AnsweredFor = "examples"

    def __post_init__(self) -> None:
        if min(self.length, self.vocabulary) < 1:
            raise ValueError("needs a length and a vocabulary from 1")

    @property
    def size(self) -> int:
        """Tokens of a text."""
        return self.length

    @property
    def dtype(self) -> str:
        """Type of what the file reads."""
        return "int64"

    @property
    def file_shape(self) -> tuple[int, ...]:
        """Shape of one example as the file reads it."""
        return (self.length,)

    @property
    def asked(self) -> int:
        """How many made-up examples are enough."""
        return IMAGES if self.answers == "examples" else -(-IMAGES // self.length)

    def answer_shape(self, examples: int, classes: int) -> tuple[int, ...]:
        """Return the shape of what a network gives for so many examples."""
        return (examples, *(self.length,) * (self.answers == "tokens"), classes)

    def made_up(self, n: int) -> NDArray[np.int64]:
        """Return the first `n` made-up texts: tokens by chance, but for padding, which a text may have at its
        end only.
        """
        numbers = _mixed(n * self.length).reshape(n, self.length) >> np.uint64(8)
        return (numbers % np.uint64(min(self.vocabulary, BYTES))).astype(np.int64)

    def holds(self, texts: int) -> bool:
        """Return whether so many texts are few enough to be made up."""
        return texts * self.length * 8 <= MADE_UP_BYTES

    def to_json(self) -> dict[str, Any]:
        """Return it for a manifest."""
        return asdict(self)


AnyInput = TextInput | Input


def made_up_inputs(reads: AnyInput, n: int) -> NDArray[Any]:
    """Return the first `n` made-up examples as simulations and libraries read them: images normalised,
    whatever the file does.
    """
    if isinstance(reads, TextInput):
        return reads.made_up(n)
    return reads.normalised(made_up_images(n, reads.shape))


@dataclass(frozen=True)
class Answers:
    """What a network answers to the first `images` made-up examples.

    Attributes:
        images: how many, from the first.
        labels, largest_logits: of each image or text, or of each token of all texts.
        sha256: of all logits, where every bit of them is decided; None where it is not.
    """

    images: int
    labels: tuple[int, ...]
    largest_logits: tuple[float, ...]
    sha256: str | None = None

    def __post_init__(self) -> None:
        labels = len(self.labels)
        if self.images < 1 or not labels or labels % self.images or labels != len(self.largest_logits):
            raise ValueError(f"needs a label and a largest logit for each of {self.images} images, 1 or more")
        if min(self.labels) < 0:
            raise ValueError("a label is below 0")

    def to_json(self) -> dict[str, Any]:
        """Return it for a manifest; without a hash where there is none."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def answers_of(logits: NDArray[np.float32], *, exact: bool = False) -> Answers:
    """Return what a manifest keeps of (n, ..., classes) logits.

    Args:
        exact: whether every bit of them must be the same everywhere.
    """
    rows = logits.reshape(-1, logits.shape[-1])
    return Answers(
        len(logits),
        tuple(rows.argmax(axis=1).tolist()),
        tuple(float(f"{value:.6g}") for value in rows.max(axis=1)),
        digest(logits) if exact else None,
    )


def digest(logits: NDArray[np.float32]) -> str:
    """Return a hash that is the same for logits that are equal bit by bit, and for no others."""
    return hashlib.sha256(np.ascontiguousarray(logits + 0.0, "<f4").tobytes()).hexdigest()  # -0 is 0


def agreement(logits: NDArray[np.float32], answers: Answers) -> tuple[float, float]:
    """Return the share of equal labels of (n, ..., classes) logits, and the largest difference of a largest
    logit.
    """
    rows, largest = logits.reshape(-1, logits.shape[-1]), np.array(answers.largest_logits)
    share = float((rows.argmax(axis=1) == np.array(answers.labels)).mean())
    return share, float(np.abs(rows.max(axis=1) - largest).max())
