"""Rounding in training: the values of a number format forward, gradients straight through backward."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import FunctionCtx

Array = NDArray[np.float32]


def straight_through(x: Tensor, rounded: Callable[[Array], Array]) -> Tensor:
    """Return `rounded(x)`, whose gradient is taken as that of `x` (Bengio et al. 2013, arXiv:1308.3432)."""
    result: Tensor = _Rounded.apply(x, rounded)  # type: ignore[no-untyped-call]
    return result


class _Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, rounded: Callable[[Array], Array]) -> Tensor:
        return torch.from_numpy(rounded(x.detach().cpu().float().numpy())).to(x)

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Any) -> tuple[Tensor, None]:
        return grads[0], None
