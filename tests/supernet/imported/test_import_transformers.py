"""Import of what transformers are made of: the operation table's own layers, not parts kept as they are."""

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from hw_profiles.graph.builder import GraphBuilder
from hw_profiles.graph.counts import macs
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.scenario import bind
from hw_profiles.graph.tensor_type import Dim, TensorType
from hw_profiles.graph.workload import Feed
from hw_profiles.runtimes.plugin import host_runtime
from hw_profiles.runtimes.runtime import Artifact
from nas.emit.to_onnx import emit, random_network
from supernet.imported.import_onnx import import_onnx
from supernet.imported.import_torch import import_torch
from tests.contracts.test_decoder import decoder


def x(*shape: Dim, fmt: str = "fp32") -> TensorType:
    return TensorType(("batch", *shape), fmt)


IDS = x(3, fmt="int64")
HEADS = {"q_num_heads": 4, "kv_num_heads": 2}
LAYERS = {
    "embedding": Layer.of("Gather", IDS, weight=(7, 4)),
    "first": Layer.of("Gather", x(3, 4), axis=1, indices=0),
    "chosen": Layer.of("Gather", x(3, 4), axis=2, indices=(3, 1)),
    "slice": Layer.of("Slice", x(9, 4), starts=(1, 0), ends=(8, 2), axes=(1, 2), steps=(2, 1)),
    "expand": Layer.of("Expand", x(1, 4), shape=("batch", 3, 4)),
    "where": Layer.of("Where", x(3, fmt="bool"), x(3), value=-2.0),
    "where of two": Layer.of("Where", x(3, fmt="bool"), x(3), x(3)),
    "rms": Layer.of("RMSNormalization", x(3, 4), weight=(4,), epsilon=1e-6),
    "rotary": Layer.of("RotaryEmbedding", x(3, 16), IDS, num_heads=2, theta=5e5, length=50),
    "rotary by heads": Layer.of("RotaryEmbedding", x(2, 3, 4), IDS, interleaved=1, length=9),
    "attention": Layer.of("Attention", x(3, 16), x(3, 8), x(3, 8), **HEADS, is_causal=1),
    "attention by heads": Layer.of("Attention", x(4, 3, 6), x(2, 5, 6), x(2, 5, 3), scale=0.5),
    "attention with a mask": Layer.of(
        "Attention", x(3, 16), x(3, 8), x(3, 8), x(4, 3, 3, fmt="bool"), **HEADS
    ),
    "attention with a cache": Layer.of(
        "Attention", x(1, 16), x(1, 8), x(1, 8), x(2, 6, 4), x(2, 6, 4), **HEADS, is_causal=1
    ),
    "attention that gives a cache": Layer.of("Attention", x(3, 16), x(3, 8), x(3, 8), **HEADS, present=1),
}


@pytest.mark.parametrize("name", LAYERS)
def test_what_is_written_is_read_as_the_same_layer(name: str) -> None:
    layer = LAYERS[name]
    net = GraphBuilder(feeds=[Feed(f"x{i}", each) for i, each in enumerate(layer.inputs)])
    attributes: dict[str, Any] = dict(layer.attributes)
    first = net.op("op", layer.op, *net.inputs, **attributes)
    work = net.build(*range(first, first + len(layer.outputs)))
    model = import_onnx(emit(random_network(work, rng=np.random.default_rng(0))))
    assert [unit.layer for unit in model.units] == [layer]
    assert model.macs == macs(layer)


def test_a_decoder_is_read_as_its_layers() -> None:
    work = bind(decoder(blocks=2), {"sequence": 4, "past": 3})
    model = import_onnx(emit(random_network(work, rng=np.random.default_rng(0))))
    swish = {"Swish"}
    read = [unit.layer.op for unit in model.units]
    assert [op for op in read if op not in ("Sigmoid", "Mul")] == [
        layer.op for layer in work.layers if layer.op not in swish | {"Mul"}
    ]
    assert model.macs == sum(map(macs, work.layers))
    assert [feed.type for feed in model.workload.feeds] == [feed.type for feed in work.feeds]


@pytest.mark.slow  # torch's exporter takes long to load
def test_an_exported_embedding_and_attention_of_torch_are_no_opaque_parts() -> None:
    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding(7, 8)
            self.queries, self.keys = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            y = self.embedding(ids)
            scores = self.queries(y) @ self.keys(y).transpose(1, 2)
            return torch.softmax(scores, -1)[:, 0]

    model = import_torch(Block(), (torch.zeros(1, 5, dtype=torch.int64),))
    assert [unit.layer.op for unit in model.units if unit.layer.op == "Opaque"] == []
    assert model.units[0].layer == Layer.of("Gather", x(5, fmt="int64"), weight=(7, 8))


def test_angles_of_no_base_and_capped_scores_are_kept_as_they_are() -> None:
    rng = np.random.default_rng(0)
    tables = {name: rng.standard_normal((9, 2)).astype(np.float32) for name in ("cos", "sin")}
    nodes = [
        helper.make_node("RotaryEmbedding", ["x", "cos", "sin", "p"], ["y"], num_heads=2),
        helper.make_node("Attention", ["y", "y", "y"], ["z"], q_num_heads=2, kv_num_heads=2, softcap=5.0),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8]),
        helper.make_tensor_value_info("p", TensorProto.INT64, [1, 3]),
    ]
    outputs = [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 3, 8])]
    stored = [numpy_helper.from_array(table, name) for name, table in tables.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
    onnx.checker.check_model(model, full_check=True)
    units = import_onnx(model.SerializeToString()).units
    assert [unit.layer.op for unit in units] == ["Opaque", "Opaque"]
    assert units[0].layer.inputs[1].format == "int64"


def test_a_norm_keeps_an_epsilon_that_is_nearly_nothing() -> None:
    """BERT's, by exporters of opset 13: taken for nothing, it made NaN of rows of equal numbers."""
    node = helper.make_node
    nodes = [
        node("ReduceMean", ["x"], ["mean"], axes=[-1], keepdims=1),
        node("Sub", ["x", "mean"], ["rest"]),
        node("Pow", ["rest", "two"], ["squares"]),
        node("ReduceMean", ["squares"], ["variance"], axes=[-1], keepdims=1),
        node("Add", ["variance", "epsilon"], ["shifted"]),
        node("Sqrt", ["shifted"], ["root"]),
        node("Div", ["rest", "root"], ["unit"]),
        node("Mul", ["unit", "scale"], ["scaled"]),
        node("Add", ["scaled", "bias"], ["y"]),
    ]
    scale, bias = np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32)
    numbers = {"two": np.float32(2), "epsilon": np.float32(1e-12), "scale": scale, "bias": bias}
    stored = [numpy_helper.from_array(np.asarray(array), name) for name, array in numbers.items()]
    entry, end = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8]) for name in "xy")
    graph = helper.make_graph(nodes, "g", [entry], [end], stored)
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    model = import_onnx(file.SerializeToString())
    assert [unit.layer.op for unit in model.units] == ["LayerNormalization"]
    given = host_runtime().compile(Artifact(model.content)).run({"x": np.ones((1, 3, 8), np.float32)})["y"]
    np.testing.assert_allclose(given[0, 0], bias, atol=1e-5)


@pytest.mark.parametrize(("opset", "read"), [(23, ["RMSNormalization"]), (21, None)])
def test_a_spelled_out_norm_is_one_layer_where_the_opset_has_it(opset: int, read: list[str] | None) -> None:
    node = helper.make_node
    nodes = [
        node("Pow", ["x", "two"], ["squares"]),
        node("ReduceMean", ["squares", "axes"], ["mean"], keepdims=1, noop_with_empty_axes=0),
        node("Add", ["mean", "epsilon"], ["shifted"]),
        node("Sqrt", ["shifted"], ["root"]),
        node("Reciprocal", ["root"], ["factor"]),
        node("Mul", ["x", "factor"], ["unit"]),
        node("Mul", ["unit", "scale"], ["y"]),
    ]
    scale = np.random.default_rng(0).standard_normal(8).astype(np.float32)
    numbers = {"two": np.float32(2), "axes": np.array([-1]), "epsilon": np.float32(1e-6), "scale": scale}
    stored = [numpy_helper.from_array(np.asarray(array), name) for name, array in numbers.items()]
    entry, end = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8]) for name in "xy")
    graph = helper.make_graph(nodes, "g", [entry], [end], stored)
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    model = import_onnx(file.SerializeToString())
    ops = [unit.layer.op for unit in model.units]
    assert ops == read if read else "RMSNormalization" not in ops
    feeds = {"x": np.random.default_rng(1).standard_normal((1, 3, 8)).astype(np.float32)}
    given, wanted = (
        host_runtime().compile(Artifact(content)).run(feeds)["y"]
        for content in (model.content, file.SerializeToString())
    )
    np.testing.assert_allclose(given, wanted, atol=1e-5)
