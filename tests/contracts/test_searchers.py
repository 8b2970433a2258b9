"""What every registered searcher promises (nas.search.searcher.Searcher)."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from hw_profiles.errors import TrilobitError
from hw_profiles.registry import names
from nas.search.loop import search
from nas.search.pareto import Matrix
from nas.search.searcher import SEARCHERS, Searcher, make_searcher
from supernet.space.space import Choice, Genomes, SearchSpace, unique_rows

ALL = sorted(names("trilobit.searchers", SEARCHERS))
# Optuna's TPE builds each proposal in 15 ms and more; tests/nas/search/test_optuna_samplers.py has quick ones
SLOW = {"tpe": pytest.mark.slow}
REFERENCE = [100.0, 100.0]


def staged_space(stages: int) -> SearchSpace:
    """Stages of one or two blocks, the second one conditional."""
    choices = []
    for s in range(stages):
        deep = ((f"s{s}.depth", (2,)),)
        choices += [Choice(f"s{s}.depth", (1, 2)), Choice(f"s{s}.b0", (0, 1, 2))]
        choices += [Choice(f"s{s}.b1", (0, 1, 2), active_if=deep)]
    return SearchSpace("staged", tuple(choices))


SMALL, LARGE = staged_space(2), staged_space(8)  # 144 and 429,981,696 networks


def evaluate(genomes: Genomes) -> tuple[Matrix, np.ndarray]:
    """Cost against distance to a pattern; networks of cost below 3 are not allowed."""
    cost = genomes.sum(axis=1, dtype=np.float64)
    pattern = np.arange(genomes.shape[1]) % 3
    distance = np.abs(genomes - pattern).sum(axis=1)
    return np.column_stack((cost, distance + 0.1 * cost)), np.maximum(3 - cost, 0) / 3


def replay(searcher: Searcher, batches: int, n: int = 20) -> list[Genomes]:
    asked = []
    for _ in range(batches):
        asked.append(searcher.ask(n))
        searcher.tell(asked[-1], *evaluate(asked[-1]))
    return asked


def marked(searchers: Iterable[str]) -> list[Any]:
    return [pytest.param(each, marks=SLOW.get(each, ())) for each in sorted(searchers)]


@pytest.fixture(params=marked(ALL))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_asks_are_canonical_in_the_space_and_never_repeated(name: str) -> None:
    asked = np.concatenate(replay(make_searcher(name, LARGE, seed=1), 12))
    assert asked.shape == (240, len(LARGE.choices))
    assert asked.dtype == np.int16
    assert ((asked >= 0) & (asked < LARGE.cardinalities)).all()
    np.testing.assert_array_equal(LARGE.canonical(asked), asked)
    assert len(unique_rows(asked)) == len(asked)


def test_is_deterministic_and_depends_on_the_seed(name: str) -> None:
    first, second, other = (np.concatenate(replay(make_searcher(name, LARGE, seed=s), 8)) for s in (7, 7, 8))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


def test_a_resumed_search_goes_the_same_way(name: str) -> None:
    """Killed after 5 of 9 batches: the answers of the first 5 are replayed from where they were stored."""
    uninterrupted = replay(make_searcher(name, LARGE, seed=3), 9)
    stored = [evaluate(genomes) for genomes in uninterrupted[:5]]
    resumed = make_searcher(name, LARGE, seed=3)
    for genomes, answer in zip(uninterrupted, stored, strict=False):
        np.testing.assert_array_equal(resumed.ask(20), genomes)
        resumed.tell(genomes, *answer)
    np.random.default_rng(0).random(100)  # somebody else's random numbers change nothing
    for expected, got in zip(uninterrupted[5:], replay(resumed, 4), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_asks_for_initial_genomes_first(name: str) -> None:
    initial = LARGE.sample(7, rng=np.random.default_rng(0))
    asked = make_searcher(name, LARGE, seed=0, initial=initial).ask(20)
    np.testing.assert_array_equal(asked[:7], initial)
    assert len(asked) == 20


def test_exhausts_a_small_space_and_finds_its_exact_front(name: str) -> None:
    result = search(make_searcher(name, SMALL, seed=0), evaluate, budget=1000, batch=25, reference=REFERENCE)
    assert (result.stopped, result.evaluations) == ("exhausted", SMALL.size)
    everything = make_searcher("random", SMALL, seed=5)
    every = search(everything, evaluate, budget=1000, batch=1000, reference=REFERENCE)
    np.testing.assert_array_equal(result.objectives, every.objectives)
    assert make_searcher(name, SMALL, seed=0).ask(500).shape == (SMALL.size, len(SMALL.choices))


def test_respects_constraints(name: str) -> None:
    result = search(make_searcher(name, LARGE, seed=0), evaluate, budget=400, batch=40, reference=REFERENCE)
    assert len(result.genomes)
    assert (evaluate(result.genomes)[1] == 0).all()


def test_survives_failed_evaluations(name: str) -> None:
    searcher = make_searcher(name, LARGE, seed=0)
    for failed in (1.0, 0.5, 0.0):
        genomes = searcher.ask(20)
        objectives, violation = evaluate(genomes)
        broken = np.arange(20) < 20 * failed
        objectives[broken], violation[broken] = np.nan, np.inf
        searcher.tell(genomes, objectives, violation)
    assert len(searcher.ask(20)) == 20


def test_survives_batches_of_one_and_tells_of_nothing(name: str) -> None:
    searcher = make_searcher(name, LARGE, seed=0)
    searcher.tell(np.empty((0, len(LARGE.choices)), np.int16), np.empty((0, 2)), np.empty(0))
    asked = np.concatenate(replay(searcher, 10, n=1))
    assert len(unique_rows(asked)) == 10


def test_works_where_nothing_is_feasible(name: str) -> None:
    def infeasible(genomes: Genomes) -> tuple[Matrix, np.ndarray]:
        return evaluate(genomes)[0], 1.0 + genomes.sum(axis=1)

    result = search(make_searcher(name, LARGE, seed=0), infeasible, budget=300, batch=30, reference=REFERENCE)
    assert len(result.genomes) == 0
    assert len(result.nearest) == 1


@pytest.mark.parametrize("name", marked(set(SEARCHERS) - {"random"}))
def test_learning_beats_chance(name: str) -> None:
    ours, chance = (
        search(make_searcher(kind, LARGE, seed=0), evaluate, budget=1000, batch=50, reference=[40.0, 40.0])
        for kind in (name, "random")
    )
    assert ours.hypervolumes[-1] > 1.05 * chance.hypervolumes[-1]


def test_unknown_searchers_are_refused() -> None:
    with pytest.raises(TrilobitError, match="unknown searcher 'luck'; known: aging, evolution, nsga2, nsga3"):
        make_searcher("luck", SMALL, seed=0)
