"""The batch that is expected to add most: by brute force, and in its limits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.search.acquisition import choose_batch, probability_to_dominate, quadrature_points
from nas.search.pareto import Matrix, hypervolume

REFERENCE = np.array([1.0, 1.0])
FRONT = np.array([[0.2, 0.8], [0.5, 0.5], [0.8, 0.2]])


def gains(mean: Matrix, std: Matrix, front: Matrix) -> np.ndarray:
    """(n,) expected gain of each candidate alone, by sampling."""
    drawn = np.random.default_rng(0).normal(size=(400, *mean.shape)) * std + mean
    base = hypervolume(front, REFERENCE)
    return np.array(
        [
            np.mean([hypervolume(np.vstack((front, y)), REFERENCE) - base for y in column])
            for column in drawn.swapaxes(0, 1)
        ]
    )


@pytest.mark.parametrize("known", [(), (1,), (0,)], ids=["both uncertain", "second known", "first known"])
def test_the_first_choice_has_the_largest_expected_gain(known: tuple[int, ...]) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        mean, std = rng.random((8, 2)), rng.random((8, 2)) * 0.1
        std[:, known] = 0
        expected = gains(mean, std, FRONT)
        first = choose_batch(mean, std, FRONT, REFERENCE, 1)[0]
        assert expected[first] > 0.93 * expected.max()


def test_spots_hold_the_volume_that_is_left() -> None:
    """Everything is within reach: the volume above the front and above the best of each objective."""
    mean = np.array([[0.0, 0.0]])
    spots = quadrature_points(mean, np.array([[1e-9, 0.0]]), FRONT, REFERENCE)
    assert spots.volume.sum() / 2**9 == pytest.approx(1 - hypervolume(FRONT, REFERENCE), abs=0.01)
    assert (probability_to_dominate(mean, np.zeros((1, 2)), spots.values) == 1).all()


@given(st.integers(0, 2**31), st.integers(1, 3), st.integers(0, 12))
def test_batches_are_distinct_rows_for_any_number_of_objectives(seed: int, m: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    mean, std = rng.random((20, m)), rng.random((20, m)) * 0.2
    chosen = choose_batch(mean, std, rng.random((5, m)), np.ones(m), k)
    assert len(set(chosen.tolist())) == len(chosen) <= k
    again = choose_batch(mean, std, rng.random((0, m)), np.ones(m), 3)
    assert len(again) == 3


def test_equal_rows_are_not_chosen_twice_before_others() -> None:
    mean = np.array([[0.4, 0.4], [0.4, 0.4], [0.1, 0.79], [0.9, 0.9]])
    chosen = choose_batch(mean, np.full((4, 2), 1e-3), FRONT, REFERENCE, 2)
    assert set(chosen.tolist()) in ({0, 2}, {1, 2})


def test_uncertain_rows_beat_certain_ones_of_the_same_mean() -> None:
    mean = np.array([[0.5, 0.5], [0.5, 0.5]])
    std = np.array([[0.01, 0.0], [0.2, 0.0]])
    assert choose_batch(mean, std, FRONT, REFERENCE, 1).tolist() == [1]


def test_nothing_is_chosen_where_nothing_can_be_gained() -> None:
    worse = np.array([[0.9, 0.9], [0.6, 0.6]])
    assert choose_batch(worse, np.zeros((2, 2)), FRONT, REFERENCE, 2).tolist() == []
    assert choose_batch(worse[:0], worse[:0], FRONT, REFERENCE, 2).tolist() == []
    failed = np.array([[np.nan, np.inf]])
    assert choose_batch(worse, np.zeros((2, 2)), failed, REFERENCE, 2).tolist() == [1]
