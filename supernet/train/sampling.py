"""Which subnets one training step runs, by schedule."""

from typing import Any

import numpy as np

from supernet.families.family import Family
from supernet.space.space import Genomes, SearchSpace

FIRST, LAST = ("kernel", "depth"), ("width",)  # become elastic in this order, and all others in between
ALL_ALONG = "resolution"
ALONE = 0.4  # share of the steps that train the largest subnet only, before any shrinking


def sandwich(family: Family, n_random: int, *, rng: np.random.Generator) -> list[Any]:
    """Return the architectures of one step: the largest, `n_random` random ones, the smallest.

    The two ends bound all others' error (Yu & Huang 2019, arXiv:1903.05134, section 3.1).
    """
    between = family.space().sample(n_random, rng=rng)
    return [
        family.arch(family.extreme("largest")),
        *_archs(family, between),
        family.arch(family.extreme("smallest")),
    ]


def shrinking(family: Family, n_random: int, done: float, *, rng: np.random.Generator) -> list[Any]:
    """Return the architectures of the step at `done` (in 0..1) of training: the largest, and random ones of
    what is elastic by then.

    Progressive shrinking (Cai et al. 2020, arXiv:1908.09791, section 3.3): the largest network alone for the
    first part of the training, then kernels become elastic, then depths too, then expansions and widths. The
    resolution is elastic all along.
    """
    space, largest = family.space(), family.extreme("largest")
    closed = closed_dimensions(space, done)
    if done < ALONE:
        return [family.arch(largest)]
    # not `space.sample`: genes of blocks that a sampled depth leaves out live again when the depth is fixed
    genomes = rng.integers(0, space.cardinalities, (n_random, len(space.choices)), dtype=np.int16)
    columns = [column for column, choice in enumerate(space.choices) if choice.meaning in closed]
    genomes[:, columns] = np.array(largest.genes, np.int16)[columns]
    return [family.arch(largest), *_archs(family, space.canonical(genomes))]


def closed_dimensions(space: SearchSpace, done: float) -> tuple[str, ...]:
    """Return what is not elastic yet at `done` (in 0..1) of progressive shrinking, by the choices' roles, in
    the order in which it opens: first kernels, then depths, widths last. Each stage takes as long.
    """
    names = [choice.meaning for choice in space.choices if choice.kind != "precision"]
    between = [name for name in dict.fromkeys(names) if name not in (*FIRST, *LAST, ALL_ALONG)]
    stages = [name for name in (*FIRST, *between, *LAST) if name in names]
    opened = 0 if done < ALONE else 1 + int((done - ALONE) / (1 - ALONE) * len(stages))
    return tuple(stages[opened:])


def step_archs(
    family: Family, schedule: str, n_random: int, done: float, *, rng: np.random.Generator
) -> list[Any]:
    """Return the architectures of one step by the schedule's name; the first is always the largest."""
    if schedule == "largest":
        return [family.arch(family.extreme("largest"))]
    if schedule == "shrinking":
        return shrinking(family, n_random, done, rng=rng)
    return sandwich(family, n_random, rng=rng)


def _archs(family: Family, genomes: Genomes) -> list[Any]:
    return [family.arch(family.space().candidate(row)) for row in genomes]
