"""The default search: multi-objective evolution on whole genome matrices.

NSGA-II's selection (Deb et al. 2002, doi:10.1109/4235.996017), with an archive of everything non-dominated
that breeds too; mostly steps of one or two genes, so that children of archived parents are a local search
around the front; crossover of neighbouring genes, which are blocks and stages that fit each other; a
population of many macro-architectures (depths, mostly), since a better one is worse at first, until the rest
fits it; and a first generation spread from the smallest to the largest network. Limits on costs that are
known in advance are met by repair (`nas.search.repair`), not by rejection.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from nas.search.pareto import crowding_distance, finite_rows, rank_order
from nas.search.points import Points, constrained_rank, front, join, join_unbeaten
from nas.search.repair import Repair
from nas.search.sampling_searcher import SamplingSearcher
from supernet.space.space import Genomes, SearchSpace

# the best of about 30 settings on once-for-all's predictor and Note10 latency (benchmarks/ofa_mbv3.py), by
# hypervolume after 2,000, 10,000 and 20,000 evaluations and by top-1 within a limit, 3 to 8 seeds each
POPULATION = 50, 400  # at first, and at most
GROWTH = 0.05  # of all networks told is the population in between
# networks of one macro-architecture, the genes that decide which others are active, before others follow
NICHE_CAPACITY = 8
ELITE = 0.15  # share of parents from the archive; the others are from the population
CROSSED = 0.4  # share of children that have two parents
IMMIGRANTS = 0.02  # share of children that have none
CHANGED = np.array([0, 1, 1, 2, 3])  # genes of a child that are drawn again, one of these numbers each
TRIES = 3  # to find a living gene; one that is dead stays as it is


class Evolution(SamplingSearcher):
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

    def tell(self, genomes: Genomes, objectives: NDArray[np.float64], violation: NDArray[np.float64]) -> None:
        points = Points(genomes, objectives, violation)
        valid = finite_rows(objectives)
        if not valid.all():
            points = points[valid]
        self._told += len(points)
        archive = front(points if self._archive is None else join_unbeaten(self._archive, points))
        self._archive = in_order(archive, np.zeros(len(archive), np.int64))
        everyone = points if self._population is None else join(self._population, points)
        self._population = self._survivors(in_order(everyone, constrained_rank(everyone)))

    def _survivors(self, ordered: Points) -> Points:
        """Return the first rows, as many as the population has; those after the first `NICHE_CAPACITY` of a
        macro-architecture come last.
        """
        _, niche = np.unique(self._space.skeleton(ordered.genomes), return_inverse=True)
        by_niche = np.argsort(niche, kind="stable")
        sizes = np.bincount(niche)
        place = np.empty(len(niche), np.int64)
        place[by_niche] = np.arange(len(niche)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        size = int(np.clip(GROWTH * self._told, *POPULATION))
        return ordered[np.argsort(place >= NICHE_CAPACITY, kind="stable")[:size]]

    def _children(self, n: int, rng: np.random.Generator) -> Genomes:
        """Return about `n` canonical genomes, not necessarily new."""
        if self._population is None or self._archive is None or not len(self._population):
            return tilted_sample(self._space, n, rng=rng)
        immigrants = rng.binomial(n, IMMIGRANTS)
        crossed = rng.binomial(n - immigrants, CROSSED)
        children = self._parents(n - immigrants, rng)
        children[:crossed] = two_point_crossover(
            self._space, children[:crossed], self._parents(crossed, rng), rng=rng
        )
        changed = mutate(self._space, children, rng.choice(CHANGED, n - immigrants), rng=rng)
        rows = np.concatenate((tilted_sample(self._space, immigrants, rng=rng), changed))
        return rows.take(rng.permutation(n), axis=0)  # only the first of them may be needed

    def _parents(self, n: int, rng: np.random.Generator) -> Genomes:
        """Return (n, g) winners of tournaments within the archive or within the population."""
        assert self._population is not None
        assert self._archive is not None
        parents = np.concatenate((self._archive.genomes, self._population.genomes))
        best, good = len(self._archive), len(self._population)
        elite = rng.random(n) < (ELITE if best else 0.0)
        rows = tournament(np.where(elite, best, good), n, rng=rng) + np.where(elite, 0, best)
        return parents.take(rows, axis=0)


def tilted_sample(space: SearchSpace, n: int, *, rng: np.random.Generator) -> Genomes:
    """Return (n, g) canonical genomes, spread from all-first to all-last options; the first two rows are
    those two.

    Uniform genes would make networks of average size only, being a sum of many. Options are in order, so
    each row leans towards one end by a tilt of its own.
    """
    tilt = rng.random((n, 1))
    tilt[:2] = np.array([[0.0], [1.0]])[:n]
    return space.canonical(rng.binomial(space.cardinalities - 1, tilt).astype(np.int16))


def two_point_crossover(
    space: SearchSpace, mothers: Genomes, fathers: Genomes, *, rng: np.random.Generator
) -> Genomes:
    """Return (n, g) two-point crossover: a run of neighbouring genes from the father, the others from the
    mother.

    Choices are in the order of the network, so what works together mostly stays together.
    """
    n, genes = mothers.shape
    prefixes = _prefixes(genes)
    first, second = rng.integers(0, genes + 1, (2, n))
    of_father = prefixes.take(first, axis=0) ^ prefixes.take(second, axis=0)
    return space.canonical(mothers ^ ((mothers ^ fathers) & of_father))


@cache
def _prefixes(genes: int) -> Genomes:
    """Return (genes + 1, genes) masks: row k has all bits of the first k genes."""
    return -np.tri(genes + 1, genes, -1, np.int16)


def mutate(
    space: SearchSpace, genomes: Genomes, counts: NDArray[np.int64], *, rng: np.random.Generator
) -> Genomes:
    """Return `genomes` (n, g) with `counts` (n,) living genes of each row set to another option; fewer where
    the same one is drawn twice.

    `SearchSpace.mutate` draws a number for every gene; this one draws only for those that change.
    """
    sizes, genes = space.cardinalities, genomes.shape[1]
    mutable = (space.active(genomes) & (sizes > 1)).ravel()
    row = np.repeat(np.arange(len(genomes)), counts) * genes  # where the row of each change begins
    column = rng.integers(0, genes, len(row))
    dead = np.flatnonzero(~mutable.take(row + column))
    for _ in range(TRIES):
        column[dead] = rng.integers(0, genes, len(dead))
        dead = dead[~mutable.take(row[dead] + column[dead])]
    size = sizes.take(column)
    step = 1 + (rng.random(len(row)) * (size - 1)).astype(np.int64)
    changed = genomes.copy()
    flat = changed.reshape(-1)
    flat[row + column] = (flat.take(row + column) + step) % size
    return space.canonical(changed)


def tournament(points: int | NDArray[np.int64], n: int, *, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return (n,) rows that came before another random row, of `points` rows (one number, or one each) in
    order.
    """
    winners: NDArray[np.int64] = (rng.random((2, n)).min(axis=0) * points).astype(np.int64)
    return winners


def in_order(points: Points, ranks: NDArray[np.int64]) -> Points:
    """Lower fronts first, and within a front the least crowded first."""
    return points[rank_order(-crowding_distance(points.objectives, ranks), ranks)]
