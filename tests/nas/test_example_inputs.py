"""What a file reads while it is timed: integers, several inputs, sizes that it leaves open."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hw_profiles.errors import TrilobitError
from hw_profiles.measure.measurement import MeasurePlan
from hw_profiles.runtimes.file_runtime import FileExecutable
from hw_profiles.runtimes.ort.runtime import OrtRuntime
from hw_profiles.runtimes.runtime import Array, Arrays, Artifact, TensorInfo
from hw_profiles.runtimes.transports.local import Local
from nas.run.command_sections import BenchSection
from nas.serving.bench import bench

pytestmark = pytest.mark.usefixtures("confined_here")
ROWS = 7
PLAN = MeasurePlan(rounds=2, sessions=1, waiting_s=0.0, energy_s=0.0)


def lookup() -> bytes:
    """A network that looks ids up in a table of 7 rows, and adds a mask: both of any length."""
    table = numpy_helper.from_array(np.arange(ROWS * 2, dtype=np.float32).reshape(ROWS, 2), "table")
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Mul", ["rows", "mask"], ["out"]),
    ]
    inputs = [
        helper.make_tensor_value_info("ids", TensorProto.INT64, ("batch", "length")),
        helper.make_tensor_value_info("mask", TensorProto.FLOAT, ("batch", "length", 1)),
    ]
    output = helper.make_tensor_value_info("out", TensorProto.FLOAT, ("batch", "length", 2))
    graph = helper.make_graph(nodes, "lookup", inputs, [output], [table])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


@pytest.fixture
def example() -> dict[str, Array]:
    """Ids that the table has, as random ones would not be; not contiguous."""
    ids = np.random.default_rng(0).integers(0, ROWS, (3, 2)).T
    return {"ids": ids, "mask": np.ones((2, 3, 1), np.float32)}


def test_a_file_is_timed_on_its_example(example: dict[str, Array]) -> None:
    runtime, local = OrtRuntime(), Local()
    artifacts = [Artifact(lookup(), example=example), Artifact(lookup())]
    timed, random = local.sample(runtime, artifacts, [None, None], PLAN)
    assert timed.error is None
    assert timed.median_s > 0
    assert random.error is not None  # random ids are none that the table has


def test_an_example_without_an_input_says_which(example: dict[str, Array]) -> None:
    del example["mask"]
    [failed] = Local().sample(OrtRuntime(), [Artifact(lookup(), example=example)], [None], PLAN)
    assert failed.error == "ValueError: the example has no mask; it has ids"


class Recording(FileExecutable):
    """An executable of a plug-in, which keeps what it was given."""

    inputs = (TensorInfo("x", (None, 2), "float32"),)

    def __init__(self) -> None:
        self.given: list[Arrays] = []

    def run(self, inputs: Arrays) -> dict[str, Array]:
        self.given.append(inputs)
        return {}


def test_plug_ins_read_it_too() -> None:
    executable, x = Recording(), np.ones((5, 2), np.float32)
    executable.timed("wall", example={"x": x, "unread": x})(1)
    executable.timed("wall", batch=3)(1)
    first, second = executable.given
    assert first.keys() == {"x"}
    assert np.array_equal(first["x"], x)
    assert second["x"].shape == (3, 2)


def files(folder: Path, example: Arrays) -> tuple[Path, Path]:
    model, inputs = folder / "lookup.onnx", folder / "inputs.npz"
    model.write_bytes(lookup())
    np.savez(inputs, **example)
    return model, inputs


def test_bench_reads_a_file_of_inputs(tmp_path: Path, example: dict[str, Array]) -> None:
    model, inputs = files(tmp_path, example)
    [serving] = bench(model, BenchSection(seconds=0.05, inputs=str(inputs))).settings
    assert (serving.batch, serving.calls > 0) == (2, True)


def test_bench_says_what_is_wrong_with_them(tmp_path: Path, example: dict[str, Array]) -> None:
    model, inputs = files(tmp_path, example)
    wrong, short, text = (tmp_path / name for name in ("wrong.npz", "short.npz", "text.npz"))
    np.savez(wrong, ids=example["ids"].astype(np.int32), mask=example["mask"])
    np.savez(short, ids=example["ids"])
    text.write_text("no archive")
    expected: Sequence[tuple[str, tuple[int, ...], str]] = (
        ("", (), "leaves sizes of ids, mask open; give what it reads with --inputs"),
        (str(tmp_path / "none.npz"), (), "no such file"),
        (str(inputs), (2,), "--inputs and --batch"),
        (str(wrong), (), "--inputs wrong.npz: ids is int32, the model reads int64"),
        (str(short), (), "--inputs short.npz: no array mask, it has ids; give an .npz"),
        (str(text), (), "--inputs text.npz: no .npz file"),
    )
    for path, batch, reason in expected:
        with pytest.raises(TrilobitError, match=reason):
            bench(model, BenchSection(seconds=0.05, batch=batch, inputs=path))
