"""Elastic convolution with batch norm: sizes are asked for, never state.

Channels are prefixes, kernels are centre crops of the largest one (Cai et al. 2020, arXiv:1908.09791,
without its transformation matrices).
"""

import torch
from torch import Tensor, nn

from supernet.layers.activation import ACTIVATE


class ElasticConvNorm(nn.Module):
    """Convolution + batch norm whose channels and kernel can be any prefix and crop of the largest; stride
    and activation are the workload's.

    Args:
        in_channels, out_channels, kernel: the largest sizes.
        depthwise: one filter per channel; then only `out_channels` counts.
        eps: of the batch norm.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, *, depthwise: bool = False, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, 1 if depthwise else in_channels, kernel, kernel))
        self.norm = nn.BatchNorm2d(out_channels, eps)
        self.depthwise = depthwise

    def sliced_weight(self, in_channels: int, out_channels: int, kernel: int) -> Tensor:
        """Return a view (out, in or 1, k, k) of the largest weight."""
        edge = (self.weight.shape[-1] - kernel) // 2
        crop = slice(edge, edge + kernel)
        return self.weight[:out_channels, : 1 if self.depthwise else in_channels, crop, crop]


class ConvNorm(nn.Module):
    """A static convolution + batch norm + activation: what a unit of an extracted subnet is."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        activation: str = "relu",
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False
        )
        self.norm = nn.BatchNorm2d(out_channels, eps)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, c, h, w) to (n, out_channels, ceil(h / stride), ceil(w / stride))."""
        return ACTIVATE[self.activation](self.norm(self.conv(x)))

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return weight and bias with the batch norm's running statistics folded in."""
        assert self.norm.running_mean is not None
        assert self.norm.running_var is not None
        scale = self.norm.weight / torch.sqrt(self.norm.running_var + self.norm.eps)
        return self.conv.weight * scale[:, None, None, None], self.norm.bias - self.norm.running_mean * scale
