"""One choice for each of many items, at the least cost under any number of limits: the solver behind
number formats of layers, variants of blocks and ranks.

A multiple-choice integer program, solved exactly by HiGHS (Huangfu & Hall 2018,
doi:10.1007/s12532-017-0130-5): HAWQ-V3 (arXiv:2011.10680), LQ-LoRA (arXiv:2311.12023) and Puzzle
(arXiv:2411.19146) allocate by such programs. Costs that several items decide together, such as a conversion
between neighbouring formats, have one more variable for each combination of their choices; those need no
integrality, because in every marginal they agree with the items' own variables (the local polytope of
Wainwright & Jordan 2008, doi:10.1561/2200000001, section 8.4).
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, linprog, milp
from scipy.sparse import vstack

from hw_profiles.errors import TrilobitError
from supernet.solvers.highs import Rows, silent

Floats = NDArray[np.float64]
Chosen = NDArray[np.int64]  # (items,) which choice each item takes

EXACT_BINARIES = 100_000  # above, most items take what the linear relaxation gives them
CORE = 500  # items that are still decided exactly then, at least
SPAN = 1e4  # what every row is scaled to: HiGHS's absolute tolerances of 1e-6 are then 1e-10 of it
TOLERANCE = 1e-9  # of the span of a limit, by which rounding may exceed it
INFEASIBLE = 2  # status of scipy.optimize.milp and linprog


@dataclass(frozen=True, eq=False)
class Term:
    """A part of a sum that the choices of a few items decide.

    Attributes:
        items: which ones, each once; none for a constant.
        values: one axis for each of them, as long as that item has choices.
    """

    items: tuple[int, ...]
    values: Floats


@dataclass(frozen=True, eq=False)
class Limit:
    """A sum of terms that has to stay within bounds.

    Attributes:
        name: what it is, for people.
    """

    name: str
    terms: tuple[Term, ...]
    upper: float = math.inf
    lower: float = -math.inf


@dataclass(frozen=True, eq=False)
class Problem:
    """What is to be allocated.

    Attributes:
        choices: how many choices each item has.
        costs: the sum to minimise.
        limits: all of them hold.
        equal: equality groups, of items that take the same choice.

    Raises:
        ValueError: an item without choices, a term whose shape is not that of its items, or an
            equality group of items with different numbers of choices.
    """

    choices: tuple[int, ...]
    costs: tuple[Term, ...]
    limits: tuple[Limit, ...] = ()
    equal: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        if min(self.choices, default=0) < 1:
            raise ValueError(f"every item has at least one choice, and there is one: {self.choices}")
        for term in (*self.costs, *(term for limit in self.limits for term in limit.terms)):
            shape = tuple(self.choices[item] for item in term.items)
            if term.values.shape != shape or len(set(term.items)) < len(term.items):
                raise ValueError(f"term of items {term.items} has shape {term.values.shape}, not {shape}")
        for group in self.equal:
            if len({self.choices[item] for item in group}) > 1:
                raise ValueError(f"items {group} of an equality group have different numbers of choices")


@dataclass(frozen=True, eq=False)
class NoGood:
    """An allocation that is ruled out: a no-good cut.

    Attributes:
        chosen: (items,) index of each item's choice.
        distance: in how many items at least an allocation has to differ from it.
    """

    chosen: Chosen
    distance: int = 1


@dataclass(frozen=True, eq=False)
class Allocation:
    """What was chosen.

    Attributes:
        chosen: (items,) index of each item's choice.
        cost: their sum of costs.
        bound: no allocation costs less; the same as `cost` where the solution is exact.
    """

    chosen: Chosen
    cost: float
    bound: float

    @property
    def exact(self) -> bool:
        """Whether nothing cheaper exists, up to rounding."""
        return self.cost <= self.bound + 1e-9 * max(1.0, abs(self.bound))


class InfeasibleError(TrilobitError):
    """Limits that nothing meets.

    Attributes:
        name: of a limit that cannot be met; empty where only all together cannot.
        limit: its bound.
        nearest: the value nearest to it that is possible, the other limits met where `together`.
        together: whether it could be met alone.
    """

    def __init__(self, name: str, limit: float, nearest: float, *, together: bool) -> None:
        self.name, self.limit, self.nearest, self.together = name, limit, nearest, together
        others = " while the other limits are met" if together else ""
        super().__init__(
            f"{name} cannot be {limit:.6g}{others}; the nearest possible value is {nearest:.6g}"
            if name
            else "no allocation meets all limits together; loosen one of them"
        )


def total(terms: Sequence[Term], genes: Chosen) -> float:
    """Return the sum of the terms for one allocation (items,)."""
    return math.fsum(float(term.values[tuple(genes[list(term.items)])]) for term in terms)


def solve(problem: Problem, *, cuts: Sequence[NoGood] = ()) -> Allocation:
    """Return the cheapest allocation that meets all limits.

    Exact up to `EXACT_BINARIES` choices in all. Above, items whose choice the linear relaxation leaves no
    doubt about take that (the core of Pisinger 1995, doi:10.1016/0377-2217(95)00015-I), the others are
    decided exactly, and `bound` says how far the outcome may be from the best.

    Args:
        cuts: allocations that are ruled out, with all that differ from them in too few items.

    Raises:
        InfeasibleError: nothing meets all limits; says which one, and the nearest possible value.
    """
    allocation = _Program(problem, cuts).solve()
    if allocation is None:
        raise _explain(problem, cuts)
    return allocation


def diverse(problem: Problem, count: int, distance: int) -> Iterator[Allocation]:
    """Yield up to `count` allocations, the cheapest first, each different from all before in `distance` items
    at least; fewer where there are no more.

    Raises:
        InfeasibleError: there is not even one.
    """
    earlier: list[NoGood] = []
    for _ in range(count):
        try:
            allocation = solve(problem, cuts=earlier)
        except InfeasibleError:
            if earlier:
                return
            raise
        yield allocation
        earlier.append(NoGood(allocation.chosen, distance))


def least(problem: Problem, terms: tuple[Term, ...]) -> float:
    """Return the least that a sum can be within the limits of a problem.

    Raises:
        InfeasibleError: nothing meets them.
    """
    return solve(replace(problem, costs=terms)).cost


def _explain(problem: Problem, cuts: Sequence[NoGood]) -> InfeasibleError:
    """The first limit that cannot be met, alone or beside the others."""
    infeasible = InfeasibleError("", math.nan, math.nan, together=True)
    for together in (False, True):
        for at, limit in enumerate(problem.limits):
            others = problem.limits[:at] + problem.limits[at + 1 :] if together else ()
            for bound, sign in ((limit.upper, 1.0), (limit.lower, -1.0)):
                if not math.isfinite(bound):
                    continue
                terms = tuple(Term(term.items, sign * term.values) for term in limit.terms)
                extreme = _Program(replace(problem, costs=terms, limits=others), cuts).solve()
                if extreme is not None and not _within(limit, sign * extreme.cost):
                    return InfeasibleError(limit.name, bound, sign * extreme.cost, together=together)
    return infeasible


def _within(limit: Limit, value: float) -> bool:
    """Whether a sum meets its limit, up to rounding."""
    slack = TOLERANCE * max(_span(limit.terms), abs(value))
    return limit.lower - slack <= value <= limit.upper + slack


def _span(terms: Sequence[Term]) -> float:
    """By how much a sum can vary, at most."""
    return float(sum(np.ptp(term.values) for term in terms))


class _Program:
    """A problem as HiGHS takes it: the items' own variables end to end, then those of combinations."""

    def __init__(self, problem: Problem, cuts: Sequence[NoGood]) -> None:
        self.problem = problem
        self.starts = np.concatenate(([0], np.cumsum(problem.choices)))
        self.binaries = int(self.starts[-1])
        self.combined: dict[tuple[int, ...], int] = {}  # by items in order, where their variables begin
        self.variables = self.binaries
        for term in (*problem.costs, *(term for limit in problem.limits for term in limit.terms)):
            items = tuple(sorted(term.items))
            if len(items) > 1 and items not in self.combined:
                self.combined[items] = self.variables
                self.variables += math.prod(problem.choices[item] for item in items)
        self.rows = Rows()
        self._one_each()
        self._marginals()
        self._equalities()
        self._limits()
        for no_good in cuts:
            self.cut(no_good)

    @cached_property
    def _items(self) -> NDArray[np.int64]:
        """(binaries,) the item of each variable."""
        return np.repeat(np.arange(len(self.problem.choices)), self.problem.choices)

    @cached_property
    def costs(self) -> Floats:
        """(variables,) scaled to `SPAN`."""
        vector = np.zeros(self.variables)
        for term in self.problem.costs:
            columns, values = self._flat(term)
            np.add.at(vector, columns, values)
        return vector * (SPAN / (_span(self.problem.costs) or 1.0))

    def solve(self) -> Allocation | None:
        """Return the cheapest allocation; None where nothing is feasible."""
        while True:
            if self.binaries > EXACT_BINARIES:
                core = self._core()
                solution, bound = (None, math.inf) if core is None else core
            else:
                solution, bound = self._integer(np.ones(self.variables)), math.inf
            if solution is None:
                return None
            genes = self._chosen(solution)
            if self._meets_limits(genes):
                cost = total(self.problem.costs, genes)
                return Allocation(genes, cost, min(bound, cost))
            self.cut(NoGood(genes, 1))  # HiGHS met a limit within its tolerance only

    def cut(self, no_good: NoGood) -> None:
        """Remove what differs from an allocation in too few items."""
        columns = self.starts[:-1] + no_good.chosen
        self.rows.add(columns, np.ones(len(columns)), upper=float(len(columns) - no_good.distance))

    # -- rows ------------------------------------------------------------------------------------------

    def _own(self, item: int) -> NDArray[np.int64]:
        return np.arange(self.starts[item], self.starts[item + 1])

    def _flat(self, term: Term) -> tuple[NDArray[np.int64], Floats]:
        """Variables of a term, and what each adds; shifted so that the least adds 0."""
        values = term.values - term.values.min()
        if not term.items:  # a constant
            return np.zeros(0, np.int64), np.zeros(0)
        if len(term.items) == 1:
            return self._own(term.items[0]), values
        start = self.combined[tuple(sorted(term.items))]
        ordered = values.transpose(np.argsort(term.items))
        return start + np.arange(ordered.size), ordered.ravel()

    def _one_each(self) -> None:
        for item in range(len(self.problem.choices)):
            columns = self._own(item)
            self.rows.add(columns, np.ones(len(columns)), lower=1.0, upper=1.0)

    def _marginals(self) -> None:
        """A combination takes place exactly where all its items choose it."""
        for items, start in self.combined.items():
            shape = tuple(self.problem.choices[item] for item in items)
            variables = start + np.arange(math.prod(shape)).reshape(shape)
            for axis, item in enumerate(items):
                for own, together in zip(self._own(item), np.moveaxis(variables, axis, 0), strict=True):
                    columns = np.append(together.ravel(), own)
                    self.rows.add(columns, np.append(np.ones(together.size), -1.0), lower=0.0, upper=0.0)

    def _equalities(self) -> None:
        for first, *others in self.problem.equal:
            for other in others:
                for pair in zip(self._own(first), self._own(other), strict=True):
                    self.rows.add(np.array(pair), np.array([1.0, -1.0]), lower=0.0, upper=0.0)

    def _limits(self) -> None:
        for limit in self.problem.limits:
            base = math.fsum(float(term.values.min()) for term in limit.terms)
            scale = SPAN / (_span(limit.terms) or 1.0)
            flat = [self._flat(term) for term in limit.terms]
            self.rows.add(
                np.concatenate([columns for columns, _ in flat] or [np.zeros(0, np.int64)]),
                np.concatenate([values for _, values in flat] or [np.zeros(0)]) * scale,
                lower=(limit.lower - base) * scale,
                upper=(limit.upper - base) * scale,
            )

    def _meets_limits(self, genes: Chosen) -> bool:
        return all(_within(limit, total(limit.terms, genes)) for limit in self.problem.limits)

    # -- solving ---------------------------------------------------------------------------------------

    def _integer(self, upper: Floats) -> Floats | None:
        """(variables,) the exact solution between 0 and `upper`; None where there is none."""
        integral = np.zeros(self.variables)
        integral[: self.binaries] = 1
        with silent():
            outcome = milp(
                self.costs,
                integrality=integral,
                bounds=Bounds(0, upper),
                constraints=self.rows.constraint(self.variables),
                options={"mip_rel_gap": 0.0},
            )
        if outcome.status == INFEASIBLE:
            return None
        if outcome.x is None:
            raise RuntimeError(f"HiGHS failed: {outcome.message}")
        return np.asarray(outcome.x, np.float64)

    def _core(self) -> tuple[Floats, float] | None:
        """A solution (variables,) near the linear relaxation, and a cost that nothing is below; None where
        there is none.

        Items stay free that the relaxation splits, and those that it would cost little to change.
        """
        matrix = self.rows.constraint(self.variables)
        same, below, above = matrix.lb == matrix.ub, np.isfinite(matrix.lb), np.isfinite(matrix.ub)
        below, above = below & ~same, above & ~same
        relaxed = linprog(
            self.costs,
            A_ub=vstack((matrix.A[above], -matrix.A[below])),
            b_ub=np.concatenate((matrix.ub[above], -matrix.lb[below])),
            A_eq=matrix.A[same],
            b_eq=matrix.ub[same],
            bounds=(0, 1),
            method="highs",
        )
        if relaxed.status == INFEASIBLE:
            return None
        if relaxed.x is None:
            raise RuntimeError(f"HiGHS failed: {relaxed.message}")
        rounded = self._chosen(relaxed.x)
        likely = self.starts[:-1] + rounded
        price = relaxed.lower.marginals[: self.binaries].copy()
        price[likely] = np.where(relaxed.x[likely] > 1 - 1e-6, np.inf, -1.0)
        order = np.minimum.reduceat(price, self.starts[:-1]).argsort(kind="stable")
        for free in itertools.chain(_growing(CORE, len(order)), [len(order)]):
            upper = np.ones(self.variables)
            upper[: self.binaries] = np.isin(self._items, order[:free])
            upper[likely] = 1.0
            solution = self._integer(upper)
            if solution is not None:
                return solution, self._unscaled(float(relaxed.fun))
        return None

    def _chosen(self, solution: Floats) -> Chosen:
        """(items,) the choice of the largest share each."""
        order = np.lexsort((-solution[: self.binaries], self._items))
        return np.asarray(order[self.starts[:-1]] - self.starts[:-1], np.int64)

    def _unscaled(self, cost: float) -> float:
        base = math.fsum(float(term.values.min()) for term in self.problem.costs)
        return base + cost * (_span(self.problem.costs) or 1.0) / SPAN


def _growing(first: int, last: int) -> Iterator[int]:
    """`first`, then four times as many, as long as that is below `last`."""
    while first < last:
        yield first
        first *= 4
