"""The search loop: ask, evaluate, tell, keep the front."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nas.search.pareto import Matrix, hypervolume
from nas.search.points import Points, best, join_unbeaten
from nas.search.searcher import Searcher
from supernet.space.space import Genomes

# (n, g) -> objectives (n, m), violation (n,)
Evaluate = Callable[[Genomes], tuple[Matrix, NDArray[np.float64]]]
Stopped = Literal["budget", "stalled", "exhausted"]

STALL = 1e-4  # relative growth of the hypervolume over `patience` batches that still counts as progress


@dataclass(frozen=True)
class Progress:
    """How far a search is: evaluations used and allowed; hypervolume and number of points of the front."""

    evaluations: int
    budget: int
    hypervolume: float
    front: int


@dataclass(frozen=True, eq=False)
class SearchResult:
    """What a search found.

    Attributes:
        genomes: (f, g) all non-dominated feasible genomes, sorted by the first objective.
        objectives: (f, m) theirs, less is better.
        hypervolumes: (b,) after each batch, from the reference point of the search.
        evaluations: genomes evaluated.
        rejected: how many of them can never be: their violation is infinite.
        stopped: because the budget was used, the hypervolume stalled or the space was exhausted.
        nearest: one row, what violates the limits least, where nothing was feasible; else no rows.
    """

    genomes: Genomes
    objectives: Matrix
    hypervolumes: NDArray[np.float64]
    evaluations: int
    rejected: int
    stopped: Stopped
    nearest: Points


def search(
    searcher: Searcher,
    evaluate: Evaluate,
    *,
    budget: int,
    batch: int,
    reference: Sequence[float],
    patience: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> SearchResult:
    """Evaluate up to `budget` genomes in batches of `batch`.

    Args:
        searcher: asked for each batch and told about it, in order.
        evaluate: gives minimised objectives (n, m) and violation (n,) of genomes (n, g).
        budget: evaluations, at most.
        batch: evaluations between two tells.
        reference: (m,) minimised objective values; hypervolume is counted from there.
        patience: stop after so many batches without progress; None never does.
        on_progress: called after each batch.

    Raises:
        ValueError: budget, batch or patience is below 1.
    """
    if min(budget, batch, 1 if patience is None else patience) < 1:
        raise ValueError(f"budget, batch and patience are at least 1, not {budget}, {batch}, {patience}")
    unbeaten, evaluations, rejected, volumes = None, 0, 0, list[float]()
    while not _stalled(volumes, patience) and len(genomes := searcher.ask(min(batch, budget - evaluations))):
        points = Points(genomes, *evaluate(genomes))
        searcher.tell(points.genomes, points.objectives, points.violation)
        unbeaten = best(points if unbeaten is None else join_unbeaten(unbeaten, points))
        evaluations += len(points)
        rejected += int(np.isinf(points.violation).sum())
        volumes.append(hypervolume(unbeaten.objectives[unbeaten.violation <= 0], reference))
        if on_progress:
            on_progress(Progress(evaluations, budget, volumes[-1], int((unbeaten.violation <= 0).sum())))
    stopped: Stopped = "stalled" if _stalled(volumes, patience) else "exhausted"
    if evaluations >= budget:
        stopped = "budget"
    unbeaten = unbeaten or Points(genomes, np.empty((0, len(reference))), np.empty(0))
    ordered = unbeaten[np.lexsort(unbeaten.objectives.T[::-1])]
    feasible = ordered.violation <= 0
    return SearchResult(
        ordered.genomes[feasible],
        ordered.objectives[feasible],
        np.array(volumes, np.float64),
        evaluations,
        rejected,
        stopped,
        ordered[~feasible],
    )


def _stalled(volumes: Sequence[float], patience: int | None) -> bool:
    """Return whether something feasible was found, and the last `patience` batches added next to nothing to
    it.
    """
    if patience is None or len(volumes) <= patience:
        return False
    earlier = volumes[-1 - patience]
    return earlier > 0 and volumes[-1] <= earlier * (1 + STALL)


def choose_finalists(objectives: Matrix, k: int) -> NDArray[np.int64]:
    """Return (min(k, n),) rows of a front (n, m), well spread: the best in each objective, then the
    loneliest.

    Lonely is far, in objectives scaled to 0..1, from the nearest row already chosen (Gonzalez 1985,
    doi:10.1016/0304-3975(85)90224-5). Where `k` is below the number of objectives, the first ones have
    their best.
    """
    if not len(objectives):
        return np.empty(0, np.int64)
    extent = np.ptp(objectives, axis=0)
    scaled = objectives / np.where(extent > 0, extent, 1.0)
    rows = list(dict.fromkeys(scaled.argmin(axis=0).tolist()))[:k]
    distance = np.full(len(scaled), np.inf)
    for row in rows:
        distance = np.minimum(distance, np.linalg.norm(scaled - scaled[row], axis=1))
    while len(rows) < min(k, len(scaled)):
        distance[rows] = -1.0
        row = int(distance.argmax())
        rows.append(row)
        distance = np.minimum(distance, np.linalg.norm(scaled - scaled[row], axis=1))
    return np.array(rows, np.int64)
