"""How spaces are designed: what people may choose of it, with ranges; without the engines that it needs."""

from dataclasses import dataclass
from typing import Annotated

from hw_profiles.options import Range, check
from nas.search.space_design import EVALUATIONS


@dataclass(frozen=True)
class DistillationConfig:
    """How each (stage, type) is distilled.

    Attributes:
        steps: of training.
        batch_size: images of a step.
        learning_rate: peak.
        samples: random sub-stages that are evaluated, of every window.
        images: that it learns from.
        judged: held-out images that it is evaluated on.
    """

    steps: Annotated[int, Range(1, 1_000_000)] = 80
    batch_size: Annotated[int, Range(1, 65_536)] = 32
    learning_rate: Annotated[float, Range(0, 100, above=True)] = 4e-3
    samples: Annotated[int, Range(1, 1_000_000)] = 32
    images: Annotated[int, Range(1, 100_000_000)] = 768
    judged: Annotated[int, Range(1, 1_000_000)] = 128

    def __post_init__(self) -> None:
        check(self, "design")


@dataclass(frozen=True)
class Effort:
    """How long the best space is looked for.

    Attributes:
        evaluations: spaces that are scored at most.
        seed: of everything random.
    """

    evaluations: Annotated[int, Range(1, 100_000_000)] = EVALUATIONS
    seed: Annotated[int, Range(0, 2**32 - 1)] = 0

    def __post_init__(self) -> None:
        check(self, "design")
