"""A runtime of another distribution, the recipe's, in all that a runtime is for: no file here knows it."""

import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import map_layer
from hw_profiles.measure.measurement import MeasurePlan
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.profiles.profiler import profile_layers
from hw_profiles.runtimes.device import Device
from hw_profiles.runtimes.plugin import choose, open_device
from nas.checks.check import Input
from nas.checks.parity import check_parity, file_metric, file_outputs
from nas.emit.to_onnx import emit, random_network
from nas.run.command_sections import BenchSection
from nas.run.config import RunConfig
from nas.run.config_file import parse_config
from nas.run.environment import packages_used
from nas.run.run import Run
from nas.serving.bench import bench
from nas.stages.profile import emit_with_random_numbers
from nas.testing.device import DEVICE, DeviceCase
from nas.testing.runtime import RUNTIME, RuntimeCase
from nas.verification.verification import Checks, verify
from supernet.families.family import Family
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.tasks.loading import load_images
from tests.docs.test_recipes import BLOCKS, RECIPES, install
from tests.nas.exported import write_exported


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install the recipe's distribution, for this process and for those that it starts."""
    site = tmp_path / "site"
    site.mkdir()
    [page] = [page for page in RECIPES if page.stem == "runtime"]
    (_, code), (_, entry_point) = BLOCKS.findall(page.read_text())[:2]
    (site / "reference_runtime.py").write_text(code)
    install(site, entry_point)
    monkeypatch.syspath_prepend(str(site))
    yield
    sys.modules.pop("reference_runtime", None)


@pytest.fixture
def device() -> Device:
    return open_device("reference:tag=3")


@pytest.fixture
def network(family: Family) -> QuantizedGraph:
    work = family.workload(family.extremes()["smallest/fp32"])
    return random_network(work, rng=np.random.default_rng(0))


def test_it_keeps_the_contracts(device: Device, family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.testing.device.PLAN", MeasurePlan(rounds=2, sessions=1, waiting_s=0.0))
    works = tuple(family.workload(family.extremes()[f"{size}/fp32"]) for size in ("smallest", "largest"))
    DEVICE(DeviceCase(lambda: device, works))
    runtime = device.runtime
    assert runtime is not None
    RUNTIME(RuntimeCase(lambda: runtime, works[0]))


def test_two_layers_are_profiled(device: Device) -> None:
    layers = (map_layer("conv", (8, 4, 4), 8), map_layer("linear", (8, 1, 1), 4))
    plan = MeasurePlan(rounds=2, sessions=1, waiting_s=0.0)
    empty = DeviceProfile(device.describe(), plan)
    emit_one = partial(emit_with_random_numbers, seed=0)
    *_, profile = profile_layers(
        device, empty, layers, emit=emit_one, rng=np.random.default_rng(0), again=False
    )
    assert set(layers) <= set(profile.table)
    assert all(row.error is None for row in profile.table.values())


def test_accuracy_and_parity_go_through_it(device: Device, network: QuantizedGraph) -> None:
    data, model = load_images("digits", seed=0), emit(network)
    few = replace(data, validation=data.validation[:6])
    shares = [file_metric(model, few.validation, few, runtime) for runtime in (device.runtime, None)]
    assert shares[0] == shares[1]
    assert check_parity(model, network, few.validation, few, device.runtime).images == 6
    labels = file_outputs(model, few.validation, few, device.runtime).argmax(axis=1)
    assert labels.shape == (6,)


def test_a_run_on_it_uses_it_and_keeps_its_version() -> None:
    config = parse_config({"device": {"name": "reference", "options": {"tag": 7}}}, origin="")
    assert config.device.settings == {"tag": 7}
    run = Run(Path("nowhere"), config)
    assert run.runtime.describe().engine == "onnx-reference"
    assert "onnx" in packages_used(RunConfig())
    assert run.plan.clock == "wall"


@pytest.mark.slow
def test_what_was_exported_on_it_is_verified_and_served_by_it(
    device: Device, network: QuantizedGraph, tmp_path: Path
) -> None:
    data = load_images("digits", seed=0)
    c, h, w = network.workload.in_shape
    image = Input((h, w, c), data.mean, data.std)
    folder = write_exported(
        tmp_path, network, image, data, device=device.describe().to_json(), versions={"onnx-reference": "1"},
        parity={"agreement": 1.0, "images": 6, "integer_layers": 0, "integer_kernels": 0},
    )  # fmt: skip
    findings = verify(folder, Checks(latency=True))
    assert not [finding for finding in findings if finding.holds is False]
    [latency] = [finding for finding in findings if finding.what == "latency"]
    assert re.search(r"\d x\)", latency.now)
    [serving] = bench(folder, BenchSection(seconds=0.05)).settings
    assert serving.calls > 0
    with pytest.raises(TrilobitError, match="--threads 2: reference has no such option"):
        bench(folder, BenchSection(threads=(2,)))


def test_its_options_are_checked_like_all_others() -> None:
    with pytest.raises(TrilobitError, match=r"device\.tag must be a whole number from 0 to 99, got 100"):
        choose("reference:tag=100")
    with pytest.raises(TrilobitError, match=r"no option tga .*did you mean 'tag'\?; options of"):
        choose("reference:tga=1")
