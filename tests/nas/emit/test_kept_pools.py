"""Pools in real numbers are quantized behind: where ONNX Runtime would have moved that in front of them."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hw_profiles.runtimes.ort.runtime import optimised_ops
from nas.emit.kept_kernels import keep_kernels
from nas.emit.to_onnx import emit, random_network
from supernet.families.family import load_family
from supernet.families.staged import StagedFamily
from supernet.imported.import_onnx import import_onnx
from tests.nas.emit.handmade import run


@pytest.fixture(scope="module")
def family() -> StagedFamily:
    return load_family("cifar-pooled", in_channels=3, classes=10)


def file_of(family: StagedFamily, **formats: str) -> bytes:
    """The smallest network in int8, but for the formats of some layers of its first block."""
    space, genes = family.space(), np.array(family.extreme("smallest", "int8").genes, np.int16)
    for layer, fmt in formats.items():
        column = space.columns[f"s0.b0.{layer}.format"]
        genes[column] = space.choices[column].options.index(fmt)
    work = family.workload(space.candidate(genes))
    return emit(random_network(work, rng=np.random.default_rng(0)))


def sums(content: bytes) -> int:
    return [node.op_type for node in onnx.load_from_string(content).graph.node].count("Sum")


def without(content: bytes) -> bytes:
    """The file as it would be without sums of one."""
    model = onnx.load_from_string(content)
    graph = model.graph
    sources = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Sum"}
    left = [node for node in graph.node if node.op_type != "Sum"]
    for node in left:
        node.input[:] = [sources.get(name, name) for name in node.input]
    plain = helper.make_graph(left, "plain", graph.input, graph.output, graph.initializer)
    data: bytes = helper.make_model(
        plain, opset_imports=model.opset_import, ir_version=model.ir_version
    ).SerializeToString()
    return data


def test_a_pool_in_real_numbers_before_integers_stays_in_front(family: StagedFamily) -> None:
    content = file_of(family, conv1="fp32")
    assert sums(content) == 1
    kernels, moved = optimised_ops(content), optimised_ops(without(content))
    assert (kernels["NhwcMaxPool"], kernels["MaxPool"]) == (2, 1)
    assert kernels["Sum"] == 1
    assert moved["Sum"] == 0
    images = {"image": np.random.default_rng(0).random((1, 3, 20, 20), np.float32)}
    (ours,), (plain,) = run(content, images).values(), run(without(content), images).values()
    np.testing.assert_allclose(ours, plain, atol=1e-5)


@pytest.mark.parametrize("formats", [{}, {"conv2": "fp32"}, {"conv1": "fp32", "conv2": "fp32"}])
def test_no_other_pool_is_touched(family: StagedFamily, formats: dict[str, str]) -> None:
    assert sums(file_of(family, **formats)) == 0


def test_a_pool_that_others_read_too_is_left_alone() -> None:
    shape = (1, 2, 4, 4)
    nodes = [
        helper.make_node("MaxPool", ["x"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("QuantizeLinear", ["pooled", "scale"], ["codes"]),
        helper.make_node("Relu", ["pooled"], ["positive"]),
    ]
    values = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [
        helper.make_tensor_value_info("codes", TensorProto.UINT8, (1, 2, 2, 2)),
        helper.make_tensor_value_info("positive", TensorProto.FLOAT, (1, 2, 2, 2)),
    ]
    scale = helper.make_tensor("scale", TensorProto.FLOAT, (), [0.1])
    graph = helper.make_graph(nodes, "pools", values, outputs, [scale])
    before = graph.SerializeToString()
    keep_kernels(graph)
    assert graph.SerializeToString() == before


def test_such_files_are_read_again(family: StagedFamily) -> None:
    model = import_onnx(file_of(family, conv1="fp32"))
    assert "Sum" not in {layer.op for layer in model.workload.layers}
