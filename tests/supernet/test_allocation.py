"""The solver against every assignment, and what it says where nothing is possible."""

import ctypes
import itertools
import math
import os
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import milp

import supernet.solvers.multiple_choice
from supernet.solvers.multiple_choice import (
    InfeasibleError,
    Limit,
    Problem,
    Term,
    diverse,
    least,
    solve,
    total,
)


def alone(values: list[np.ndarray]) -> tuple[Term, ...]:
    """A sum that every item decides by itself."""
    return tuple(Term((item,), each) for item, each in enumerate(values))


def random_problem(rng: np.random.Generator, *, items: int, pairs: int = 0, ties: bool = False) -> Problem:
    """Up to four choices each, up to three limits that about half of the assignments meet."""
    choices = tuple(int(n) for n in rng.integers(1, 5, items))
    if ties:
        choices = (4,) * items

    def terms() -> tuple[Term, ...]:
        own = alone([rng.lognormal(0, 2, n) for n in choices])
        joint = []
        for _ in range(pairs):
            size = int(rng.integers(2, 4))
            at = tuple(int(i) for i in rng.permutation(items)[:size])
            joint.append(Term(at, rng.random(tuple(choices[i] for i in at)) * 3))
        return (*own, *joint)

    limits = []
    for number in range(int(rng.integers(0, 4))):
        limit_terms = terms()
        drawn = [total(limit_terms, rng.integers(0, choices)) for _ in range(9)]
        limits.append(Limit(f"limit {number}", limit_terms, upper=float(np.median(drawn))))
    if rng.random() < 0.3:
        whole = alone([rng.integers(1, 9, n).astype(float) for n in choices])
        met = total(whole, rng.integers(0, choices))
        limits.append(Limit("exactly", whole, upper=met, lower=met))
    tied = ((0, items - 1), (1, 2)) if ties and items > 3 else ()
    return Problem(choices, terms(), tuple(limits), tied)


def cheapest(problem: Problem) -> float:
    """By trying every assignment; infinite where none meets all limits."""
    best = math.inf
    for assignment in itertools.product(*map(range, problem.choices)):
        chosen = np.array(assignment)
        if any(len({assignment[i] for i in tie}) > 1 for tie in problem.equal):
            continue
        slack = 1e-9
        sums = [(limit, total(limit.terms, chosen)) for limit in problem.limits]
        if all(limit.lower - slack <= value <= limit.upper + slack for limit, value in sums):
            best = min(best, total(problem.costs, chosen))
    return best


def cheapest_of_many(problem: Problem) -> float:
    """The same for problems without joint terms, on whole columns of assignments."""
    grid = np.indices(problem.choices).reshape(len(problem.choices), -1)
    keep = np.ones(grid.shape[1], bool)
    for tie in problem.equal:
        keep &= (grid[list(tie)] == grid[tie[0]]).all(axis=0)

    def sums(terms: tuple[Term, ...]) -> np.ndarray:
        return np.sum([term.values[tuple(grid[list(term.items)])] for term in terms], axis=0)

    for limit in problem.limits:
        values = sums(limit.terms)
        keep &= (values <= limit.upper + 1e-9) & (values >= limit.lower - 1e-9)
    return float(sums(problem.costs)[keep].min(initial=math.inf))


def check(problem: Problem, expected: float) -> bool:
    """Whether there was a solution; the one found must cost as much as the best, and meet every limit."""
    if math.isinf(expected):
        with pytest.raises(InfeasibleError):
            solve(problem)
        return False
    solution = solve(problem)
    assert solution.exact
    assert solution.cost == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert total(problem.costs, solution.chosen) == solution.cost
    for limit in problem.limits:
        assert limit.lower - 1e-6 <= total(limit.terms, solution.chosen) <= limit.upper + 1e-6
    for tie in problem.equal:
        assert len(set(solution.chosen[list(tie)])) == 1
    return True


@pytest.mark.parametrize("part", range(4))
def test_random_problems_are_solved_exactly(part: int) -> None:
    """The rest of 1,000 problems is in the slow test below."""
    rng = np.random.default_rng([1, part])
    met = [check(p, cheapest_of_many(p)) for p in (random_problem(rng, items=6) for _ in range(10))]
    assert any(met)


@pytest.mark.slow
def test_a_thousand_random_problems_are_solved_exactly() -> None:
    rng = np.random.default_rng(2)
    met = []
    for number in range(1000):
        problem = random_problem(rng, items=int(rng.integers(2, 10 if number % 20 else 12)))
        met.append(check(problem, cheapest_of_many(problem)))
    assert 0.5 < np.mean(met) < 1


def test_costs_that_several_items_decide_together() -> None:
    rng = np.random.default_rng(3)
    problems = [random_problem(rng, items=5, pairs=4, ties=number % 3 == 0) for number in range(15)]
    assert sum(check(problem, cheapest(problem)) for problem in problems) > 5


def resnet(rng: np.random.Generator) -> Problem:
    """Nineteen layers of two widths, 8 and 4 bits; three shortcuts take the width of their unit's first
    convolution, as in HAWQ-V3: 2^16 assignments.
    """
    weights = rng.integers(9, 2_400, 19) * 1_000.0
    damage = alone([np.array([0.0, spread]) for spread in rng.lognormal(-3, 2, 19)])
    size = alone([np.array([1.0, 0.5]) * n for n in weights])
    latency = alone([np.array([1.0, 1 / rng.uniform(1.08, 2.55)]) * rng.uniform(0.1, 0.6) for _ in weights])

    def half(terms: tuple[Term, ...]) -> float:
        most, fewest = (total(terms, np.full(19, choice)) for choice in (0, 1))
        return fewest + 0.5 * (most - fewest)

    limits = (Limit("size", size, upper=half(size)), Limit("latency", latency, upper=half(latency)))
    return Problem((2,) * 19, damage, limits, ((5, 7), (10, 12), (15, 17)))


def test_tied_shortcuts_of_nineteen_layers_among_all_assignments() -> None:
    problem = resnet(np.random.default_rng(0))
    grid = np.indices((2,) * 16, np.int8).reshape(16, -1)
    every = np.insert(grid, [7, 11, 15], grid[[5, 9, 13]], axis=0)  # each shortcut right after its unit
    assert every.shape == (19, 2**16)
    assert all((every[one] == every[other]).all() for one, other in problem.equal)

    def sums(terms: tuple[Term, ...]) -> np.ndarray:
        return np.sum([term.values[every[term.items[0]]] for term in terms], axis=0)

    met = np.all([sums(limit.terms) <= limit.upper for limit in problem.limits], axis=0)
    assert 0 < met.sum() < 2**16
    assert check(problem, float(sums(problem.costs)[met].min()))


def scaled(terms: tuple[Term, ...], factor: float) -> tuple[Term, ...]:
    return tuple(Term(term.items, term.values * factor) for term in terms)


@pytest.mark.parametrize("factor", [2.0, 1e-9, 1e9])
def test_other_units_change_nothing(factor: float) -> None:
    problem = resnet(np.random.default_rng(7))
    limits = tuple(
        replace(limit, terms=scaled(limit.terms, factor), upper=limit.upper * factor)
        for limit in problem.limits
    )
    other = replace(problem, costs=scaled(problem.costs, factor), limits=limits)
    np.testing.assert_array_equal(solve(problem).chosen, solve(other).chosen)


def test_one_unit_of_size_too_much_is_too_much() -> None:
    """A limit in bytes holds to the byte, although a network has millions of them."""
    sizes = alone([np.array([8_000_001.0, 4_000_000.0])] * 12)
    damage = alone([np.array([0.0, 1.0])] * 12)
    limit = 8_000_001.0 * 6 + 4_000_000 * 6
    for short, kept in ((0.0, 6), (1.0, 5)):
        found = solve(Problem((2,) * 12, damage, (Limit("size", sizes, upper=limit - short),)))
        assert (found.chosen == 0).sum() == kept


def test_says_which_limit_cannot_be_met_and_what_can() -> None:
    sizes, times = alone([np.array([8.0, 4.0])] * 3), alone([np.array([1.0, 3.0])] * 3)
    problem = Problem((2,) * 3, sizes)
    with pytest.raises(
        InfeasibleError, match="size cannot be 11; the nearest possible value is 12"
    ) as caught:
        solve(replace(problem, limits=(Limit("time", times, upper=99.0), Limit("size", sizes, upper=11.0))))
    assert (caught.value.name, caught.value.nearest, caught.value.together) == ("size", 12.0, False)
    with pytest.raises(InfeasibleError, match=r"time cannot be 5 while the other limits are met.* 7"):
        solve(replace(problem, limits=(Limit("time", times, upper=5.0), Limit("size", sizes, upper=16.0))))
    with pytest.raises(InfeasibleError, match="time cannot be 10; the nearest possible value is 9"):
        solve(replace(problem, limits=(Limit("time", times, lower=10.0),)))


def test_the_next_best_differ_as_much_as_asked() -> None:
    rng = np.random.default_rng(5)
    problem = replace(random_problem(rng, items=6), limits=())
    found = list(diverse(problem, 5, 2))
    costs = [each.cost for each in found]
    assert costs == sorted(costs)
    for one, other in itertools.combinations(found, 2):
        assert (one.chosen != other.chosen).sum() >= 2
    assert len(list(diverse(Problem((2, 1), alone([np.arange(2.0), np.zeros(1)])), 5, 1))) == 2


def test_the_least_of_a_sum_within_limits() -> None:
    problem = resnet(np.random.default_rng(1))
    size = problem.limits[0].terms
    assert least(replace(problem, limits=()), size) == total(size, np.ones(19, np.int64))
    assert least(problem, size) <= problem.limits[0].upper


def test_large_problems_are_solved_nearly_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(9)
    damage = [np.sort(rng.lognormal(0, 2, 4)) for _ in range(300)]
    sizes = [np.array([8.0, 6.0, 4.0, 2.0]) * rng.integers(1, 100) for _ in range(300)]
    times = [np.array([4.0, 3.0, 3.0, 2.0]) * rng.random() for _ in range(300)]
    limits = tuple(
        Limit(name, alone(each), upper=0.6 * sum(float(values[0]) for values in each))
        for name, each in (("size", sizes), ("time", times))
    )
    problem = Problem((4,) * 300, alone(damage), limits)
    exact = solve(problem)
    monkeypatch.setattr(supernet.solvers.multiple_choice, "EXACT_BINARIES", 1000)
    monkeypatch.setattr(supernet.solvers.multiple_choice, "CORE", 20)
    found = solve(problem)
    assert found.bound <= exact.cost <= found.cost <= 1.005 * exact.cost
    impossible = replace(limits[0], upper=1.0)
    with pytest.raises(InfeasibleError, match="size cannot be 1"):
        solve(replace(problem, limits=(impossible, limits[1])))


def test_a_core_that_is_too_small_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums that must be met exactly are beyond rounding of a few items."""
    rng = np.random.default_rng(11)
    widths = alone([rng.integers(1, 100, 4).astype(float) for _ in range(30)])
    met = total(widths, rng.integers(0, 4, 30))
    costs = alone([rng.random(4) for _ in range(30)])
    problem = Problem((4,) * 30, costs, (Limit("width", widths, upper=met, lower=met),))
    exact = solve(problem)
    monkeypatch.setattr(supernet.solvers.multiple_choice, "EXACT_BINARIES", 100)
    monkeypatch.setattr(supernet.solvers.multiple_choice, "CORE", 1)
    found = solve(problem)
    assert total(widths, found.chosen) == met
    assert found.bound <= exact.cost <= found.cost


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """HiGHS prints a line when it repairs a solution; here it always does."""

    def noisy(*arguments: object, **options: object) -> object:
        os.write(1, b"unbuffered\n")
        ctypes.CDLL(None).puts(b"buffered by C")
        return milp(*arguments, **options)

    monkeypatch.setattr(supernet.solvers.multiple_choice, "milp", noisy)
    print("before")
    assert solve(Problem((2,), alone([np.array([1.0, 0.5])]))).cost == 0.5
    print("after")
    assert capfd.readouterr().out == "before\nafter\n"


def test_malformed_problems_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(3,\), not \(2,\)"):
        Problem((2,), (Term((0,), np.zeros(3)),))
    with pytest.raises(ValueError, match="at least one choice"):
        Problem((2, 0), ())
    with pytest.raises(ValueError, match="different numbers of choices"):
        Problem((2, 3), (), equal=((0, 1),))
