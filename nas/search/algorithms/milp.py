"""The number formats of one architecture, allocated exactly under any number of limits: what a genome's costs
become when its architecture stays as it is, and the best allocations between two ends of a cost.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from supernet.solvers.multiple_choice import (
    Chosen,
    InfeasibleError,
    Limit,
    Problem,
    Term,
    diverse,
    least,
    solve,
    total,
)
from supernet.space.space import Genomes, SearchSpace

APART = 2  # formats in which an allocation differs from the best under the same limits, at least
Terms = tuple[Term, ...]


@dataclass(frozen=True, eq=False)
class GeneSum:
    """A number of a network that adds up over parts which a few genes decide each.

    Part t of a genome (g,) adds `values[genome @ strides[:, t] + offsets[t]]`.

    Attributes:
        strides: (g, t).
        offsets: (t,).
        values: (m,).
    """

    strides: NDArray[np.float32]
    offsets: NDArray[np.float32]
    values: NDArray[np.float64]

    def restrict(
        self, genome: Genomes, columns: Sequence[int], sizes: Sequence[int]
    ) -> list[tuple[tuple[int, ...], NDArray[np.float64]]]:
        """Return every part as a dense array over the genes in `columns`, the others fixed as in `genome`
        (g,).

        A part's position is linear in the genes, so each free gene that it depends on becomes one axis, along
        which the position grows by that gene's stride. Positions are below 2^24, where float32 is exact.

        Args:
            genome: the genes that stay as they are.
            columns: of the genes that are free, the items.
            sizes: options of each of these.

        Returns:
            For each part the items that it depends on, and its values, an axis per item.

        >>> two_genes = GeneSum(np.float32([[3], [1]]), np.float32([0]), np.arange(6) * 10.0)  # 2 x 3 options
        >>> two_genes.restrict(np.array([1, 0], np.int16), [1], [3])  # the first is 1, the second free
        [((0,), array([30., 40., 50.]))]
        """
        free = np.array(columns, np.int64)
        fixed = genome.astype(np.float64)
        fixed[free] = 0
        starts = (fixed @ self.strides + self.offsets).astype(np.int64)
        parts = []
        for strides, start in zip(self.strides[free].T.astype(np.int64), starts, strict=True):
            items = np.flatnonzero(strides)
            along = [strides[item] * np.arange(sizes[int(item)]) for item in items]
            positions = start + sum(np.ix_(*along), np.zeros((), np.int64))
            parts.append((tuple(items.tolist()), self.values[positions]))
        return parts


@dataclass(frozen=True, eq=False)
class Formats:
    """What may be chosen for one architecture.

    Attributes:
        genome: (g,) canonical, the architecture with every format at its first option; a choice that switches
            other formats on is at its last.
        columns: of the choices of formats that are alive and open, the items of the problem, in order.
        sizes: options of each.
    """

    genome: Genomes
    columns: tuple[int, ...]
    sizes: tuple[int, ...]

    def genomes(self, allocations: Sequence[Chosen]) -> Genomes:
        """Return (n, g) the networks of n allocations."""
        rows = np.tile(self.genome, (len(allocations), 1))
        rows[:, self.columns] = np.array(allocations, np.int16).reshape(len(allocations), len(self.columns))
        return rows

    def parts(self, number: GeneSum) -> Terms:
        """Return every part of a number of the network, as the formats decide it; a constant where they
        do not.
        """
        return tuple(
            Term(items, values) if np.ptp(values) > 0 else Term((), np.array(values.flat[0]))
            for items, values in number.restrict(self.genome, self.columns, self.sizes)
        )

    def terms(self, number: GeneSum) -> Terms:
        """Return the sum of these parts, its constants as one."""
        parts = self.parts(number)
        constant = sum(float(part.values) for part in parts if not part.items)
        return (*(part for part in parts if part.items), Term((), np.array(constant)))


def formats_of(space: SearchSpace, genome: Genomes) -> Formats:
    """Return the formats that the architecture of `genome` (g,) may choose between."""
    precision = [column for column, choice in enumerate(space.choices) if choice.kind == "precision"]
    parents = {parent for column in precision for parent, _ in space.choices[column].active_if}
    switches = [column for column in precision if space.choices[column].name in parents]
    base = np.array(genome, np.int16)
    base[precision] = 0
    base[switches] = space.cardinalities[switches] - 1
    base = space.canonical(base[None])[0]
    alive = space.active(base[None])[0] & (space.cardinalities > 1)
    columns = tuple(column for column in precision if alive[column] and column not in switches)
    return Formats(base, columns, tuple(int(space.cardinalities[column]) for column in columns))


def trade_offs(problem: Problem, costs: Sequence[Terms], count: int) -> list[Chosen]:
    """Return up to `count` different allocations: the best within the limits, then the best under limits on
    each of `costs` in turn, evenly between what the best one costs and the least there is; then, where many
    of these are the same, the next best that differ from them in `APART` formats.

    Raises:
        InfeasibleError: nothing meets the limits of the problem.
    """
    best = solve(problem).chosen
    allocations = {best.tobytes(): best}
    tightened = list(_tightened(problem, costs, best, -(-(count - 1) // max(len(costs), 1))))
    for subproblem in tightened:
        solution = solve(subproblem).chosen
        allocations.setdefault(solution.tobytes(), solution)
    for subproblem in (problem, *tightened):
        if len(allocations) >= count:
            break
        for allocation in diverse(subproblem, 1 + -(-count // (1 + len(tightened))), APART):
            allocations.setdefault(allocation.chosen.tobytes(), allocation.chosen)
    return list(allocations.values())[:count]


def _tightened(problem: Problem, costs: Sequence[Terms], best: Chosen, levels: int) -> Iterator[Problem]:
    for terms in costs:
        low, high = least(problem, terms), total(terms, best)
        if high > low:
            for level in range(levels):
                cap = Limit("trade-off", terms, upper=low + (high - low) * level / levels)
                yield replace(problem, limits=(*problem.limits, cap))


def largest_limits(name: str, parts: Terms, bound: float) -> tuple[Limit, ...]:
    """Return a limit on the largest of some parts: one on each that could exceed it."""
    return tuple(Limit(name, (part,), upper=bound) for part in parts if part.values.max() > bound)


def least_largest(problem: Problem, parts: Terms) -> float:
    """Return the least that the largest of some parts can be, by bisection of the values that they take.

    Raises:
        InfeasibleError: the problem's own limits cannot be met.
    """
    values = np.unique(np.concatenate([part.values.ravel() for part in parts]))
    low, high = 0, len(values) - 1
    while low < high:
        middle = (low + high) // 2
        limits = (*problem.limits, *largest_limits("", parts, float(values[middle])))
        try:
            solve(replace(problem, limits=limits))
        except InfeasibleError:
            low = middle + 1
        else:
            high = middle
    return float(values[low])
