"""Small networks of others, as files."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from supernet.data.samples import Samples

CHANNELS, SIZE, CLASSES, HIDDEN = 4, 8, 3, 8


def saved(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: Mapping[str, NDArray[np.generic]],
    opset: int = 17,
) -> bytes:
    """Return a graph as a file."""
    stored = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(list(nodes), "small", list(inputs), list(outputs), stored)
    opsets = [helper.make_opsetid("", opset)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=7).SerializeToString())


def image_network(opset: int = 17, *, channels: int = CHANNELS, size: int = SIZE) -> bytes:
    """Return a convolution, a ReLU, a mean and a matrix product with an open batch."""
    rng = np.random.default_rng(0)
    constants = {
        "w": rng.normal(size=(HIDDEN, channels, 3, 3)).astype(np.float32),
        "b": rng.normal(size=HIDDEN).astype(np.float32),
        "m": rng.normal(size=(HIDDEN, CLASSES)).astype(np.float32),
        "shape": np.array([0, HIDDEN]),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w", "b"], ["c"], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Reshape", ["p", "shape"], ["f"]),
        helper.make_node("MatMul", ["f", "m"], ["scores"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", channels, size, size])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", CLASSES])
    return saved(nodes, [image], [scores], constants, opset)


def token_network() -> bytes:
    """Return a network of two inputs, one of whole numbers, with open batch and length, and two outputs."""
    rng = np.random.default_rng(0)
    constants = {
        "table": rng.normal(size=(100, HIDDEN)).astype(np.float32),
        "m": rng.normal(size=(HIDDEN, CLASSES)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Mul", ["rows", "mask"], ["kept"]),
        helper.make_node("MatMul", ["kept", "m"], ["scores"]),
        helper.make_node("ArgMax", ["scores"], ["tags"], axis=-1, keepdims=0),
    ]
    sizes = ["n", "length"]
    inputs = [
        helper.make_tensor_value_info("ids", TensorProto.INT64, sizes),
        helper.make_tensor_value_info("mask", TensorProto.FLOAT, [*sizes, 1]),
    ]
    outputs = [
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [*sizes, CLASSES]),
        helper.make_tensor_value_info("tags", TensorProto.INT64, sizes),
    ]
    return saved(nodes, inputs, outputs, constants)


def image_samples(n: int, size: int = SIZE) -> Samples:
    """Return examples of what `image_network` reads."""
    rng = np.random.default_rng(1)
    return Samples({"image": rng.normal(size=(n, 1, CHANNELS, size, size)).astype(np.float32)})


def token_samples(n: int, length: int = 5) -> Samples:
    """Return examples of what `token_network` reads."""
    rng = np.random.default_rng(1)
    return Samples(
        {
            "ids": rng.integers(0, 100, (n, 1, length)),
            "mask": rng.integers(0, 2, (n, 1, length, 1)).astype(np.float32),
        }
    )
