"""What a task is: its data in three parts, how networks read it, the loss they learn by, and how good they
are.

Training, distillation, sampling, evaluation and parity know a task by this protocol alone. A reader of data
(`supernet.tasks.loading`) returns one.
"""

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from supernet.data.augmentation import Augmentation
from supernet.data.kinds import Answers, Reads, examples_called
from supernet.tasks.metric import Quality

Outputs = NDArray[np.float32]  # (n, ...) what a network says of n examples


class Examples(Protocol):
    """Rows of one part of a task's data."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice | NDArray[Any]) -> "Examples":
        """Return the examples of these rows: a slice, indices or a mask."""
        ...


class Task(Quality, Protocol):
    """Data with a purpose. Where a method takes examples, they are rows of one of its own parts.

    A task of text has three more attributes: `reads`, which is `"tokens"`, `length`, the tokens of an
    example, and `answers`, what it asks of networks (`supernet.data.kinds.ANSWERS`). Where `size` is pixels
    along a side for others, it is tokens for that.
    """

    @property
    def name(self) -> str:
        """What to call the data in reports."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of all examples of all parts, to notice that data or split have changed."""
        ...

    @property
    def train(self) -> Examples:
        """What supernets and predictors learn from."""
        ...

    @property
    def validation(self) -> Examples:
        """What candidates are compared on."""
        ...

    @property
    def test(self) -> Examples:
        """What nothing sees before a network is shipped."""
        ...

    @property
    def channels(self) -> int:
        """Channels of what a network reads: of an image's pixels; of tokens, the size of the vocabulary."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the numbers that a network gives for one example, or for each of its tokens."""
        ...

    def inputs(self, examples: Any, size: int) -> Tensor:
        """Return examples as a network reads them: images (n, channels, size, size) float32, or tokens
        (n, size) int64.
        """
        ...

    def sized(self, inputs: Tensor, size: int) -> Tensor:
        """Return inputs of a batch as a network of another input size reads them."""
        ...

    def training_batch(
        self, examples: Any, augmentation: Augmentation, *, seed: int, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Return inputs, changed at random by `seed` as far as the task knows how, and targets."""
        ...

    def targets(self, examples: Any) -> Tensor:
        """Return what networks should say of examples (n, ...)."""
        ...

    def loss(self, outputs: Tensor, targets: Tensor, *, smoothing: float) -> Tensor:
        """Return the scalar that training makes small; `smoothing` of the targets, where that means
        something.
        """
        ...

    def distillation_loss(self, outputs: Tensor, teacher: Tensor) -> Tensor:
        """Return the scalar that learning from a teacher's outputs makes small."""
        ...

    def evaluate(self, outputs: Outputs, examples: Any, original: Outputs | None = None) -> dict[str, float]:
        """Return the metrics by name.

        Args:
            outputs: (n, ...) what a network says of the examples.
            examples: n of them.
            original: what the network says that others are compared with; without it, metrics that compare
                are left out.
        """
        ...

    def scores(self, outputs: Outputs, examples: Any) -> NDArray[np.float64]:
        """Return (n,) each example's part of the main metric, whose mean over the examples that is."""
        ...

    def agreement(self, outputs: Outputs, others: Outputs) -> float:
        """Return the share of examples, or of their tokens, in 0..1, that two networks decide the same of."""
        ...


def reads(task: Task) -> Reads:
    """Return what networks of a task read: images, unless an attribute `reads` of the task says otherwise."""
    stated: Reads = getattr(task, "reads", "images")
    return stated


def answers(task: Task) -> Answers:
    """Return what a task asks of networks: the class of each example, unless an attribute `answers` says
    otherwise.
    """
    stated: Answers = getattr(task, "answers", "class")
    return stated


def called(task: Task) -> str:
    """Return what to call examples of a task: images, or texts."""
    return examples_called(reads(task))


def tokens_of(task: Task) -> int:
    """Return how many tokens an example of a task of text has; 0 of another task."""
    length: int = getattr(task, "length", 0)
    return length
