"""The examples that a step sees: which, in which order, and how changed; all of it from (seed, step)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from hw_profiles.errors import TrilobitError
from hw_profiles.streams import Stream, open_stream
from supernet.data.augmentation import Augmentation
from supernet.tasks.task import Task
from supernet.train.config import TrainConfig
from supernet.train.parallel import World

_SEEDS = 1_000_003  # runs of fewer steps than this, of different seeds, have no draws in common


@dataclass(frozen=True)
class Batches:
    """The batches of a training.

    A step sees `parts` batches of `batch_size` examples, one after the other or in several processes: it does
    not matter which, every part has its own draws.

    Raises:
        TrilobitError: fewer examples than parts.
    """

    task: Task
    config: TrainConfig
    seed: int
    world: World
    device: torch.device

    def __post_init__(self) -> None:
        if len(self.task.train) < self.parts:
            raise TrilobitError(
                f"{len(self.task.train)} training examples cannot be divided among {self.world.size} "
                f"processes with train.accumulate = {self.config.accumulate}; use fewer"
            )

    @property
    def parts(self) -> int:
        """Batches of a step, over all processes."""
        return self.config.accumulate * self.world.size

    @property
    def steps_per_epoch(self) -> int:
        """See the function of this name."""
        return steps_per_epoch(self.task, self.config, self.world)

    @property
    def images(self) -> int:
        """Examples of a step, over all processes."""
        return min(self.config.batch_size * self.parts, len(self.task.train))

    def of(self, step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this process's parts of a step: inputs and targets, on the device."""
        parts = np.array_split(self.rows(step), self.parts)
        first = self.world.rank * self.config.accumulate
        for part in range(first, first + self.config.accumulate):
            yield self.task.training_batch(
                self.task.train[parts[part]],
                self._augmentation(step, parts[part]),
                seed=(self.seed * _SEEDS + step) * self.parts + part,
                device=self.device,
            )

    def _augmentation(self, step: int, rows: np.ndarray) -> Augmentation:
        augmentation = self.config.augmentation
        if not self.config.alternate:
            return augmentation
        halves = _halves(self.seed, len(self.task.train))[rows]
        mirrored = halves ^ (step // self.steps_per_epoch % 2 == 1)
        return replace(augmentation, mirrored=tuple(mirrored.tolist()))

    def rows(self, step: int) -> np.ndarray:
        """Return the rows of the training part that a step sees; every pass sees each once, in an order of
        its own.
        """
        epoch, position = divmod(step, self.steps_per_epoch)
        size = self.config.batch_size * self.parts
        return _order(self.seed, epoch, len(self.task.train))[position * size : (position + 1) * size]


@lru_cache(maxsize=2)  # 1 ms for 50,000 images, every step
def _order(seed: int, epoch: int, images: int) -> np.ndarray:
    order = open_stream(seed, Stream.EPOCH, epoch).permutation(images)
    order.flags.writeable = False
    return order


@lru_cache(maxsize=1)
def _halves(seed: int, images: int) -> np.ndarray:
    """Return (images,) which of them are mirrored in the first epoch, and in every other after it."""
    halves = open_stream(seed, Stream.MIRRORED).random(images) < 0.5
    halves.flags.writeable = False
    return halves


def steps_per_epoch(task: Task, config: TrainConfig, world: World | None = None) -> int:
    """Return the optimiser steps of a pass; the last, smaller batch of a pass is dropped unless it is the
    only one.
    """
    processes = 1 if world is None else world.size
    return max(1, len(task.train) // (config.batch_size * config.accumulate * processes))
