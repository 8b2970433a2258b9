"""What every device promises, whatever engine it drives."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import LayerSpec, changed
from hw_profiles.graph.workload import Workload, single
from hw_profiles.measure.measurement import MeasurePlan
from hw_profiles.registry import DEVICES
from hw_profiles.runtimes.analytical.recorded import RecordedDevice
from hw_profiles.runtimes.device import Device
from hw_profiles.runtimes.info import DeviceInfo
from hw_profiles.runtimes.plugin import open_device
from hw_profiles.runtimes.runtime import Artifact, Executable, Job, Runtime
from nas.stages.profile import emit_with_random_numbers
from supernet.families.family import load_family
from supernet.families.mbconv import MBConvFamily, Stage

PLAN = MeasurePlan(rounds=3, waiting_s=0.0)
CONV = LayerSpec("stem", (1, 28, 28), 8, 3, 2, 1, "relu")
UNKNOWN = changed(CONV, weight_format="int3", activation_format="int3")
# each of its units is compiled and tuned: a second apiece
FEW_UNITS = MBConvFamily("few-units", (8, 28), 8, (Stage(8, 1, (1, 2), (32,), (3,)),), 16, 1, 10)


@dataclass(frozen=True)
class Case:
    """A device as it is made where there is no hardware, and networks that it can run, ascending in cost."""

    make: Callable[[], Device]
    works: tuple[Workload, ...]


@pytest.fixture(scope="session")
def cases(family, profile_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """A new device needs its line here."""
    database, table = tmp_path_factory.mktemp("tuning"), tmp_path_factory.mktemp("table") / "phone.json"
    table.write_text(json.dumps(PUBLISHED))
    integer = load_family("digits-mbconv", in_channels=1, classes=10, formats=("int8", "int4"))
    blocks = (
        LayerSpec("stem", (3, 160, 160), 24, 3, 2, 1, "hswish"),
        LayerSpec("linear", (1536, 1, 1), 1000),
    )
    return {
        "ort": Case(partial(open_device, "ort:CPU,threads=1"), corners(family, "fp32")),
        "recorded": Case(partial(open_device, f"recorded:{profile_file}"), corners(family, "fp32")),
        "systolic": Case(partial(open_device, "systolic:bitfusion"), corners(integer, "int8")),
        "table": Case(partial(open_device, f"table:{table}"), tuple(map(single, blocks))),
        "tvm": Case(partial(open_device, "tvm", database=str(database)), corners(FEW_UNITS, "int8")),
    }


PUBLISHED = {
    "160": {
        "Conv-input:160x160x3-output:80x80x24": {"mean": 1.5, "std": 0.1, "count": 50},
        "Logits-input:1x1x1536-output:1000": {"mean": 2.5, "std": 0.1, "count": 50},
    }
}


def corners(family, fmt: str) -> tuple[Workload, ...]:
    """The smallest network of a family and its largest."""
    return tuple(family.workload(family.corners()[f"{size}/{fmt}"]) for size in ("smallest", "largest"))


@pytest.fixture(scope="session", params=sorted(DEVICES))
def case(request: pytest.FixtureRequest, cases: dict[str, Case]) -> Case:
    return cases[request.param]


@pytest.fixture(scope="session")
def device(case: Case) -> Device:
    return case.make()


def job(work: Workload) -> Job:
    return Job(work, partial(emit_with_random_numbers, work, seed=0))


def test_every_device_is_tested(cases: dict[str, Case]) -> None:
    assert set(cases) == set(DEVICES)


def test_the_device_is_the_same_on_every_call(device: Device) -> None:
    assert isinstance(device.describe(), DeviceInfo)
    assert device.describe() == device.describe()
    assert DeviceInfo(**device.describe().to_json()) == device.describe()


def test_says_what_its_integer_kernels_do_with_large_sums(device: Device) -> None:
    known = device.describe()
    assert known.integer_sums in get_args(get_type_hints(DeviceInfo)["integer_sums"])
    if known.figures != "measured":  # sums of a table or of a formula are exact
        assert not known.sums.reduced


def test_says_what_its_figures_are_and_whether_it_times_anything(device: Device) -> None:
    assert device.describe().figures in get_args(get_type_hints(DeviceInfo)["figures"])
    replayed = isinstance(device, RecordedDevice)
    assert device.timed == (device.describe().figures == "measured" and not replayed)


def test_its_name_is_safe_for_files(device: Device) -> None:
    name = device.describe().name
    assert name == Path(name).name
    assert name.isascii()
    assert " " not in name


def test_supports_every_unit_of_what_it_runs(device: Device, case: Case) -> None:
    assert all(device.supports(layer) for work in case.works for layer in work.layers)


def test_does_not_claim_to_support_everything_and_says_why(device: Device) -> None:
    assert not device.supports(UNKNOWN)
    reason = device.why_not(UNKNOWN)
    assert reason
    assert "\n" not in reason


def test_how_a_unit_is_probed_is_made_of_what_it_runs(device: Device, case: Case) -> None:
    for layer in case.works[0].layers:
        probe = device.probe(layer)
        assert any(layer in work.layers for factor, work in probe.workloads if factor > 0)
        assert all(device.supports(part) for _, work in probe.workloads for part in work.layers)


def test_measures_at_least_one_call_at_a_time(device: Device) -> None:
    assert device.parallel >= 1


def test_gives_one_measurement_per_job_in_order(device: Device, case: Case) -> None:
    small, large = case.works
    first, second, third = device.measure([job(work) for work in (large, small, large)], PLAN)
    assert second.median_s < min(first.median_s, third.median_s)


def test_samples_are_positive_seconds_paired_by_round(device: Device, case: Case) -> None:
    measured = device.measure([job(work) for work in case.works], PLAN)
    assert len({len(one.samples_s) for one in measured}) == 1
    for one in measured:
        assert one.error is None
        assert (one.array > 0).all()
        assert np.isfinite(one.array).all()
        assert 0 <= one.quiet_share <= 1


def test_energy_is_of_every_job_or_of_none(device: Device, case: Case) -> None:
    joules = [one.energy_j for one in device.measure([job(work) for work in case.works], PLAN)]
    assert all(one is None for one in joules) or all(one is not None and one > 0 for one in joules)
    assert device.describe().energy


def test_a_layer_is_a_workload_of_length_one(device: Device, case: Case) -> None:
    layer = next(layer for layer in case.works[0].layers if layer.in_format == "fp32")
    [measured] = device.measure([job(single(layer))], PLAN)
    assert measured.error is None


def test_nothing_to_measure_is_nothing(device: Device) -> None:
    assert device.measure([], PLAN) == []


def test_a_job_that_fails_becomes_an_error_and_the_others_go_on(device: Device, case: Case) -> None:
    first, second = case.works
    broken = Job(single(UNKNOWN), lambda: b"no model")
    measured = device.measure([job(first), broken, job(second)], PLAN)
    assert [one.error is None for one in measured] == [True, False, True]
    assert "\n" not in str(measured[1].error)


def executable_of(runtime: Runtime, case: Case) -> Executable:
    [artifact] = runtime.build([job(case.works[0])])
    assert isinstance(artifact, Artifact)
    assert artifact.kind == runtime.artifact
    return runtime.compile(artifact)


def test_its_executable_runs_and_gives_the_same_again(device: Device, case: Case) -> None:
    if device.runtime is None:
        return
    executable = executable_of(device.runtime, case)
    shapes = {one.name: tuple(size or 1 for size in one.shape) for one in executable.inputs}
    inputs = {one.name: np.zeros(shapes[one.name], one.dtype) for one in executable.inputs}
    first, second = executable.run(inputs), executable.run(inputs)
    assert set(first) == {one.name for one in executable.outputs}
    for one in executable.outputs:
        assert first[one.name].shape == tuple(size or 1 for size in one.shape)
        assert first[one.name].dtype == one.dtype
        assert np.isfinite(first[one.name]).all()
        np.testing.assert_array_equal(first[one.name], second[one.name])


def test_its_executable_is_timed_and_names_the_kernels_that_it_must_have(device: Device, case: Case) -> None:
    if device.runtime is None:
        return
    executable = executable_of(device.runtime, case)
    runs = executable.timed(device.runtime.clock)
    assert 0 < runs(1) < runs(20)
    kernels = executable.kernels()
    assert sum(kernels.values()) > 0
    expected = device.runtime.expected_kernels(case.works[0])
    assert {name: kernels.get(name, 0) for name in expected} == dict(expected)


def test_its_runtime_says_what_it_computes_in(device: Device, case: Case) -> None:
    if device.runtime is None:
        return
    pairs = {(one.weight_format, one.activation_format) for one in case.works[0].layers if one.weighted}
    assert pairs <= device.runtime.formats
    assert device.runtime.clock in ("thread", "wall")
    assert device.runtime.dialect.notation in ("qdq", "integer")


def test_unknown_devices_and_providers_are_refused() -> None:
    with pytest.raises(TrilobitError, match="unknown device 'abacus'; known: ort, recorded, systolic, table"):
        open_device("abacus")
    with pytest.raises(
        TrilobitError, match=r"execution provider 'Abacus' is not installed; installed: .*CPU"
    ):
        open_device("ort:Abacus")


def test_what_was_recorded_is_replayed_exactly(cases, family, device_profile) -> None:
    genomes = family.space().sample(5, rng=np.random.default_rng(0))
    works = [family.workload(family.space().candidate(genome)) for genome in genomes]
    measured = cases["recorded"].make().measure([job(work) for work in works], PLAN)
    assert [one.median_s for one in measured] == [device_profile.predict_s(work) for work in works]
