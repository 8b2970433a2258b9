"""Texts of classes: the sentiment of a sentence, the topic of a message."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from supernet.data.kinds import Answers
from supernet.data.tokens import PADDING, Texts
from supernet.tasks.class_metrics import same_choice, values_of_classes
from supernet.tasks.metric import CLASSIFICATION, Metric
from supernet.tasks.task import Outputs
from supernet.tasks.text_task import TextTask


@dataclass(frozen=True, eq=False)
class SequenceClassification(TextTask[Texts]):
    """A `Task`: which of some classes a text has. Shorter texts are filled up with `PADDING`; which tokens
    are text is what `attention_mask` says of them, so that networks read one tensor.

    Attributes:
        see `TextTask`.
    """

    metrics: ClassVar[tuple[Metric, ...]] = CLASSIFICATION
    answers: ClassVar[Answers] = "class"
    padding: ClassVar[int] = 1

    def targets(self, examples: Texts) -> Tensor:
        """Return labels (n,)."""
        return torch.from_numpy(np.asarray(examples.labels, np.int64))

    def evaluate(
        self, outputs: Outputs, examples: Texts, original: Outputs | None = None
    ) -> dict[str, float]:
        """Return accuracy, calibration error and the accuracy on the worst class of logits (n, classes) and,
        compared with the original's logits, negative flips and agreement.
        """
        return values_of_classes(outputs, examples.labels, original)

    def scores(self, outputs: Outputs, examples: Texts) -> NDArray[np.float64]:
        """Return (n,) 1 for each text whose label is right, else 0."""
        right: NDArray[np.bool_] = outputs.argmax(axis=1) == examples.labels
        return right.astype(np.float64)

    def agreement(self, outputs: Outputs, others: Outputs) -> float:
        """Return the share of texts on which two networks name the same class."""
        return same_choice(outputs, others)


def attention_mask(ids: Tensor) -> Tensor:
    """Return (n, length) bool: which tokens are text, not padding."""
    return ids != PADDING
