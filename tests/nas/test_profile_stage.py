"""`nas profile`: of all units or some, within a time, validated, narrowed, resumed; and what it refuses."""

import itertools
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hw_profiles.graph.layer import Layer, parse_key
from hw_profiles.graph.workload import single
from hw_profiles.measure.in_context import in_context
from hw_profiles.measure.measurement import MeasurePlan
from hw_profiles.profiles.batches import GROUP
from hw_profiles.profiles.latency_model import Calibration, WholeNetwork, count_rows, fit_calibration
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.profiles.profile_json import load_profile, save_profile
from hw_profiles.runtimes.analytical.recorded import RecordedDevice
from hw_profiles.runtimes.ort.runtime import OrtRuntime
from hw_profiles.runtimes.runtime import Job
from nas.cli.main import main
from nas.stages.profile import with_calibration
from predictors.table import distinct_layers
from supernet.families.family import FAMILIES, Family
from supernet.families.mbconv import MBConvFamily, Stage


def small(*, in_channels: int, classes: int, formats: tuple[str, ...] = ("fp32", "int8")) -> MBConvFamily:
    """Return a space of some 80 units."""
    stages = (Stage(8, 1, (1, 2), (16, 48), (3, 7)), Stage(16, 2, (1, 2), (32, 64), (3, 7)))
    return MBConvFamily("small", (14,), 8, stages, 16, in_channels, classes, formats)


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_measuring: str) -> Path:
    """Rough but fast, with the default space and the formats that it has where integer sums are exact."""
    monkeypatch.setattr("nas.stages.profile.FITTED", 2)
    monkeypatch.setattr("nas.stages.profile.HELD_OUT", 1)
    path = tmp_path / "quick.toml"
    path.write_text(quick_measuring + '[space]\nformats = ["fp32", "int8"]\n')
    return path


@pytest.fixture
def quicker(quick: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same with the small space."""
    monkeypatch.setitem(FAMILIES, "small", f"{__name__}:small")
    monkeypatch.setattr("nas.stages.profile.ROUND", 0.1)
    quick.write_text(quick.read_text() + 'name = "small"\n')
    return quick


def profile(*arguments: object) -> int:
    return main(["profile", *map(str, arguments)])


def table_of(path: Path) -> dict[str, dict[str, object]]:
    return json.loads(path.read_text())["table"]


def test_a_share_of_the_units_gives_a_complete_profile(quicker: Path, tmp_path: Path) -> None:
    run, family = tmp_path / "run", small(in_channels=1, classes=10)
    assert profile(quicker, "--share", "10%", "--validate", 2, "-o", run) == 0
    path = run / "profiles" / "ort-cpu-1t.json"
    rows, units = table_of(path), set(distinct_layers(family.space(), family.terms()))
    measured = {parse_key(key) for key, row in rows.items() if row["source"] == "measured"}
    # which units are the most telling ones depends on the machine, and with them the poolings they build on
    pools = {pool for layer in measured for _, pool in in_context(layer).pools}
    asked = math.ceil(0.1 * len(units))
    assert len(measured & units - pools) <= asked <= len(measured & units)
    assert measured - units <= pools
    assert {layer.key() for layer in units} <= set(rows)
    assert all(row["predicted_std_s"] > 0 for row in rows.values() if row["source"] == "predicted")
    found = load_profile(path)
    assert all(found.cost_s(layer) >= 0 for layer in found.estimates)
    assert found.calibration is not None
    assert found.validation is not None
    judged = len(found.validation.networks)
    assert 3 <= judged <= 6  # of two in each of three precisions, less what was disturbed to the end
    assert found.validation.error(found.calibration)["n"] == judged


def test_each_validation_draws_networks_of_its_own(quicker: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert profile(quicker, "--share", "20%", "--validate", 1, "-o", run) == 0
    first = load_profile(run / "profiles" / "ort-cpu-1t.json").validation
    assert profile("--validate", 1, "-o", run) == 0
    second = load_profile(run / "profiles" / "ort-cpu-1t.json").validation
    assert first is not None
    assert second is not None
    assert (first.draw, second.draw) == (0, 1)
    assert {net.sums_s for net in first.networks}.isdisjoint(net.sums_s for net in second.networks)


def test_a_budget_ends_in_time_with_a_complete_profile(
    quicker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = small(in_channels=1, classes=10)
    ticks = (0.05 * n for n in itertools.count())  # s: how fast this machine is does not matter
    clock = SimpleNamespace(monotonic=lambda: next(ticks))
    for module in (
        "nas.stages.profile",
        *(f"hw_profiles.profiles.{name}" for name in ("profiler", "whole_networks")),
    ):
        monkeypatch.setattr(f"{module}.time", clock)
    run = tmp_path / "run"
    assert profile(quicker, "--budget", "3s", "-o", run) == 0
    rows = table_of(run / "profiles" / "ort-cpu-1t.json")
    assert {layer.key() for layer in distinct_layers(family.space(), family.terms())} <= set(rows)
    assert {row["source"] for row in rows.values()} == {"measured", "predicted"}
    assert clock.monotonic() < 3.0


def test_more_of_the_units_later_keeps_what_was_measured(quicker: Path, tmp_path: Path) -> None:
    run, path = tmp_path / "run", tmp_path / "run" / "profiles" / "ort-cpu-1t.json"
    assert profile(quicker, "--share", "20%", "-o", run) == 0
    before = {key: row["samples_s"] for key, row in table_of(path).items() if row["source"] == "measured"}
    assert profile("--share", "30%", "-o", run) == 0
    after = table_of(path)
    assert sum(row["source"] == "measured" for row in after.values()) > len(before)
    assert all(after[key]["samples_s"] for key in before)
    again = sum(after[key]["samples_s"] != samples for key, samples in before.items())
    assert again < GROUP  # those that drifted, as many as were measured together: no time is left for more


def test_units_that_the_device_rejects_narrow_the_space_visibly(
    quicker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    supports = OrtRuntime.supports

    def no_large_int8(self: OrtRuntime, layer: Layer) -> bool:
        return supports(self, layer) and not (layer.kernel == 7 and layer.activation_format == "int8")

    monkeypatch.setattr(OrtRuntime, "supports", no_large_int8)
    monkeypatch.setattr(OrtRuntime, "why_not", lambda self, layer: "no 7 x 7 in 8 bits")
    assert profile(quicker, "-o", tmp_path / "run") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert re.search(r"[1-9]\d* that ort-cpu-1t cannot run", said)
    assert "the space is narrowed: " in said
    assert "no 7 x 7 in 8 bits" in said
    rows = table_of(tmp_path / "run" / "profiles" / "ort-cpu-1t.json")
    assert {row["error"] for row in rows.values()} == {None, "no 7 x 7 in 8 bits"}


def test_an_accelerator_needs_no_measuring(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    words = ["--device", "systolic:bitfusion", "--formats", "int8,int4", "--share", "5%", "--budget", "1s"]
    assert profile(*words, "-o", run) == 0  # all of it: to model a unit costs nothing
    found = load_profile(run / "profiles" / "bitfusion.json")
    assert all(row.energy_j is not None for row in found.table.values())
    assert {row["source"] for row in table_of(run / "profiles" / "bitfusion.json").values()} == {"modelled"}
    assert " measured" not in capsys.readouterr().out


def test_profiles_of_other_devices_are_a_start(quicker: Path, tmp_path: Path, profile_file: Path) -> None:
    assert profile(quicker, "--share", "10%", "--from", profile_file, "-o", tmp_path / "run") == 0
    found = load_profile(tmp_path / "run" / "profiles" / "ort-cpu-1t.json")
    assert len(found.estimates) > len(found.table) > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--budget", "soon"], "not a time: 'soon'; write for example 30s, 2m or 1h"),
        (["--budget", "0s"], "not a time: '0s'"),
        (["--share", "some"], "profile.share must be a number above 0 and at most 1, got 'some'"),
        (["--share", "120%"], "profile.share must be a number above 0 and at most 1, got 1.2"),
        (["--from", "none.json", "--share", "10%"], "none.json: no such file"),
        (["--batch", "0"], "device.batch must be a whole number from 1 to 65,536, got 0"),
        (["--provider", "CUDA"], "execution provider 'CUDA' is not installed; installed: "),
        (
            ["--formats", "int8,int7"],
            "each item one of fp16, fp32, int2, int2-g128, int4, int4-g128, int4-g32, int6, int8",
        ),
        (["--formats", "int8,int8"], "each once"),
        (["--formats", "fp16,int8"], "can run none of"),
        (["--device", "systolic"], "write systolic:bitfusion"),
        (["--device", "systolic:abacus"], "abacus"),
        (["--device", "systolic:bitfusion"], "bitfusion can run none of"),
        (["--device", "table:none.npz"], "none.npz"),
        (
            ["--device", "tvm", "--threads", "2"],
            "device 'tvm' has no option threads (= 2); ort, litert, openvino and ncnn have it",
        ),
        (["--device", "tvm", "--target", "llvm -mcpu=abacus"], "abacus"),
        (["--rpc", "tracker", "127.0.0.1:1"], "both a tracker and a key"),
        (["--rpc", "queue", "127.0.0.1:1", "--key", "pi"], "only 'tracker' is known"),
        (["--rpc", "tracker", "127.0.0.1:1", "--key", "pi"], "127.0.0.1:1"),
        (["--device", "systolic:bitfusion", "--formats", "int8", "--validate", "3"], "--validate measures"),
    ],
)
def test_bad_input_is_told_in_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert profile(*arguments, "-o", tmp_path / "run") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("nas: ")
    assert message in line


def test_validating_nothing_is_refused_before_anything_is_measured(
    quicker: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert profile(quicker, "--share", "10%", "--validate", 0, "-o", tmp_path / "run") == 2
    assert "validation.networks must be a whole number from 1 to 10,000, got 0" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# -- profile import, profile compare ------------------------------------------------------------------

TABLE = {"160": {"Conv-input:160x160x3-output:80x80x24": {"mean": 1.5, "std": 0.1, "count": 50}}}


@pytest.mark.parametrize("mean", [-1.5, float("nan"), "fast"])
def test_a_table_with_what_is_no_time_is_refused(
    mean: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [(key, entry)] = TABLE["160"].items()
    (tmp_path / "table.json").write_text(json.dumps({"160": {key: {**entry, "mean": mean}}}))
    assert main(["profile", "import", str(tmp_path / "table.json"), "-o", str(tmp_path / "out.json")]) == 2
    assert key in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()


def test_an_imported_table_is_a_profile(tmp_path: Path) -> None:
    (tmp_path / "phone.json").write_text(json.dumps(TABLE))
    out = tmp_path / "out.json"
    assert main(["profile", "import", str(tmp_path / "phone.json"), "-o", str(out)]) == 0
    [(layer, row)] = load_profile(out).table.items()
    assert layer.kind == "stem"
    assert row.median_s == pytest.approx(1.5e-3)


def test_two_profiles_side_by_side(
    device_profile: DeviceProfile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faster = {layer: replace(row, samples_s=tuple(s / 2 for s in row.samples_s))
              for layer, row in device_profile.table.items()}  # fmt: skip
    for name, one in (("a", device_profile), ("b", replace(device_profile, table=faster))):
        save_profile(one, tmp_path / f"{name}.json")
    arguments = [str(tmp_path / "a.json"), str(tmp_path / "b.json"), "--plot", str(tmp_path / "plot.html")]
    assert main(["profile", "compare", *arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)
    assert (tmp_path / "plot.html").stat().st_size > 1000


def test_a_profile_of_another_schema_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = tmp_path / "old.json"
    old.write_text(json.dumps({"schema": "profile/0", "table": {}}))
    assert main(["profile", "compare", str(old), str(old)]) == 2
    assert "profile/1" in capsys.readouterr().err


# -- what a calibration makes of other networks --------------------------------------------------------


def measured_networks(
    profile: DeviceProfile, family: Family, *, constant_s: float
) -> tuple[WholeNetwork, ...]:
    """The space's networks at both ends, which take a constant on top of their rows."""
    works = [family.workload(candidate) for candidate in family.extremes().values()]
    return tuple(
        WholeNetwork(
            "mixed",
            False,
            tuple(profile.sums_s(work)),
            count_rows(work),
            sum(profile.sums_s(work)) + constant_s,
            0.0,
        )
        for work in works
    )


def test_a_calibration_that_makes_sense_is_kept(device_profile: DeviceProfile, family: Family) -> None:
    measured = measured_networks(device_profile, family, constant_s=1e-6)
    calibrated = with_calibration(family, device_profile, measured, rng=np.random.default_rng(0))
    assert calibrated.calibration == fit_calibration(measured)
    assert not calibrated.calibration.is_plain


def test_one_that_extrapolates_below_zero_is_not(device_profile: DeviceProfile, family: Family) -> None:
    """Two large networks that took far less than their rows say leave less than nothing for small ones."""
    *_, large, larger = sorted(
        measured_networks(device_profile, family, constant_s=0.0), key=lambda network: network.measured_s
    )
    few = (replace(large, measured_s=0.02 * large.measured_s), replace(larger, measured_s=larger.measured_s))
    kept = with_calibration(family, device_profile, few, rng=np.random.default_rng(0)).calibration
    assert kept is not None
    assert kept.is_plain
    assert kept.networks == few  # what was measured still tells how far off the sums are


def test_a_replayed_time_is_above_zero_or_an_error(device_profile: DeviceProfile, tmp_path: Path) -> None:
    path = tmp_path / "below.json"
    save_profile(replace(device_profile, calibration=Calibration(intercept_s=-1.0)), path)
    unit = next(layer for layer, row in device_profile.table.items() if row.error is None)
    [answer] = RecordedDevice(profile=path).measure([Job(single(unit), bytes)], MeasurePlan())
    assert answer.error is not None
    assert answer.error.startswith("its rows add up to -1 s")
