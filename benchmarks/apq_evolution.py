"""APQ's search as its paper describes it, on our genome matrices (Wang et al. 2020, arXiv:2006.08509).

Single-objective evolution under a hard limit. Two things are corrected against the released code: it kept of
each generation only the mutants and of the first population only half, and no mutation could change a depth.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from nas.search.points import Points, join
from nas.search.repair import within
from supernet.space.space import Genomes, SearchSpace

POPULATION, PARENTS, MUTANTS, CROSSED = 100, 25, 50, 50
REDRAWN = 0.1  # probability of a position of a mutant
TRIED = 1_000  # networks drawn at once
GIVEN_UP = 200_000  # draws after which a limit counts as out of reach

Floats = NDArray[np.float64]
Score = Callable[[Genomes], Floats]  # (n, g) canonical -> (n,)
Excess = Callable[[Genomes], Floats]  # (n, g) canonical -> (n, k) by how much each limit is exceeded
Groups = NDArray[np.int64]  # (g,) which genes are drawn and inherited together


def positions(space: SearchSpace) -> Groups:
    """The authors' unit: all genes of a position together; every depth is a unit of its own."""
    owners = [c.name if c.name.endswith(".depth") else c.name.split(".")[:2] for c in space.choices]
    _, group = np.unique([str(owner) for owner in owners], return_inverse=True)
    return group.astype(np.int64)


def single_genes(space: SearchSpace) -> Groups:
    """Every gene by itself, as in once-for-all's search."""
    return np.arange(len(space.choices))


def mutants(
    space: SearchSpace, parents: Genomes, n: int, *, groups: Groups, rng: np.random.Generator
) -> Genomes:
    """(n, g) random parents, each group of their genes drawn again with a probability of 0.1."""
    chosen = parents[rng.integers(0, len(parents), n)]
    drawn = rng.integers(0, space.cardinalities, chosen.shape, dtype=np.int16)
    again = rng.random((n, groups.max() + 1)) < REDRAWN
    return space.canonical(np.where(again[:, groups], drawn, chosen))


def crossovers(
    space: SearchSpace, parents: Genomes, n: int, *, groups: Groups, rng: np.random.Generator
) -> Genomes:
    """(n, g) children of two random parents, each group of genes from either."""
    mothers, fathers = parents[rng.integers(0, len(parents), (2, n))]
    of_mother = rng.random((n, groups.max() + 1)) < 0.5
    return space.canonical(np.where(of_mother[:, groups], mothers, fathers))


def feasible(draw: Callable[[int], Genomes], excess: Excess, n: int) -> Genomes:
    """Up to `n` of what is drawn, within the limits; the others cost nothing but the table. Fewer where
    `GIVEN_UP` draws did not give as many.
    """
    genomes, drawn = draw(0), 0
    while len(genomes) < n and drawn < GIVEN_UP:
        tried = draw(TRIED)
        genomes, drawn = np.concatenate((genomes, tried[within(excess(tried))])), drawn + TRIED
    return genomes[:n]


def evolve(
    space: SearchSpace,
    accuracy: Score,
    excess: Excess,
    *,
    evaluations: int,
    groups: Groups,
    rng: np.random.Generator,
    known: Points | None = None,
) -> Points:
    """Everything that one search evaluated, in order, its accuracy negated as the only objective.

    Args:
        evaluations: predictions of accuracy, at most; rejected networks count none.
        groups: `positions` or `single_genes`.
        known: evaluated before; the best within the limits are the first population. Without them it is
            drawn at random.
    """

    def evaluated(genomes: Genomes) -> Points:
        return Points(genomes, -accuracy(genomes)[:, None], np.zeros(len(genomes)))

    if known is None:
        first = feasible(lambda k: space.sample(k, rng=rng), excess, min(POPULATION, evaluations))
        population = done = evaluated(first)
    else:
        population = best(known[within(excess(known.genomes))], POPULATION)
        done = population[:0]
    while len(done) < evaluations and len(population):
        parents = best(population, PARENTS)
        drawn = [
            feasible(partial(make, space, parents.genomes, groups=groups, rng=rng), excess, n)
            for make, n in ((mutants, MUTANTS), (crossovers, CROSSED))
        ]
        children = evaluated(np.concatenate(drawn)[: evaluations - len(done)])
        if not len(children):
            break
        population, done = join(parents, children), join(done, children)
    return done


def best(points: Points, n: int) -> Points:
    """The `n` rows of the least objective, first come first."""
    return points[np.argsort(points.objectives[:, 0], kind="stable")[:n]]


def evolve_front(
    space: SearchSpace,
    accuracy: Score,
    limits: Sequence[Excess],
    *,
    evaluations: int,
    groups: Groups,
    seed: int,
    chained: bool = False,
) -> Points:
    """One search per limit, one after the other, with as many evaluations each; all that they evaluated.

    Args:
        limits: from loose to tight.
        evaluations: of all searches together; what one cannot use is the next ones'.
        chained: whether each search begins with the best networks that were found before and are within its
            limit, instead of random ones. That is better than what was published, and reaches limits that
            random networks do not meet.
    """
    done: Points | None = None
    for turn, excess in enumerate(limits):
        left = evaluations - (len(done) if done else 0)
        points = evolve(
            space,
            accuracy,
            excess,
            evaluations=left // (len(limits) - turn),
            groups=groups,
            rng=np.random.default_rng([seed, turn]),
            known=done if chained else None,
        )
        done = points if done is None else join(done, points)
    assert done is not None
    return done
