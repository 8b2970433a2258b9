"""Which policies are evaluated before anything can be predicted."""

import numpy as np
from numpy.typing import NDArray

from nas.tune.policies.space import single_genomes, uniform_genomes
from supernet.space.space import Genomes, SearchSpace, unique_rows

MOST = (
    84  # policies that quality is first learned from, if nothing else is said: 120 with those of the rounds
)
FEW, EACH = 16, 2  # of small spaces: so many, and so many for every option beside fp32
SINGLE = 0.25  # of them change one unit alone, at most: several at once say as much of each, and of sums
LASTING = 0.8  # probability that a unit is as the one before it is, in half of the random policies
OTHERS = 0.3  # share of units at most that take another format than the commonest, where any do


def evaluations_for(space: SearchSpace) -> int:
    """Return how many policies are evaluated before the search where nothing is said."""
    options = int((space.cardinalities - 1).sum())
    return min(MOST, FEW + EACH * options)


def first_policies(space: SearchSpace, count: int, *, rng: np.random.Generator) -> Genomes:
    """Return `count` different policies (n, g), fewer where there are no more: each format wherever it can be
    had, then one unit at a time in its first format beside fp32, then random ones.
    """
    uniform, single = uniform_genomes(space), single_genomes(space)
    first = single[single.max(axis=1) == 1]
    alone = int(SINGLE * count)
    some = first if len(first) <= alone else first[np.sort(rng.permutation(len(first))[:alone])]
    rows = np.concatenate([uniform, some, varied_policies(space, 4 * count, rng=rng)])
    return rows[unique_rows(rows)][:count]


def varied_policies(space: SearchSpace, n: int, *, rng: np.random.Generator) -> Genomes:
    """Return (n, g) policies of any share of quantized units, in runs or scattered; half have the
    first format only, the others have other formats in some units.

    Uniform genes would make policies of average divergence only, dominated by the coarsest format.
    """
    g = len(space.choices)
    share = rng.random((n, 1))
    draws = rng.random((n, g))
    lasting = (rng.random((n, g)) < LASTING) & (np.arange(n) % 2 == 0)[:, None]
    quantized = _carried(draws < share, lasting)
    others = np.where(rng.random((n, 1)) < 0.5, 0.0, rng.random((n, 1)) * OTHERS)
    option = 1 + rng.integers(0, np.maximum(space.cardinalities - 1, 1), (n, g))
    gene = np.where(rng.random((n, g)) < others, option, 1)
    return np.where(quantized, gene, 0).astype(np.int16)


def _carried(values: NDArray[np.bool_], lasting: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return `values` (n, g) where each lasting one is that of the column before."""
    source = np.where(lasting, 0, np.arange(values.shape[1]))
    source = np.maximum.accumulate(source, axis=1)
    return np.take_along_axis(values, source, axis=1)
