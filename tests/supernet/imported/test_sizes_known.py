"""Arithmetic on sizes, as exporters write it where a batch or a length is open: what is known is stored."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hw_profiles.runtimes.plugin import host_runtime
from hw_profiles.runtimes.runtime import Artifact
from supernet.imported.import_onnx import import_onnx

node = helper.make_node
FEATURES, HEADS = 8, 2
LAST = 2**63 - 1


def made(nodes: Sequence[onnx.NodeProto], stored: Mapping[str, Any], opset: int) -> bytes:
    """A file that reads ids (batch, length) and gives y."""
    constants = [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()]
    inputs = [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "length"])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph(list(nodes), "sizes", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", opset)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def prepared_operations(content: bytes) -> list[str]:
    """Operations of the prepared file, which computes the same at two sizes."""
    model = import_onnx(content, shapes={"ids": (1, 5)})
    files = [host_runtime().compile(Artifact(file)) for file in (content, model.content)]
    for shape in ((1, 5), (3, 7)):
        ids = np.arange(np.prod(shape), dtype=np.int64).reshape(shape) % 9
        before, after = (file.run({"ids": ids})["y"] for file in files)
        np.testing.assert_allclose(after, before, atol=1e-5)
    return [unit.op for unit in model.units]


TABLE = np.random.default_rng(0).normal(size=(9, FEATURES)).astype(np.float32)
CUTS: dict[str, tuple[dict[str, Any], list[int], list[str]]] = {
    "the last size": ({}, [-1, LAST], ["starts", "ends"]),
    "with an axis": ({}, [2, 3], ["starts", "ends", "axis"]),
    "with a step": ({}, [2, 9], ["starts", "ends", "", "two"]),
    "of a part": ({"start": 1}, [-1, LAST], ["starts", "ends", "axis"]),
}


@pytest.mark.parametrize("name", CUTS)
def test_a_known_size_cut_out_of_all_sizes_is_stored(name: str) -> None:
    """`x / sqrt(features)`, where the number of features is read off the tensor."""
    attributes, ends, operands = CUTS[name]
    nodes = [
        node("Gather", ["table", "ids"], ["x"]),
        node("Shape", ["x"], ["sizes"], **attributes),
        node("Slice", ["sizes", *operands], ["features"]),
        node("Cast", ["features"], ["number"], to=TensorProto.FLOAT),
        node("Sqrt", ["number"], ["root"]),
        node("Div", ["x", "root"], ["y"]),
    ]
    stored = {"table": TABLE, "starts": ends[:1], "ends": ends[1:], "axis": [0], "two": [2]}
    content = made(nodes, {n: s if n == "table" else np.array(s) for n, s in stored.items()}, opset=17)
    assert prepared_operations(content) == ["Gather", "Div"]


def test_an_open_size_cut_out_stays_open() -> None:
    nodes = [
        node("Gather", ["table", "ids"], ["x"]),
        node("Shape", ["x"], ["sizes"]),
        node("Slice", ["sizes", "one", "two"], ["length"]),
        node("Cast", ["length"], ["number"], to=TensorProto.FLOAT),
        node("Div", ["x", "number"], ["y"]),
    ]
    content = made(nodes, {"table": TABLE, "one": np.array([1]), "two": np.array([2])}, opset=17)
    assert "Slice" in prepared_operations(content)


@pytest.mark.parametrize("opset", [17, 18])
def test_targets_of_reshape_are_stored_whatever_opset_the_file_has(opset: int) -> None:
    """Heads of an attention behind positions that are cut to the length, as torch's older exporter has it."""
    nodes = [
        node("Gather", ["table", "ids"], ["words"]),
        node("Shape", ["words"], ["cut"], start=1, end=2),
        node("Slice", ["positions", "first", "cut", "first"], ["places"]),
        node("Add", ["words", "places"], ["x"]),
        node("Shape", ["x"], ["sizes"]),
        node("Gather", ["sizes", "zero"], ["batch"]),
        node("Gather", ["sizes", "one"], ["length"]),
        node("Unsqueeze", ["batch", "first"], ["b"]),
        node("Unsqueeze", ["length", "first"], ["l"]),
        node("MatMul", ["x", "weight"], ["q"]),
        node("Concat", ["b", "l", "rest", "depth"], ["target"], axis=0),
        node("Reshape", ["q", "target"], ["heads"]),
        node("Transpose", ["heads"], ["y"], perm=[0, 2, 1, 3]),
    ]
    rng = np.random.default_rng(1)
    stored = {
        "table": TABLE,
        "positions": rng.normal(size=(16, FEATURES)).astype(np.float32),
        "weight": rng.normal(size=(FEATURES, FEATURES)).astype(np.float32),
        "zero": np.int64(0),
        "one": np.int64(1),
        "first": np.array([0]),
        "rest": np.array([-1]),
        "depth": np.array([FEATURES // HEADS]),
    }
    assert "Concat" not in prepared_operations(made(nodes, stored, opset))
