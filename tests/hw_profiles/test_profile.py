"""Profiles on disk and in memory: what is kept, what is refused, and what calibration makes of sums."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import INPUT, Layer, changed, map_layer, parse_key
from hw_profiles.graph.workload import Workload
from hw_profiles.measure.measurement import Estimate, Measurement, MeasurePlan
from hw_profiles.profiles.latency_model import (
    KINDS,
    Calibration,
    Validation,
    WholeNetwork,
    fit_calibration,
    kendall_tau,
    kind,
    prediction_error,
)
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.profiles.profile_json import load_profile, save_profile
from hw_profiles.runtimes.info import DeviceInfo

GOLDEN = Path(__file__).parents[1] / "golden" / "profile.json"
CONV = parse_key("conv 8x7x7>16 k1s1g1 relu w=fp32 a=fp32")
UNKNOWN = changed(CONV, out_channels=99)


@pytest.fixture
def golden() -> dict[str, Any]:
    return json.loads(GOLDEN.read_text())


# -- files --------------------------------------------------------------------------------------------


def test_a_profile_survives_saving(device_profile: DeviceProfile, profile_file: Path) -> None:
    assert load_profile(profile_file) == device_profile


def test_rows_with_errors_and_no_calibration_survive_too(
    device_profile: DeviceProfile, tmp_path: Path
) -> None:
    partial = DeviceProfile(
        device_profile.device, device_profile.plan, {CONV: Measurement(error="no such kernel")}
    )
    save_profile(partial, tmp_path / "partial.json")
    assert load_profile(tmp_path / "partial.json") == partial


def test_a_profile_that_is_being_replaced_stays_whole(
    device_profile: DeviceProfile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "profile.json"
    path.write_bytes(GOLDEN.read_bytes())
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match="No space left"):
        save_profile(device_profile, path)
    assert path.read_bytes() == GOLDEN.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


def test_profiles_of_schema_1_keep_loading() -> None:
    profile = load_profile(GOLDEN)
    assert profile.device.name == "ort-cpu-1t"
    assert profile.plan.rounds == 3
    assert profile.cost_s(CONV) == 2e-6
    assert {m.error for m in profile.table.values() if not m.samples_s} == {"not supported"}
    assert profile.predict_s(Workload(("a",), (CONV,), ((INPUT,),))) == pytest.approx(
        1.1 * 2e-6 + 1e-7 + 5e-6
    )


Corrupt = Callable[[dict[str, Any]], object]
BROKEN: dict[str, Corrupt] = {
    "no device": lambda d: d.pop("device"),
    "no plan": lambda d: d.pop("plan"),
    "no table": lambda d: d.pop("table"),
    "no calibration": lambda d: d.pop("calibration"),
    "no slope": lambda d: d["calibration"].pop("slope"),
    "strange field": lambda d: d.update(colour="red"),
    "a device named like a path": lambda d: d["device"].update(name="../../elsewhere"),
    "two kinds of rows": lambda d: d["calibration"]["networks"][0].update(rows=[1, 2]),
    "no time at all": lambda d: d["calibration"]["networks"][0].update(measured_s=0),
    "strange plan": lambda d: d["plan"].update(rounds="many"),
    "table is a list": lambda d: d.update(table=[]),
    "table is text": lambda d: d.update(table="rows"),
    "no samples": lambda d: d["table"][CONV.key()].pop("samples_s"),
    "neither samples nor error": lambda d: d["table"][CONV.key()].update(samples_s=[]),
    "both": lambda d: d["table"][CONV.key()].update(error="failed"),
    "text": lambda d: d["table"][CONV.key()].update(samples_s=["fast"]),
    "nan": lambda d: d["table"][CONV.key()].update(samples_s=[math.nan]),
    "infinite": lambda d: d["table"][CONV.key()].update(samples_s=[math.inf]),
    "nan slope": lambda d: d["calibration"]["slope"].update(fp32=math.nan),
    "not a key": lambda d: d["table"].update({"conv of some sort": d["table"][CONV.key()]}),
    "other schema": lambda d: d.update(schema="profile/2"),
    "no schema": lambda d: d.pop("schema"),
}


@pytest.mark.parametrize("corrupt", BROKEN.values(), ids=list(BROKEN))
def test_what_is_not_a_profile_is_refused(corrupt: Corrupt, golden: dict[str, Any], tmp_path: Path) -> None:
    corrupt(golden)
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(golden))
    with pytest.raises(TrilobitError, match=r"broken\.json") as caught:
        load_profile(path)
    assert "\n" not in str(caught.value)


def test_what_a_profile_lacks_is_named(golden: dict[str, Any], tmp_path: Path) -> None:
    del golden["plan"]
    (tmp_path / "part.json").write_text(json.dumps(golden))
    with pytest.raises(TrilobitError, match="plan: missing; not a usable profile: run `nas profile` again"):
        load_profile(tmp_path / "part.json")


def test_newer_profiles_may_say_more_of_device_plan_and_rows(golden: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "newer.json"
    for part in (golden["device"], golden["plan"], golden["table"][CONV.key()]):
        part["unheard_of"] = 1
    path.write_text(json.dumps(golden))
    assert load_profile(path) == load_profile(GOLDEN)


def test_one_changed_digit_of_a_saved_profile_is_noticed(
    device_profile: DeviceProfile, tmp_path: Path
) -> None:
    path = tmp_path / "profile.json"
    save_profile(device_profile, path)
    document = json.loads(path.read_text())
    next(iter(document["table"].values()))["samples_s"][0] *= 10
    path.write_text(json.dumps(document))
    with pytest.raises(
        TrilobitError, match=r"profile\.json: its checksum does not match.*take its `checksum`"
    ):
        load_profile(path)
    del document["checksum"]
    path.write_text(json.dumps(document))
    load_profile(path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_profile_is_refused(share: float, tmp_path: Path) -> None:
    text, path = GOLDEN.read_text().rstrip(), tmp_path / "cut.json"
    path.write_text(text[: int(share * len(text))])
    with pytest.raises(TrilobitError, match=r"cut\.json: not whole JSON"):
        load_profile(path)


def test_a_missing_profile_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrilobitError, match=r"none\.json: no such file"):
        load_profile(tmp_path / "none.json")


def test_a_folder_is_no_profile(tmp_path: Path) -> None:
    with pytest.raises(TrilobitError, match=r"cannot be read \(Is a directory\); give a profile/1 file"):
        load_profile(tmp_path)


# -- rows ---------------------------------------------------------------------------------------------


def test_a_layer_of_another_space_is_refused(device_profile: DeviceProfile) -> None:
    with pytest.raises(TrilobitError, match="made for another space; run `nas profile`"):
        device_profile.cost_s(UNKNOWN)


def test_missing_disturbed_and_unsteady_rows_are_told_apart(device_profile: DeviceProfile) -> None:
    steady, disturbed, unsteady = list(device_profile.table)[:3]
    table = {
        steady: Measurement((1e-5,) * 4),
        disturbed: Measurement((1e-5,) * 4, quiet_share=0.1),
        unsteady: Measurement((1e-5, 2e-5, 3e-5, 4e-5)),
    }
    profile = replace(device_profile, table=table, plan=MeasurePlan(rounds=4))
    assert profile.missing([steady, UNKNOWN]) == (UNKNOWN,)
    assert profile.to_measure_again([*table, UNKNOWN]) == (disturbed, unsteady)
    assert profile.unreliable_layers() == (unsteady,)


def test_every_row_is_of_one_kind(device_profile: DeviceProfile) -> None:
    kinds = {layer: kind(layer) for layer in device_profile.table}
    assert set(kinds.values()) == set(KINDS)
    assert {kind(layer) for layer in kinds if layer.kind == "add"} == {"float other", "integer other"}
    assert all(kind(layer).endswith("depthwise") for layer in kinds if layer.depthwise)


# -- calibration --------------------------------------------------------------------------------------

SLOPES, PER_ROW_S, INTERCEPT_S = (1.1, 0.8, 1.3) * 3, (2e-7, 0.0, 1e-7) * 3, 6e-6


def networks(n: int, *, noise: float = 0.0, seed: int = 0) -> list[WholeNetwork]:
    """Half of them held out, their times affine in sums and numbers of rows."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(n):
        rows = rng.integers(0, 30, len(KINDS))
        sums_s = rows * rng.uniform(1e-6, 4e-6, len(KINDS))
        measured_s = sums_s @ SLOPES + rows @ PER_ROW_S + INTERCEPT_S
        measured_s *= 1 + rng.normal(0, noise) if noise else 1
        out.append(
            WholeNetwork("mixed", i % 2 == 1, tuple(sums_s.tolist()), tuple(rows.tolist()), measured_s, 0.0)
        )
    return out


def test_calibration_finds_the_slopes() -> None:
    fitted = fit_calibration(networks(200))
    assert fitted.slopes == pytest.approx(SLOPES, abs=0.01)
    assert fitted.per_row_s == pytest.approx(PER_ROW_S, abs=3e-8)
    assert fitted.held_out_error()["mape"] < 1e-3


def test_calibration_beats_plain_sums_on_networks_it_has_not_seen() -> None:
    noisy = networks(60, noise=0.02)
    plain = replace(Calibration(), networks=tuple(noisy))
    assert fit_calibration(noisy).held_out_error()["mape"] < 0.3 * plain.held_out_error()["mape"]


def test_what_does_not_fit_into_the_nearest_cache_costs_by_the_byte() -> None:
    rng = np.random.default_rng(2)
    sizes = rng.uniform(2e5, 4e6, 120)
    slower = [
        replace(net, measured_s=net.measured_s + 6e-11 * max(0.0, size - 1.4e6), working_set_bytes=size)
        for net, size in zip(networks(120, noise=0.01), sizes.tolist(), strict=True)
    ]
    fitted = fit_calibration(slower)
    assert fitted.cache_bytes == pytest.approx(1.4e6, rel=0.2)
    assert fitted.per_byte_s == pytest.approx(6e-11, rel=0.2)
    assert fitted.held_out_error()["mape"] < 0.02


def test_no_cache_is_seen_where_sizes_explain_nothing() -> None:
    rng = np.random.default_rng(3)
    sized = [
        replace(net, working_set_bytes=float(size))
        for net, size in zip(networks(60, noise=0.02), rng.uniform(2e5, 4e6, 60), strict=True)
    ]
    fitted = fit_calibration(sized)
    assert (fitted.cache_bytes, fitted.per_byte_s) == (math.inf, 0.0)
    assert fitted == replace(fit_calibration(networks(60, noise=0.02)), networks=fitted.networks)


def test_held_out_networks_do_not_influence_the_fit() -> None:
    known = networks(40)
    spoiled = [replace(net, measured_s=net.measured_s * 9) if net.held_out else net for net in known]
    assert fit_calibration(spoiled).slopes == fit_calibration(known).slopes
    assert fit_calibration(spoiled).held_out_error()["mape"] > 0.8


def test_few_networks_leave_slopes_near_one() -> None:
    assert fit_calibration(networks(4)).slopes == pytest.approx((1,) * len(KINDS), abs=0.5)
    with pytest.raises(ValueError, match="at least 2 networks, got 1"):
        fit_calibration(networks(2))


def test_errors_are_of_one_precision_or_all() -> None:
    fitted = fit_calibration(networks(40, noise=0.02))
    assert fitted.held_out_error("mixed") == fitted.held_out_error()
    assert fitted.held_out_error("fp32") == {"n": 0}
    error = fitted.held_out_error()
    assert 0 < error["mape"] <= error["max_error"]
    assert error["n"] == 20


def test_noise_is_not_fitted() -> None:
    """With few and noisy networks the slopes stay near 1, and predictions better than without any belief."""
    noisy = [replace(net, measured_s=sum(net.sums_s) * (1 + e)) for net, e in zip(
        networks(40), np.random.default_rng(1).normal(0, 0.02, 40), strict=True)]  # fmt: skip
    fitted = fit_calibration(noisy)
    assert fitted.held_out_error()["mape"] < 0.02
    assert fitted.slopes == pytest.approx((1,) * len(KINDS), abs=0.15)


def test_profiles_with_three_kinds_of_rows_predict_as_they_did(tmp_path: Path) -> None:
    profile = load_profile(GOLDEN)
    assert profile.calibration is not None
    documented = json.loads(GOLDEN.read_text())["calibration"]
    predicted_s = profile.calibration.predict_networks_s(profile.calibration.networks)
    assert predicted_s.tolist() == pytest.approx([net["predicted_s"] for net in documented["networks"]])


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=30, unique=True), st.randoms())
def test_kendall_tau_is_scipys_where_nothing_is_tied(values: list[int], random: Random) -> None:
    shuffled = values.copy()
    random.shuffle(shuffled)
    a, b = np.array(values, float), np.array(shuffled, float)
    assert kendall_tau(a, b) == pytest.approx(kendalltau(a, b).statistic)


def test_kendall_tau_of_ties_and_of_too_few() -> None:
    constant, rising = np.ones(4), np.arange(4.0)
    assert kendall_tau(constant, rising) == 0
    assert math.isnan(kendall_tau(rising[:1], rising[:1]))


def test_a_profile_may_hold_a_calibration_without_networks(
    device_profile: DeviceProfile, tmp_path: Path
) -> None:
    bare = replace(device_profile, calibration=Calibration())
    save_profile(bare, tmp_path / "bare.json")
    assert load_profile(tmp_path / "bare.json") == bare


def test_predictions_are_calibrated_sums(device_profile: DeviceProfile) -> None:
    layer: Layer = next(layer for layer in device_profile.table if layer.kind == "stem")
    work = Workload(("stem",), (layer,), ((INPUT,),)) if layer.in_format == "fp32" else None
    assert work is not None
    plain = replace(device_profile, calibration=None)
    assert plain.predict_s(work) == device_profile.cost_s(layer)
    doubled = replace(plain, calibration=Calibration(slopes=(2.0,) * len(KINDS), intercept_s=1.0))
    assert doubled.predict_s(work) == pytest.approx(2 * plain.predict_s(work) + 1.0)


# -- refused, drifted and predicted rows --------------------------------------------------------------

A, B, C = (map_layer("conv", (8, 8, 8), channels) for channels in (8, 16, 24))
QUIET = (1e-5, 1.01e-5, 1.02e-5)
WILD = (1e-5, 2e-5, 3e-5)


def of(info: DeviceInfo, table: dict[Layer, Measurement], **parts: Any) -> DeviceProfile:
    return DeviceProfile(info, MeasurePlan(rounds=len(QUIET)), table, **parts)


@pytest.fixture
def info(device_profile: DeviceProfile) -> DeviceInfo:
    return device_profile.device


def test_a_number_that_spreads_too_far_is_refused_and_predicted_instead(info: DeviceInfo) -> None:
    table = {A: Measurement(QUIET), B: Measurement(WILD)}
    profile = of(info, table, estimates={B: Estimate(1.5e-5, 2e-6)})
    assert profile.unreliable(A) is None
    assert profile.unreliable(B) == "spread of 50% is above the plan's 10%"
    assert profile.cost_s(A) == pytest.approx(1.01e-5)
    assert (profile.cost_s(B), profile.std_s(B)) == (1.5e-5, 2e-6)
    assert of(info, table).cost_s(B) == float("inf")


def test_the_spread_of_a_difference_is_that_of_what_was_timed(info: DeviceInfo) -> None:
    profile = of(info, {A: Measurement(WILD, context_s=5e-4)})
    assert profile.table[A].spread == pytest.approx(0.02)
    assert profile.unreliable(A) is None


def test_less_than_no_time_is_refused(info: DeviceInfo) -> None:
    below = Measurement((-6e-6,) * 3, context_s=5e-5)
    assert of(info, {A: below}).unreliable(A) == "a difference of -6 us, and nothing takes less than no time"
    assert of(info, {A: replace(below, samples_s=(-1e-7,) * 3)}).unreliable(A) is None  # noise around nothing


def test_rows_that_drifted_are_measured_again(info: DeviceInfo) -> None:
    table = {
        A: Measurement(QUIET, reference_s=1.00e-4),
        B: Measurement(QUIET, reference_s=1.01e-4),
        C: Measurement(QUIET, reference_s=1.20e-4),
    }
    profile = of(info, table)
    assert profile.reference_s == 1.01e-4
    assert profile.to_measure_again([A, B, C]) == (C,)
    assert profile.drift(C) == pytest.approx(0.188, abs=1e-3)


def test_estimates_stand_in_for_what_is_not_measured_but_not_for_what_cannot_run(info: DeviceInfo) -> None:
    estimates = {layer: Estimate(2e-5, 1e-6) for layer in (A, B, C)}
    profile = of(info, {A: Measurement(QUIET), B: Measurement(error="no kernel")}, estimates=estimates)
    assert profile.cost_s(A) == pytest.approx(1.01e-5)
    assert profile.cost_s(B) == float("inf")
    assert profile.cost_s(C) == 2e-5
    assert profile.missing([A, B, C]) == (C,)
    assert profile.unsupported() == {B: "no kernel"}
    assert profile.predicted([A, B, C]) == (C,)


def test_every_entry_says_where_it_comes_from(info: DeviceInfo, tmp_path: Path) -> None:
    table = {A: Measurement(QUIET, energy_j=3e-6, reference_s=1e-4), B: Measurement(WILD)}
    estimates = {B: Estimate(1.5e-5, 2e-6), C: Estimate(2e-5, 1e-6)}
    whole = WholeNetwork("fp32", True, (1e-4, *(0.0,) * 8), (5, *(0,) * 8), 1.1e-4, 1e-6)
    profile = of(info, table, estimates=estimates, validation=Validation(2, "2026-11-21", (whole,)))
    path = tmp_path / "profile.json"
    save_profile(profile, path)
    rows = json.loads(path.read_text())["table"]
    assert {key: row["source"] for key, row in rows.items()} == {
        A.key(): "measured",
        B.key(): "predicted",
        C.key(): "predicted",
    }
    assert rows[B.key()]["median_s"] is None
    assert rows[B.key()]["samples_s"] == list(WILD)
    assert "spread" in rows[B.key()]["refused"]
    assert load_profile(path) == profile
    assert json.loads(path.read_text())["validation"]["error"]["fp32"]["n"] == 1


def test_an_estimate_is_two_finite_times() -> None:
    for mean_s, std_s in ((-1e-6, 0.0), (float("nan"), 0.0), (1e-6, float("inf"))):
        with pytest.raises(ValueError, match="two finite times"):
            Estimate(mean_s, std_s)


def test_an_error_tells_shares_too(info: DeviceInfo) -> None:
    predicted = np.array([1.0, 1.04, 1.08, 1.3])
    error = prediction_error(predicted, np.ones(4))
    assert (error["within_5"], error["within_10"]) == (0.5, 0.75)
    assert error["max_error"] == pytest.approx(0.3)


# -- what waiting cost --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "scale", "windows", "words"),
    [
        (1.0, True, 4, "quiet windows"),
        (0.25, True, 1, "disturbed windows, scaled by the reference computation"),
        (0.25, False, 1, "disturbed windows"),
    ],
)
def test_a_row_says_how_many_windows_were_quiet_and_what_its_median_is_of(
    info: DeviceInfo, tmp_path: Path, share: float, scale: bool, windows: int, words: str
) -> None:
    row = Measurement((1e-5,) * 4, quiet_share=share, load=12.5)
    profile = DeviceProfile(info, MeasurePlan(scale_disturbed=scale), {A: row})
    save_profile(profile, tmp_path / "profile.json")
    [entry] = json.loads((tmp_path / "profile.json").read_text())["table"].values()
    assert (entry["quiet_windows"], entry["estimator"], entry["load"]) == (windows, words, 12.5)
    assert load_profile(tmp_path / "profile.json").table == profile.table


def test_a_plan_of_an_older_version_is_read_without_what_is_no_more(
    golden: dict[str, Any], tmp_path: Path
) -> None:
    golden["plan"] = {"rounds": 25, "patience_s": 0.25, "quiet_share": 0.7, "remeasure_s": 60.0, "core": 1}
    (tmp_path / "old.json").write_text(json.dumps(golden))
    assert load_profile(tmp_path / "old.json").plan == MeasurePlan(rounds=25, core=1)
