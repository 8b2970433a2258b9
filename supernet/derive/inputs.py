"""What the networks of a family read: an image, or the tokens of a text. How large it is, each chooses."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from hw_profiles.graph.cache import IDS as IDS
from hw_profiles.graph.tensor_type import BATCH, Dim, TensorType
from hw_profiles.graph.workload import Feed
from supernet.data.kinds import Answers as Answers
from supernet.data.kinds import Reads as Reads

ID_TYPE = "int64"


class NetworkInput(Protocol):
    """What networks read, but for its size: pixels along a side, or tokens."""

    @property
    def reads(self) -> Reads:
        """The kind of data that it is made of."""
        ...

    @property
    def choice(self) -> str:
        """Name of the choice of its size, where a family does not say otherwise."""
        ...

    def feed(self, size: Dim) -> Feed:
        """Return the tensor that a network is given."""
        ...

    def drawn(self, n: int, size: int, *, generator: torch.Generator) -> Tensor:
        """Return `n` random examples as a network reads them, for trying it out."""
        ...


@dataclass(frozen=True)
class ImageInput:
    """Square images (n, channels, size, size) in fp32.

    Attributes:
        channels: of a pixel.
    """

    reads: ClassVar[Reads] = "images"
    choice: ClassVar[str] = "resolution"

    channels: int

    def feed(self, size: Dim) -> Feed:
        """Return the image of `size` pixels along a side."""
        return Feed("image", TensorType((BATCH, self.channels, size, size)))

    def drawn(self, n: int, size: int, *, generator: torch.Generator) -> Tensor:
        """Return (n, channels, size, size) normal numbers."""
        return torch.randn(n, self.channels, size, size, generator=generator)


@dataclass(frozen=True)
class TokenInput:
    """Ids (n, size) of tokens. Which of them are text, and where they are, a network works out itself.

    Attributes:
        vocabulary: how many tokens there are: ids are below it.
    """

    reads: ClassVar[Reads] = "tokens"
    choice: ClassVar[str] = "length"

    vocabulary: int

    def feed(self, size: Dim) -> Feed:
        """Return the ids of `size` tokens."""
        return Feed(IDS, TensorType((BATCH, size), ID_TYPE))

    def drawn(self, n: int, size: int, *, generator: torch.Generator) -> Tensor:
        """Return (n, size) ids, each as likely."""
        return torch.randint(self.vocabulary, (n, size), generator=generator)
