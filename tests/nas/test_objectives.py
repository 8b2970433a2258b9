"""Directions, violations, and limits as people write them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.errors import TrilobitError
from nas.search.limits import Limit, parse_bound, parse_limit
from nas.search.objectives import OBJECTIVES, Objective, objective, to_min, violation
from nas.search.units import UNITS


@pytest.mark.parametrize("known", OBJECTIVES.values(), ids=list(OBJECTIVES))
def test_to_min_orders_and_is_its_own_inverse(known: Objective) -> None:
    values = np.array([0.1, 0.5, 0.9])
    best = values.argmax() if known.direction == "max" else values.argmin()
    assert known.to_min(values).argmin() == best
    np.testing.assert_array_equal(known.to_min(known.to_min(values)), values)


def test_to_min_of_a_matrix_goes_column_by_column() -> None:
    pair = (objective("accuracy"), objective("latency"))
    np.testing.assert_array_equal(to_min(pair, np.array([[0.9, 2.0]])), [[-0.9, 2.0]])
    assert to_min((), np.empty((3, 0))).shape == (3, 0)


def test_violation_sums_relative_excess_over_constraints() -> None:
    limited = (objective("accuracy", 0.8), objective("latency", 0.01), objective("size"))
    values = np.array([[0.9, 0.005, 1e9], [0.6, 0.02, 0.0], [0.8, 0.01, 0.0]])
    np.testing.assert_allclose(violation(limited, values), [0, 0.25 + 1, 0])


def test_violation_of_a_failed_value_is_infinite() -> None:
    values = np.array([[np.nan], [np.inf], [0.5]])
    np.testing.assert_array_equal(violation([objective("latency", 1.0)], values), [np.inf, np.inf, 0])


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6), st.sampled_from(list(OBJECTIVES)))
def test_violation_is_zero_exactly_inside_the_bound(value: float, bound: float, name: str) -> None:
    inside = value >= bound if objective(name).direction == "max" else value <= bound
    assert (violation([objective(name, bound)], np.array([[value]]))[0] == 0) == inside


@pytest.mark.parametrize("bound", [0.0, -1.0, math.inf, math.nan])
def test_a_bound_is_positive_and_finite(bound: float) -> None:
    with pytest.raises(ValueError, match="positive and finite"):
        objective("latency", bound)


def test_limits_have_names_that_people_say() -> None:
    assert objective("negative-flips", 0.005) == objective("flips", 0.005)
    assert objective("worst-class") == objective("worst_class")
    assert parse_bound("negative-flips<=0.5%") == ("flips", "0.5%")
    assert parse_limit("0.01", objective("kl")) == Limit(0.01)
    written = [name for known in OBJECTIVES.values() for name in (known.name, *known.aliases)]
    assert len({name.replace("-", "_") for name in written}) == len(written)  # nothing means two things


def test_unknown_objectives_are_refused() -> None:
    with pytest.raises(TrilobitError, match="unknown objective 'speed'; known: accuracy, flips, agreement"):
        objective("speed")


@pytest.mark.parametrize(
    ("text", "name", "limit"),
    [
        ("0.3ms", "latency", Limit(0.3e-3)),
        ("1.5 s", "latency", Limit(1.5)),
        ("250us", "latency", Limit(250e-6)),
        ("60%", "latency", Limit(0.6, relative=True)),
        ("200KB", "size", Limit(200e3)),
        ("200 KiB", "size", Limit(200 * 1024)),
        ("1e3B", "size", Limit(1000)),
        ("12M", "macs", Limit(12e6)),
        ("12000000", "macs", Limit(12e6)),
        ("50 %", "macs", Limit(0.5, relative=True)),
        ("95%", "accuracy", Limit(0.95)),
        ("0.95", "accuracy", Limit(0.95)),
        (".5mJ", "energy", Limit(0.5e-3)),
    ],
)
def test_limits_as_people_write_them(text: str, name: str, limit: Limit) -> None:
    parsed = parse_limit(text, objective(name))
    assert parsed.value == pytest.approx(limit.value)
    assert parsed.relative == limit.relative


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("0.3", "latency", "write a number and one of: s, ms, us"),
        ("3KB", "latency", "write a number and one of"),
        ("3ms", "size", "write a number and one of: B, kB"),
        ("fast", "latency", "write a number"),
        ("", "latency", "write a number"),
        ("nan", "accuracy", "write a number"),
        ("-3ms", "latency", "positive and finite"),
        ("0ms", "latency", "positive and finite"),
        ("1e999ms", "latency", "positive and finite"),
        ("95", "accuracy", "'95%' is a percentage"),
        ("101%", "accuracy", "at most 100%"),
    ],
)
def test_limits_that_make_no_sense_are_refused(text: str, name: str, message: str) -> None:
    with pytest.raises(TrilobitError, match=message) as caught:
        parse_limit(text, objective(name))
    assert repr(text) in str(caught.value)


def test_relative_limits_are_resolved_with_the_largest_network() -> None:
    assert Limit(0.6, relative=True).resolve(20.0) == 12.0
    assert Limit(0.6).resolve(20.0) == 0.6


def test_every_objective_has_units() -> None:
    assert {known.unit for known in OBJECTIVES.values()} == set(UNITS)
