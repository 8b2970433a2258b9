"""Stored numbers of operations that have no norm behind them: scales of layer norms, tables, filters."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Prefixed(nn.Module):
    """Stored numbers of which every dimension can be any prefix of the largest; what is computed with them is
    the workload's. One of fixed sizes is what an extracted network has.

    Args:
        shape: of the largest weight, output channels first.
        bias: shape of the largest bias; None without.
    """

    def __init__(self, shape: Sequence[int], bias: Sequence[int] | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(*shape))
        self.bias = None if bias is None else nn.Parameter(torch.zeros(*bias))

    def sliced(self, shape: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Return views of a weight of this shape, and of its bias."""
        part = tuple(map(slice, shape))
        return self.weight[part], None if self.bias is None else self.bias[part[: self.bias.ndim]]
