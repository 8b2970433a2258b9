"""Sums before layer norms run on a kernel of their own, and compute what they did."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hw_profiles.runtimes.ort.runtime import optimised_ops
from nas.emit.norm_sums import kept_from_norms
from nas.emit.rewrite_onnx import rewrite
from supernet.imported.import_onnx import import_onnx
from tests.nas.emit.handmade import quantized, run

ROWS, WIDTH = 7, 16
FEEDS = {
    name: np.random.default_rng(i).standard_normal((1, ROWS, WIDTH), np.float32)
    for i, name in enumerate("xy")
}


def block(opset: int) -> bytes:
    """A product, its sum with what it read, and a norm, as exporters of that opset write it."""
    rng = np.random.default_rng(0)
    stored = {
        "w": rng.standard_normal((WIDTH, WIDTH), np.float32),
        "scale": rng.uniform(0.5, 2, WIDTH).astype(np.float32),
        "shift": rng.standard_normal(WIDTH, np.float32),
        "two": np.array(2, np.float32),
        "epsilon": np.array(1e-5, np.float32),
        "b": rng.standard_normal(WIDTH, np.float32),
    }
    node = helper.make_node
    nodes = [
        node("MatMul", ["y", "w"], ["product"], "product"),
        node("Add", ["product", "b"], ["biased"], "biased"),
        node("Add", ["x", "biased"], ["sum"], "sum"),
    ]
    if opset >= 17:
        nodes.append(node("LayerNormalization", ["sum", "scale", "shift"], ["out"], "norm", axis=-1))
    else:
        nodes += [
            node("ReduceMean", ["sum"], ["mean"], "mean", axes=[-1]),
            node("Sub", ["sum", "mean"], ["centred"], "centred"),
            node("Pow", ["centred", "two"], ["squares"], "squares"),
            node("ReduceMean", ["squares"], ["variance"], "variance", axes=[-1]),
            node("Add", ["variance", "epsilon"], ["above"], "above"),
            node("Sqrt", ["above"], ["deviation"], "deviation"),
            node("Div", ["centred", "deviation"], ["normed"], "normed"),
            node("Mul", ["normed", "scale"], ["scaled"], "scaled"),
            node("Add", ["scaled", "shift"], ["out"], "out"),
        ]
    shape = (1, ROWS, WIDTH)
    graph = helper.make_graph(
        nodes,
        "block",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy"],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content


@pytest.mark.parametrize("opset", [13, 17])
def test_a_sum_before_a_norm_is_not_joined_with_it(opset: int) -> None:
    content = block(opset)
    kept = kept_from_norms(content)
    assert optimised_ops(content)["SkipLayerNormalization"] == 1
    kernels = optimised_ops(kept)
    assert (kernels["Sum"], kernels["LayerNormalization"], kernels["SkipLayerNormalization"]) == (1, 1, 0)
    np.testing.assert_allclose(run(kept, FEEDS)["out"], run(content, FEEDS)["out"], atol=1e-5)
    operations = [node.op_type for node in onnx.load_from_string(kept).graph.node]
    assert operations.count("Sum") == 1  # biases, and what norms begin with, stay as they are


def test_positions_that_are_stored_are_no_bias() -> None:
    model = onnx.load_from_string(block(17))
    positions = numpy_helper.from_array(np.ones((1, ROWS, WIDTH), np.float32), "positions")
    model.graph.initializer.append(positions)
    model.graph.node[2].input[0] = "positions"
    content = model.SerializeToString()
    assert optimised_ops(content)["SkipLayerNormalization"] == 1
    assert optimised_ops(kept_from_norms(content))["SkipLayerNormalization"] == 0


def test_a_model_without_norms_stays_as_it_is() -> None:
    node = helper.make_node("Add", ["x", "y"], ["out"])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (2, 3)) for name in ("x", "y", "out")]
    model = helper.make_model(helper.make_graph([node], "sum", values[:2], values[2:]))
    content = model.SerializeToString()
    assert kept_from_norms(content) is content


@pytest.mark.parametrize("number_format", ["fp32", "int8"])
def test_policies_are_written_like_that_and_read_again(number_format: str) -> None:
    shapes = {name: array.shape for name, array in FEEDS.items()}
    model = import_onnx(block(17), shapes=shapes)
    quantization = quantized(model, FEEDS, ("int8",))
    policy = {} if number_format == "fp32" else {unit.name: "int8" for unit in model.units if unit.weighted}
    written = rewrite(quantization, policy)
    assert optimised_ops(written)["SkipLayerNormalization"] == 0
    assert optimised_ops(written)["Sum"] == 1
    again = import_onnx(rewrite(quantization, {}), shapes=shapes)
    assert sorted(unit.op for unit in again.units) == sorted(unit.op for unit in model.units)
