"""Activation functions by the names that `hw_profiles.graph.layer.ACTIVATIONS` has for them."""

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from torch import Tensor

# The first three may write over their argument, so the caller must not need it again.
ACTIVATE: Mapping[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": lambda x: F.relu(x, inplace=True),
    "relu6": lambda x: F.relu6(x, inplace=True),
    "hswish": F.hardswish,  # x * min(max(x + 3, 0), 6) / 6: Howard et al. 2019, arXiv:1905.02244
    "hsigmoid": F.hardsigmoid,  # min(max(x + 3, 0), 6) / 6
}
