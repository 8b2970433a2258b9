"""Which subnets one training step runs, by schedule."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hw_profiles.streams import Stream, open_stream
from supernet.families.family import Family
from supernet.space.space import Candidate, Genomes, SearchSpace
from supernet.train.config import TrainConfig
from supernet.train.schedule import resolution_limit

FIRST, LAST = ("kernel", "depth"), ("width",)  # become elastic in this order, and all others in between
ALL_ALONG = ("resolution", "length")  # how much a network reads
ALONE = 0.4  # share of the steps that train the largest subnet only, before any shrinking


def sandwich(family: Family, n_random: int, *, rng: np.random.Generator) -> list[Candidate]:
    """Return the networks of one step: the largest, `n_random` random ones, the smallest.

    The two ends bound all others' error (Yu & Huang 2019, arXiv:1903.05134, section 3.1).
    """
    between = family.space().sample(n_random, rng=rng)
    return [family.extreme("largest"), *_candidates(family, between), family.extreme("smallest")]


def alternating(family: Family, n_others: int, step: int, *, rng: np.random.Generator) -> list[Candidate]:
    """Return the networks of one step: the largest and `n_others`, all of them random in even steps; in odd
    ones the smallest is the last of them.

    Half of a sandwich, or less: where widths are prefixes and depths are nested, what one subnet learns the
    others have.
    """
    smallest = [family.extreme("smallest")] if step % 2 else []
    between = family.space().sample(n_others - len(smallest), rng=rng)
    return [family.extreme("largest"), *_candidates(family, between), *smallest]


def shrinking(family: Family, n_random: int, done: float, *, rng: np.random.Generator) -> list[Candidate]:
    """Return the networks of the step at `done` (in 0..1) of training: the largest, and random ones of what
    is elastic by then.

    Progressive shrinking (Cai et al. 2020, arXiv:1908.09791, section 3.3): the largest network alone for the
    first part of the training, then kernels become elastic, then depths too, then expansions and widths. The
    resolution is elastic all along.
    """
    space, largest = family.space(), family.extreme("largest")
    closed = closed_dimensions(space, done)
    if done < ALONE:
        return [largest]
    # not `space.sample`: genes of blocks that a sampled depth leaves out live again when the depth is fixed
    genomes = rng.integers(0, space.cardinalities, (n_random, len(space.choices)), dtype=np.int16)
    columns = [column for column, choice in enumerate(space.choices) if choice.meaning in closed]
    genomes[:, columns] = np.array(largest.genes, np.int16)[columns]
    return [largest, *_candidates(family, space.canonical(genomes))]


def closed_dimensions(space: SearchSpace, done: float) -> tuple[str, ...]:
    """Return what is not elastic yet at `done` (in 0..1) of progressive shrinking, by the choices' roles, in
    the order in which it opens: first kernels, then depths, widths last. Each stage takes as long.
    """
    names = [choice.meaning for choice in space.choices if choice.kind != "precision"]
    between = [name for name in dict.fromkeys(names) if name not in (*FIRST, *LAST, *ALL_ALONG)]
    stages = [name for name in (*FIRST, *between, *LAST) if name in names]
    opened = 0 if done < ALONE else 1 + int((done - ALONE) / (1 - ALONE) * len(stages))
    return tuple(stages[opened:])


def step_archs(family: Family, config: TrainConfig, step: int, done: float, *, seed: int) -> list[Any]:
    """Return the architectures of one step, when the share `done` (in 0..1) of training is over; the first is
    always the largest.
    """
    rng = open_stream(seed, Stream.STEP, step)
    candidates = _step_candidates(family, config, step, done, rng)
    if config.first_resolution:
        options = resolution_options(family)
        limit = resolution_limit(options, config.first_resolution, config.full_resolution_at, done)
        candidates = [limited(family, candidate, limit) for candidate in candidates]
    return [family.arch(candidate) for candidate in candidates]


def resolution_options(family: Family) -> tuple[int, ...]:
    """Return the resolutions, or lengths of text, that the space has, ascending."""
    for choice in family.space().choices:
        if choice.role in ALL_ALONG:
            return tuple(sorted(int(option) for option in choice.options))
    return (family.resolution(family.extreme("largest")),)


def limited(family: Family, candidate: Candidate, limit: int) -> Candidate:
    """Return `candidate` at the largest resolution that it has up to `limit` pixels, or tokens."""
    space, genes = family.space(), np.array(candidate.genes, np.int16)
    for column, choice in enumerate(space.choices):
        if choice.role in ALL_ALONG and int(choice.options[genes[column]]) > limit:
            allowed = [gene for gene, option in enumerate(choice.options) if int(option) <= limit]
            genes[column] = max(allowed, key=lambda gene: int(choice.options[gene]))
    return space.candidate(genes)


def _step_candidates(
    family: Family, config: TrainConfig, step: int, done: float, rng: np.random.Generator
) -> Sequence[Candidate]:
    if config.schedule == "largest" or done < config.alone:
        return [family.extreme("largest")]
    if config.schedule == "shrinking":
        return shrinking(family, config.random_subnets, done, rng=rng)
    if config.schedule == "alternating":
        return alternating(family, config.random_subnets, step, rng=rng)
    return sandwich(family, config.random_subnets, rng=rng)


def _candidates(family: Family, genomes: Genomes) -> list[Candidate]:
    return [family.space().candidate(row) for row in genomes]
