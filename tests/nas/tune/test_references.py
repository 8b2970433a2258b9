"""What tuned networks are compared with."""

from pathlib import Path
from pkgutil import resolve_name

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from hw_profiles.errors import TrilobitError
from hw_profiles.registry import DEVICES
from hw_profiles.runtimes.ort.recipes import dynamic_defaults
from hw_profiles.runtimes.plugin import device_kind
from nas.checks.confined import Limits
from nas.run.tuned_document import ALL_INT8
from nas.tune.result.references import ORIGINAL, reference_files
from tests.nas.tune.networks import image_network, image_samples

CHANNELS, SIZE, CLASSES = 4, 8, 3


def refuses() -> bytes:
    raise TrilobitError("no unit can be int8")


def test_each_reference_is_a_file_that_runs_and_says_what_had_to_be_done_for_it() -> None:
    original, samples = image_network(11), image_samples(4)
    done: list[str] = []
    files = {
        file.name: file
        for file in reference_files(
            original, lambda: original, samples, device_kind("ort").recipes, on_done=done.append
        )
    }
    assert list(files) == [ORIGINAL, "defaults", "advised", "dynamic", ALL_INT8]
    assert done == [file.title for file in files.values()]
    assert not {name: file.error for name, file in files.items() if file.error}
    assert files[ORIGINAL].model == original
    feed = samples.feed(0)
    [expected] = onnxruntime.InferenceSession(original).run(None, feed)
    for file in files.values():
        [scores] = onnxruntime.InferenceSession(file.model).run(None, feed)
        assert np.abs(scores - expected).max() < 0.1 * np.abs(expected).max(), file.title
    operations = {
        name: {node.op_type for node in onnx.load_from_string(files[name].model).graph.node}
        for name in ("defaults", "dynamic")
    }
    assert "QuantizeLinear" in operations["defaults"]
    assert "MatMulInteger" in operations["dynamic"]
    # by channel, ONNX Runtime writes a file of this opset that it cannot load
    assert [bool(file.notes) for file in files.values()] == [False, False, True, False, False]
    assert files["advised"].notes[0].startswith("converted from opset 11 to 17 first: ")


def test_a_recipe_that_fails_is_a_row_with_the_reason() -> None:
    recipes = device_kind("ort").recipes
    files = reference_files(
        image_network(17), refuses, image_samples(2, size=2), recipes, limits=Limits(wall_s=60.0)
    )
    assert [bool(file.model) for file in files] == [True, False, False, True, False]
    assert files[-1].error == "no unit can be int8"
    assert all("ONNXRuntimeError" in file.error or file.error for file in files[1:3])
    late = reference_files(image_network(17), refuses, image_samples(2), recipes, limits=Limits(wall_s=0.05))
    assert {file.error for file in late[1:4]} == {"no end after 0 s"}


def test_recipes_of_all_devices_can_be_followed() -> None:
    recipes = [recipe for name in DEVICES for recipe in device_kind(name).recipes]
    assert recipes
    assert all(callable(resolve_name(recipe.task)) for recipe in recipes)


def test_what_a_file_says_of_stored_tensors_keeps_no_recipe_from_transposing_them(tmp_path: Path) -> None:
    """As torch's newer exporter does of the weight of a linear layer."""
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)
    stored = {"w": np.ones((3, 8), np.float32), "b": np.zeros(3, np.float32)}
    entry, end, stated = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("x", ["n", 8]), ("y", ["n", 3]), ("w", [3, 8]))
    )
    tensors = [numpy_helper.from_array(array, name) for name, array in stored.items()]
    graph = helper.make_graph([node], "linear", [entry], [end], tensors, value_info=[stated])
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), tmp_path / "linear.onnx")
    _, answer = dynamic_defaults({"path": str(tmp_path / "linear.onnx")})
    proto = onnx.load_model_from_string(answer["model"].tobytes())
    assert "MatMulInteger" in {node.op_type for node in proto.graph.node}
