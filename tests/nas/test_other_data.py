"""Other data in the same space: other first and last layers."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.runtimes.analytical.recorded import RecordedDevice
from nas.run.config import DeviceSection, RunConfig
from nas.run.config_file import parse_config
from nas.run.reporting import PlainReporter
from nas.run.run import Run
from nas.stages.profile import run_profile
from predictors.table import distinct_layers
from supernet.families.family import load_family


def of_data(run: Run, *, channels: int, classes: int) -> Run:
    """The run, with images of so many channels and classes."""
    made = Run(run.folder, run.config)
    data = SimpleNamespace(channels=channels, classes=[str(i) for i in range(classes)], fingerprint="")
    made.__dict__["task"] = data
    return made


@pytest.fixture
def run(tmp_path: Path, profile_file: Path) -> Run:
    return Run(tmp_path, RunConfig(device=DeviceSection(name=f"recorded:{profile_file}")))


def test_a_profile_is_of_the_channels_and_classes_too(tmp_path: Path) -> None:
    plain = Run(tmp_path, RunConfig())
    ways = [(1, 10), (3, 10), (1, 7)]
    seen = {of_data(plain, channels=a, classes=b).fingerprint("profile") for a, b in ways}
    assert len(seen) == len(ways)


def test_what_a_recorded_profile_lacks_for_other_data_is_predicted(
    run: Run, device_profile: DeviceProfile, capsys: pytest.CaptureFixture[str]
) -> None:
    other = of_data(run, channels=3, classes=7)
    family = load_family("digits-mbconv", in_channels=3, classes=7)
    layers = distinct_layers(family.space(), family.terms())
    new = [layer for layer in layers if layer not in device_profile]
    assert {layer.kind for layer in new} <= {"stem", "linear", "quantize"}
    profile = run_profile(other, PlainReporter())
    assert profile.predicted(layers) == tuple(new)
    assert all(0 < profile.cost_s(layer) < 1e-3 for layer in new)
    assert f"{len(layers) - len(new)} measured, {len(new)} predicted" in " ".join(
        capsys.readouterr().out.split()
    )
    assert isinstance(other.device, RecordedDevice)
    corners = [family.workload(candidate) for candidate in family.extremes().values()]
    assert np.isfinite([other.device.profile.predict_s(work) for work in corners]).all()


def test_options_that_are_no_more_do_not_lock_an_older_run_folder() -> None:
    document = {"measure": {"rounds": 25, "patience_s": 0.25, "quiet_share": 0.7, "remeasure_s": 60.0}}
    assert parse_config(document, origin="run.toml").measure.rounds == 25
