"""The nouns of a front: what is known of networks, from one source, and which of them nothing beats."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from nas.search.objectives import Objective, to_min, violation
from nas.search.pareto import Matrix, hypervolume, non_dominated
from supernet.space.space import Candidate

Source = Literal["predicted", "supernet", "measured"]


@dataclass(frozen=True)
class Evaluation:
    """What is known about one candidate from one source.

    Attributes:
        candidate: the network.
        values: objective name -> value in that objective's unit, as people read it (accuracy is not negated).
        source: `predicted` by predictors and cost tables; `supernet`, with inherited weights; `measured` on
            what is shipped.
        spread: objective name -> standard deviation or, of a measured latency, interquartile range, where it
            is known.
        load: of the machine while it was measured; None where the system cannot tell.
        error: why there are no values.

    Raises:
        ValueError: both values and an error, or neither.
    """

    candidate: Candidate
    values: Mapping[str, float] = field(hash=False)
    source: Source
    spread: Mapping[str, float] = field(default_factory=dict, hash=False)
    load: float | None = None
    error: str | None = None

    def __post_init__(self) -> None:
        if bool(self.values) == (self.error is not None):
            raise ValueError(f"candidate {self.candidate.id}: an evaluation has either values or an error")


@dataclass(frozen=True)
class ParetoFront:
    """Mutually non-dominated evaluations.

    Attributes:
        objectives: what is traded off, in order.
        evaluations: one per candidate, all from one source.
        reference: one value per objective, in its unit, worse than all of interest.

    Raises:
        ValueError: one evaluation dominates or equals another, a candidate is there twice, sources are mixed.
    """

    objectives: tuple[Objective, ...]
    evaluations: tuple[Evaluation, ...]
    reference: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.reference) != len(self.objectives):
            raise ValueError(f"{len(self.reference)} reference values for {len(self.objectives)} objectives")
        sources = {evaluation.source for evaluation in self.evaluations}
        if len(sources) > 1:
            raise ValueError(f"a front has one source, not {', '.join(sorted(sources))}")
        if len({evaluation.candidate for evaluation in self.evaluations}) < len(self.evaluations):
            raise ValueError("a candidate is there twice")
        if not non_dominated(self.minimised).all():
            raise ValueError("an evaluation is dominated by, or equal to, another; use pareto_front")

    @property
    def minimised(self) -> Matrix:
        """(n, m) objective values, less is better."""
        return to_min(self.objectives, value_matrix(self.objectives, self.evaluations))

    @property
    def hypervolume(self) -> float:
        """Volume between the front and the reference, in the product of the objectives' units."""
        return hypervolume(self.minimised, to_min(self.objectives, np.array([self.reference], np.float64))[0])


def value_matrix(objectives: Sequence[Objective], evaluations: Sequence[Evaluation]) -> Matrix:
    """Return (n, m) values as people read them; NaN where an evaluation lacks one."""
    rows = [[evaluation.values.get(o.name, np.nan) for o in objectives] for evaluation in evaluations]
    return np.array(rows, np.float64).reshape(len(evaluations), len(objectives))


def pareto_front(
    objectives: Sequence[Objective], evaluations: Sequence[Evaluation], reference: Sequence[float]
) -> ParetoFront:
    """Return the front of `evaluations` (one per candidate, one source), sorted by the first objective, best
    first.

    Failed evaluations and those outside a bound are left out; of equal ones the first stays.
    """
    values = value_matrix(objectives, evaluations)
    Y = to_min(objectives, values)
    Y[violation(objectives, values) > 0] = np.inf
    kept = np.flatnonzero(non_dominated(Y))
    ordered = kept[np.lexsort(Y[kept].T[::-1])]
    return ParetoFront(tuple(objectives), tuple(evaluations[i] for i in ordered), tuple(reference))
