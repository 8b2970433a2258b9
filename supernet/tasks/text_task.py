"""What all tasks of text have in common: bytes as tokens, in rows of one length."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from hw_profiles.errors import TrilobitError
from supernet.data.augmentation import Augmentation
from supernet.data.kinds import Answers, Reads
from supernet.data.tokens import BYTES, TokenExamples, fingerprint_of
from supernet.tasks.losses import distillation_loss, label_loss

E = TypeVar("E", bound=TokenExamples)


@dataclass(frozen=True, eq=False)
class TextTask(ABC, Generic[E]):
    """The parts of a `Task` that are the same for all text.

    Attributes:
        name: what to call it in reports.
        classes: class names; a target is an index into them.
        train, validation, test: the parts, all of one length.
        reads, answers: what networks read, and are asked, see `supernet.tasks.task`.
        padding: tokens besides the 256 bytes.
    """

    reads: ClassVar[Reads] = "tokens"
    answers: ClassVar[Answers] = "token"
    padding: ClassVar[int] = 0

    name: str
    classes: tuple[str, ...]
    train: E
    validation: E
    test: E

    @property
    def channels(self) -> int:
        """Size of the vocabulary."""
        return BYTES + self.padding

    @property
    def length(self) -> int:
        """Tokens of an example."""
        return self.train.length

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the tokens and labels of all parts, to notice that data or split have changed."""
        return fingerprint_of(self.train, self.validation, self.test)

    def __str__(self) -> str:
        """Return what there is, in one line."""
        parts = {"training": self.train, "validation": self.validation, "test": self.test}
        counts = ", ".join(f"{len(part):,} for {name}" for name, part in parts.items())
        return f"{self.name}: text of {self.length} tokens, {len(self.classes)} classes; {counts}"

    def inputs(self, examples: E, size: int) -> Tensor:
        """Return (n, size) int64 tokens, the first ones of each example.

        Raises:
            TrilobitError: the examples are shorter than that.
        """
        return self.sized(torch.from_numpy(examples.ids), size)

    def sized(self, inputs: Tensor, size: int) -> Tensor:
        """Return (n, length) tokens as (n, size), the first ones.

        Raises:
            TrilobitError: there are fewer.
        """
        if size > inputs.shape[1]:
            raise TrilobitError(
                f"{self.name}: a network that reads {size} tokens, and examples have {inputs.shape[1]}; "
                f"say length={size} behind the ? of --data"
            )
        return inputs[:, :size]

    def training_batch(
        self, examples: E, augmentation: Augmentation, *, seed: int, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Return tokens (n, length) and targets; changes of images mean nothing here."""
        changed = self.varied(examples, seed)
        return self.inputs(changed, self.length).to(device), self.targets(changed).to(device)

    def varied(self, examples: E, seed: int) -> E:
        """Return training examples changed at random: here not at all."""
        return examples

    @abstractmethod
    def targets(self, examples: E) -> Tensor:
        """Return the indices of right classes, (n,) or (n, length) int64."""

    def loss(self, outputs: Tensor, targets: Tensor, *, smoothing: float) -> Tensor:
        """Return the cross-entropy of logits (n, classes) with targets (n,), or the mean over positions of
        that of logits (n, t, classes) with the first t targets of (n, length).
        """
        return label_loss(rows_of(outputs), targets_of(outputs, targets), smoothing)

    def distillation_loss(self, outputs: Tensor, teacher: Tensor) -> Tensor:
        """Return the cross-entropy of logits (n, classes) or (n, t, classes) with the teacher's
        probabilities, at the positions that both say something of.
        """
        if outputs.ndim == 3:
            outputs, teacher = together(outputs, teacher)
        return distillation_loss(rows_of(outputs), rows_of(teacher))


def rows_of(outputs: Any) -> Any:
    """Return logits (n, ..., classes) as (rows, classes)."""
    return outputs.reshape(-1, outputs.shape[-1])


def together(outputs: Any, others: Any) -> tuple[Any, Any]:
    """Return what two networks say of the tokens that both read."""
    common = min(outputs.shape[1], others.shape[1])
    return outputs[:, :common], others[:, :common]


def targets_of(outputs: Any, targets: Any) -> Any:
    """Return (rows,) the targets of `rows_of(outputs)`: of a network that reads fewer tokens than examples
    have, those of its own.
    """
    return targets[:, : outputs.shape[1]].reshape(-1) if outputs.ndim == 3 else targets
