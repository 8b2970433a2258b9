"""Which subnets one training step runs, by schedule."""

from typing import Any

import numpy as np

from supernet.family import Family
from supernet.space import Genomes, SearchSpace

SHRINKING = ("kernel", "depth", "expanded", "width")  # in the order in which they become elastic
ALONE = 0.4  # share of the steps that train the largest subnet only, before any shrinking


def sandwich(family: Family, n_random: int, *, rng: np.random.Generator) -> list[Any]:
    """Architectures of one step: the largest, `n_random` random ones, the smallest.

    The two ends bound all others' error (Yu & Huang 2019, arXiv:1903.05134, section 3.1).
    """
    corners = family.corners()
    between = family.space().sample(n_random, rng=rng)
    return [
        family.arch(corners["largest/fp32"]),
        *_archs(family, between),
        family.arch(corners["smallest/fp32"]),
    ]


def shrinking(family: Family, n_random: int, done: float, *, rng: np.random.Generator) -> list[Any]:
    """Architectures of the step at `done` (in 0..1) of training: the largest, and random ones of what is
    elastic by then.

    Progressive shrinking (Cai et al. 2020, arXiv:1908.09791, section 3.3): the largest network alone for the
    first part of the training, then kernels become elastic, then depths too, then widths. The resolution is
    elastic all along.
    """
    largest = family.arch(family.corners()["largest/fp32"])
    if done < ALONE:
        return [largest]
    stages = [name for name in SHRINKING if _columns(family.space(), (name,))]
    opened = 1 + int((done - ALONE) / (1 - ALONE) * len(stages))
    genomes = family.space().sample(n_random, rng=rng)
    return [largest, *_archs(family, _fixed_to_largest(family.space(), genomes, tuple(stages[opened:])))]


def step_archs(
    family: Family, schedule: str, n_random: int, done: float, *, rng: np.random.Generator
) -> list[Any]:
    """Architectures of one step by the schedule's name; the first is always the largest."""
    if schedule == "largest":
        return [family.arch(family.corners()["largest/fp32"])]
    if schedule == "shrinking":
        return shrinking(family, n_random, done, rng=rng)
    return sandwich(family, n_random, rng=rng)


def _archs(family: Family, genomes: Genomes) -> list[Any]:
    return [family.arch(family.space().candidate(row)) for row in genomes]


def _columns(space: SearchSpace, dimensions: tuple[str, ...]) -> list[int]:
    """Columns of the choices called `....kernel` and so on."""
    names = enumerate(choice.name.rsplit(".", 1)[-1] for choice in space.choices)
    return [column for column, name in names if name in dimensions]


def _fixed_to_largest(space: SearchSpace, genomes: Genomes, dimensions: tuple[str, ...]) -> Genomes:
    columns = _columns(space, dimensions)
    genomes = genomes.copy()
    genomes[:, columns] = [len(space.choices[column].options) - 1 for column in columns]
    return space.canonical(genomes)
