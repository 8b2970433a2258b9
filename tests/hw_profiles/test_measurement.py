"""Samples or an error, never both; and what is derived from them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.measure.measurement import Measurement, MeasurePlan, Samples

seconds = st.lists(st.floats(1e-9, 1e3), min_size=1, max_size=20).map(tuple)


@pytest.mark.parametrize("fields", [{}, {"samples_s": (1.0,), "error": "failed"}])
def test_has_either_samples_or_an_error(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="either samples or an error"):
        Measurement(**fields)


@given(seconds)
def test_median_and_iqr_are_numpys(samples: tuple[float, ...]) -> None:
    measured = Measurement(samples)
    assert measured.median_s == np.median(samples)
    assert measured.iqr_s == np.subtract(*np.percentile(samples, (75, 25)))


@given(seconds.filter(lambda samples: len(samples) > 1))
def test_one_wild_sample_does_not_carry_the_median_away(samples: tuple[float, ...]) -> None:
    assert Measurement((*samples, 1e9)).median_s <= max(samples)


def test_what_failed_is_never_the_fastest() -> None:
    failed = Measurement(error="no such kernel")
    assert failed.median_s > 1e300
    assert math.isnan(failed.iqr_s)


def test_samples_keep_their_order_and_their_quiet_share() -> None:
    measured = Measurement.of(Samples((3.0, 1.0, 2.0), 0.5))
    assert measured.array.tolist() == [3.0, 1.0, 2.0]
    assert measured.quiet_share == 0.5


def test_a_plan_survives_json() -> None:
    plan = MeasurePlan(rounds=3, core=1)
    assert MeasurePlan(**plan.to_json()) == plan
