"""Regularised evolution: the winner of a small tournament has a child, and the oldest network dies.

Real et al. 2019, arXiv:1802.01548, with the children of once-for-all (Cai et al. 2020, arXiv:1908.09791):
half of them have two parents, half have one and each of their genes redrawn with a probability of 0.1. APQ
(arXiv:2006.08509) searches in the same way. For comparison with published searches.
"""

import numpy as np
from numpy.typing import NDArray

from nas.search.pareto import Matrix, finite_rows
from nas.search.points import Points, join
from nas.search.repair import Repair
from nas.search.sampling_searcher import SamplingSearcher
from supernet.space.space import Genomes, SearchSpace

POPULATION, TOURNAMENT = 100, 25  # Real et al., section 4
CROSSED, MUTATION = 0.5, 0.1  # once-for-all's released search
# of the sum beside the largest term: Knowles 2006, ParEGO, doi:10.1109/TEVC.2005.851274
AUGMENTED = 0.05


class AgingEvolution(SamplingSearcher):
    """See `nas.search.searcher.Searcher` for the promises.

    A tournament is won by the feasible network of the least objective. Where there are several, each
    tournament draws weights, uniformly on the simplex, for the augmented Chebyshev scalarisation of
    objectives scaled to 0..1 by what was seen: max(w f) + 0.05 sum(w f). So one run covers the front.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        initial: Genomes | None = None,
        repair: Repair | None = None,
    ) -> None:
        super().__init__(space, seed=seed, initial=initial, repair=repair)
        self._alive: Points | None = None  # the oldest first
        self._least: Matrix | None = None  # (1, m) of all feasible ones so far
        self._most: Matrix | None = None

    def tell(self, genomes: Genomes, objectives: NDArray[np.float64], violation: NDArray[np.float64]) -> None:
        points = Points(genomes, objectives, violation)[finite_rows(objectives)]
        if not len(points):
            return
        # networks of one batch are of one age: they live together
        everyone = points if self._alive is None else join(self._alive, points)
        self._alive = everyone[-max(POPULATION, len(points)) :]
        good = points.objectives[points.violation <= 0]
        if len(good):
            self._least = np.vstack((good, *_known(self._least))).min(axis=0, keepdims=True)
            self._most = np.vstack((good, *_known(self._most))).max(axis=0, keepdims=True)

    def _children(self, n: int, rng: np.random.Generator) -> Genomes:
        """Return `n` canonical genomes, not necessarily new."""
        if self._alive is None:
            return self._space.sample(n, rng=rng)
        mothers, fathers = (self._winners(self._alive, n, rng) for _ in range(2))
        crossed = self._space.crossover(mothers, fathers, rng=rng)
        mutated = self._space.mutate(mothers, MUTATION, rng=rng)
        return np.where(rng.random((n, 1)) < CROSSED, crossed, mutated)

    def _winners(self, alive: Points, n: int, rng: np.random.Generator) -> Genomes:
        """Return (n, g) of a tournament each."""
        entrants = rng.integers(len(alive), size=(n, TOURNAMENT))
        weights = rng.dirichlet(np.ones(alive.objectives.shape[1]), size=n)[:, None]
        weighted = weights * self._scaled(alive.objectives)[entrants]  # (n, TOURNAMENT, m)
        score = weighted.max(axis=2) + AUGMENTED * weighted.sum(axis=2)
        violation = alive.violation[entrants]
        best = np.lexsort((score, violation), axis=1)[:, 0]
        return alive.genomes[entrants[np.arange(n), best]]

    def _scaled(self, objectives: Matrix) -> Matrix:
        """Return (n, m) objectives from 0 to 1 between the least and the most of feasible networks."""
        if self._least is None or self._most is None:
            return np.zeros_like(objectives)
        extent = self._most - self._least
        return np.asarray((objectives - self._least) / np.where(extent > 0, extent, 1.0))


def _known(row: Matrix | None) -> tuple[Matrix, ...]:
    return () if row is None else (row,)
