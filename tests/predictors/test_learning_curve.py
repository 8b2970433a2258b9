"""Errors whose fall with the number of rows is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictors.assessment.learning_curve import ALWAYS, curve_point, fit_power_law, learning_curve


@given(
    floor=st.floats(0, 0.5),
    factor=st.floats(0.1, 5),
    exponent=st.sampled_from([0.25, 0.5, 0.75, 1.0, 1.3]),
)
def test_an_exact_power_law_is_found_again(floor: float, factor: float, exponent: float) -> None:
    n = [20, 40, 80, 160, 320]
    law = fit_power_law(n, [floor + factor * m**-exponent for m in n])
    assert law(640) == pytest.approx(floor + factor * 640**-exponent, rel=1e-3, abs=1e-4)


def test_an_error_that_rises_gains_nothing() -> None:
    law = fit_power_law([10, 20, 40], [0.1, 0.2, 0.3])
    assert law(40) == law(80) == pytest.approx(0.2)


def test_too_few_points_are_refused() -> None:
    with pytest.raises(ValueError, match="three points or more"):
        fit_power_law([10, 20], [0.2, 0.1])


def test_every_row_is_predicted_once_from_others_and_always_from_the_common_ones() -> None:
    rng = np.random.default_rng(0)
    fold = np.concatenate([np.full(10, ALWAYS), np.arange(40) % 5])
    asked: list[tuple[np.ndarray, np.ndarray]] = []

    def fit(learned: np.ndarray, held: np.ndarray) -> np.ndarray:
        asked.append((learned, held))
        return held.astype(float)

    targets = np.arange(50.0)
    points = learning_curve(fit, targets, fold, (0.25, 1.0), rng=rng)
    assert [point.n for point in points] == [8, 32]
    assert [point.kendall_tau for point in points] == [1.0, 1.0]
    assert [point.rmse for point in points] == [0.0, 0.0]
    for learned, held in asked:
        assert set(range(10)) <= set(learned.tolist())
        assert not set(learned.tolist()) & set(held.tolist())
    held = np.concatenate([held for _, held in asked[5:]])
    np.testing.assert_array_equal(np.sort(held), np.arange(10, 50))


def test_the_mean_of_more_rows_is_nearer() -> None:
    rng = np.random.default_rng(1)
    targets = rng.normal(size=400)
    points = learning_curve(
        lambda learned, held: np.full(len(held), targets[learned].mean()) + 1e-9 * held,
        targets,
        np.arange(400) % 5,
        (0.01, 1.0),
        rng=rng,
        test_folds=[0, 1],
    )
    errors = [point.rmse for point in points]
    assert errors[0] > 1.005 * errors[-1]
    assert errors[-1] == pytest.approx(targets[np.arange(400) % 5 < 2].std(), rel=0.02)


def test_rows_without_a_prediction_do_not_count() -> None:
    point = curve_point(7, np.array([1.0, np.nan, 3.0]), np.array([1.0, 50.0, 4.0]))
    assert (point.n, point.kendall_tau) == (7, 1.0)
    assert point.rmse == pytest.approx(np.sqrt(0.5))
    assert curve_point(7, np.ones(3), np.arange(3.0)).kendall_tau == 0.0
