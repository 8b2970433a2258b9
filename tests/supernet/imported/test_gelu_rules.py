"""GELU in all spellings that exporters have, and what only looks like it."""

import math
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hw_profiles.runtimes.plugin import host_runtime
from hw_profiles.runtimes.runtime import Artifact
from supernet.imported.import_onnx import import_onnx


class Graph:
    """Nodes in the order in which they are added; numbers are stored."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.stored: list[onnx.TensorProto] = []

    def __call__(self, op: str, *operands: str | float) -> str:
        names = [each if isinstance(each, str) else self._number(each) for each in operands]
        self.nodes.append(helper.make_node(op, names, [f"t{len(self.nodes)}"]))
        return f"t{len(self.nodes) - 1}"

    def _number(self, number: float) -> str:
        self.stored.append(numpy_helper.from_array(np.float32(number), f"n{len(self.stored)}"))
        return str(self.stored[-1].name)

    def file(self, given: str, opset: int = 17) -> bytes:
        self.nodes.append(helper.make_node("Identity", [given], ["y"]))
        entry, end = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 6]) for name in "xy")
        graph = helper.make_graph(self.nodes, "spelled", [entry], [end], self.stored)
        opsets = [helper.make_opsetid("", opset)]
        return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


Spelling = Callable[[Graph, str], str]
ROOT = math.sqrt(2)
SLOPE = math.sqrt(2 / math.pi)


def erf(op: Graph, x: str, argument: str | None = None) -> str:
    return op("Add", op("Erf", argument or op("Div", x, ROOT)), 1.0)


def tanh(op: Graph, x: str, cubic: float = 0.044715) -> str:
    inner = op("Add", x, op("Mul", cubic, op("Pow", x, 3.0)))
    return op("Add", 1.0, op("Tanh", op("Mul", inner, SLOPE)))


def tanh_by_products(op: Graph, x: str) -> str:
    cube = op("Mul", op("Mul", x, x), op("Mul", x, 0.044715))
    return op("Add", op("Tanh", op("Mul", SLOPE, op("Add", cube, x))), 1.0)


def tanh_of_one_plus_square(op: Graph, x: str) -> str:
    square = op("Mul", op("Mul", x, 0.044715), x)
    return op("Add", 1.0, op("Tanh", op("Mul", op("Mul", x, SLOPE), op("Add", 1.0, square))))


SPELLINGS: dict[str, tuple[str, Spelling]] = {
    "legacy": ("none", lambda op, x: op("Mul", op("Mul", x, erf(op, x)), 0.5)),
    "half first": ("none", lambda op, x: op("Mul", op("Mul", 0.5, x), erf(op, x))),
    "dynamo": ("none", lambda op, x: op("Mul", x, op("Mul", 0.5, erf(op, x)))),
    "halved": ("none", lambda op, x: op("Div", op("Mul", erf(op, x), x), 2.0)),
    "inverse": ("none", lambda op, x: op("Mul", op("Mul", x, 0.5), erf(op, x, op("Mul", x, 1 / ROOT)))),
    "gelu_new": ("tanh", lambda op, x: op("Mul", op("Mul", 0.5, x), tanh(op, x))),
    "gelu_fast": ("tanh", lambda op, x: op("Mul", op("Mul", 0.5, x), tanh_of_one_plus_square(op, x))),
    "products": ("tanh", lambda op, x: op("Mul", op("Mul", x, tanh_by_products(op, x)), 0.5)),
}


def imported(content: bytes) -> tuple[list[str], bytes]:
    model = import_onnx(content)
    return [unit.op for unit in model.units], model.content


def assert_same(content: bytes, prepared: bytes) -> None:
    x = np.linspace(-5, 5, 18, dtype=np.float32).reshape(3, 6)
    before, after = (host_runtime().compile(Artifact(f)).run({"x": x})["y"] for f in (content, prepared))
    np.testing.assert_allclose(after, before, atol=1e-5)


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_is_one_operation(name: str) -> None:
    approximate, spelled = SPELLINGS[name]
    op = Graph()
    content = op.file(spelled(op, op("Sin", "x")))
    ops, prepared = imported(content)
    assert ops == ["Sin", "Gelu"]
    node = onnx.load_model_from_string(prepared).graph.node[-1]
    assert {a.name: a.s.decode() for a in node.attribute}.get("approximate", "none") == approximate
    assert_same(content, prepared)


def test_what_it_is_of_may_be_a_product_itself() -> None:
    for spelled in (SPELLINGS["legacy"][1], SPELLINGS["gelu_new"][1]):
        op = Graph()
        content = op.file(spelled(op, op("Mul", op("Sin", "x"), op("Cos", "x"))))
        ops, prepared = imported(content)
        assert ops == ["Sin", "Cos", "Mul", "Gelu"]
        assert_same(content, prepared)


OTHERS: dict[str, Spelling] = {
    "another factor": lambda op, x: op("Mul", op("Mul", x, erf(op, x)), 0.25),
    "another slope": lambda op, x: op("Mul", op("Mul", x, erf(op, x, op("Div", x, 1.5))), 0.5),
    "another tensor": lambda op, x: op("Mul", op("Mul", op("Cos", x), erf(op, x)), 0.5),
    "x twice": lambda op, x: op("Mul", op("Mul", op("Mul", x, x), erf(op, x)), 0.5),
    "another cube": lambda op, x: op("Mul", op("Mul", x, tanh(op, x, 0.05)), 0.5),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_gelu_stays_as_it_is(name: str) -> None:
    op = Graph()
    content = op.file(OTHERS[name](op, op("Sin", "x")))
    ops, prepared = imported(content)
    assert "Gelu" not in ops
    assert_same(content, prepared)
