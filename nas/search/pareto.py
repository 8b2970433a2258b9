"""Pareto dominance on objective matrices, and the nouns of a front.

Everything here minimises: objectives went through `Objective.to_min` before. A matrix is `(n, m)`, a row
per candidate.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import moocore
import numpy as np
from numpy.typing import NDArray

from nas.search.objectives import Objective, to_min, violation
from supernet.space.space import Candidate

Matrix = NDArray[np.float64]  # (n, m)
Source = Literal["predicted", "supernet", "measured"]


def finite_rows(Y: Matrix) -> NDArray[np.bool_]:
    """(n,) True where a row of `Y` (n, m) has neither a NaN nor an infinity: the evaluation did not fail."""
    finite: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(Y), axis=1)
    return finite


def non_dominated(Y: Matrix) -> NDArray[np.bool_]:
    """(n,) True where no other row of `Y` (n, m) is at least as good everywhere and better somewhere.

    Of equal rows only the first is kept. A row with a NaN or an infinity is never kept and dominates nothing.
    """
    mask = finite_rows(Y)
    if mask.any():
        mask[mask] = moocore.is_nondominated(Y[mask], keep_weakly=False)
    return mask


def rank(Y: Matrix) -> NDArray[np.int64]:
    """(n,) front index: 0 where non-dominated, 1 where non-dominated once front 0 is removed, and so on.

    Equal rows share a rank. Rows with a NaN or an infinity come after all others, in one last front.
    """
    finite = finite_rows(Y)
    ranks = np.zeros(len(Y), np.int64)
    if finite.any():
        ranks[finite] = moocore.pareto_rank(Y[finite])
        ranks[~finite] = ranks.max() + 1
    return ranks


def beaten(Y: Matrix, front: Matrix) -> NDArray[np.bool_]:
    """(n,) True where a row of `front` (f, m) is at least as good as that of `Y` (n, m) in everything.

    Of two objectives only, where the best second one up to each first one says so: of more it costs as much
    as `non_dominated` itself, and all are False.
    """
    if Y.shape[1] != 2 or not len(front):
        return np.zeros(len(Y), bool)
    stairs = front[np.argsort(front[:, 0], kind="stable")]
    lowest = np.concatenate(([np.inf], np.minimum.accumulate(stairs[:, 1])))
    return np.asarray(lowest.take(stairs[:, 0].searchsorted(Y[:, 0], "right")) <= Y[:, 1])


def rank_order(values: NDArray[np.float64], ranks: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) rows by rank (n,), and those of one rank by value (n,)."""
    order = np.argsort(values)
    small = ranks.astype(np.int16) if ranks.max(initial=0) < 2**15 else ranks  # which numpy sorts by digits
    return order.take(np.argsort(small.take(order), kind="stable"))


def crowding_distance(Y: Matrix, ranks: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n,) how alone each row is within its front: summed gaps between its neighbours, infinite at the ends.

    Deb et al. 2002, NSGA-II, section III-B, doi:10.1109/4235.996017. All fronts at once: rows are sorted by
    (front, value), and neighbours of another front do not count.
    """
    distance = np.zeros(len(Y))
    for values in Y.T:
        order = rank_order(values, ranks)
        ordered, front = values.take(order), ranks.take(order)
        edge = np.flatnonzero(np.diff(front, prepend=-1, append=-1))  # where fronts begin, and the end
        first, last = edge[:-1], edge[1:] - 1
        gaps = np.full(len(Y), np.inf)
        gaps[1:-1] = ordered[2:] - ordered[:-2]
        gaps[first] = gaps[last] = np.inf
        extent = np.repeat(ordered[last] - ordered[first], last - first + 1)
        point_like = np.where(np.isinf(gaps), np.inf, 0.0)
        distance[order] += np.divide(gaps, extent, out=point_like, where=extent > 0)
    return distance


def hypervolume(Y: Matrix, reference: Matrix | Sequence[float]) -> float:
    """Exact volume that the rows of `Y` (n, m) dominate below `reference` (m,).

    Rows with a NaN or an infinity count nothing.

    >>> hypervolume(np.array([[0.0, 0.5], [0.5, 0.0]]), [1.0, 1.0])
    0.75
    """
    finite = Y[finite_rows(Y)]
    return float(moocore.hypervolume(finite, ref=np.asarray(reference, np.float64))) if len(finite) else 0.0


@dataclass(frozen=True)
class Evaluation:
    """What is known about one candidate from one source.

    Attributes:
        candidate: the network.
        values: objective name -> value in that objective's unit, as people read it (accuracy is not negated).
        source: `predicted` by predictors and cost tables; `supernet`, with inherited weights; `measured` on
            what is shipped.
        spread: objective name -> standard deviation or interquartile range, where it is known.
        cost_s: seconds it took to find out.
        error: why there are no values.

    Raises:
        ValueError: both values and an error, or neither.
    """

    candidate: Candidate
    values: Mapping[str, float] = field(hash=False)
    source: Source
    spread: Mapping[str, float] = field(default_factory=dict, hash=False)
    cost_s: float = 0.0
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
    """(n, m) values as people read them; NaN where an evaluation lacks one."""
    rows = [[evaluation.values.get(o.name, np.nan) for o in objectives] for evaluation in evaluations]
    return np.array(rows, np.float64).reshape(len(evaluations), len(objectives))


def pareto_front(
    objectives: Sequence[Objective], evaluations: Sequence[Evaluation], reference: Sequence[float]
) -> ParetoFront:
    """The front of `evaluations` (one per candidate, one source), sorted by the first objective, best first.

    Failed evaluations and those outside a bound are left out; of equal ones the first stays.
    """
    values = value_matrix(objectives, evaluations)
    Y = to_min(objectives, values)
    Y[violation(objectives, values) > 0] = np.inf
    kept = np.flatnonzero(non_dominated(Y))
    ordered = kept[np.lexsort(Y[kept].T[::-1])]
    return ParetoFront(tuple(objectives), tuple(evaluations[i] for i in ordered), tuple(reference))
