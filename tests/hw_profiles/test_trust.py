"""The verdict on a profile: why, and what to do."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hw_profiles.measure.measurement import Estimate
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.profiles.profile_json import load_profile, save_profile
from hw_profiles.profiles.trust import trust


def test_a_whole_profile_that_predicts_well_is_good(device_profile: DeviceProfile) -> None:
    verdict = trust(device_profile)
    assert verdict.level == "good"
    assert str(verdict).startswith(
        "trust: good, because whole networks that it had not seen are predicted with"
    )


def with_measured(profile: DeviceProfile, n: int) -> DeviceProfile:
    """Only the first `n` units measured, the others predicted."""
    table = dict(list(profile.table.items())[:n])
    rest = {layer: Estimate(1e-6, 1e-7) for layer in profile.table if layer not in table}
    return replace(profile, table=table, estimates=rest)


def test_a_budget_that_measured_two_units_is_told(device_profile: DeviceProfile) -> None:
    some = replace(with_measured(device_profile, 2), calibration=None)
    said = str(trust(some))
    assert said.startswith(
        f"trust: poor, because 2 of {len(device_profile.table)} rows are measured and no whole"
    )
    assert "--budget" in said


def test_a_profile_that_is_mostly_refused_is_poor(device_profile: DeviceProfile) -> None:
    rows = list(device_profile.table.items())
    wild = {layer: replace(row, samples_s=(1e-6, 2e-6, 3e-6)) for layer, row in rows[: int(0.91 * len(rows))]}
    estimates = {layer: Estimate(1e-6, 1e-7) for layer in wild}
    said = str(trust(replace(device_profile, table={**device_profile.table, **wild}, estimates=estimates)))
    assert said.startswith("trust: poor, because ")
    assert f"{len(wild)} numbers are unreliable" in said
    assert said.endswith("measure again when less runs on this machine (`nas profile`)")


@pytest.mark.parametrize(("share", "level"), [(0.05, "good"), (0.3, "fair"), (0.9, "poor")])
def test_rows_without_quiet_windows_lower_it(device_profile: DeviceProfile, share: float, level: str) -> None:
    rows = list(device_profile.table.items())
    n = int(share * len(rows))
    disturbed = {layer: replace(row, quiet_share=0.2, load=12.4) for layer, row in rows[:n]}
    verdict = trust(replace(device_profile, table={**device_profile.table, **disturbed}))
    assert verdict.level == level
    if level != "good":
        assert f"{n} of {len(rows)} rows were measured without enough quiet windows (load up to 12)" in str(
            verdict
        )
        assert "measure.waiting_s" in str(verdict)


def test_a_large_error_on_whole_networks_is_poor(device_profile: DeviceProfile) -> None:
    calibration = device_profile.calibration
    assert calibration is not None
    off = tuple(
        replace(net, measured_s=net.measured_s * (1.2 if net.held_out else 1)) for net in calibration.networks
    )
    verdict = trust(replace(device_profile, calibration=replace(calibration, networks=off)))
    assert verdict.level == "poor"
    assert "mean error of 1" in str(verdict)


def test_the_file_says_it(device_profile: DeviceProfile, tmp_path: Path) -> None:
    save_profile(device_profile, tmp_path / "profile.json")
    assert json.loads((tmp_path / "profile.json").read_text())["trust"] == str(trust(device_profile))
    assert load_profile(tmp_path / "profile.json") == device_profile
