"""Text of which every token has a class, such as the parts of speech of source code."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from supernet.data.tokens import Windows
from supernet.tasks.class_metrics import same_choice, values_of_classes
from supernet.tasks.metric import TOKEN_CLASSIFICATION, Metric
from supernet.tasks.task import Outputs
from supernet.tasks.text_task import TextTask, rows_of, targets_of, together


@dataclass(frozen=True, eq=False)
class TokenClassification(TextTask[Windows]):
    """A `Task`: the class of every byte. Its metrics are means over tokens, not over windows.

    Attributes:
        see `TextTask`.
    """

    metrics: ClassVar[tuple[Metric, ...]] = TOKEN_CLASSIFICATION

    def varied(self, examples: Windows, seed: int) -> Windows:
        """Return windows that begin somewhere else each time, up to one window later."""
        return begun_elsewhere(examples, seed)

    def targets(self, examples: Windows) -> Tensor:
        """Return (n, length) int64 the class of every token."""
        return torch.from_numpy(examples.answers)

    def evaluate(
        self, outputs: Outputs, examples: Windows, original: Outputs | None = None
    ) -> dict[str, float]:
        """Return accuracy, calibration error and the accuracy on the worst class of the tokens of logits
        (n, t, classes) and, compared with the original's logits, negative flips and agreement.
        """
        answers = targets_of(outputs, examples.answers)
        values = values_of_classes(rows_of(outputs), answers)
        if original is None:
            return values
        outputs, original = together(outputs, original)
        compared = values_of_classes(
            rows_of(outputs), targets_of(outputs, examples.answers), rows_of(original)
        )
        return {**compared, **values}  # of all of its own tokens where nothing is compared

    def scores(self, outputs: Outputs, examples: Windows) -> NDArray[np.float64]:
        """Return (n,) the share of tokens of each window whose class is right."""
        right: NDArray[np.bool_] = outputs.argmax(axis=2) == examples.answers[:, : outputs.shape[1]]
        return np.asarray(right.mean(axis=1, dtype=np.float64))

    def agreement(self, outputs: Outputs, others: Outputs) -> float:
        """Return the share of tokens that two networks name the same class of."""
        return same_choice(*together(outputs, others))


def begun_elsewhere(windows: Windows, seed: int) -> Windows:
    """Return windows of a training text moved by less than their length each, drawn by `seed`: so that passes
    over the text differ.
    """
    generator = torch.Generator().manual_seed(seed)
    return windows.moved(torch.randint(windows.length, (len(windows),), generator=generator).numpy())
