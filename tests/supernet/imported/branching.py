"""A network whose branches are decided by a sample rate, as speech models have it."""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

RATES, CHANNELS = (16000, 8000), 8
FLOAT, WHOLE = TensorProto.FLOAT, TensorProto.INT64
RNG = np.random.default_rng(0)
node = helper.make_node


def _info(name: str, kind: int, shape: list[int | str] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _stored(name: str, array: NDArray[np.generic]) -> onnx.NodeProto:
    return node("Constant", [], [name], value=numpy_helper.from_array(array, name))


def _branch(kernel: int) -> onnx.GraphProto:
    """A convolution, and behind it a step that depends on how many channels come."""
    weight = RNG.normal(0, 0.3, (CHANNELS, 1, kernel)).astype(np.float32)
    wide = helper.make_graph([node("Relu", ["c"], ["wide"])], "wide", [], [_info("wide", FLOAT, None)])
    narrow = helper.make_graph(
        [node("Tanh", ["c"], ["narrow"])], "narrow", [], [_info("narrow", FLOAT, None)]
    )
    nodes = [
        _stored("w", weight),
        node("Conv", ["x", "w"], ["c"], "conv", kernel_shape=[kernel], pads=[kernel // 2] * 2),
        node("Shape", ["c"], ["shape"]),
        _stored("one", np.array([1])),
        node("Gather", ["shape", "one"], ["channels"]),
        _stored("many", np.array([CHANNELS])),
        node("Equal", ["channels", "many"], ["equal"]),
        node("If", ["equal"], ["y"], then_branch=wide, else_branch=narrow),
    ]
    return helper.make_graph(nodes, f"kernel{kernel}", [], [_info("y", FLOAT, None)])


def branching(shape: tuple[int, ...] = (), opset: int = 17) -> bytes:
    """Return an ONNX file: `x` and the rate `sr` go in, `scores` come out."""
    stored = {
        "rate": np.full(shape, RATES[0], np.int64),
        "m": RNG.normal(0, 0.5, (CHANNELS, 4)).astype(np.float32),
    }
    nodes = [
        node("Equal", ["sr", "rate"], ["is_fast"]),
        node("If", ["is_fast"], ["y"], "which", then_branch=_branch(5), else_branch=_branch(3)),
        node("ReduceMean", ["y"], ["mean"], axes=[2], keepdims=0),
        node("MatMul", ["mean", "m"], ["scores"], "head"),
    ]
    graph = helper.make_graph(
        nodes,
        "branching",
        [_info("x", FLOAT, ["n", 1, "time"]), _info("sr", WHOLE, list(shape))],
        [_info("scores", FLOAT, ["n", 4])],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())
