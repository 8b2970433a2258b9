"""Pooling of windows, by the ops that `hw_profiles.graph.layer` has for it."""

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from torch import Tensor

# (x, kernel, stride) -> (n, c, ceil(h / stride), ceil(w / stride))
POOL: Mapping[str, Callable[[Tensor, int, int], Tensor]] = {
    "maxpool": lambda x, kernel, stride: F.max_pool2d(x, kernel, stride, kernel // 2),
    "avgpool": lambda x, kernel, stride: F.avg_pool2d(x, kernel, stride, ceil_mode=True),
}
