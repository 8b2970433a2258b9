"""Elastic convolution, batch norm and linear layers: sizes are arguments of `forward`, never state.

Channels are prefixes, kernels are centre crops of the largest one (Cai et al. 2020, arXiv:1908.09791,
without its transformation matrices).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supernet.layers.activation import ACTIVATE


class ElasticConvNorm(nn.Module):
    """Convolution + batch norm + activation whose channels and kernel can be any prefix and crop of the
    largest.

    Args:
        in_channels, out_channels, kernel: the largest sizes.
        stride: of the convolution; padding keeps `ceil(size / stride)`.
        depthwise: one filter per channel; then only `out_channels` counts.
        activation: one of `hw_profiles.graph.layer.ACTIVATIONS`.
        eps: of the batch norm.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        depthwise: bool = False,
        activation: str = "relu",
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, 1 if depthwise else in_channels, kernel, kernel))
        self.norm = nn.BatchNorm2d(out_channels, eps)
        self.stride, self.depthwise, self.activation = stride, depthwise, activation

    def sliced_weight(self, in_channels: int, out_channels: int, kernel: int) -> Tensor:
        """View (out, in or 1, k, k) of the largest weight."""
        edge = (self.weight.shape[-1] - kernel) // 2
        crop = slice(edge, edge + kernel)
        return self.weight[:out_channels, : 1 if self.depthwise else in_channels, crop, crop]

    def forward(self, x: Tensor, out_channels: int, kernel: int) -> Tensor:
        """(n, c, h, w) -> (n, out_channels, ceil(h / stride), ceil(w / stride)).

        In training mode batch statistics normalise, and the running ones are left alone: they would mix all
        subnets' statistics; evaluation recalibrates them on the extracted subnet (Yu & Huang 2019,
        arXiv:1903.05134, section 3).
        """
        weight = self.sliced_weight(x.shape[1], out_channels, kernel)
        y = F.conv2d(x, weight, None, self.stride, kernel // 2, 1, out_channels if self.depthwise else 1)
        norm = self.norm
        scale, shift = norm.weight[:out_channels], norm.bias[:out_channels]
        if self.training:
            y = F.batch_norm(y, None, None, scale, shift, True, 0.0, norm.eps)
        else:
            assert norm.running_mean is not None
            assert norm.running_var is not None
            mean, var = norm.running_mean[:out_channels], norm.running_var[:out_channels]
            y = F.batch_norm(y, mean, var, scale, shift, False, 0.0, norm.eps)
        return ACTIVATE[self.activation](y)

    def extract(self, in_channels: int, out_channels: int, kernel: int) -> "ConvNorm":
        """A static layer with copies of the sliced weights and statistics."""
        groups = out_channels if self.depthwise else 1
        layer = ConvNorm(
            in_channels,
            out_channels,
            kernel,
            stride=self.stride,
            groups=groups,
            activation=self.activation,
            eps=self.norm.eps,
        )
        with torch.no_grad():
            layer.conv.weight.copy_(self.sliced_weight(in_channels, out_channels, kernel))
            for name in ("weight", "bias", "running_mean", "running_var"):
                getattr(layer.norm, name).copy_(getattr(self.norm, name)[:out_channels])
        return layer


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
        """(n, c, h, w) -> (n, out_channels, ceil(h / stride), ceil(w / stride))."""
        return ACTIVATE[self.activation](self.norm(self.conv(x)))

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias with the batch norm's running statistics folded in."""
        assert self.norm.running_mean is not None
        assert self.norm.running_var is not None
        scale = self.norm.weight / torch.sqrt(self.norm.running_var + self.norm.eps)
        return self.conv.weight * scale[:, None, None, None], self.norm.bias - self.norm.running_mean * scale
