"""Operations in torch, in ONNX files and in shape rules agree, for networks of any kind."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.attributes import Blob
from hw_profiles.graph.builder import GraphBuilder
from hw_profiles.graph.counts import macs, params
from hw_profiles.graph.layer import parse_key
from hw_profiles.graph.memory import peak_bytes
from hw_profiles.graph.ops import OPS
from hw_profiles.graph.scenario import bind
from hw_profiles.graph.tensor_type import TensorType
from hw_profiles.graph.workload import Feed, Workload
from hw_profiles.runtimes.ort.runtime import open_session
from nas.cli.main import main
from nas.cli.ops import CONSUMERS, consumers
from nas.emit.to_onnx import emit
from supernet.formats.loading import load_format
from supernet.graph.operations import Constants, as_stored, computed, execute
from supernet.graph.quantized_graph import Parameters, QuantizedGraph
from supernet.graph.simulate import INTEGERS, simulate_all


def constants(work: Workload, seed: int = 0) -> Mapping[str, Constants]:
    """Random weights and biases, by layer."""
    rng, made = np.random.default_rng(seed), {}
    for name, layer in zip(work.names, work.layers, strict=True):
        if "weight" in layer.values:
            shape = layer.values.integers("weight")
            size = params(layer) - int(np.prod(shape))
            bias = torch.from_numpy(rng.normal(0, 0.1, size).astype(np.float32)) if size else None
            weight = torch.from_numpy(rng.normal(0, 0.3, shape).astype(np.float32))
            made[name] = Constants(weight, bias)
    return made


def outputs(work: Workload, feeds: Mapping[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """What torch gives, checked against the types that the shape rules say."""
    numbers = constants(work)

    def step(position: int, x: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        return computed(work.layers[position], x, numbers.get(work.names[position], Constants()))

    tensors = execute(work, [torch.from_numpy(feeds[feed.name]) for feed in work.feeds], step)
    for tensor, known in zip(tensors, work.types, strict=True):
        assert all(
            size == dim or isinstance(dim, str) for size, dim in zip(tensor.shape, known.shape, strict=True)
        )
    return [tensors[i].numpy() for i in work.outputs]


def detector() -> Workload:
    """Asymmetric pads, dilation, groups, a rectangular kernel, windows rounded up, a join and two outputs."""
    net = GraphBuilder((3, 21, 30))
    x = net.op(
        "stem", "Conv", net.input, weight=(16, 3, 3, 5), pads=(0, 2, 1, 2), strides=(2, 1), activation="relu"
    )
    y = net.op("dilated", "Conv", x, weight=(16, 4, 3, 3), group=4, dilations=(2, 3), pads=(2, 3, 2, 3))
    z = net.op("pool", "MaxPool", x, kernel_shape=(3, 3), pads=(1, 1, 1, 1))
    x = net.op("join", "Concat", y, z, axis=1)
    x = net.op("act", "Sigmoid", x)
    a = net.op("halved", "AveragePool", x, kernel_shape=(2, 3), strides=(2, 2), pads=(0, 1, 0, 0))
    b = net.op("halved.up", "AveragePool", x, kernel_shape=(2, 2), strides=(2, 2), ceil_mode=1)
    first = net.op("parts", "Split", a, axis=1, split=(8, 24))
    a = net.op("product", "Mul", first, net.op("gate", "HardSigmoid", first))
    return net.build(first + 1, a, b)


def attention(heads: int = 2, width: int = 8) -> Workload:
    """A block of a decoder with a cache: computed products, open dimensions, several inputs and outputs."""
    depth, inner = width // heads, 4 * width
    cache = TensorType(("batch", heads, "past", depth))
    feeds = (
        Feed("hidden", TensorType(("batch", "sequence", width))),
        Feed("keys", cache),
        Feed("values", cache),
    )
    net = GraphBuilder(feeds=feeds)
    entry, keys, values = net.inputs
    x = net.op("norm", "LayerNormalization", entry, weight=(width,))
    parts = []
    for name in ("q", "k", "v"):
        y = net.op(name, "MatMul", x, weight=(width, width), bias=1)
        y = net.op(f"{name}.heads", "Reshape", y, shape=("batch", "sequence", heads, depth))
        parts.append(net.op(f"{name}.first", "Transpose", y, perm=(0, 2, 1, 3)))
    keys = net.op("keys.now", "Concat", keys, parts[1], axis=2)
    values = net.op("values.now", "Concat", values, parts[2], axis=2)
    turned = net.op("keys.turned", "Transpose", keys, perm=(0, 1, 3, 2))
    scores = net.op("scaled", "Div", net.op("scores", "MatMul", parts[0], turned), weight=(1,))
    x = net.op("mixed", "MatMul", net.op("softmax", "Softmax", scores), values)
    x = net.op("back", "Transpose", x, perm=(0, 2, 1, 3))
    x = net.op("flat", "Reshape", x, shape=("batch", "sequence", width))
    x = net.op("sum", "Add", entry, net.op("out", "MatMul", x, weight=(width, width), bias=1))
    y = net.op(
        "up", "MatMul", net.op("norm2", "LayerNormalization", x, weight=(width,)), weight=(width, inner)
    )
    y = net.op("down", "MatMul", net.op("gelu", "Gelu", y, approximate="tanh"), weight=(inner, width))
    return net.build(net.op("sum2", "Add", x, y), keys, values)


def opaque_part() -> bytes:
    """x -> (x * 2, the sum of each row of it): a cumulative sum is no operation of the table."""
    rows = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 6]) for name in ("x", "twice", "running")
    ]
    two = helper.make_tensor("two", TensorProto.FLOAT, [], [2.0])
    axis = helper.make_tensor("axis", TensorProto.INT64, [], [1])
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["twice"]),
        helper.make_node("CumSum", ["twice", "axis"], ["running"]),
    ]
    graph = helper.make_graph(nodes, "part", rows[:1], rows[1:], [two, axis])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    data: bytes = model.SerializeToString()
    return data


def with_opaque() -> Workload:
    net = GraphBuilder(feeds=(Feed("x", TensorType(("batch", 4))),))
    x = net.op("in", "Gemm", net.input, weight=(6, 4))
    types = (TensorType(("batch", 6)), TensorType(("batch", 6)))
    twice = net.op("part", "Opaque", x, model=Blob.of(opaque_part()), outputs=types)
    return net.build(net.op("sum", "Add", twice, twice + 1), twice)


def inputs(work: Workload) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(1)
    return {
        feed.name: rng.normal(0, 1, [int(dim) for dim in feed.type.shape]).astype(np.float32)
        for feed in work.feeds
    }


NETWORKS = {
    "detector": bind(detector(), {"batch": 2}),
    "attention": bind(attention(), {"batch": 2, "sequence": 3, "past": 5}),
    "opaque": bind(with_opaque(), {"batch": 3}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_torch_gives_the_shapes_of_the_rules(name: str) -> None:
    work = NETWORKS[name]
    for y, tensor in zip(outputs(work, inputs(work)), work.outputs, strict=True):
        assert y.shape == work.type_of(tensor).shape


def file_of(work: Workload) -> bytes:
    """The network with its random numbers as an ONNX file."""
    return emit(network_of(work), batch=None)


def network_of(work: Workload) -> QuantizedGraph:
    layers = dict(zip(work.names, work.layers, strict=True))
    parameters = {
        name: Parameters(
            load_format("fp32").weight.encode(as_stored(layers[name], weight).numpy()),
            np.zeros(0, np.float32) if bias is None else bias.numpy(),
        )
        for name, (weight, bias) in constants(work).items()
        if weight is not None
    }
    return QuantizedGraph(work, parameters, {})


@pytest.mark.parametrize("name", NETWORKS)
def test_files_give_what_torch_gives(name: str) -> None:
    work = NETWORKS[name]
    feeds = inputs(work)
    for y, wanted in zip(open_session(file_of(work)).run(None, feeds), outputs(work, feeds), strict=True):
        np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-5)
    simulated = simulate_all(network_of(work), [torch.from_numpy(x) for x in feeds.values()])
    for z, wanted in zip(simulated, outputs(work, feeds), strict=True):
        np.testing.assert_array_equal(z.numpy(), wanted)


@pytest.mark.parametrize("name", ["attention", "opaque"])
def test_a_file_with_open_dimensions_is_of_every_scenario(name: str) -> None:
    session = open_session(file_of({"attention": attention, "opaque": with_opaque}[name]()))
    feeds = inputs(NETWORKS[name])
    for y, wanted in zip(session.run(None, feeds), outputs(NETWORKS[name], feeds), strict=True):
        np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_keys_say_everything_but_the_bytes_of_opaque_parts(name: str) -> None:
    for layer in NETWORKS[name].layers:
        assert parse_key(layer.key()) == layer
        assert parse_key(layer.key()).outputs == layer.outputs


def test_counts_and_memory_of_a_decoder_depend_on_the_scenario() -> None:
    work = attention()
    assert work.symbols == {"batch", "sequence", "past"}
    with pytest.raises(TrilobitError, match="bind sequence by a scenario"):
        [macs(layer) for layer in work.layers]
    short = bind(work, {"sequence": 1, "past": 7})
    # projections of width 8, scores and mixture over 8 positions, two products with 32 inner features
    assert sum(map(macs, short.layers)) == 4 * 64 + 2 * 8 * 8 + 2 * 8 * 32
    assert sum(map(params, short.layers)) == 4 * (64 + 8) + 1 + 2 * 16 + 2 * 8 * 32
    # where the second cache of 7 positions grows to 8, the first has grown and the queries wait
    assert peak_bytes(short) == 4 * 8 * (7 + 2 * 8 + 2 + 3)
    assert peak_bytes(bind(work, {"sequence": 1, "past": 70})) > peak_bytes(short)


def test_a_scenario_must_know_the_dimensions() -> None:
    with pytest.raises(TrilobitError, match="no open dimension 'length'; it has: batch, past, sequence"):
        bind(attention(), {"length": 3})


def test_an_opaque_part_is_never_of_another_format() -> None:
    x = TensorType(("batch", 6), "int8")
    net = GraphBuilder(feeds=(Feed("x", x),))
    with pytest.raises(TrilobitError, match="reads and gives fp32"):
        net.op("part", "Opaque", net.input, model=Blob.of(b""), outputs=(x,))


def test_a_part_known_by_its_profile_only_is_not_run() -> None:
    part = parse_key(NETWORKS["opaque"].layers[1].key())
    with pytest.raises(TrilobitError, match="import the model again"):
        computed(part, [torch.zeros(3, 6)])


def test_every_operation_is_known_or_refused_with_a_reason_by_all(capsys: pytest.CaptureFixture[str]) -> None:
    known, missing = consumers()
    assert {*known, *missing} == {*CONSUMERS}
    faults = [
        f"{column}: {op}"
        for column, consumer in known.items()
        for op in {*consumer.functions, *consumer.refusals}
        if op not in OPS or (op in consumer.functions and op in consumer.refusals)
    ]
    faults += [
        f"{column}: {op} is refused without a reason"
        for column, consumer in known.items()
        for op in OPS
        if (why := consumer.refusal(op)) is not None and len(why) < 20
    ]
    assert not faults
    run = [name for name in ("torch", "onnx", "lowering", "drawing") if name in known]
    assert not [op for op in OPS if op != "InvertedResidual" for name in run if known[name].refusal(op)]
    assert main(["ops"]) == 0
    said = capsys.readouterr().out
    assert all(f"\n{op} " in said for op in OPS)
    assert "integers: no Sub" in said


def test_the_message_of_a_refusal_says_who_what_and_why() -> None:
    with pytest.raises(TrilobitError, match=r"integer oracle: no Softmax: .* keep it fp32"):
        INTEGERS["Softmax"]
    with pytest.raises(TrilobitError, match=r"unknown operation 'Sofmax'.*did you mean 'Softmax'"):
        INTEGERS["Sofmax"]


def test_ties_name_dimensions_that_have_one_size() -> None:
    """What loses channels together has as many of them."""
    for work in NETWORKS.values():
        for layer in work.layers:
            weight = layer.values.integers("weight") if "weight" in layer.values else ()
            shapes = {
                "input": [x.shape for x in layer.inputs],
                "output": [x.shape for x in layer.outputs],
                "weight": [weight],
            }
            for group in layer.operation.ties(layer.inputs, layer.outputs, layer.values):
                sizes = {shapes[a.tensor][a.position][a.dim] for a in group if a.tensor != "bias"}
                grouped = layer.op == "Conv" and layer.values.integer("group") > 1
                assert len(sizes) == 1 or grouped, (layer.key(), group)
