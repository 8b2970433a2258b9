"""Own kernels as everything else sees it."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import tvm

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import Layer, map_layer, parse_key
from hw_profiles.graph.workload import Workload, single
from hw_profiles.measure.in_context import alone
from hw_profiles.measure.interleave import ReferenceWorkload
from hw_profiles.measure.measurement import MeasurePlan
from hw_profiles.runtimes.device import Device
from hw_profiles.runtimes.plugin import choose
from hw_profiles.runtimes.runtime import Job
from hw_profiles.runtimes.transports import local
from hw_profiles.runtimes.tvm_cpu import runtime as backend_module
from hw_profiles.runtimes.tvm_cpu.runtime import default_database, open_tvm
from hw_profiles.runtimes.tvm_cpu.target import TvmTarget

QUICK = MeasurePlan(rounds=3, window_s=2e-5, waiting_s=0.0)


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Device:
    return open_tvm(database=tmp_path_factory.mktemp("tuning"))


def job(layer: Layer, no_onnx: Callable[[Workload], bytes]) -> Job:
    work = single(layer)
    return Job(work, lambda: no_onnx(work))


def test_it_describes_engine_and_target(backend: Device) -> None:
    info = backend.describe()
    assert info == backend.describe()
    assert info.name.startswith("tvm-")
    assert info.name.endswith("-1t")
    assert (info.engine, info.engine_version) == ("apache-tvm", tvm.__version__)
    assert info.provider.startswith("llvm -mcpu=")


def test_a_unit_is_measured_alone(backend: Device, tiny: Layer) -> None:
    assert backend.probe(tiny) == alone(tiny)


def test_jobs_are_measured_and_a_bad_one_is_a_row_with_its_error(
    backend: Device, tiny: Layer, no_onnx: Callable[[Workload], bytes]
) -> None:
    bad = parse_key("conv 8x4x4>8 k3s1g1 hswish w=fp32 a=fp32")
    assert not backend.supports(bad)
    good = map_layer("pool", (16, 3, 3), 16)
    results = backend.measure([job(layer, no_onnx) for layer in (tiny, bad, good)], QUICK)
    assert [result.error is None for result in results] == [True, False, True]
    assert "no kernel for a conv with hswish" in str(results[1].error)
    for result in (results[0], results[2]):
        assert len(result.samples_s) == QUICK.rounds
        assert 0 < result.median_s < 0.1  # seconds, not micro- or nanoseconds


def test_a_unit_that_cannot_be_linked_is_a_row_too(
    backend: Device,
    tiny: Layer,
    no_onnx: Callable[[Workload], bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*arguments: object) -> None:
        raise ValueError("two lines\nof reasons")

    monkeypatch.setattr(backend_module, "pack_parameters", refuse)
    monkeypatch.setattr(local, "ReferenceWorkload", lambda: ReferenceWorkload(lambda count: 1e-6))
    (result,) = backend.measure([job(tiny, no_onnx)], QUICK)
    assert result.error == "ValueError: of reasons"


def test_nothing_is_made_before_measuring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert default_database() == tmp_path / "trilobit" / "tuning"
    open_tvm().describe()
    assert not list(tmp_path.iterdir())


def test_it_has_no_threads_to_choose() -> None:
    with pytest.raises(
        TrilobitError, match=r"device 'tvm' has no option threads .*; ort, litert, openvino and ncnn have it"
    ):
        choose("tvm:threads=2")


def test_another_machines_target_is_refused() -> None:
    with pytest.raises(TrilobitError, match="does not run code for"):
        open_tvm(target="aarch64-linux-gnu:cortex-a76")


@pytest.mark.slow
def test_without_vnni_int8_is_for_fewer_codes_and_all_of_them_are_another_row(
    tmp_path: Path, no_onnx: Callable[[Workload], bytes]
) -> None:
    if not TvmTarget("haswell").local:
        pytest.skip("this machine does not run AVX2 code")
    older = open_tvm(target="haswell", database=tmp_path)
    assert older.describe().sums.reduced
    units = [
        parse_key(f"conv 16x4x4>16 k{kernel} relu w={weights} a=int8")
        for kernel in ("1s1g1", "3s1g16")
        for weights in ("int8", "int8-exact")
    ]
    assert all(map(older.supports, units))
    results = older.measure([job(layer, no_onnx) for layer in units], QUICK)
    assert [result.error for result in results] == [None] * len(units)
