"""`CostTable`: additive costs compiled for one space, so that a whole population is costed by gathers."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hw_profiles.workload import LayerSpec
from supernet.family import CostTerm
from supernet.space import Genomes, SearchSpace

CHUNK = 16384  # rows costed at once: keeps the gathered block inside the cache


@dataclass(frozen=True, eq=False)
class CostTable:
    """Dense cost arrays, one per term, laid end to end.

    Attributes:
        strides: (g, t) float32, so that `genomes @ strides + offsets` is each term's index into `values`.
            Exact: indices stay
            below 2^24.
        offsets: (t,) where each term's array begins.
        values: (m, k) cost of every entry, in k kinds of cost (seconds, bytes, multiply-adds...).
    """

    strides: NDArray[np.float32]
    offsets: NDArray[np.float32]
    values: NDArray[np.float64]

    def __call__(self, genomes: Genomes) -> NDArray[np.float64]:
        """(n, g) canonical genomes -> (n, k) summed costs."""
        out = np.empty((len(genomes), self.values.shape[1]))
        for start in range(0, len(genomes), CHUNK):
            rows = genomes[start : start + CHUNK].astype(np.float32)
            index = (rows @ self.strides + self.offsets).astype(np.int32)
            for kind in range(out.shape[1]):
                out[start : start + CHUNK, kind] = self.values[:, kind].take(index).sum(axis=1)
        return out


def compile_table(
    space: SearchSpace, terms: Sequence[CostTerm], costs: Sequence[Callable[[LayerSpec], float]]
) -> CostTable:
    """Evaluate every term at every combination of its genes, in each kind of cost.

    Raises:
        ValueError: the terms have 2^24 or more entries; split them into terms of fewer genes.
    """
    strides = np.zeros((len(space.choices), len(terms)), np.float32)
    offsets = np.zeros(len(terms), np.float32)
    values: list[list[float]] = []
    for position, term in enumerate(terms):
        sizes = space.cardinalities[list(term.columns)]
        strides[list(term.columns), position] = np.append(np.cumprod(sizes[:0:-1])[::-1], 1)
        offsets[position] = len(values)
        for genes in itertools.product(*(range(size) for size in sizes)):
            layers = term.layers(genes)
            values.append([sum(cost(layer) for layer in layers) for cost in costs])
        if len(values) >= 2**24:
            raise ValueError(f"{len(values)} table entries; an index must stay below 2^24")
    return CostTable(strides, offsets, np.array(values, np.float64).reshape(len(values), len(costs)))


def distinct_layers(space: SearchSpace, terms: Sequence[CostTerm]) -> tuple[LayerSpec, ...]:
    """Every layer that some network of the space has, once, sorted by key: what a profile must hold."""
    layers = {
        layer
        for term in terms
        for genes in itertools.product(*(range(space.cardinalities[column]) for column in term.columns))
        for layer in term.layers(genes)
    }
    return tuple(sorted(layers, key=LayerSpec.key))
