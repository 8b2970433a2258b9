"""Costs of genomes as costs of formats, and the allocations between two ends of a cost."""

import itertools

import numpy as np
import pytest

from nas.search.algorithms.milp import APART, GeneSum, formats_of, largest_limits, least_largest, trade_offs
from supernet.solvers.multiple_choice import InfeasibleError, Limit, Problem, Term, total
from supernet.space.space import Choice, SearchSpace

FORMATS = ("fp32", "int8", "int4")
DEEP = (("depth", (2,)),)
SPACE = SearchSpace(
    "staged",
    (
        Choice("depth", (1, 2)),
        Choice("a", FORMATS, "precision"),
        Choice("width", (8, 16, 24)),
        Choice("b", FORMATS, "precision", active_if=DEEP),
        Choice("only", ("fp32",), "precision"),
        Choice("c", FORMATS[:2], "precision"),
    ),
)


def gene_sum(*parts: tuple[int, ...], seed: int = 0) -> GeneSum:
    """Random numbers for parts of these columns, as a compiled table holds them."""
    rng = np.random.default_rng(seed)
    strides = np.zeros((len(SPACE.choices), len(parts)), np.float32)
    offsets, values = [], [np.empty(0)]
    for at, columns in enumerate(parts):
        sizes = SPACE.cardinalities[list(columns)]
        strides[list(columns), at] = np.append(np.cumprod(sizes[:0:-1])[::-1], 1)
        offsets.append(sum(map(len, values)))
        values.append(rng.random(int(np.prod(sizes))))
    return GeneSum(strides, np.array(offsets, np.float32), np.concatenate(values))


def value(number: GeneSum, genome: np.ndarray) -> float:
    return float(number.values[(genome @ number.strides + number.offsets).astype(int)].sum())


def test_dead_and_single_choices_are_left_out() -> None:
    shallow, deep = (formats_of(SPACE, np.array([d, 1, 2, 1, 0, 1], np.int16)) for d in (0, 1))
    assert (shallow.columns, shallow.sizes) == ((1, 5), (3, 2))
    assert (deep.columns, deep.sizes) == ((1, 3, 5), (3, 3, 2))
    assert deep.genome.tolist() == [1, 0, 2, 0, 0, 0]


def test_a_choice_that_switches_others_on_stays_on() -> None:
    space = SearchSpace(
        "switched",
        (
            Choice("whole", ("fp32", "quantized"), "precision"),
            Choice("a", FORMATS, "precision", active_if=(("whole", ("quantized",)),)),
        ),
    )
    formats = formats_of(space, np.zeros(2, np.int16))
    assert (formats.columns, formats.genome.tolist()) == ((1,), [1, 0])


def test_a_sum_over_formats_is_the_number_of_the_network() -> None:
    number = gene_sum((0, 1), (1, 3, 2), (2,), (5, 1), (3,))
    formats = formats_of(SPACE, np.array([1, 0, 2, 0, 0, 0], np.int16))
    terms = formats.terms(number)
    assert [len(term.items) for term in terms].count(0) == 1
    every = [np.array(each) for each in itertools.product(*map(range, formats.sizes))]
    for chosen, genome in zip(every, formats.genomes(every), strict=True):
        assert total(terms, chosen) == pytest.approx(value(number, genome), rel=1e-12)
        assert total(formats.parts(number), chosen) == pytest.approx(value(number, genome), rel=1e-12)


def ladder(items: int) -> Problem:
    """Two steps down for every item, each at a price of its own."""
    prices = np.arange(1.0, items + 1)[:, None] * np.array([0.0, 1.0, 3.0])
    return Problem((3,) * items, tuple(Term((i,), each) for i, each in enumerate(prices)))


def weights(items: int) -> tuple[Term, ...]:
    return tuple(Term((i,), np.array([4.0, 2.0, 1.0])) for i in range(items))


def test_trade_offs_go_from_the_best_to_the_least_cost() -> None:
    problem, cost = ladder(5), weights(5)
    found = trade_offs(problem, [cost], 6)
    assert len({tuple(chosen) for chosen in found}) == 6
    sizes = [total(cost, chosen) for chosen in found]
    assert (max(sizes), min(sizes)) == (20.0, 5.0)
    assert total(problem.costs, found[0]) == 0
    for chosen, size in zip(found, sizes, strict=True):  # nothing as small hurts less
        smaller = [
            total(problem.costs, np.array(other))
            for other in itertools.product(range(3), repeat=5)
            if total(cost, np.array(other)) <= size
        ]
        assert total(problem.costs, chosen) == min(smaller)


def test_trade_offs_keep_the_limits() -> None:
    cost = weights(4)
    problem = Problem((3,) * 4, ladder(4).costs, (Limit("size", cost, upper=9.0),))
    assert all(total(cost, chosen) <= 9 for chosen in trade_offs(problem, [cost, problem.costs], 7))
    with pytest.raises(InfeasibleError):
        trade_offs(Problem((3,) * 4, ladder(4).costs, (Limit("size", cost, upper=3.0),)), [cost], 3)


def test_without_a_cost_to_trade_the_next_best_follow() -> None:
    found = trade_offs(ladder(4), [], 4)
    harm = [total(ladder(4).costs, chosen) for chosen in found]
    assert harm == sorted(harm)
    for one, other in itertools.combinations(found, 2):
        assert (one != other).sum() >= APART
    assert len(trade_offs(ladder(1), [], 9)) == 1


def test_the_largest_of_parts_is_limited_and_bisected() -> None:
    rng = np.random.default_rng(4)
    parts = tuple(Term((i, i + 1), rng.random((3, 3))) for i in range(4))
    problem = Problem((3,) * 5, ladder(5).costs)
    most = {
        chosen: max(float(part.values[chosen[part.items[0]], chosen[part.items[1]]]) for part in parts)
        for chosen in itertools.product(range(3), repeat=5)
    }
    assert least_largest(problem, parts) == min(most.values())
    bound = float(np.median(list(most.values())))
    limits = largest_limits("memory", parts, bound)
    [best] = trade_offs(Problem((3,) * 5, ladder(5).costs, limits), [], 1)
    allowed = [total(problem.costs, np.array(chosen)) for chosen, peak in most.items() if peak <= bound]
    assert total(problem.costs, best) == min(allowed)
    assert largest_limits("memory", parts, 2.0) == ()
