"""Convolutions without batch norm: those of squeeze-and-excitation, and the one after pooling."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supernet.layers.activation import ACTIVATE


class ElasticConv(nn.Module):
    """A 1x1 convolution + activation whose channels can be any prefix of the largest.

    Args:
        in_channels, out_channels: the largest sizes.
        activation: one of `hw_profiles.graph.layer.ACTIVATIONS`.
        bias: whether it has one.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, activation: str = "none", bias: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.activation = activation

    def forward(self, x: Tensor, out_channels: int) -> Tensor:
        """Map (n, c, h, w) to (n, out_channels, h, w)."""
        bias = None if self.bias is None else self.bias[:out_channels]
        return ACTIVATE[self.activation](F.conv2d(x, self.weight[:out_channels, : x.shape[1]], bias))


class PlainConv(nn.Module):
    """A static 1x1 convolution + activation."""

    def __init__(
        self, in_channels: int, out_channels: int, *, activation: str = "none", bias: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=bias)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, c, h, w) to (n, out_channels, h, w)."""
        return ACTIVATE[self.activation](self.conv(x))

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return weight and bias, zeros where it has none."""
        weight = self.conv.weight
        return weight, weight.new_zeros(len(weight)) if self.conv.bias is None else self.conv.bias
