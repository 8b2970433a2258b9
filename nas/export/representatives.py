"""Networks that stand for a space: both ends, some of given sizes, random ones. How good they are is how good
its supernet is.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.counts import macs
from supernet.families.family import Family
from supernet.space.space import Candidate, in_fp32
from supernet.tasks.task import Examples

DRAWN = 4_000  # random networks, of which those of a given size are taken
CONTENDERS = 16  # of a given size, of which the best is taken
NEAR = 0.1  # share by which a network's size may differ from the one that is asked for
SCORED = 2_000  # examples of search-validation that they are compared on
MILLION = 1e6


@dataclass(frozen=True)
class Representative:
    """A network of a space.

    Attributes:
        name: `largest`, `smallest`, `about 12` million multiply-adds, or `random 0`.
        candidate: in fp32 throughout.
        macs: multiply-adds of one inference.
    """

    name: str
    candidate: Candidate
    macs: int


Score = Callable[[Candidate], float]


def representatives(
    family: Family, *, random: int, rng: np.random.Generator, sizes: Sequence[float] = (), score: Score
) -> Iterator[Representative]:
    """Yield the largest and the smallest network, the best of some of each size, and `random` random ones.

    Args:
        sizes: in multiply-adds.
        score: of a network, higher is better; by what neither trained it nor judges it in the end.

    Raises:
        TrilobitError: the space has no networks of such a size.
    """
    space = family.space()
    drawn = in_fp32(space, space.sample(random, rng=rng))
    yield _known(family, "largest", family.extreme("largest"))
    yield _known(family, "smallest", family.extreme("smallest"))
    pool = in_fp32(space, space.sample(DRAWN, rng=rng)) if sizes else drawn
    costs = np.array([macs_of(family, space.candidate(genes)) for genes in pool])
    for size in sizes:
        near = np.argsort(abs(costs - size), kind="stable")[:CONTENDERS]
        contenders = [space.candidate(pool[i]) for i in near if abs(costs[i] - size) <= NEAR * size]
        if not contenders:
            least, most = costs.min() / MILLION, costs.max() / MILLION
            raise TrilobitError(
                f"no network of about {size / MILLION:g} million multiply-adds among {len(pool):,} random "
                f"ones, which have {least:.3g} to {most:.3g}; ask for some of these"
            )
        yield _known(family, f"about {size / MILLION:g}", max(contenders, key=score))
    for i, genes in enumerate(drawn):
        yield _known(family, f"random {i}", space.candidate(genes))


def scored(validation: Examples) -> Examples:
    """Return what networks of one size are compared on: examples from all over search-validation."""
    return validation[np.linspace(0, len(validation) - 1, min(SCORED, len(validation))).astype(int)]


def macs_of(family: Family, candidate: Candidate) -> int:
    """Return the multiply-adds of one inference."""
    return sum(map(macs, family.workload(candidate).layers))


def _known(family: Family, name: str, candidate: Candidate) -> Representative:
    return Representative(name, candidate, macs_of(family, candidate))
