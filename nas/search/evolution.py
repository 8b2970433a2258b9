"""The default search: multi-objective evolution on whole genome matrices.

NSGA-II's selection (Deb et al. 2002, doi:10.1109/4235.996017), with an archive of everything non-dominated
that breeds too; mostly steps of one or two genes, so that children of archived parents are a local search
around the front; crossover of neighbouring genes, which are blocks and stages that fit each other; a
population of many skeletons (depths, mostly), since a better one is worse at first, until the rest fits it;
and a first generation spread from the smallest to the largest network. Limits on costs that are known in
advance are met by repair (`nas.search.repair`), not by rejection.
"""

import numpy as np
from numpy.typing import NDArray

from nas.pareto import crowding_distance, finite_rows
from nas.search.drawn import DrawnSearch
from nas.search.novelty import row_hashes
from nas.search.points import Points, constrained_rank, front, join
from nas.search.repair import Repair
from supernet.space import Genomes, SearchSpace

# the best of about 30 settings on once-for-all's predictor and Note10 latency (benchmarks/ofa_mbv3.py), by
# hypervolume after 2,000, 10,000 and 20,000 evaluations and by top-1 within a limit, 3 to 8 seeds each
POPULATION = 50, 400  # at first, and at most
GROWTH = 0.05  # of all networks told is the population in between
ALIKE = 8  # of one skeleton, which is the genes that decide which others are alive, before others follow
ELITE = 0.15  # share of parents from the archive; the others are from the population
CROSSED = 0.4  # share of children that have two parents
IMMIGRANTS = 0.02  # share of children that have none
CHANGED = np.array([0, 1, 1, 2, 3])  # genes of a child that are drawn again, one of these numbers each
TRIES = 3  # to find a living gene; one that is dead stays as it is


class Evolution(DrawnSearch):
    """See `nas.search.searcher.Searcher` for the promises."""

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        initial: Genomes | None = None,
        repair: Repair | None = None,
    ) -> None:
        super().__init__(space, seed=seed, initial=initial, repair=repair)
        self._told = 0
        self._population: Points | None = None  # best first, and so is the archive
        self._archive: Points | None = None
        referred = {parent for choice in space.choices for parent, _ in choice.active_if}
        self._skeleton = [space.columns[name] for name in sorted(referred)]

    def tell(self, genomes: Genomes, objectives: NDArray[np.float64], violation: NDArray[np.float64]) -> None:
        told = Points(genomes, objectives, violation)[finite_rows(objectives)]
        self._told += len(told)
        self._archive = in_order(front(told if self._archive is None else join(self._archive, told)))
        everyone = told if self._population is None else join(self._population, told)
        self._population = self._survivors(in_order(everyone))

    def _survivors(self, ordered: Points) -> Points:
        """The first rows, as many as the population has; those after the first `ALIKE` of a skeleton come
        last.
        """
        _, niche = np.unique(row_hashes(ordered.genomes[:, self._skeleton]), return_inverse=True)
        by_niche = np.argsort(niche, kind="stable")
        sizes = np.bincount(niche)
        place = np.empty(len(niche), np.int64)
        place[by_niche] = np.arange(len(niche)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        size = int(np.clip(GROWTH * self._told, *POPULATION))
        return ordered[np.argsort(place >= ALIKE, kind="stable")[:size]]

    def _children(self, n: int, rng: np.random.Generator) -> Genomes:
        """About `n` canonical genomes, not necessarily new."""
        if self._population is None or self._archive is None or not len(self._population):
            return spread_sample(self._space, n, rng=rng)
        immigrants = rng.binomial(n, IMMIGRANTS)
        crossed = rng.binomial(n - immigrants, CROSSED)
        children = self._parents(n - immigrants, rng)
        children[:crossed] = exchange(self._space, children[:crossed], self._parents(crossed, rng), rng=rng)
        return np.concatenate(
            (
                spread_sample(self._space, immigrants, rng=rng),
                change(self._space, children, rng.choice(CHANGED, n - immigrants), rng=rng),
            )
        )

    def _parents(self, n: int, rng: np.random.Generator) -> Genomes:
        """(n, g) winners of tournaments within the archive or within the population."""
        assert self._population is not None
        assert self._archive is not None
        elite = rng.binomial(n, ELITE) if len(self._archive) else 0
        best = self._archive.genomes[tournament(len(self._archive), elite, rng=rng)]
        good = self._population.genomes[tournament(len(self._population), n - elite, rng=rng)]
        return rng.permutation(np.concatenate((best, good)))


def spread_sample(space: SearchSpace, n: int, *, rng: np.random.Generator) -> Genomes:
    """(n, g) canonical genomes, spread from all-first to all-last options; the first two rows are those two.

    Uniform genes would make networks of average size only, being a sum of many. Options are in order, so
    each row leans towards one end by a tilt of its own.
    """
    tilt = rng.random((n, 1))
    tilt[:2] = np.array([[0.0], [1.0]])[:n]
    return space.canonical(rng.binomial(space.cardinalities - 1, tilt).astype(np.int16))


def exchange(space: SearchSpace, mothers: Genomes, fathers: Genomes, *, rng: np.random.Generator) -> Genomes:
    """(n, g) two-point crossover: a run of neighbouring genes from the father, the others from the mother.

    Choices are in the order of the network, so what works together mostly stays together.
    """
    genes = np.arange(mothers.shape[1])
    start, end = np.sort(rng.integers(0, len(genes) + 1, (2, len(mothers), 1)), axis=0)
    return space.canonical(np.where((genes >= start) & (genes < end), fathers, mothers))


def change(
    space: SearchSpace, genomes: Genomes, counts: NDArray[np.int64], *, rng: np.random.Generator
) -> Genomes:
    """`genomes` (n, g) with `counts` (n,) living genes of each row set to another option.

    `SearchSpace.mutate` draws a number for every gene; this one draws only for those that change.
    """
    sizes, rows = space.cardinalities, np.arange(len(genomes))
    mutable = space.active(genomes) & (sizes > 1)
    changed = genomes.copy()
    for i in range(int(counts.max(initial=0))):
        columns = rng.integers(0, len(sizes), len(genomes))
        for _ in range(TRIES):
            dead = np.flatnonzero(~mutable[rows, columns])
            columns[dead] = rng.integers(0, len(sizes), len(dead))
        step = rng.integers(1, np.maximum(sizes[columns], 2)) * (i < counts)
        changed[rows, columns] = (changed[rows, columns] + step) % sizes[columns]
    return space.canonical(changed)


def tournament(points: int, n: int, *, rng: np.random.Generator) -> NDArray[np.int64]:
    """(n,) rows that came before another random row, of `points` rows that are in order."""
    winners: NDArray[np.int64] = rng.integers(0, max(points, 1), (2, n)).min(axis=0)
    return winners


def in_order(points: Points) -> Points:
    """Lower fronts first, and within a front the least crowded first."""
    ranks = constrained_rank(points)
    return points[np.lexsort((-crowding_distance(points.objectives, ranks), ranks))]
