"""Units predicted from few measured ones, on a made-up device whose costs are known."""

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.conversions import conversion
from hw_profiles.graph.key import KINDS
from hw_profiles.graph.layer import Layer, changed, map_layer
from hw_profiles.measure.measurement import Estimate, Measurement
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.profiles.profile_json import load_profile, save_profile
from predictors.assessment.conformal import coverage
from predictors.latency.kernels import KernelPredictor, Scale, fill, fit_profile, leave_one_out_errors, source
from predictors.latency.unit_features import in_bounds_taps, rough_cost, unit_features

SHARE = 0.2
CLOSE = 0.1  # median relative error that a fifth of a smooth device's units must reach


def part_of(profile: DeviceProfile, share: float, *, seed: int = 0) -> DeviceProfile:
    """With a random share of its rows, and nothing else."""
    layers = list(profile.table)
    kept = np.random.default_rng(seed).permutation(len(layers))[: round(share * len(layers))]
    return replace(profile, table={layers[i]: profile.table[layers[i]] for i in kept})


def errors(filled: DeviceProfile, truth: DeviceProfile) -> tuple[np.ndarray, np.ndarray]:
    """(n,) error and (n,) true seconds of every predicted row."""
    layers = list(filled.estimates)
    true_s = np.array([truth.cost_s(layer) for layer in layers])
    return np.array([filled.cost_s(layer) for layer in layers]) - true_s, true_s


def median_error(filled: DeviceProfile, truth: DeviceProfile) -> float:
    error, true_s = errors(filled, truth)
    return float(np.median(np.abs(error) / true_s))


def slower(profile: DeviceProfile, factor: float) -> DeviceProfile:
    table = {
        layer: replace(row, samples_s=tuple(factor * s for s in row.samples_s))
        for layer, row in profile.table.items()
    }
    return replace(profile, table=table, device=replace(profile.device, name="slower"))


@pytest.fixture(scope="module")
def layers(device_profile: DeviceProfile) -> tuple[Layer, ...]:
    return tuple(device_profile.table)


@pytest.fixture(scope="module")
def filled(device_profile: DeviceProfile, layers: Sequence[Layer]) -> DeviceProfile:
    return fill(part_of(device_profile, SHARE), layers, rng=np.random.default_rng(0))


def test_fill_is_complete_and_touches_no_measured_row(
    device_profile: DeviceProfile, layers: Sequence[Layer], filled: DeviceProfile
) -> None:
    part = part_of(device_profile, SHARE)
    assert filled.table == part.table
    assert set(filled.estimates) == set(layers) - set(part.table)
    assert all(np.isfinite(filled.cost_s(layer)) and filled.cost_s(layer) >= 0 for layer in layers)
    assert all(filled.cost_s(layer) == part.cost_s(layer) for layer in part.table)


def test_a_fifth_of_the_units_tells_the_others(device_profile: DeviceProfile, filled: DeviceProfile) -> None:
    assert median_error(filled, device_profile) < CLOSE


def test_intervals_hold_about_what_they_say(device_profile: DeviceProfile, filled: DeviceProfile) -> None:
    error, _ = errors(filled, device_profile)
    std_s = np.array([filled.std_s(layer) for layer in filled.estimates])
    assert coverage(error, std_s) > 0.8  # .9 nominal


def test_the_entry_says_whether_it_was_measured(filled: DeviceProfile, tmp_path) -> None:
    save_profile(filled, tmp_path / "p.json")
    assert load_profile(tmp_path / "p.json").estimates == filled.estimates


def test_refused_rows_are_predicted_and_failed_ones_left(
    device_profile: DeviceProfile, layers: Sequence[Layer]
) -> None:
    refused, failed = layers[:2]
    wild = Measurement((1e-6, 1e-3, 2e-3))
    measured = {layer: device_profile.table[layer] for layer in layers[::20]}
    table = {**measured, refused: wild, failed: Measurement(error="no kernel")}
    profile = fill(replace(device_profile, table=table), list(table), rng=np.random.default_rng(0))
    assert profile.unreliable(refused)
    assert set(profile.estimates) == {refused}
    assert profile.cost_s(failed) == float("inf")


def test_a_complete_profile_stays_as_it_is(device_profile: DeviceProfile, layers: Sequence[Layer]) -> None:
    assert fill(device_profile, layers, rng=np.random.default_rng(0)) is device_profile


def test_nothing_measured_and_no_source_is_an_error(
    device_profile: DeviceProfile, layers: Sequence[Layer]
) -> None:
    empty = replace(device_profile, table={})
    with pytest.raises(TrilobitError, match="no unit was measured"):
        fill(empty, layers, rng=np.random.default_rng(0))
    with pytest.raises(TrilobitError, match="nothing to start from"):
        source(empty)


def test_another_device_stands_in_where_nothing_was_measured(
    device_profile: DeviceProfile, layers: Sequence[Layer]
) -> None:
    empty = replace(device_profile, table={})
    profile = fill(empty, layers, sources=[source(device_profile)], rng=np.random.default_rng(0))
    costs = [profile.cost_s(layer) for layer in layers]
    np.testing.assert_allclose(costs, [device_profile.cost_s(layer) for layer in layers])
    assert all(profile.std_s(layer) > 0.3 * profile.cost_s(layer) for layer in layers)


def test_a_device_three_times_slower_helps(device_profile: DeviceProfile, layers: Sequence[Layer]) -> None:
    part, rng = part_of(device_profile, 0.02), np.random.default_rng
    alone = fill(part, layers, rng=rng(0))
    helped = fill(part, layers, sources=[source(slower(device_profile, 3.0))], rng=rng(0))
    assert median_error(helped, device_profile) < 0.5 * median_error(alone, device_profile)


def test_deterministic_for_a_seed(
    device_profile: DeviceProfile, layers: Sequence[Layer], filled: DeviceProfile
) -> None:
    again = fill(part_of(device_profile, SHARE), layers, rng=np.random.default_rng(0))
    assert again.estimates == filled.estimates


def test_less_certain_far_from_what_was_measured(device_profile: DeviceProfile) -> None:
    near = map_layer("conv", (32, 7, 7), 32, 3, 1, 32, "relu")
    far = changed(near, in_shape=(4096, 112, 112), out_channels=4096, groups=4096, kernel=9)
    predictor = fit_profile(part_of(device_profile, SHARE))
    _, std = predictor.predict_s([near, far])
    mean, _ = predictor.predict_s([near, far])
    assert std[1] / mean[1] > 2 * std[0] / mean[0]


def test_one_outlier_does_not_spoil_the_others(device_profile: DeviceProfile) -> None:
    part = part_of(device_profile, SHARE)
    victim = next(layer for layer in part.table if layer.kind == "conv")
    table = {**part.table, victim: Measurement((30 * part.cost_s(victim),))}
    spoilt = fill(replace(part, table=table), tuple(device_profile.table), rng=np.random.default_rng(0))
    assert median_error(spoilt, device_profile) < CLOSE


def test_rows_at_and_below_zero_are_learned_from(layers: Sequence[Layer]) -> None:
    some = layers[::10]
    estimates = KernelPredictor().fit(some, np.linspace(-5e-7, 5e-6, len(some))).predict(layers)
    assert all(estimate.mean_s >= 0 for estimate in estimates)


@pytest.mark.parametrize("n", [1, 2, 5, 13])
def test_a_handful_of_rows_is_enough_to_answer(layers: Sequence[Layer], n: int) -> None:
    predictor = KernelPredictor().fit(layers[:n], np.linspace(1e-6, 2e-6, n))
    assert all(isinstance(estimate, Estimate) for estimate in predictor.predict(layers))


def test_fit_leaves_the_old_predictor_as_it_was(layers: Sequence[Layer]) -> None:
    fresh = KernelPredictor()
    fresh.fit(layers[:3], np.ones(3))
    with pytest.raises(TrilobitError):
        fresh.predict(layers)


def test_times_that_are_not_finite_are_refused(layers: Sequence[Layer]) -> None:
    with pytest.raises(TrilobitError, match="finite"):
        KernelPredictor().fit(layers[:1], np.array([np.inf]))


def test_left_out_errors_are_those_of_refitting(device_profile: DeviceProfile) -> None:
    predictor = fit_profile(part_of(device_profile, 0.03))
    assert predictor.fitted is not None
    process = predictor.fitted.process
    found, spread = leave_one_out_errors(process)
    x, y = process.X_train_, process.y_train_
    rest = np.arange(len(y)) != 3
    refitted = type(process)(process.kernel_, alpha=process.alpha[rest], optimizer=None).fit(x[rest], y[rest])
    mean, std = refitted.predict(x[3:4], return_std=True)
    assert found[3] == pytest.approx(y[3] - mean[0], rel=1e-4, abs=1e-9)
    assert spread[3] == pytest.approx(np.sqrt(std[0] ** 2 + process.alpha[3]), rel=1e-4)


def test_another_device_answers_with_its_own_rows_where_it_has_them(device_profile: DeviceProfile) -> None:
    one = source(part_of(device_profile, SHARE))
    measured = list(one.profile.table)
    seconds = one.scale.back(one.logs(measured))
    np.testing.assert_allclose(seconds, [device_profile.cost_s(layer) for layer in measured])


@pytest.mark.slow
def test_ten_thousand_units_in_a_second(device_profile: DeviceProfile, layers: Sequence[Layer]) -> None:
    predictor, many = fit_profile(part_of(device_profile, SHARE)), (20 * layers)[:10_000]
    start = time.process_time()
    predictor.predict(many)
    assert time.process_time() - start < 2.0  # half of it on a quiet core


@given(st.floats(-1e-3, 1e-3), st.floats(1e-9, 1e-5))
def test_scale_goes_there_and_back(seconds: float, linear_s: float) -> None:
    scale, value = Scale(linear_s), np.array([seconds])
    np.testing.assert_allclose(scale.back(scale.forward(value)), value, rtol=1e-9, atol=1e-18)


# -- features --------------------------------------------------------------------------------------------


def units() -> st.SearchStrategy[Layer]:
    formats = st.sampled_from(["fp32", "int8", "fp16", "int4"])
    conv = st.builds(
        map_layer,
        st.sampled_from(["stem", "conv"]),
        st.tuples(st.integers(1, 300), st.integers(1, 40), st.integers(1, 40)),
        st.integers(1, 300),
        st.sampled_from([1, 3, 5, 7]),
        st.sampled_from([1, 2]),
        weight_format=formats,
        activation_format=formats,
    )
    block = st.builds(
        map_layer,
        st.just("mbconv"),
        st.tuples(st.integers(1, 100), st.integers(1, 40), st.integers(1, 40)),
        st.integers(1, 100),
        st.sampled_from([3, 5, 7]),
        st.sampled_from([1, 2]),
        expanded=st.integers(1, 600),
        squeeze=st.booleans(),
        residual=st.booleans(),
    )
    return conv | block


@given(st.lists(units(), min_size=1, max_size=5))
@settings(deadline=None)
def test_features_are_of_each_unit_alone(some: list[Layer]) -> None:
    together = unit_features(some)
    assert np.isfinite(together).all()
    np.testing.assert_array_equal(together, np.concatenate([unit_features([one]) for one in some]))
    assert (rough_cost(some) > 0).all()


def test_every_op_has_features() -> None:
    shapes = {"linear": (8, 1, 1)}
    fields = {"mbconv": {"expanded": 16}, "act": {"activation": "hswish"}}
    some = [map_layer(kind, shapes.get(kind, (8, 4, 4)), 8, **fields.get(kind, {})) for kind in KINDS]
    assert len(np.unique(unit_features(some), axis=0)) == len(KINDS)
    assert unit_features([]).shape == (0, unit_features(some).shape[1])


def test_features_tell_formats_and_directions_apart() -> None:
    there, back = conversion((8, 4, 4), "fp32", "int8") + conversion((8, 4, 4), "int8", "fp32")
    conv = map_layer("conv", (8, 4, 4), 8)
    int4 = changed(conv, weight_format="int4", activation_format="int8")
    int8 = changed(conv, weight_format="int8", activation_format="int8")
    exact = replace(int8, weight_format="int8-exact")
    assert len(np.unique(unit_features([there, back, conv, int4, int8, exact]), axis=0)) == 6


@given(st.integers(1, 20), st.sampled_from([1, 3, 5, 7]), st.sampled_from([1, 2]))
def test_taps_are_those_inside_the_map(size: int, kernel: int, stride: int) -> None:
    outputs = range(0, size, stride)
    inside = sum(0 <= o + t - kernel // 2 < size for o in outputs for t in range(kernel))
    assert in_bounds_taps(np.array([size]), np.array([kernel]), np.array([stride]))[0] == inside
