"""Evaluation on a TVM device: accuracy comes through the library that it runs, or it is said why not."""

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tvm")

from hw_profiles.graph.builder import WorkloadBuilder
from hw_profiles.graph.layer import map_layer
from hw_profiles.reference.integer_ops import run_network
from hw_profiles.runtimes.plugin import host_runtime
from hw_profiles.runtimes.transports.adb import PROGRAM
from hw_profiles.runtimes.transports.board_kind import boards_of
from nas.checks.parity import file_outputs
from nas.emit.to_onnx import emit, random_network
from nas.evaluation.builder import NetworkBuilder
from nas.evaluation.on_device import DeviceEvaluator
from nas.evaluation.through import Answered, device_outputs
from nas.export.library.own import library_outputs, own_library
from nas.export.library.target import own_target
from nas.export.library.to_tvm import unit_numbers
from nas.run.config_file import parse_config
from nas.run.run import Run
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.space.space import Candidate
from supernet.tasks.image_classification import ImageClassification
from supernet.tasks.loading import load_images
from tests.hw_profiles.transports.adb_stand_in import adb_program

FEW = 30  # validation images


@dataclass(frozen=True)
class Untrained(NetworkBuilder):
    """Gives every candidate random weights."""

    def network(self, candidate: Candidate) -> QuantizedGraph:
        return random_network(self.run.family.workload(candidate), rng=np.random.default_rng(0))


@pytest.fixture(scope="module")
def data() -> ImageClassification:
    whole = load_images("digits", seed=0)
    return replace(whole, validation=whole.validation[:FEW])


@pytest.fixture
def run(data: ImageClassification, tmp_path: Path) -> Run:
    device = {"name": "tvm", "options": {"database": str(tmp_path / "tuning")}}
    measure = {"rounds": 3, "sessions": 1, "window_s": 2e-5, "waiting_s": 0.0}
    run = Run(tmp_path, parse_config({"device": device, "measure": measure}, origin=""))
    run.__dict__["task"] = data  # fewer images than the configuration can say
    return run


def by_arithmetic(network: QuantizedGraph, images: np.ndarray) -> np.ndarray:
    numbers = unit_numbers(network)
    return np.array([run_network(network.workload, numbers, x.transpose(1, 2, 0)).ravel() for x in images])


@pytest.mark.slow
def test_a_finalist_is_evaluated_through_its_library(run: Run, data: ImageClassification) -> None:
    builder, candidate = Untrained(run), run.family.extremes()["smallest/int8"]
    evaluator = DeviceEvaluator(builder)
    # of the largest network: its kernels would have to be compiled too
    evaluator.__dict__["original"] = Answered(np.zeros((FEW, 10), np.float32), "nothing")
    [(values, attributes)] = evaluator.measuring.results([candidate])
    assert attributes["error"] is None
    assert attributes["through"].startswith("library for llvm")
    assert attributes["original_through"] == "nothing"
    assert evaluator.measuring.name.endswith("-library")

    network = builder.network(candidate)
    library = own_library(run, network, own_target(run))
    assert library.integer_only
    outputs = library_outputs(library, network, data.validation, data)
    size = network.workload.in_shape[1]
    wanted = by_arithmetic(network, data.inputs(data.validation, size).numpy())
    np.testing.assert_array_equal(outputs, wanted)  # every bit
    assert values["accuracy"] == np.mean(wanted.argmax(axis=1) == data.validation.labels)


def fake_run(data: ImageClassification, **settings: Any) -> Any:
    runtime = SimpleNamespace(artifact="library", describe=lambda: SimpleNamespace(board=None))
    device = SimpleNamespace(runtime=runtime, describe=runtime.describe)
    config = SimpleNamespace(device=SimpleNamespace(settings={"target": "host", **settings}))
    return SimpleNamespace(config=config, device=device, recorded=False, task=data, runtime=host_runtime())


@pytest.mark.parametrize(
    ("nonlinearity", "settings", "why"),
    [
        ("hswish", {}, "since there is no library of it: stem: TVM's kernels have no stem with hswish"),
        ("relu", {"tracker": "127.0.0.1:9190"}, "since the boards of 127.0.0.1:9190 only time libraries"),
    ],
)
def test_what_no_library_runs_here_is_evaluated_through_its_file_and_that_is_said(
    nonlinearity: str, settings: dict[str, str], why: str, data: ImageClassification, tmp_path: Path
) -> None:
    net = WorkloadBuilder((1, 8, 8))
    x = net.add("stem", map_layer("stem", (1, 8, 8), 16, 3, activation=nonlinearity), -1)
    x = net.add("pool", map_layer("pool", (16, 8, 8), 16), x)
    net.add("classifier", map_layer("linear", (16, 1, 1), 10), x)
    network = random_network(net.build(), rng=np.random.default_rng(0))
    model = emit(network)
    run = fake_run(data, database=str(tmp_path), **settings)
    answered = device_outputs(run, network, model, data.validation)
    assert answered.through.startswith("ONNX file by onnxruntime")
    assert why in answered.through
    np.testing.assert_array_equal(answered.outputs, file_outputs(model, data.validation, data))


@pytest.mark.slow
def test_a_board_without_python_says_every_bit_of_it(
    data: ImageClassification, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PROGRAM, adb_program(tmp_path))
    boards_of.cache_clear()
    options = {"database": str(tmp_path / "tuning"), "folder": str(tmp_path / "board")}
    device = {"name": "adb:board-1/tvm", "options": options}
    run = Run(tmp_path, parse_config({"device": device}, origin=""))
    run.__dict__["task"] = data
    network = random_network(
        run.family.workload(run.family.extremes()["smallest/int8"]), rng=np.random.default_rng(0)
    )
    answered = device_outputs(run, network, b"", data.validation)
    assert answered.through == f"library for {own_target(run)} on adb:board-1"
    size = network.workload.in_shape[1]
    wanted = by_arithmetic(network, data.inputs(data.validation, size).numpy())
    np.testing.assert_array_equal(answered.outputs, wanted)
