"""Evaluated genomes as arrays, and constrained domination among them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.search.pareto import Matrix, beaten, finite_rows, non_dominated, rank
from supernet.space.space import Genomes


@dataclass(frozen=True, eq=False)
class Points:
    """Genomes and what is known of them.

    Attributes:
        genomes: (n, g) canonical.
        objectives: (n, m), less is better.
        violation: (n,) how far outside the limits; 0 where feasible.
    """

    genomes: Genomes
    objectives: Matrix
    violation: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.genomes)

    def __getitem__(self, rows: NDArray[np.int64] | NDArray[np.bool_] | slice) -> "Points":
        if isinstance(rows, slice):
            return Points(self.genomes[rows], self.objectives[rows], self.violation[rows])
        index = np.flatnonzero(rows) if rows.dtype == bool else rows
        return Points(
            self.genomes.take(index, axis=0), self.objectives.take(index, axis=0), self.violation.take(index)
        )


def join(first: Points, second: Points) -> Points:
    """Return all rows of both."""
    return Points(
        np.concatenate((first.genomes, second.genomes)),
        np.concatenate((first.objectives, second.objectives)),
        np.concatenate((first.violation, second.violation)),
    )


def join_unbeaten(points: Points, new: Points) -> Points:
    """Return all rows of `points`, and those of `new` that no feasible one of them obviously beats: enough
    for the front of both, and mostly few.
    """
    worse = beaten(new.objectives, points.objectives[points.violation <= 0])
    return join(points, new[~worse])


def front(points: Points) -> Points:
    """Return the feasible rows that no other feasible row dominates, in order; of equal objectives the
    first.
    """
    feasible = points[points.violation <= 0]
    return feasible[non_dominated(feasible.objectives)]


def best(points: Points) -> Points:
    """Return the front or, where nothing is feasible, the row that violates the limits least; no failed
    rows.
    """
    feasible = front(points)
    if len(feasible):
        return feasible
    valid = points[finite_rows(points.objectives)]
    return valid[np.argsort(valid.violation, kind="stable")[:1]]


def constrained_rank(points: Points) -> NDArray[np.int64]:
    """Return (n,) front index: feasible rows by domination, then the others by violation.

    Constrained domination of Deb et al. 2002, NSGA-II, section VI, doi:10.1109/4235.996017.
    """
    feasible = points.violation <= 0
    ranks = np.zeros(len(points), np.int64)
    ranks[feasible] = rank(points.objectives[feasible])
    _, order = np.unique(points.violation[~feasible], return_inverse=True)
    ranks[~feasible] = ranks.max(initial=0) + 1 + order
    return ranks
