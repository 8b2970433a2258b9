"""Costs compiled for one space, so that a whole population is costed by gathers: `CostTable` for what adds
up, `PeakTable` for what is the largest of its parts.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hw_profiles.graph.cache import in_scenario
from hw_profiles.graph.layer import Layer
from supernet.families.family import CostTerm, Family, PeakTerm
from supernet.space.space import Genomes, SearchSpace

CHUNK = 16384  # rows costed at once: keeps the gathered block inside the cache
MOST_ENTRIES = 2**20  # of one term: some ten seconds to compile, 8 MB for each kind of cost


class Term(Protocol):
    """Something that a few genes decide."""

    @property
    def columns(self) -> tuple[int, ...]:
        """Columns of the genome matrix."""
        ...


@dataclass(frozen=True, eq=False)
class Positions:
    """Where each term's value stands in one long array that holds all terms' values, end to end.

    Attributes:
        strides: (g, t) float32, so that `genomes @ strides + offsets` is each term's position.
            Exact: positions stay below 2^24.
        offsets: (t,) where each term's values begin.
    """

    strides: NDArray[np.float32]
    offsets: NDArray[np.float32]

    def chunks(self, genomes: Genomes) -> Iterator[tuple[slice, NDArray[np.intp]]]:
        """Yield rows of canonical genomes (n, g) and their positions (t, rows), until all had a turn."""
        for start in range(0, len(genomes), CHUNK):
            rows = slice(start, start + CHUNK)
            positions = self.strides.T @ genomes[rows].astype(np.float32).T
            positions += self.offsets[:, None]
            yield rows, positions.astype(np.intp)


@dataclass(frozen=True, eq=False)
class CostTable:
    """Costs that add up over the terms.

    Attributes:
        positions: of the terms' values.
        values: (m, k) cost of every entry, in k kinds of cost (seconds, bytes, multiply-adds...).
    """

    positions: Positions
    values: NDArray[np.float64]

    def __call__(self, genomes: Genomes) -> NDArray[np.float64]:
        """Return the summed costs (n, k) of canonical genomes (n, g)."""
        out = np.empty((len(genomes), self.values.shape[1]))
        for rows, index in self.positions.chunks(genomes):
            for kind in range(out.shape[1]):
                out[rows, kind] = self.values[:, kind].take(index).sum(axis=0)
        return out

    @property
    def least(self) -> NDArray[np.float64]:
        """(k,) the sum of every term's smallest entry: no network costs less."""
        if not len(self.values):
            return np.zeros(self.values.shape[1])
        starts = self.positions.offsets.astype(np.int64)
        return np.asarray(np.minimum.reduceat(self.values, starts).sum(axis=0))


@dataclass(frozen=True, eq=False)
class PeakTable:
    """A cost that is the largest of the terms'.

    Attributes:
        positions: of the terms' values.
        values: (m,) cost of every entry.
    """

    positions: Positions
    values: NDArray[np.float64]

    def __call__(self, genomes: Genomes) -> NDArray[np.float64]:
        """Return the largest costs (n,) of canonical genomes (n, g)."""
        out = np.zeros(len(genomes))
        for rows, index in self.positions.chunks(genomes):
            self.values.take(index).max(axis=0, initial=0.0, out=out[rows])
        return out


def compile_table(
    space: SearchSpace, terms: Sequence[CostTerm], costs: Sequence[Callable[[Layer], float]]
) -> CostTable:
    """Evaluate every term at every combination of its genes, in each kind of cost.

    Raises:
        ValueError: the terms have too many entries; split them into terms of fewer genes.
    """
    positions, values = _positions(space, terms), [np.zeros((0, len(costs)))]
    for term in terms:
        sizes = space.cardinalities[list(term.columns)]
        total = np.zeros((*sizes, len(costs)))
        for layers in term.layers:
            sums = [[sum(cost(layer) for layer in value) for cost in costs] for value in layers.values]
            total += np.array(sums, np.float64).reshape(len(sums), len(costs))[layers.on(term.columns)]
        values.append(total.reshape(math.prod(sizes.tolist()), len(costs)))
    return CostTable(positions, np.concatenate(values))


def gene_table(space: SearchSpace, options: Mapping[str, Sequence[float]]) -> CostTable:
    """Tabulate one kind of cost that single choices decide, by name: a cost for each of their options, 0
    where the choice is dead.
    """
    terms = [_Gene(tuple(sorted({space.columns[name], *_ancestors(space, name)}))) for name in options]
    values = [np.zeros(0)]
    for term, (name, costs) in zip(terms, options.items(), strict=True):
        column, genes = space.columns[name], np.array(list(_combinations(space, term)))
        genomes = np.zeros((len(genes), len(space.choices)), np.int16)
        genomes[:, term.columns] = genes
        values.append(np.where(space.active(genomes)[:, column], np.take(costs, genomes[:, column]), 0.0))
    return CostTable(_positions(space, terms), np.concatenate(values)[:, None])


def beside(first: CostTable, second: CostTable) -> CostTable:
    """Join the kinds of cost of two tables of the same space.

    Raises:
        ValueError: together they have too many entries.
    """
    (n, k), (m, j) = first.values.shape, second.values.shape
    if n + m >= 2**24:
        raise ValueError(f"{n + m} table entries; allowed are {2**24 - 1}")
    positions = Positions(
        np.hstack((first.positions.strides, second.positions.strides)),
        np.concatenate((first.positions.offsets, second.positions.offsets + np.float32(n))),
    )
    values = np.zeros((n + m, k + j))
    values[:n, :k], values[n:, k:] = first.values, second.values
    return CostTable(positions, values)


def option_costs(table: CostTable, space: SearchSpace, name: str) -> NDArray[np.float64]:
    """Return (options, k) what each option of a choice adds to what the first costs, in the network of first
    options as far as the choice is alive there.
    """
    column = space.columns[name]
    genomes = np.repeat(_alive(space, name)[None], space.cardinalities[column], axis=0)
    genomes[:, column] = np.arange(len(genomes))
    costs = table(space.canonical(genomes))
    return np.asarray(costs - costs[0])


def _alive(space: SearchSpace, name: str) -> Genomes:
    """(g,) a genome in which the choice called `name` is alive."""
    genome = np.zeros(len(space.choices), np.int16)
    for parent, alive in space.choices[space.columns[name]].active_if:
        genome = np.maximum(genome, _alive(space, parent))
        genome[space.columns[parent]] = space.choices[space.columns[parent]].options.index(alive[0])
    return genome


@dataclass(frozen=True)
class _Gene:
    """A term of one choice and those that keep it alive."""

    columns: tuple[int, ...]


def _ancestors(space: SearchSpace, name: str) -> set[int]:
    """Columns of the choices that decide whether the one called `name` is alive."""
    parents = [parent for parent, _ in space.choices[space.columns[name]].active_if]
    return {column for parent in parents for column in (space.columns[parent], *_ancestors(space, parent))}


def compile_peak(
    space: SearchSpace, terms: Sequence[PeakTerm], cost: Callable[[float], float] = float
) -> PeakTable:
    """Return what the memory of every term costs as one table; by default its bytes.

    Raises:
        ValueError: as in `compile_table`.
    """
    positions = _positions(space, terms)
    values = np.concatenate([np.zeros(0), *(term.bytes.ravel() for term in terms)])
    distinct, index = np.unique(values, return_inverse=True)
    return PeakTable(positions, np.array([cost(value) for value in distinct.tolist()], np.float64)[index])


def _combinations(space: SearchSpace, term: Term) -> Iterator[tuple[int, ...]]:
    return itertools.product(*(range(space.cardinalities[column]) for column in term.columns))


def _positions(space: SearchSpace, terms: Sequence[Term]) -> Positions:
    """Each term as a dense array over `_combinations`, the last gene running fastest."""
    strides = np.zeros((len(space.choices), len(terms)), np.float32)
    ends = [0]
    for position, term in enumerate(terms):
        sizes = space.cardinalities[list(term.columns)]
        strides[list(term.columns), position] = np.append(np.cumprod(sizes[:0:-1])[::-1], 1)
        entries = math.prod(sizes.tolist())
        ends.append(ends[-1] + entries)
        if entries > MOST_ENTRIES or ends[-1] >= 2**24:
            raise ValueError(
                f"a term of {entries} table entries, {ends[-1]} in all; allowed are {MOST_ENTRIES} and "
                f"{2**24 - 1}: split it into terms of fewer genes"
            )
    return Positions(strides, np.array(ends[:-1], np.float32))


def profiled_layers(family: Family) -> tuple[Layer, ...]:
    """Return every layer whose time the costs of a family's networks are made of, in all of their scenarios,
    sorted by key: what a profile must hold.
    """
    if not family.scenarios:
        return distinct_layers(family.space(), family.terms())
    layers = distinct_layers(family.space(), family.scenario_terms())
    distinct = {in_scenario(layer, **sizes) for sizes in family.scenarios.values() for layer in layers}
    return tuple(sorted(distinct, key=Layer.key))


def distinct_layers(space: SearchSpace, terms: Sequence[CostTerm]) -> tuple[Layer, ...]:
    """Return every layer of any network of the space, once, sorted by key."""
    tables = [layers for term in terms for layers in term.layers]
    distinct = {layer for layers in tables for value in layers.values for layer in value}
    return tuple(sorted(distinct, key=Layer.key))
