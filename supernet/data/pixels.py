"""Pixels as networks read them: tensors, resized and normalised."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from supernet.data.images import Images, Pixels


def to_tensor(images: Images) -> Tensor:
    """Return (n, c, h, w) uint8, channels last."""
    return torch.from_numpy(np.ascontiguousarray(images.pixels)).permute(0, 3, 1, 2)


def resized(images: Images, resolution: int) -> Pixels:
    """Return (n, r, r, c) uint8: what a network that normalises by itself reads."""
    if images.pixels.shape[1:3] == (resolution, resolution):
        return images.pixels
    size = (resolution, resolution)
    batch = F.interpolate(to_tensor(images).float(), size, mode="bilinear", antialias=True)
    return np.ascontiguousarray(batch.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy())


def resize(x: Tensor, resolution: int) -> Tensor:
    """Return (n, c, h, w) as (n, c, r, r), channels last; by the same filter as for evaluation."""
    if x.shape[2] != resolution:
        x = F.interpolate(x, (resolution, resolution), mode="bilinear", antialias=True)
    return x.contiguous(memory_format=torch.channels_last)


def normalised(pixels: Tensor, mean: Sequence[float], std: Sequence[float], resolution: int) -> Tensor:
    """Return uint8 pixels (n, c, h, w) as (n, c, r, r) float32, less `mean` and by `std` of each channel,
    which are of pixels in 0..1; on the same device.
    """
    batch = pixels.float()
    if batch.shape[2:] != (resolution, resolution):
        batch = F.interpolate(batch, (resolution, resolution), mode="bilinear", antialias=True)
    means, deviations = (
        torch.tensor(tuple(values), device=batch.device).mul(255).view(1, -1, 1, 1) for values in (mean, std)
    )
    return batch.sub_(means).div_(deviations)
