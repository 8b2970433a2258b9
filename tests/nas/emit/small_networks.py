"""Small networks of the kinds of layers that people's models have, as ONNX files with random weights."""

from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 21, 10


class Net:
    """A network under construction; every method returns the name of the tensor that it gives."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, array: Any) -> str:
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def op(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        name = f"{op.lower()}{len(self.nodes)}"
        given = [name] if outputs == 1 else [f"{name}.{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, given, f"/{name}", **attributes))
        return given[0] if outputs == 1 else given

    def weight(self, *shape: int) -> str:
        scale = (2 / prod(shape[1:])) ** 0.5
        return self.constant((self.rng.standard_normal(shape) * scale).astype(np.float32))

    def bias(self, n: int) -> str:
        return self.constant((self.rng.standard_normal(n) * 0.1).astype(np.float32))

    def conv(self, x: str, read: int, give: int, kernel: int = 3, **attributes: Any) -> str:
        group = attributes.get("group", 1)
        attributes.setdefault("pads", [kernel // 2] * 4)
        weight = self.weight(give, read // group, kernel, kernel)
        return str(self.op("Conv", x, weight, self.bias(give), **attributes))

    def linear(self, x: str, read: int, give: int, *, bias: bool = True) -> str:
        weight = (self.rng.standard_normal((read, give)) / np.sqrt(read)).astype(np.float32)
        product = self.op("MatMul", x, self.constant(weight))
        return str(self.op("Add", product, self.bias(give)) if bias else product)

    def relu6(self, x: str) -> str:
        return str(self.op("Clip", x, self.constant(np.float32(0)), self.constant(np.float32(6))))

    def finish(self, inputs: dict[str, tuple[Any, ...]], outputs: dict[str, tuple[Any, ...]]) -> bytes:
        given, made = (
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in each.items()]
            for each in (inputs, outputs)
        )
        graph = helper.make_graph(self.nodes, "small", given, made, self.constants)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        return bytes(model.SerializeToString())


def conv_net(seed: int = 0) -> bytes:
    """Residual sum, depthwise, asymmetric pads, concatenation, all kinds of pooling, Gemm; two outputs."""
    net = Net(seed)
    x = net.relu6(net.conv("image", 3, 16, pads=[0, 0, 1, 1], strides=[2, 2]))
    y = net.relu6(net.conv(x, 16, 16, group=16))
    x = net.op("Add", x, net.conv(y, 16, 16, 1))
    y = net.op("Relu", net.conv(x, 16, 16))
    x = net.op("Relu", net.op("Add", net.conv(y, 16, 16), x))
    a = net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    b = net.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    x = net.op("Concat", a, b, axis=1)
    x = net.op("Pad", net.op("Relu", x), net.constant(np.array([0, 0, 0, 1, 0, 0, 0, 1])))
    x = net.op("LeakyRelu", net.conv(x, 32, 24, 1, pads=[0, 0, 0, 0]), alpha=0.1)
    y = net.op("Sigmoid", net.conv(x, 24, 24, 1))
    x = net.op("Mul", x, y)
    maps = net.op("Resize", x, "", net.constant(np.array([1, 1, 2, 2], np.float32)), mode="nearest")
    net.nodes[-1].output[0] = "maps"
    x = net.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = net.op("Flatten", net.op("GlobalAveragePool", x))
    net.op("Gemm", x, net.constant(net.rng.standard_normal((24, 10)).astype(np.float32)), net.bias(10))
    net.nodes[-1].output[0] = "logits"
    assert maps
    return net.finish({"image": ("n", 3, 16, 16)}, {"logits": ("n", 10), "maps": ("n", 24, 8, 12)})


def curved_net(seed: int = 0) -> bytes:
    """Hard swish, squeeze and excitation, and what is a straight line on codes, with two inputs."""
    net = Net(seed)
    stem = net.conv("image", 3, 16)
    x = net.op("HardSwish", stem)
    gate = net.op("Relu", net.conv(net.op("GlobalAveragePool", x), 16, 16, 1))
    gate = net.op("HardSigmoid", net.conv(gate, 16, 16, 1), alpha=1 / 6)
    x = net.op("Mul", x, gate)
    x = net.op("Div", net.conv(x, 16, 16), net.constant(np.float32(3)))
    y = net.op("Add", x, net.constant(np.float32(0.25)))
    y = net.op("Concat", y, net.op("Mul", "mask", net.constant(np.float32(-2))), stem, axis=1)
    y = net.op("Relu", y)
    y = net.op("Pad", y, net.constant(np.array([0, 0, 0, 0, 0, 1, 0, 0])))
    y = net.op("Clip", net.conv(y, 34, 8, 1, pads=[0, 0, 0, 0]), net.constant(np.float32(-1)))
    net.op("Mul", y, net.constant(np.float32(0.5)))
    net.nodes[-1].output[0] = "result"
    inputs = {"image": (1, 3, "h", "w"), "mask": (1, 1, "h", "w")}
    return net.finish(inputs, {"result": (1, 8, "h", "w")})


def attention(seed: int = 0, width: int = 32, heads: int = 2) -> bytes:
    """A transformer block on sequences of any length, with a second input that is added."""
    net, size = Net(seed), width // heads
    x = net.op("Add", "tokens", "positions")

    def norm(value: str) -> str:
        ones, zeros = net.constant(np.ones(width, np.float32)), net.constant(np.zeros(width, np.float32))
        return str(net.op("LayerNormalization", value, ones, zeros, axis=-1))

    def split(value: str, perm: list[int]) -> str:
        shape = net.constant(np.array([0, -1, heads, size], np.int64))
        return str(net.op("Transpose", net.op("Reshape", value, shape), perm=perm))

    y = norm(x)
    q = split(net.linear(y, width, width), [0, 2, 1, 3])
    k = split(net.linear(y, width, width, bias=False), [0, 2, 3, 1])
    v = split(net.linear(y, width, width), [0, 2, 1, 3])
    scores = net.op("Mul", net.op("MatMul", q, k), net.constant(np.float32(size**-0.5)))
    mixed = net.op("Transpose", net.op("MatMul", net.op("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
    mixed = net.op("Reshape", mixed, net.constant(np.array([0, -1, width], np.int64)))
    x = net.op("Add", x, net.linear(mixed, width, width))
    y = net.linear(net.op("Gelu", net.linear(norm(x), width, 4 * width)), 4 * width, width)
    net.op("Add", x, y)
    net.nodes[-1].output[0] = "encoded"
    sequence = {"tokens": ("n", "length", width), "positions": (1, "length", width)}
    return net.finish(sequence, {"encoded": ("n", "length", width)})
