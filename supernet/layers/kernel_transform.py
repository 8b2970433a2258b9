"""A depthwise convolution whose smaller kernels are learned transformations of the larger ones' centres."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supernet.layers.elastic import ElasticConvNorm


class TransformedDepthwise(ElasticConvNorm):
    """Depthwise convolution + batch norm whose channels are any prefix of the largest, and whose
    kernel is any of `kernels` (Cai et al. 2020, arXiv:1908.09791, section 3.3, "elastic kernel size").

    A kernel of k x k is the centre of the next larger one, its values mixed by a matrix (k^2, k^2) that all
    channels share: 3x3 is made of 5x5, and that of 7x7. The matrices begin as identities.

    Args:
        channels: the largest number.
        kernels: which it can take, ascending and odd.
        eps: of the batch norm.
    """

    def __init__(self, channels: int, kernels: Sequence[int], *, eps: float = 1e-5) -> None:
        super().__init__(channels, channels, max(kernels), depthwise=True, eps=eps)
        self.kernels = tuple(kernels)
        self.transforms = nn.ParameterDict({str(k): torch.eye(k * k) for k in self.kernels[:-1]})

    def sliced_weight(self, in_channels: int, out_channels: int, kernel: int) -> Tensor:
        """Return the weight (out, 1, k, k) of a kernel that it can take."""
        weight = self.weight[:out_channels]
        for larger, smaller in pairwise(self.kernels[::-1]):
            if smaller < kernel:
                break
            crop = slice((larger - smaller) // 2, (larger + smaller) // 2)
            values = weight[:, :, crop, crop].flatten(1)
            weight = F.linear(values, self.transforms[str(smaller)]).view(out_channels, 1, smaller, smaller)
        return weight
