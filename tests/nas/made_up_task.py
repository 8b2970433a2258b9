"""A task that the packages do not know: from vectors, laid out as a grid, to two numbers; its own loss, its
own metrics, of which less is better.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from supernet.data.augmentation import Augmentation
from supernet.tasks.metric import Metric

ERROR = Metric("error", "volts", "min", "root of the mean squared error")
WORST = Metric("worst", "volts", "min", "largest error of any number")
SIDE = 8


@dataclass(frozen=True, eq=False)
class Vectors:
    """Examples: `features` (n, 64) and `values` (n, 2)."""

    features: NDArray[np.float32]
    values: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: slice | NDArray[Any]) -> "Vectors":
        return Vectors(self.features[rows], self.values[rows])


@dataclass(frozen=True)
class Regression:
    """A `supernet.tasks.task.Task`."""

    metrics: ClassVar[tuple[Metric, ...]] = (ERROR, WORST)
    name: ClassVar[str] = "vectors"
    channels: ClassVar[int] = 1
    classes: ClassVar[tuple[str, ...]] = ("level", "slope")

    train: Vectors
    validation: Vectors
    test: Vectors

    @cached_property
    def fingerprint(self) -> str:
        parts = (self.train, self.validation, self.test)
        return hashlib.sha256(b"".join(part.features.tobytes() for part in parts)).hexdigest()[:16]

    def inputs(self, examples: Vectors, size: int) -> Tensor:
        return self.sized(torch.from_numpy(examples.features).view(-1, 1, SIDE, SIDE), size)

    def sized(self, inputs: Tensor, size: int) -> Tensor:
        return F.interpolate(inputs, (size, size)).contiguous(memory_format=torch.channels_last)

    def training_batch(
        self, examples: Vectors, augmentation: Augmentation, *, seed: int, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        noise = torch.randn((len(examples), 1, SIDE, SIDE), generator=torch.Generator().manual_seed(seed))
        return (self.inputs(examples, SIDE) + 0.01 * noise).to(device), self.targets(examples).to(device)

    def targets(self, examples: Vectors) -> Tensor:
        return torch.from_numpy(examples.values)

    def loss(self, outputs: Tensor, targets: Tensor, *, smoothing: float) -> Tensor:
        return F.mse_loss(outputs, targets)

    def distillation_loss(self, outputs: Tensor, teacher: Tensor) -> Tensor:
        return F.mse_loss(outputs, teacher.detach())

    def evaluate(
        self, outputs: NDArray[np.float32], examples: Vectors, original: NDArray[np.float32] | None = None
    ) -> dict[str, float]:
        apart = np.abs(outputs - examples.values)
        return {
            ERROR.name: float(np.sqrt(self.scores(outputs, examples).mean())),
            WORST.name: float(apart.max()),
        }

    def scores(self, outputs: NDArray[np.float32], examples: Vectors) -> NDArray[np.float64]:
        squared: NDArray[np.float64] = ((outputs - examples.values).astype(np.float64) ** 2).mean(axis=1)
        return squared

    def agreement(self, outputs: NDArray[np.float32], others: NDArray[np.float32]) -> float:
        return float((np.abs(outputs - others) < 0.05).all(axis=1).mean())


def read(argument: str, *, seed: int, cache: Path | None) -> Regression:
    """Read no file: the data follows from `seed`."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(384, SIDE * SIDE)).astype(np.float32)
    values = np.stack([features.mean(axis=1) * 8, features[:, :SIDE].mean(axis=1) * 3], axis=1)
    everything = Vectors(features, values.astype(np.float32))
    return Regression(everything[:256], everything[256:320], everything[320:])
