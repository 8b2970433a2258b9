"""Every registered device keeps the promises of `nas.testing.check_device`, its runtime `check_runtime`'s."""

import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import map_layer
from hw_profiles.graph.workload import Workload, single
from hw_profiles.registry import DEVICES
from hw_profiles.runtimes.plugin import device_kind, open_device
from hw_profiles.runtimes.transports.adb import PROGRAM as ADB
from hw_profiles.runtimes.transports.ssh import PROGRAM
from nas.testing.device import DEVICE, PLAN, DeviceCase, job
from nas.testing.runtime import RUNTIME, RuntimeCase
from supernet.families.family import load_family
from supernet.families.mbconv import MBConvFamily, Stage
from tests.hw_profiles.transports.adb_stand_in import adb_program
from tests.hw_profiles.transports.pipes import stand_in

# each of its units is compiled and tuned: a second apiece
FEW_UNITS = MBConvFamily("few-units", (8,), 8, (Stage(8, 1, (1, 2), (32,), (3,)),), 16, 1, 10)


@pytest.fixture(scope="module", autouse=True)
def _two_schedules() -> Iterator[None]:
    """Two schedules of each unit are compiled and tried out: which is fastest is no promise of a device."""
    with pytest.MonkeyPatch.context() as patch:
        if find_spec("tvm"):
            tuning = import_module("hw_profiles.runtimes.tvm_cpu.tuning")
            every = tuning.compile_candidates
            patch.setattr(tuning, "compile_candidates", lambda layer, target, limit: every(layer, target, 2))
        yield


@pytest.fixture(scope="session")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A board that is this machine, behind a program that stands in for ssh."""
    folder = tmp_path_factory.mktemp("ssh")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PROGRAM, stand_in(folder))
        yield f"ssh:board/ort:python={sys.executable},folder={folder / 'cache'}"


@pytest.fixture(scope="session")
def adb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A device that is this machine, behind a program that stands in for adb."""
    folder = tmp_path_factory.mktemp("adb")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ADB, adb_program(folder))
        yield f"adb:board-1/tvm:folder={folder / 'device'},database={folder / 'tuned'}"


@pytest.fixture(scope="session")
def cases(
    family, profile_file: Path, ssh: str, adb: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, DeviceCase]:
    """A new device needs its line here."""
    database, table = tmp_path_factory.mktemp("tuning"), tmp_path_factory.mktemp("table") / "phone.json"
    table.write_text(json.dumps(PUBLISHED))
    integer = load_family("digits-mbconv", in_channels=1, classes=10, formats=("int8", "int4"))
    blocks = (
        map_layer("stem", (3, 160, 160), 24, 3, 2, 1, "hswish"),
        map_layer("linear", (1536, 1, 1), 1000),
    )
    return {
        "adb": DeviceCase(partial(open_device, adb), corners(FEW_UNITS, "int8")),
        "litert": DeviceCase(partial(open_device, "litert"), corners(family, "fp32")),
        "ncnn": DeviceCase(partial(open_device, "ncnn"), corners(family, "fp32")),
        "openvino": DeviceCase(partial(open_device, "openvino"), corners(family, "fp32")),
        "ort": DeviceCase(partial(open_device, "ort:CPU,threads=1"), corners(family, "fp32")),
        "recorded": DeviceCase(partial(open_device, f"recorded:{profile_file}"), corners(family, "fp32")),
        "ssh": DeviceCase(partial(open_device, ssh), corners(family, "fp32")),
        "systolic": DeviceCase(partial(open_device, "systolic:bitfusion"), corners(integer, "int8")),
        "tflite-micro": DeviceCase(partial(open_device, "tflite-micro"), corners(family, "fp32")),
        "table": DeviceCase(partial(open_device, f"table:{table}"), tuple(map(single, blocks))),
        "tvm": DeviceCase(partial(open_device, "tvm", database=str(database)), corners(FEW_UNITS, "int8")),
    }


PUBLISHED = {
    "160": {
        "Conv-input:160x160x3-output:80x80x24": {"mean": 1.5, "std": 0.1, "count": 50},
        "Logits-input:1x1x1536-output:1000": {"mean": 2.5, "std": 0.1, "count": 50},
    }
}


def corners(family, fmt: str) -> tuple[Workload, ...]:
    """The smallest network of a family and its largest."""
    return tuple(family.workload(family.extremes()[f"{size}/{fmt}"]) for size in ("smallest", "largest"))


@pytest.fixture(scope="session", params=sorted(DEVICES))
def case(request: pytest.FixtureRequest, cases: dict[str, DeviceCase]) -> DeviceCase:
    """A device whose engine is an extra that is not installed is skipped."""
    for module in (*device_kind(request.param).engines, *(["tvm"] if request.param == "adb" else [])):
        pytest.importorskip(module)
    return cases[request.param]


def test_every_device_is_tested(cases: dict[str, DeviceCase]) -> None:
    assert set(cases) == set(DEVICES)


@pytest.mark.parametrize("promise", DEVICE.promises)
def test_keeps_its_promises(case: DeviceCase, promise: Callable[[DeviceCase], None]) -> None:
    promise(case)


@pytest.mark.parametrize("promise", RUNTIME.promises)
def test_its_runtime_keeps_its_promises(case: DeviceCase, promise: Callable[[RuntimeCase], None]) -> None:
    runtime = case.device.runtime
    if runtime is not None:
        promise(RuntimeCase(lambda: runtime, case.works[0]))


def test_unknown_devices_and_providers_are_refused() -> None:
    with pytest.raises(
        TrilobitError, match="unknown device 'abacus'; known: adb, litert, ncnn, openvino, ort, recorded"
    ):
        open_device("abacus")
    with pytest.raises(
        TrilobitError, match=r"execution provider 'Abacus' is not installed; installed: .*CPU"
    ):
        open_device("ort:Abacus")


def test_what_was_recorded_is_replayed_exactly(cases, family, device_profile) -> None:
    genomes = family.space().sample(5, rng=np.random.default_rng(0))
    works = [family.workload(family.space().candidate(genome)) for genome in genomes]
    measured = cases["recorded"].device.measure([job(work) for work in works], PLAN)
    assert [one.median_s for one in measured] == [device_profile.predict_s(work) for work in works]
