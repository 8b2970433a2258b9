"""Pareto dominance on objective matrices.

Everything here minimises: objectives went through `Objective.to_min` before. A matrix is `(n, m)`, a row
per candidate.
"""

from collections.abc import Sequence

import moocore
import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]  # (n, m)


def finite_rows(Y: Matrix) -> NDArray[np.bool_]:
    """Return (n,) True where a row of `Y` (n, m) has neither a NaN nor an infinity: the evaluation did not
    fail.
    """
    finite: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(Y), axis=1)
    return finite


def non_dominated(Y: Matrix) -> NDArray[np.bool_]:
    """Return (n,) True where no other row of `Y` (n, m) is at least as good everywhere and better somewhere.

    Of equal rows only the first is kept. A row with a NaN or an infinity is never kept and dominates nothing.
    """
    mask = finite_rows(Y)
    if mask.any():
        mask[mask] = moocore.is_nondominated(Y[mask], keep_weakly=False)
    return mask


def rank(Y: Matrix) -> NDArray[np.int64]:
    """Return (n,) front index: 0 where non-dominated, 1 where non-dominated once front 0 is removed, and so
    on.

    Equal rows share a rank. Rows with a NaN or an infinity come after all others, in one last front.
    """
    finite = finite_rows(Y)
    ranks = np.zeros(len(Y), np.int64)
    if finite.any():
        ranks[finite] = moocore.pareto_rank(Y[finite])
        ranks[~finite] = ranks.max() + 1
    return ranks


def beaten(Y: Matrix, front: Matrix) -> NDArray[np.bool_]:
    """Return (n,) True where a row of `front` (f, m) is at least as good as that of `Y` (n, m) in everything.

    Of two objectives only, where the best second one up to each first one says so: of more it costs as much
    as `non_dominated` itself, and all are False.
    """
    if Y.shape[1] != 2 or not len(front):
        return np.zeros(len(Y), bool)
    stairs = front[np.argsort(front[:, 0], kind="stable")]
    lowest = np.concatenate(([np.inf], np.minimum.accumulate(stairs[:, 1])))
    return np.asarray(lowest.take(stairs[:, 0].searchsorted(Y[:, 0], "right")) <= Y[:, 1])


def rank_order(values: NDArray[np.float64], ranks: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (n,) rows by rank (n,), and those of one rank by value (n,)."""
    order = np.argsort(values)
    small = ranks.astype(np.int16) if ranks.max(initial=0) < 2**15 else ranks  # which numpy sorts by digits
    return order.take(np.argsort(small.take(order), kind="stable"))


def crowding_distance(Y: Matrix, ranks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (n,) how alone each row is within its front: summed gaps between its neighbours, infinite at
    the ends.

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
    """Return exact volume that the rows of `Y` (n, m) dominate below `reference` (m,).

    Rows with a NaN or an infinity count nothing.

    >>> hypervolume(np.array([[0.0, 0.5], [0.5, 0.0]]), [1.0, 1.0])
    0.75
    """
    finite = Y[finite_rows(Y)]
    return float(moocore.hypervolume(finite, ref=np.asarray(reference, np.float64))) if len(finite) else 0.0
