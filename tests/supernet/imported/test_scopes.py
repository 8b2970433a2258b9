"""Units are called after the modules that torch's exporter notes."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from supernet.imported.import_onnx import import_onnx
from supernet.imported.scopes import NOTE, NOWHERE


def file(scopes: list[str]) -> bytes:
    """Products one behind the other, with what is noted of each."""
    weight = numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    nodes = []
    for i, scope in enumerate(scopes):
        node = helper.make_node("MatMul", [f"x{i}", "w"], [f"x{i + 1}"], f"node_MatMul_{i}")
        if scope:
            node.metadata_props.append(onnx.StringStringEntryProto(key=NOTE, value=scope))
        nodes.append(node)
    entry, end = (
        helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, ["n", 4]) for i in (0, len(scopes))
    )
    graph = helper.make_graph(nodes, "noted", [entry], [end], [weight])
    opsets = [helper.make_opsetid("", 18)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())


def test_nodes_are_called_after_their_modules() -> None:
    scopes = ["['', 'a', 'a.b', 'linear']"] * 2 + ["['', 'a', 'call']", "['', 'call']", "[[[", ""]
    scopes.append(f"['', '{NOWHERE}', 'call']")
    names = [unit.name for unit in import_onnx(file(scopes)).units]
    kept = [f"node_MatMul_{i}" for i in range(3, 7)]
    assert names == ["a.b/MatMul", "a.b/MatMul_1", "a/MatMul", *kept]


def test_a_name_that_another_node_has_is_not_given_again() -> None:
    proto = onnx.load_model_from_string(file(["", "['', 'other', 'call']"]))
    proto.graph.node[0].name = "other/MatMul"
    names = [unit.name for unit in import_onnx(proto.SerializeToString()).units]
    assert names == ["other/MatMul", "node_MatMul_1"]
