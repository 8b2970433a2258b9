"""Text of which every next byte is predicted from those before it."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from supernet.data.kinds import Answers
from supernet.data.tokens import BYTES, Windows
from supernet.tasks.class_metrics import same_choice
from supernet.tasks.divergence import divergence
from supernet.tasks.language_metrics import MOST_NATS, bits_of_targets, perplexity
from supernet.tasks.metric import (
    AGREEMENT,
    BITS_PER_BYTE,
    KL,
    LANGUAGE_MODELLING,
    NEXT_BYTE,
    PERPLEXITY,
    Metric,
)
from supernet.tasks.output_roles import OutputRole, Role
from supernet.tasks.task import Outputs
from supernet.tasks.text_task import TextTask, together
from supernet.tasks.token_classification import begun_elsewhere

# names of the 256 classes: printable ones as they are
BYTE_NAMES = tuple(chr(byte) if 32 < byte < 127 else f"0x{byte:02x}" for byte in range(BYTES))


@dataclass(frozen=True, eq=False)
class LanguageModelling(TextTask[Windows]):
    """A `Task`: at every position of a window the byte that follows. A window predicts as many bytes as it
    has, from up to so many before each: figures are comparable among windows of one length.

    Attributes:
        see `TextTask`.
    """

    metrics: ClassVar[tuple[Metric, ...]] = LANGUAGE_MODELLING
    answers: ClassVar[Answers] = "next"

    def varied(self, examples: Windows, seed: int) -> Windows:
        """Return windows that begin somewhere else each time, up to one window later."""
        return begun_elsewhere(examples, seed)

    def targets(self, examples: Windows) -> Tensor:
        """Return (n, length) int64 the byte after each position."""
        return torch.from_numpy(examples.next_ids)

    def evaluate(
        self, outputs: Outputs, examples: Windows, original: Outputs | None = None
    ) -> dict[str, float]:
        """Return bits per byte, perplexity and the share of bytes that are the first choice of logits
        (n, t, 256) and, compared with the original's logits, agreement of first choices and divergence.
        """
        bits = float(self.scores(outputs, examples).mean())
        targets = examples.next_ids[:, : outputs.shape[1]]
        values = {
            BITS_PER_BYTE.name: bits,
            PERPLEXITY.name: perplexity(bits),
            NEXT_BYTE.name: float((outputs.argmax(axis=2) == targets).mean()),
        }
        if original is not None:
            outputs, original = together(outputs, original)
            role = OutputRole("logits", Role.SCORES, classes=BYTES, steps=outputs.shape[1])
            values[AGREEMENT.name] = same_choice(outputs, original)
            values[KL.name] = float(np.minimum(divergence(outputs, original, role), MOST_NATS).mean())
        return values

    def scores(self, outputs: Outputs, examples: Windows) -> NDArray[np.float64]:
        """Return (n,) the bits per byte of each window."""
        bits = bits_of_targets(outputs, examples.next_ids[:, : outputs.shape[1]])
        return np.asarray(bits.mean(axis=1))

    def agreement(self, outputs: Outputs, others: Outputs) -> float:
        """Return the share of positions that two networks have the same first choice at."""
        return same_choice(*together(outputs, others))
