"""What ONNX Runtime's backend says of itself, and what it accepts."""

from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import Layer, map_layer
from hw_profiles.graph.tensor_type import TensorType
from hw_profiles.graph.workload import single
from hw_profiles.measure.energy.powercap import Domain, Powercap
from hw_profiles.measure.measurement import MeasurePlan
from hw_profiles.runtimes.ort.runtime import expected_kernels
from hw_profiles.runtimes.plugin import open_device
from hw_profiles.runtimes.runtime import Job
from nas.stages.profile import emit_with_random_numbers

CONV = map_layer("conv", (16, 8, 8), 16, activation="relu")
QUICK = MeasurePlan(rounds=5, waiting_s=0.0)


def conv(weight: str, activation: str) -> Layer:
    return map_layer("conv", (16, 8, 8), 16, weight_format=weight, activation_format=activation)


def test_threads_and_batch_are_part_of_the_name() -> None:
    assert open_device("ort").describe().name == "ort-cpu-1t"
    info = open_device("ort", provider="CPUExecutionProvider", threads=2, batch=4).describe()
    assert (info.name, info.threads, info.batch) == ("ort-cpu-2t-b4", 2, 4)


@pytest.mark.parametrize("pair", [("fp32", "fp32"), *((f"int{bits}", "int8") for bits in (8, 6, 4, 2))])
def test_runs_these_formats(pair: tuple[str, str]) -> None:
    assert open_device("ort").supports(conv(*pair))


@pytest.mark.parametrize("pair", [("int8", "fp32"), ("int4", "fp32"), ("fp16", "fp32")])
def test_weights_of_any_format_run_in_reals_for_size_only(pair: tuple[str, str]) -> None:
    device = open_device("ort")
    assert device.supports(conv(*pair))
    assert pair not in device.runtime.formats
    assert expected_kernels(single(conv(*pair)))["Conv"] == 1


@pytest.mark.parametrize(
    "pair", [("fp16", "fp16"), ("int4", "int4"), ("fp32", "int8"), ("int8", "int6"), ("int7", "int8")]
)
def test_and_not_these(pair: tuple[str, str]) -> None:
    assert not open_device("ort").supports(conv(*pair))


def test_why_activations_of_few_bits_do_not_run() -> None:
    said = open_device("ort").why_not(conv("int4", "int6"))
    assert said.startswith("onnxruntime has no conv of int4 weights on int6 activations on CPU")
    assert said.endswith("its integer kernels read activations of 8 bits")
    assert "8 bits" not in open_device("ort").why_not(conv("fp16", "fp16"))


def test_half_precision_where_the_provider_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    assert open_device("ort:CUDA").supports(conv("fp16", "fp16"))
    with pytest.raises(TrilobitError, match="'CPU' is not installed; installed: CUDA"):
        open_device("ort")


def test_a_provider_that_falls_back_is_an_error_not_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = [*onnxruntime.get_available_providers(), "CUDAExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: installed)
    monkeypatch.setattr(onnxruntime.InferenceSession, "get_providers", lambda self: ["CPUExecutionProvider"])
    monkeypatch.setattr(
        "hw_profiles.runtimes.ort.runtime.open_session", lambda model, **_: open_on_cpu(model)
    )
    [measured] = open_device("ort:CUDA").measure([job(CONV)], QUICK)
    assert measured.error == "CUDA could not start; ONNX Runtime fell back to CPUExecutionProvider"


def open_on_cpu(model: bytes) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def job(layer: Layer, batch: int = 1) -> Job:
    work = single(layer)
    return Job(work, lambda: emit_with_random_numbers(work, seed=0, batch=batch))


def test_a_batch_is_timed_as_a_whole() -> None:
    large = map_layer("conv", (64, 16, 16), 64, 3)
    one, eight = open_device("ort:batch=8").measure([job(large), job(large, batch=8)], QUICK)
    assert np.median(eight.array / one.array) > 3  # 8 but for noise; 1 if it were the time of one image


@pytest.mark.parametrize("fmt", ["fp32", "int8"])
def test_whole_blocks_are_its_units(fmt: str) -> None:
    block = map_layer(
        "mbconv", (16, 8, 8), 16, 3, 1, 1, "hswish", fmt, fmt, expanded=48, squeeze=True, residual=True
    )
    backend = open_device("ort")
    assert backend.supports(block)
    works = [work for _, work in backend.probe(block).workloads]
    jobs = [Job(work, partial(emit_with_random_numbers, work, seed=0)) for work in works]
    with_it, without = backend.measure(jobs, QUICK)
    assert with_it.median_s > without.median_s > 0


def test_layers_of_any_network_are_measured_alone() -> None:
    heads, cells = TensorType(("batch", 4, 16, 8)), TensorType(("batch", 4, 8, 16))
    layers = [
        Layer.of("MatMul", heads, cells),
        Layer.of("Softmax", TensorType(("batch", 4, 16, 16))),
        Layer.of("Conv", TensorType(("batch", 8, 9, 9)), weight=(8, 2, 3, 1), group=4, pads=(0, 0, 1, 0)),
        map_layer("mul", (48, 8, 8), 48),
        map_layer("act", (48, 8, 8), 48, activation="hswish"),
    ]
    device = open_device("ort")
    assert all(map(device.supports, layers))
    assert not device.supports(Layer.of("MatMul", *(TensorType(x.shape, "int8") for x in (heads, cells))))
    works = [work for layer in layers for _, work in device.probe(layer).workloads]
    jobs = [Job(work, partial(emit_with_random_numbers, work, seed=0)) for work in works]
    assert all(row.error is None and row.median_s > 0 for row in device.measure(jobs, QUICK))


def test_energy_is_measured_where_the_machine_counts_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    meter = Powercap((Domain("package-0", tmp_path / "energy_uj", 10**9),))
    monkeypatch.setattr("hw_profiles.runtimes.transports.local.find_meter", lambda gpu: meter)
    monkeypatch.setattr(
        "hw_profiles.measure.energy.meter.measure_energy", lambda run, meter, seconds: run(1) and 2e-6
    )
    backend = open_device("ort")
    assert backend.describe().energy.startswith("powercap: all that package-0 used")
    assert [m.energy_j for m in backend.measure([job(CONV)], QUICK)] == [2e-6]


def test_or_absent_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hw_profiles.runtimes.transports.local.find_meter", lambda gpu: "no counters here")
    assert open_device("ort").describe().energy == "no counters here"
    assert open_device("ort").measure([job(CONV)], QUICK)[0].energy_j is None
