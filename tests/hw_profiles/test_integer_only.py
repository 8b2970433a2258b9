"""Networks in integers only: which format every tensor has, and what has no such form."""

import re

import pytest

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.attention import spelled_out
from hw_profiles.graph.builder import GraphBuilder
from hw_profiles.graph.formats import element_types, is_known, tensor_bits
from hw_profiles.graph.integer_only import integer_only
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.tensor_type import TensorType
from hw_profiles.graph.workload import Feed, Workload


def block_of_a_residual_network() -> Workload:
    net = GraphBuilder((3, 8, 8))
    x = net.stem("stem", net.input, 8, activation="relu")
    y = net.conv("conv1", x, 8, kernel=3, activation="relu")
    x = net.add("add", net.conv("conv2", y, 8, kernel=3), x, activation="relu")
    net.linear("classifier", net.global_pool("pool", x), 10)
    return net.build()


def encoder(*, mask: bool = False) -> Workload:
    feeds = [Feed("ids", TensorType(("batch", 6), "int64"))]
    net = GraphBuilder(feeds=[*feeds, *([Feed("mask", TensorType(("batch", 1, 1, 6)))] if mask else [])])
    x = net.layer_norm("norm", net.op("embedding", "Gather", net.input, weight=(20, 16)))
    q, k, v = (net.matmul(part, x, 16) for part in "qkv")
    y = net.op("attention", "Attention", q, k, v, *net.inputs[1:], q_num_heads=2, kv_num_heads=2)
    x = net.layer_norm("last", net.add("add", net.matmul("proj", y, 16), x))
    net.matmul("classifier", x, 5)
    return net.build()


def formats(work: Workload) -> dict[str, str]:
    return {name: layer.out_format for name, layer in zip(work.names, work.layers, strict=True)}


def test_a_residual_stream_has_16_bits_and_what_is_multiplied_8() -> None:
    work = integer_only(block_of_a_residual_network())
    assert formats(work) == {
        "input.quantize": "int8",
        "stem": "int16",
        "stem.quantize": "int8",
        "conv1": "int8",
        "conv2": "int16",
        "add": "int8",
        "pool": "int8",
        "classifier": "fp32",
    }
    assert all(layer.weight_format == "int8" for layer in work.layers if layer.weighted)


def test_the_layers_are_those_of_the_network_and_conversions() -> None:
    work = block_of_a_residual_network()
    lowered = integer_only(work)
    assert [name for name in lowered.names if not name.endswith(".quantize")] == list(work.names)
    shapes = dict(zip(work.names, (x.shape for x in work.types), strict=True))
    assert all(
        x.shape == shapes[name]
        for name, x in zip(lowered.names, lowered.types, strict=True)
        if name in shapes
    )


def test_what_norms_read_has_16_bits_and_nothing_within_is_real() -> None:
    found = formats(integer_only(spelled_out(encoder()).work))
    wide = {name for name, fmt in found.items() if fmt == "int16"}
    assert wide == {"embedding", "norm", "proj", "add"}
    assert [name for name, fmt in found.items() if fmt == "fp32"] == ["classifier"]


def test_attention_is_two_products_whose_queries_come_divided() -> None:
    work, factors = spelled_out(encoder())
    assert factors == {"q": 8**-0.5}
    assert work.outputs == (len(work.types) - 1,)
    assert {layer.op for layer in work.layers} >= {"Softmax", "Transpose"}
    assert spelled_out(work).work is work


def test_an_attention_that_is_more_is_refused() -> None:
    with pytest.raises(TrilobitError, match="has no row of truth values for each example"):
        spelled_out(encoder(mask=True))  # of real numbers
    net = GraphBuilder(feeds=[Feed("x", TensorType(("batch", 6, 16)))])
    net.op("attention", "Attention", net.input, net.input, net.input, q_num_heads=2, kv_num_heads=2)
    with pytest.raises(TrilobitError, match="no matrix gives its queries alone"):
        spelled_out(net.build())


def test_a_mask_of_text_is_the_second_operand_of_the_softmax() -> None:
    net = GraphBuilder(feeds=[Feed("ids", TensorType(("batch", 6), "int64"))])
    mask = net.reshape("mask", net.op("text", "Less", net.input, value=10), 0, 1, 1, -1)
    x = net.op("embedding", "Gather", net.input, weight=(20, 16))
    q, k, v = (net.matmul(part, x, 16) for part in "qkv")
    y = net.op("attention", "Attention", q, k, v, mask, q_num_heads=2, kv_num_heads=2)
    net.matmul("classifier", net.matmul("proj", y, 16), 5)
    work = integer_only(spelled_out(net.build()).work)
    softmax = work.layers[work.names.index("attention.softmax")]
    assert [(x.shape, x.format) for x in softmax.inputs] == [
        (("batch", 2, 6, 6), "int8"),
        (("batch", 1, 1, 6), "bool"),
    ]


def curve(op: str) -> Workload:
    net = GraphBuilder((3, 4, 4))
    x = net.op("curve", op, net.conv("conv", net.input, 8))
    net.linear("classifier", net.global_pool("pool", x), 10)
    return net.build()


def headless() -> Workload:
    net = GraphBuilder((3, 4, 4))
    net.conv("conv", net.input, 8)
    return net.build()


@pytest.mark.parametrize(
    ("work", "why"),
    [
        (curve("Sigmoid"), "curve: there is no integer-only Sigmoid; known are Conv, "),
        (curve("Softmax"), "curve: a Softmax of maps has no integer-only form"),
        (headless(), "ends with the one product that gives its answer"),
        (integer_only(block_of_a_residual_network()), "only a network in fp32"),
    ],
)
def test_what_has_no_integer_only_form_is_refused(work: Workload, why: str) -> None:
    with pytest.raises(TrilobitError, match=re.escape(why)):
        integer_only(work)


def test_16_bits_are_a_format_of_tensors_that_keys_hold() -> None:
    assert is_known("int16")
    assert tensor_bits("int16") == 16
    assert element_types("int16").scaled
    layer = Layer.of("Add", *(TensorType(("batch", 4), "int16"),) * 2, to="int8")
    assert layer.out_format == "int8"
