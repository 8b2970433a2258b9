"""The default search: multi-objective evolution on whole genome matrices.

NSGA-II's selection (Deb et al. 2002, doi:10.1109/4235.996017), with an archive of everything non-dominated
that breeds too; mostly steps of one gene, so that children of archived parents are a local search around the
front; and a first generation spread from the smallest to the largest network.
"""

import numpy as np
from numpy.typing import NDArray

from nas.pareto import crowding_distance, finite_rows
from nas.search.novelty import Novelty
from nas.search.points import Points, constrained_rank, front, join
from supernet.space import Genomes, SearchSpace

# the best of about 20 settings on once-for-all's predictor and Note10 latency (benchmarks/ofa_mbv3.py),
# by hypervolume after 2,000, 10,000 and 20,000 evaluations, 3 to 6 seeds each
POPULATION = 50
ELITE = 0.5  # share of parents from the archive; the others are from the population
CROSSED = 0.15  # share of children that have two parents
IMMIGRANTS = 0.02  # share of children that have none
MUTATED = np.array([0, 0, 0, 1, 2])  # genes redrawn on average, one of these per child; one gene always is


class Evolution:
    """See `nas.search.searcher.Searcher` for the promises."""

    def __init__(self, space: SearchSpace, *, seed: int, initial: Genomes | None = None) -> None:
        self._space = space
        self._seed = seed
        self._step = 0
        self._novelty = Novelty(space, initial)
        self._population: Points | None = None
        self._archive: Points | None = None

    def ask(self, n: int) -> Genomes:
        rng = np.random.default_rng([self._seed, self._step])
        self._step += 1
        return self._novelty.draw(n, lambda k: self._children(k, rng), rng=rng)

    def tell(self, genomes: Genomes, objectives: NDArray[np.float64], violation: NDArray[np.float64]) -> None:
        told = Points(genomes, objectives, violation)[finite_rows(objectives)]
        self._archive = front(told if self._archive is None else join(self._archive, told))
        everyone = told if self._population is None else join(self._population, told)
        self._population = survivors(everyone, POPULATION)

    def _children(self, n: int, rng: np.random.Generator) -> Genomes:
        """About `n` canonical genomes, not necessarily new."""
        if self._population is None or self._archive is None or not len(self._population):
            return spread_sample(self._space, n, rng=rng)
        immigrants = spread_sample(self._space, rng.binomial(n, IMMIGRANTS), rng=rng)
        bred = n - len(immigrants)
        mothers, fathers = (self._parents(bred, rng) for _ in range(2))
        crossed = rng.random((bred, 1)) < CROSSED
        children = np.where(crossed, self._space.crossover(mothers, fathers, rng=rng), mothers)
        rates = rng.choice(MUTATED, (bred, 1)) / len(self._space.choices)
        return np.concatenate((immigrants, self._space.mutate(children, rates, rng=rng)))

    def _parents(self, n: int, rng: np.random.Generator) -> Genomes:
        """(n, g) winners of tournaments within the archive or within the population."""
        assert self._population is not None
        assert self._archive is not None
        elite = rng.binomial(n, ELITE) if len(self._archive) else 0
        best = self._archive.genomes[tournament(self._archive, elite, rng=rng)]
        good = self._population.genomes[tournament(self._population, n - elite, rng=rng)]
        return rng.permutation(np.concatenate((best, good)))


def spread_sample(space: SearchSpace, n: int, *, rng: np.random.Generator) -> Genomes:
    """(n, g) canonical genomes, spread from all-first to all-last options; the first two rows are those two.

    Uniform genes would make networks of average size only, being a sum of many. Options are in order, so
    each row leans towards one end by a tilt of its own.
    """
    tilt = rng.random((n, 1))
    tilt[:2] = np.array([[0.0], [1.0]])[:n]
    return space.canonical(rng.binomial(space.cardinalities - 1, tilt).astype(np.int16))


def tournament(points: Points, n: int, *, rng: np.random.Generator) -> NDArray[np.int64]:
    """(n,) rows that won against another random row: lower front first, then less crowded."""
    ranks = constrained_rank(points)
    order = np.lexsort((-crowding_distance(points.objectives, ranks), ranks))
    place = np.empty(len(points), np.int64)
    place[order] = np.arange(len(points))
    winners: NDArray[np.int64] = order[place[rng.integers(0, len(points), (2, n))].min(axis=0)]
    return winners


def survivors(points: Points, n: int) -> Points:
    """The `n` best rows: lower fronts first, and the least crowded of the front that does not fit whole."""
    ranks = constrained_rank(points)
    return points[np.lexsort((-crowding_distance(points.objectives, ranks), ranks))[:n]]
