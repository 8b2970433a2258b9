"""Which networks are worth a real evaluation: the batch that is expected to add most to the front.

Maximised is the expected hypervolume that the batch adds, with objectives taken as independent normal
distributions. The expectation rewards a good mean and an uncertain one alike; and as a point that one row
probably dominates already is worth little a second time, a batch spreads over the front by itself. Gains
are submodular, so the greedy batch has at least 1 - 1/e of the best one's (Nemhauser et al. 1978,
doi:10.1007/BF01588971).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import qmc

from nas.search.pareto import Matrix, finite_rows

LINES = 9  # 2^9 lines through the box of the other objectives
LEVELS = 12  # points on each
REACH = 2.5  # standard deviations below the mean that are still thought possible
SURE = 1e-12  # an objective whose deviation is below this share of its extent is known


@dataclass(frozen=True, eq=False)
class QuadraturePoints:
    """Points between a front and what might be reached, and the volume that each stands for.

    Attributes:
        values: (s, m) objective values.
        volume: (s,) that each stands for; objectives scaled to the box.
    """

    values: Matrix
    volume: NDArray[np.float64]


def choose_batch(
    mean: Matrix, std: Matrix, front: Matrix, reference: NDArray[np.float64], k: int
) -> NDArray[np.int64]:
    """Return up to `k` rows of candidates (n, m) to evaluate for real, in order of what they are expected to
    add.

    Where nothing more is expected of any, the rest is not filled up.

    Args:
        mean: (n, m) predicted objectives, less is better.
        std: (n, m) standard deviations of their errors; 0 where an objective is known.
        front: (f, m) what was evaluated so far; dominated rows do no harm.
        reference: (m,) hypervolume is counted from there.
        k: at most so many.
    """
    rows: list[int] = []
    if not len(mean) or k < 1:
        return np.empty(0, np.int64)
    points = quadrature_points(mean, std, front, reference)
    if not len(points.volume):
        return np.empty(0, np.int64)
    reached = probability_to_dominate(mean, std, points.values)
    left = points.volume.astype(np.float32)
    for _ in range(min(k, len(mean))):
        gains = reached @ left
        row = int(gains.argmax())
        if gains[row] <= 0:
            break
        rows.append(row)
        left = left * (1 - reached[row])
        reached[row] = 0
    return np.array(rows, np.int64)


def probability_to_dominate(mean: Matrix, std: Matrix, points: Matrix) -> NDArray[np.float32]:
    """Return (n, s) how probably each candidate is at least as good as each point in every objective."""
    out = np.ones((len(mean), len(points)), np.float32)
    extent = np.ptp(points, axis=0)
    for j in range(mean.shape[1]):
        if (std[:, j] <= SURE * extent[j]).all():
            out *= mean[:, j, None] <= points[:, j]
        else:
            deviation = np.maximum(std[:, j, None], SURE * extent[j] + np.finfo(float).tiny)
            out *= ndtr(((points[:, j] - mean[:, j, None]) / deviation).astype(np.float32))
    return out


def quadrature_points(
    mean: Matrix, std: Matrix, front: Matrix, reference: NDArray[np.float64]
) -> QuadraturePoints:
    """Return the points of a quasi-Monte-Carlo estimate of the expected hypervolume improvement.

    Each point stands for a piece of the volume between the front and what candidates may reach. The objective
    whose error is largest, `k`, is integrated along lines; the lines are a Sobol set in all other objectives.
    A line is cut to the stretch [bottom, top] that no row of the front dominates and that some candidate may
    reach, so that slim improvements beside a good front are seen as well as large ones.
    """
    reachable = mean - REACH * std
    best = np.minimum(reachable.min(axis=0), front[finite_rows(front)].min(axis=0, initial=np.inf))
    extent = np.maximum(reference - best, np.finfo(float).tiny)
    k = int((std / extent).mean(axis=0).argmax())
    others = np.delete(np.arange(mean.shape[1]), k)
    lines = best[others] + _sobol(len(others)) * extent[others]
    top = np.minimum(_lowest(front, lines, k, others), reference[k])
    bottom = _lowest(reachable, lines, k, others)
    not_empty = bottom < top
    lines, top, bottom = lines[not_empty], top[not_empty], bottom[not_empty]
    share = (np.arange(LEVELS) + 0.5) / LEVELS  # midpoint rule
    values = np.empty((len(lines), LEVELS, mean.shape[1]))
    values[:, :, others] = lines[:, None]
    values[:, :, k] = top[:, None] - (top - bottom)[:, None] * share
    volume = np.repeat((top - bottom) / extent[k] / LEVELS, LEVELS)
    return QuadraturePoints(values.reshape(-1, mean.shape[1]), volume)


def _sobol(dimensions: int) -> NDArray[np.float64]:
    """Return (l, d) evenly spread in 0..1; one row without dimensions."""
    if not dimensions:
        return np.empty((1, 0))
    points = qmc.Sobol(dimensions, scramble=False).random_base2(LINES)
    return np.asarray(points + 0.5 / len(points), np.float64)


def _lowest(rows: Matrix, lines: Matrix, k: int, others: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (l,) the lowest value of objective `k` of any of `rows` (n, m) that are at or below a line in
    the others.
    """
    below = (rows[:, None, others] <= lines).all(axis=2)
    lowest: NDArray[np.float64] = np.where(below, rows[:, k, None], np.inf).min(axis=0, initial=np.inf)
    return lowest
