"""The loop: budget, patience, exhaustion, what it keeps, and finalists."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.search.algorithms.random_search import RandomSearch
from nas.search.loop import Progress, choose_finalists, search
from nas.search.pareto import Matrix, non_dominated
from supernet.space.space import Choice, Genomes, SearchSpace

SPACE = SearchSpace("line", (Choice("a", tuple(range(20))), Choice("b", tuple(range(20)))))
REFERENCE = [20.0, 20.0]


def trade_off(genomes: Genomes) -> tuple[Matrix, np.ndarray]:
    """a against 19 - a, and b is waste; a below 5 is not allowed."""
    a, b = genomes.T.astype(float)
    return np.column_stack((a + b, 19 - a + b)), np.maximum(5 - a, 0) / 5


def nothing_feasible(genomes: Genomes) -> tuple[Matrix, np.ndarray]:
    objectives, _ = trade_off(genomes)
    return objectives, 1 + genomes.sum(axis=1)


def test_finds_the_feasible_front_of_an_exhausted_space() -> None:
    seen: list[Progress] = []
    result = search(
        RandomSearch(SPACE, seed=0),
        trade_off,
        budget=1000,
        batch=64,
        reference=REFERENCE,
        on_progress=seen.append,
    )
    assert (result.stopped, result.evaluations) == ("exhausted", 400)
    assert result.genomes.tolist() == [[a, 0] for a in range(5, 20)]
    np.testing.assert_array_equal(result.objectives, trade_off(result.genomes)[0])
    assert (np.diff(result.hypervolumes) >= 0).all()
    assert len(result.nearest) == 0
    assert seen[-1] == Progress(400, 1000, result.hypervolumes[-1], 15)
    assert len(seen) == len(result.hypervolumes) == 7


def test_what_can_never_be_is_counted_and_not_returned() -> None:
    def evaluate(genomes: Genomes) -> tuple[Matrix, np.ndarray]:
        objectives, violation = trade_off(genomes)
        return objectives, np.where(genomes[:, 1] == 0, np.inf, violation)

    result = search(RandomSearch(SPACE, seed=0), evaluate, budget=1000, batch=64, reference=REFERENCE)
    assert (result.evaluations, result.rejected) == (400, 20)
    assert result.genomes.tolist() == [[a, 1] for a in range(5, 20)]


def test_the_budget_is_never_exceeded() -> None:
    counted: list[int] = []

    def evaluate(genomes: Genomes) -> tuple[Matrix, np.ndarray]:
        counted.append(len(genomes))
        return trade_off(genomes)

    result = search(RandomSearch(SPACE, seed=0), evaluate, budget=100, batch=30, reference=REFERENCE)
    assert counted == [30, 30, 30, 10]
    assert (result.stopped, result.evaluations) == ("budget", 100)


def test_stops_when_the_hypervolume_stalls() -> None:
    def constant(genomes: Genomes) -> tuple[Matrix, np.ndarray]:
        return np.ones((len(genomes), 2)), np.zeros(len(genomes))

    result = search(
        RandomSearch(SPACE, seed=0), constant, budget=400, batch=10, reference=REFERENCE, patience=3
    )
    assert (result.stopped, result.evaluations) == ("stalled", 40)


def test_names_the_least_violating_genome_where_nothing_is_feasible() -> None:
    result = search(
        RandomSearch(SPACE, seed=0), nothing_feasible, budget=400, batch=50, reference=REFERENCE, patience=1
    )
    assert (result.stopped, len(result.genomes)) == (
        "budget",
        0,
    )  # no progress is no stall before the first success
    assert result.nearest.genomes.tolist() == [[0, 0]]
    assert result.nearest.violation.tolist() == [1.0]


def test_an_exhausted_searcher_gives_an_empty_result() -> None:
    searcher = RandomSearch(SPACE, seed=0)
    searcher.ask(400)
    result = search(searcher, trade_off, budget=10, batch=5, reference=REFERENCE)
    assert (result.stopped, result.evaluations, result.genomes.shape) == ("exhausted", 0, (0, 2))


@pytest.mark.parametrize("wrong", [{"budget": 0}, {"batch": 0}, {"patience": 0}])
def test_numbers_below_one_are_refused(wrong: dict[str, int]) -> None:
    arguments = {"budget": 1, "batch": 1, "patience": 1, **wrong}
    with pytest.raises(ValueError, match="at least 1"):
        search(RandomSearch(SPACE, seed=0), trade_off, reference=REFERENCE, **arguments)


@given(st.integers(0, 40), st.integers(1, 12), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_finalists_are_distinct_and_hold_the_extremes(n: int, k: int, m: int, seed: int) -> None:
    Y = np.random.default_rng(seed).random((n, m))
    Y = Y[non_dominated(Y)]
    chosen = choose_finalists(Y, k)
    assert len(chosen) == len(set(chosen.tolist())) == min(k, len(Y))
    if len(Y) and k >= m:
        assert set(Y.argmin(axis=0)) <= set(chosen.tolist())


def test_finalists_are_well_spread_whatever_the_units() -> None:
    Y = np.column_stack((np.arange(101), np.arange(101)[::-1] * 1e-6))
    assert sorted(choose_finalists(Y, 5)) == [0, 25, 50, 75, 100]
