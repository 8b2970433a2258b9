"""Squeeze-and-excitation with a width that is not fixed."""

from collections.abc import Iterator

from torch import Tensor, nn

from hw_profiles.graph.blocks import divisible
from supernet.layers.plain import ElasticConv


class ElasticSqueeze(nn.Module):
    """Scales each channel by a number in 0..1 made of all channels' means (Hu et al. 2018, arXiv:1709.01507),
    a quarter of the channels wide between, as in MobileNetV3 (Howard et al. 2019, arXiv:1905.02244).

    Args:
        channels: the largest number.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = divisible(channels / 4)
        self.reduce = ElasticConv(channels, squeezed, activation="relu")
        self.excite = ElasticConv(squeezed, channels, activation="hsigmoid")

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, c, h, w) for a prefix of c channels."""
        channels = x.shape[1]
        means = self.reduce(x.mean((2, 3), keepdim=True), divisible(channels / 4))
        scaled: Tensor = x * self.excite(means, channels)
        return scaled

    def extract(self, channels: int) -> Iterator[tuple[str, nn.Module]]:
        """The static layers for a prefix of `channels`, by part."""
        squeezed = divisible(channels / 4)
        yield "reduce", self.reduce.extract(channels, squeezed)
        yield "excite", self.excite.extract(squeezed, channels)
