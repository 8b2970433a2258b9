"""Two profiles side by side: which units count, and figures that other implementations give too."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from hw_profiles.graph.layer import Layer, changed, map_layer
from hw_profiles.measure.measurement import Estimate, Measurement, MeasurePlan
from hw_profiles.profiles.compare import (
    NEAR_ZERO_S,
    Comparison,
    Pair,
    compare,
    number_format,
    op_kind,
    spearman_rho,
    why_nothing_in_common,
)
from hw_profiles.profiles.latency_model import kendall_tau
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.runtimes.info import DeviceInfo

US = 1e-6
SPREAD = np.array([0.98, 0.99, 1.0, 1.01, 1.02])


def conv(channels: int, fmt: str = "fp32") -> Layer:
    return map_layer("conv", (8, 4, 4), channels, weight_format=fmt, activation_format=fmt)


def row(seconds: float, spread: float = 1.0) -> Measurement:
    return Measurement(tuple((seconds * (1 + spread * (SPREAD - 1))).tolist()))


def profile(name: str, table: dict[Layer, Measurement], **more: object) -> DeviceProfile:
    made = DeviceProfile(DeviceInfo(name, "none", "formula", "1", "none"), MeasurePlan(), table)
    return replace(made, **more)


def of_times(times_us: dict[Layer, tuple[float, float]]) -> Comparison:
    a, b = ({layer: row(both[i] * US) for layer, both in times_us.items()} for i in (0, 1))
    return compare(profile("a", a), profile("b", b))


def test_every_unit_has_one_place() -> None:
    fine, small, failed, refused, estimated, only_a, only_b = map(conv, range(1, 8))
    a = {fine: row(2 * US), small: row(2 * US), failed: row(US), refused: row(US), estimated: row(US)}
    b = {
        fine: row(3 * US),
        small: row(0.2 * US),
        failed: Measurement(error="no kernel"),
        refused: row(US, spread=20),
        only_b: row(US),
    }
    found = compare(
        profile("a", {**a, only_a: row(US)}), profile("b", b, estimates={estimated: Estimate(US, 1e-7)})
    )
    assert [pair.layer for pair in found.pairs] == [fine]
    assert found.pairs[0].ratio == pytest.approx(1.5)
    assert (found.near_zero, found.only_a, found.only_b) == ((small,), (only_a,), (only_b,))
    assert set(found.unusable) == {failed, refused, estimated}


def test_what_is_within_its_spread_is_near_zero() -> None:
    wide = Measurement((-1 * US, 0.0, 1 * US, 2 * US, 3 * US), context_s=100 * US)  # 1 us, IQR 2 us
    below = Measurement((-2 * US,) * 3, context_s=100 * US)
    table = {conv(1): row(US), conv(2): row(US), conv(3): row(NEAR_ZERO_S / 2)}
    found = compare(profile("a", table), profile("b", {**table, conv(1): wide, conv(2): below}))
    assert set(found.near_zero) == set(table)


def test_a_calculated_time_has_no_noise_and_is_never_near_zero() -> None:
    table = {conv(1): Measurement((1e-9,)), conv(2): Measurement((0.0,))}
    found = compare(profile("a", table), profile("b", {layer: row(US) for layer in table}))
    assert [pair.layer for pair in found.pairs] == [conv(1)]


def test_a_profile_against_itself_agrees() -> None:
    found = of_times({conv(i): (float(i), float(i)) for i in range(1, 9)})
    assert found.median_ratio == found.share_within(0.03) == found.kendall == 1.0
    assert found.spearman == pytest.approx(1.0)
    assert not found.faster_on_a()
    assert not found.faster_on_b()


def test_shares_and_medians() -> None:
    times = {conv(i): (10.0, b) for i, b in enumerate((10.2, 9.8, 10.9, 12.0, 5.0), 1)}
    int8 = {conv(i, "int8"): (10.0, b) for i, b in enumerate((20.0, 30.0, 40.0), 1)}
    found = of_times({**times, **int8})
    assert found.share_within(0.03) == 2 / 8
    assert found.share_within(0.1) == 3 / 8
    assert found.by_kind() == {
        ("pointwise", "fp32"): (5, pytest.approx(1.02)),
        ("pointwise", "int8"): (3, pytest.approx(3.0)),
    }
    slowed = [pair.layer for pair in found.faster_on_a(3)]
    assert slowed == [conv(3, "int8"), conv(2, "int8"), conv(1, "int8")]
    assert [pair.layer for pair in found.faster_on_b()] == [conv(5), conv(2)]


def test_the_other_way_round_ratios_are_inverted() -> None:
    times = {conv(i): (float(i), float((7 * i) % 11)) for i in range(1, 10)}
    found, turned = of_times(times), of_times({layer: both[::-1] for layer, both in times.items()})
    np.testing.assert_allclose(found.ratios, 1 / turned.ratios)
    assert [p.layer for p in found.faster_on_a()] == [p.layer for p in turned.faster_on_b()]
    assert (found.kendall, found.spearman) == (turned.kendall, pytest.approx(turned.spearman))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=12))
def test_spearman_is_scipys(pairs: list[tuple[int, int]]) -> None:
    a, b = np.array(pairs, float).T
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        assert math.isnan(spearman_rho(a, b))
    else:
        assert spearman_rho(a, b) == pytest.approx(spearmanr(a, b).statistic)


def test_kendall_is_that_of_the_profile() -> None:
    found = of_times({conv(i): (float(i), float((7 * i) % 11)) for i in range(1, 10)})
    assert found.kendall == kendall_tau(*found.times_s)


def test_nothing_in_common_has_no_figures() -> None:
    found = compare(profile("a", {conv(1): row(US)}), profile("b", {conv(2): row(US)}))
    document = found.to_json()
    for name in ("median_ratio", "spearman", "kendall_tau"):
        assert document[name] is None
    assert document["within"] == {"0.03": None, "0.1": None}
    assert found.by_kind() == {}


def test_the_document_is_json_and_names_units_by_key() -> None:
    found = of_times({conv(1): (1.0, 2.0), conv(2): (2.0, 1.0)})
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert document["ratios"] == {conv(1).key(): pytest.approx(2.0), conv(2).key(): pytest.approx(0.5)}
    assert document["faster_on_a"][0]["unit"] == conv(1).key()
    assert document["faster_on_b"][0]["unit"] == conv(2).key()
    assert document["units"]["compared"] == 2


@pytest.mark.parametrize(
    ("layer", "kind", "fmt"),
    [
        (conv(3, "int8"), "pointwise", "int8"),
        (map_layer("conv", (8, 4, 4), 8, 3, 1, 8), "depthwise", "fp32"),
        (map_layer("conv", (8, 4, 4), 8, 3), "conv", "fp32"),
        (
            map_layer("conv", (8, 4, 4), 8, weight_format="int4", activation_format="int8"),
            "pointwise",
            "int4",
        ),
        (map_layer("add_converted", (8, 4, 4), 8, activation_format="int8"), "add", "int8"),
        (map_layer("pool", (8, 4, 4), 8), "pool", "fp32"),
    ],
)
def test_kinds_and_formats(layer: Layer, kind: str, fmt: str) -> None:
    assert (op_kind(layer), number_format(layer)) == (kind, fmt)


def test_pairs_are_sorted_by_key() -> None:
    found = of_times({conv(i): (1.0, 1.0) for i in (9, 3, 20)})
    assert [p.layer.key() for p in found.pairs] == sorted(p.layer.key() for p in found.pairs)
    assert isinstance(found.pairs[0], Pair)


def only(**changes: Any) -> DeviceProfile:
    stem = map_layer("stem", (3, 32, 32), 16, 3, 2)
    table = {changed(stem, **changes): Measurement((1e-5,) * 3)}
    return DeviceProfile(DeviceInfo("x", "none", "formula", "1", "none"), MeasurePlan(), table)


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (only(in_shape=(1, 32, 32)), "channels of the images: 3 in the first, 1 in the second"),
        (only(in_shape=(3, 28, 28)), "sizes of the images: 32 in the first, 28 in the second"),
        (only(weight_format="int8", activation_format="int8"), "number formats: fp32 in the first, int8 in"),
        (only(out_channels=24), "their units have other shapes"),
        (DeviceProfile(only().device, MeasurePlan()), "the second has no units at all"),
        (
            replace(only(), table={map_layer("linear", (8, 1, 1), 10): Measurement((1e-5,))}),
            "kinds of units: stem in the first, linear in the second",
        ),
        (
            replace(only(), table={layer: Measurement(error="no") for layer in only().table}),
            "1 units are in both, but the first has a number for 1 of them and the second for 0",
        ),
    ],
)
def test_why_nothing_is_in_common(other: DeviceProfile, why: str) -> None:
    assert not compare(only(), other).pairs
    assert why_nothing_in_common(only(), other).startswith(why)
