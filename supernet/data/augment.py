"""Augmentation of whole batches: every image gets its own draw, without a loop over images.

Draws are made on the CPU, wherever the images are: the same ones for every device.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def shift_and_flip(
    x: Tensor,
    *,
    generator: torch.Generator,
    flip: bool,
    pad: int,
    mirrored: Sequence[bool] | None = None,
) -> Tensor:
    """Shift each image of `x` (n, c, h, w) by up to `pad` pixels, borders repeated; if `flip`, mirror half,
    or those that are `mirrored` (n).

    This is pad-and-crop with replicated borders: zeros would be grey, which the background of digits is not.
    """
    n, _, height, width = x.shape
    shift = torch.randint(-pad, pad + 1, (2, n, 1), generator=generator)
    rows = (torch.arange(height) + shift[0]).clamp(0, height - 1)
    columns = (torch.arange(width) + shift[1]).clamp(0, width - 1)
    if flip:
        drawn = torch.rand(n, 1, generator=generator) < 0.5
        chosen = drawn if mirrored is None else torch.tensor(mirrored).view(n, 1)
        columns = torch.where(chosen, columns.flip(1), columns)
    images = torch.arange(n, device=x.device).view(n, 1, 1)
    rows, columns = rows.to(x.device), columns.to(x.device)
    return x.permute(0, 2, 3, 1)[images, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def cutout(x: Tensor, side: int, *, generator: torch.Generator) -> Tensor:
    """Blank a square of `side` pixels, centred anywhere, out of each image of `x` (n, c, h, w) that has mean
    0 (DeVries & Taylor 2017, arXiv:1708.04552).
    """
    n, _, height, width = x.shape
    top = torch.randint(0, height, (n, 1), generator=generator) - side // 2
    left = torch.randint(0, width, (n, 1), generator=generator) - side // 2
    rows = (torch.arange(height) >= top) & (torch.arange(height) < top + side)
    columns = (torch.arange(width) >= left) & (torch.arange(width) < left + side)
    return x.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None].to(x.device), 0.0)


def mixup(x: Tensor, targets: Tensor, alpha: float, *, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Mix each image of `x` (n, c, h, w) with another of the batch, and its `targets` (n, classes) likewise,
    by one share drawn from Beta(alpha, alpha) (Zhang et al. 2018, arXiv:1710.09412).
    """
    share = float(rng.beta(alpha, alpha))
    other = torch.from_numpy(rng.permutation(len(x))).to(x.device)
    return torch.lerp(x[other], x, share), torch.lerp(targets[other], targets, share)
