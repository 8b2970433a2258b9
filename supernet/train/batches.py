"""The images that a step sees: which, in which order, and how changed; all of it from (seed, step)."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from hw_profiles.errors import TrilobitError
from hw_profiles.streams import Stream, open_stream
from supernet.data.dataset import Dataset, normalised, to_tensor
from supernet.train.augment import cutout, mixup, shift_and_flip
from supernet.train.config import TrainConfig
from supernet.train.parallel import World
from supernet.train.randaugment import rand_augment

_SEEDS = 1_000_003  # runs of fewer steps than this, of different seeds, have no draws in common


@dataclass(frozen=True)
class Batches:
    """The batches of a training.

    A step sees `parts` batches of `batch_size` images, one after the other or in several processes: it does
    not matter which, every part has its own draws.

    Raises:
        TrilobitError: fewer images than parts.
    """

    dataset: Dataset
    config: TrainConfig
    seed: int
    world: World
    device: torch.device

    def __post_init__(self) -> None:
        if len(self.dataset.train) < self.parts:
            raise TrilobitError(
                f"{len(self.dataset.train)} training images cannot be divided among {self.world.size} "
                f"processes with train.accumulate = {self.config.accumulate}; use fewer"
            )

    @property
    def parts(self) -> int:
        """Batches of a step, over all processes."""
        return self.config.accumulate * self.world.size

    @property
    def steps_per_epoch(self) -> int:
        """See the function of this name."""
        return steps_per_epoch(self.dataset, self.config, self.world)

    @property
    def images(self) -> int:
        """Images of a step, over all processes."""
        return min(self.config.batch_size * self.parts, len(self.dataset.train))

    def of(self, step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's parts of a step: images (n, c, h, w) on the device, and labels (n,), or mixed ones
        (n, classes).
        """
        parts = np.array_split(self.rows(step), self.parts)
        first = self.world.rank * self.config.accumulate
        for part in range(first, first + self.config.accumulate):
            yield self._augmented(parts[part], (self.seed * _SEEDS + step) * self.parts + part)

    def rows(self, step: int) -> np.ndarray:
        """Rows of the training part that a step sees; every pass sees each once, in an order of its own."""
        epoch, position = divmod(step, self.steps_per_epoch)
        size = self.config.batch_size * self.parts
        return _order(self.seed, epoch, len(self.dataset.train))[position * size : (position + 1) * size]

    def _augmented(self, rows: np.ndarray, seed: int) -> tuple[Tensor, Tensor]:
        config, generator = self.config, torch.Generator().manual_seed(seed)
        part = self.dataset.train[rows]
        pixels = to_tensor(part).to(self.device)
        if config.randaugment:
            pixels = rand_augment(pixels, config.randaugment, generator=generator)
        x = normalised(pixels, self.dataset, pixels.shape[2])
        x = shift_and_flip(x, generator=generator, flip=config.flip, pad=config.pad)
        if config.cutout:
            x = cutout(x, config.cutout, generator=generator)
        targets = torch.from_numpy(part.labels).to(self.device)
        if config.mixup:
            soft = nn.functional.one_hot(targets, len(self.dataset.classes)).float()
            x, targets = mixup(x, soft, config.mixup, rng=open_stream(seed, Stream.MIXUP))
        return x, targets


@lru_cache(maxsize=2)  # 1 ms for 50,000 images, every step
def _order(seed: int, epoch: int, images: int) -> np.ndarray:
    order = open_stream(seed, Stream.EPOCH, epoch).permutation(images)
    order.flags.writeable = False
    return order


def steps_per_epoch(dataset: Dataset, config: TrainConfig, world: World | None = None) -> int:
    """Optimiser steps per pass; the last, smaller batch of a pass is dropped unless it is the only one."""
    processes = 1 if world is None else world.size
    return max(1, len(dataset.train.labels) // (config.batch_size * config.accumulate * processes))


def resize(x: Tensor, resolution: int) -> Tensor:
    """(n, c, h, w) -> (n, c, r, r), channels last; the same filter as for evaluation."""
    if x.shape[2] != resolution:
        x = nn.functional.interpolate(x, (resolution, resolution), mode="bilinear", antialias=True)
    return x.contiguous(memory_format=torch.channels_last)
