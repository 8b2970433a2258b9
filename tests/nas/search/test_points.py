"""Constrained domination."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nas.search.points import Points, best, constrained_rank, front, join, join_unbeaten


def points(objectives: list[list[float]], violation: list[float]) -> Points:
    n = len(objectives)
    return Points(
        np.arange(n, dtype=np.int16)[:, None], np.array(objectives).reshape(n, -1), np.array(violation)
    )


MIXED = points([[1, 2], [2, 1], [0, 0], [3, 3], [0, 1]], [0, 0, 0.5, 0, 0.1])


def test_feasible_rows_come_first_then_less_violation() -> None:
    assert constrained_rank(MIXED).tolist() == [0, 0, 3, 1, 2]
    assert constrained_rank(MIXED[MIXED.violation > 0]).tolist() == [2, 1]
    assert constrained_rank(MIXED[:0]).tolist() == []


def test_front_is_feasible_and_non_dominated() -> None:
    assert front(MIXED).genomes[:, 0].tolist() == [0, 1]


def test_best_is_the_least_violating_row_where_nothing_is_feasible() -> None:
    infeasible = points([[np.nan, 0], [0, 0], [9, 9]], [0, 0.5, 0.1])
    assert best(infeasible).genomes.tolist() == [[2]]
    assert best(join(infeasible, MIXED)).genomes[:, 0].tolist() == [0, 1]
    assert len(best(infeasible[:1])) == 0


@given(st.integers(2, 3), st.integers(0, 2**32 - 1))
def test_what_is_obviously_beaten_is_not_missed_in_a_front(m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 9, (60, m)).astype(float)
    rows[rng.random(60) < 0.1] = np.nan
    everything = points(rows.tolist(), rng.integers(0, 2, 60).tolist())
    known = front(everything[:20])
    both = join_unbeaten(known, everything[20:])
    np.testing.assert_array_equal(front(both).objectives, front(join(known, everything[20:])).objectives)
    assert len(join_unbeaten(known, known)) == len(known) * (1 if m == 2 else 2)
