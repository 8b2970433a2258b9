"""Random policies that time is learned from: as different from each other as policies of a search may be, so
that what a unit takes and what a conversion takes can be told apart.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from supernet.imported.model import ImportedModel
from supernet.space.space import Genomes, SearchSpace

TRIES = 20  # draws for each policy: small spaces have fewer policies than are asked for
FEW = 8  # units at most that differ where nearly all are alike
PARTS = 7  # runs or stages at most
Labels = NDArray[np.int64]  # (g,) which of a network's parts a choice is of


def random_policies(space: SearchSpace, model: ImportedModel, n: int, *, rng: np.random.Generator) -> Genomes:
    """Draw up to n different policies (k, g): units independent of each other, long runs of one format, equal
    stages, kinds of operations, nearly all of one format, nearly all fp32, in turns.
    """
    operations = _operations(space, model)
    draws: Sequence[Callable[[], Genomes]] = (
        lambda: _independent(space, rng),
        lambda: _by_part(space, _runs(len(space.choices), rng), rng),
        lambda: _by_part(space, _stages(len(space.choices), rng), rng),
        lambda: _by_operation(space, operations, rng),
        lambda: _all_but_few(space, _one_format(space, rng), rng),
        lambda: _all_but_few(space, np.zeros(len(space.choices), np.int16), rng),
    )
    rows: dict[bytes, Genomes] = {}
    for draw in range(TRIES * n):
        row = draws[draw % len(draws)]()
        rows.setdefault(row.tobytes(), row)
        if len(rows) == n:
            break
    return np.array(list(rows.values()), np.int16).reshape(len(rows), len(space.choices))


def _quantized(space: SearchSpace, rng: np.random.Generator) -> Genomes:
    """Draw a gene (g,) for every choice, none of them fp32 where there is anything else; one gene for all,
    or each its own.
    """
    sizes = np.maximum(space.cardinalities - 1, 1)
    draws = np.full(len(sizes), rng.random()) if rng.random() < 0.5 else rng.random(len(sizes))
    return np.minimum(1 + (draws * sizes).astype(np.int16), space.cardinalities - 1).astype(np.int16)


def _one_format(space: SearchSpace, rng: np.random.Generator) -> Genomes:
    """Draw a format, and return the policy (g,) that has it wherever it can be had."""
    names = list(dict.fromkeys(str(option) for choice in space.choices for option in choice.options[1:]))
    name = names[rng.integers(len(names))] if names else ""
    options = [[str(option) for option in choice.options] for choice in space.choices]
    return np.array([each.index(name) if name in each else 0 for each in options], np.int16)


def _independent(space: SearchSpace, rng: np.random.Generator) -> Genomes:
    chosen = rng.random(len(space.choices)) < rng.random()
    return np.where(chosen, _quantized(space, rng), 0).astype(np.int16)


def _by_part(space: SearchSpace, labels: Labels, rng: np.random.Generator) -> Genomes:
    """Draw for each part of the network whether it is in fp32."""
    chosen = rng.random(labels.max(initial=0) + 1) < 0.5
    return np.where(chosen[labels], _quantized(space, rng), 0).astype(np.int16)


def _by_operation(space: SearchSpace, labels: Labels, rng: np.random.Generator) -> Genomes:
    """Draw for each kind of operation how many of its units are in fp32."""
    shares = rng.random(labels.max(initial=0) + 1)
    chosen = rng.random(len(labels)) < shares[labels]
    return np.where(chosen, _quantized(space, rng), 0).astype(np.int16)


def _all_but_few(space: SearchSpace, genome: Genomes, rng: np.random.Generator) -> Genomes:
    """Redraw up to `FEW` genes of a policy (g,)."""
    columns = rng.permutation(len(genome))[: rng.integers(1, FEW + 1)]
    genome[columns] = rng.integers(0, space.cardinalities[columns])
    return genome


def _runs(length: int, rng: np.random.Generator) -> Labels:
    """Cut a network at random."""
    cuts = rng.integers(0, length + 1, rng.integers(1, PARTS))
    return np.searchsorted(np.sort(cuts), np.arange(length), side="right")


def _stages(length: int, rng: np.random.Generator) -> Labels:
    """Cut a network into stages of equal length."""
    return np.arange(length) * int(rng.integers(2, PARTS + 1)) // max(length, 1)


def _operations(space: SearchSpace, model: ImportedModel) -> Labels:
    kinds = [(unit.op, unit.layer.depthwise) for unit in map(model.unit, space.columns)]
    numbers = {kind: number for number, kind in enumerate(dict.fromkeys(kinds))}
    return np.array([numbers[kind] for kind in kinds], np.int64)
