"""Operations of transformers: torch, ONNX's reference, and both forms of files give the same numbers."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.builder import GraphBuilder
from hw_profiles.graph.counts import macs, params
from hw_profiles.graph.formats import WHOLE
from hw_profiles.graph.layer import Layer, parse_key
from hw_profiles.graph.memory import peak_bytes
from hw_profiles.graph.scenario import bind, decode, prefill
from hw_profiles.graph.tensor_type import Dim, TensorType
from hw_profiles.graph.workload import Feed, Workload, single
from hw_profiles.runtimes.ort.runtime import OrtRuntime, optimised_ops
from hw_profiles.runtimes.runtime import Artifact, Job
from nas.emit.to_onnx import emit, random_network
from supernet.graph.operations import Constants, computed
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.graph.simulate import simulate_all

Arrays = dict[str, NDArray[Any]]
IDS = "int64"


def network(*feeds: TensorType, op: str, **attributes: Any) -> QuantizedGraph:
    """One operation, with random numbers."""
    net = GraphBuilder(feeds=[Feed(f"x{i}", each) for i, each in enumerate(feeds)])
    first = net.op("op", op, *net.inputs, **attributes)
    outputs = range(first, first + len(Layer.of(op, *feeds, **attributes).outputs))
    return random_network(net.build(*outputs), rng=np.random.default_rng(0))


def numbers(work: Workload, seed: int = 0, below: int = 2) -> Arrays:
    """Random numbers for what a network reads; whole ones are `below` something."""
    rng, made = np.random.default_rng(seed), {}
    for feed in work.feeds:
        shape = [int(dim) for dim in feed.type.shape]
        whole = feed.type.format in WHOLE
        values = rng.integers(0, below, shape) if whole else rng.standard_normal(shape)
        made[feed.name] = values.astype(feed.type.format if whole else np.float32)
    return made


def in_torch(network: QuantizedGraph, feeds: Arrays) -> list[NDArray[Any]]:
    return [y.numpy() for y in simulate_all(network, [torch.from_numpy(x) for x in feeds.values()])]


def in_file(content: bytes, feeds: Arrays) -> list[NDArray[Any]]:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    outputs: list[NDArray[Any]] = session.run(None, feeds)
    return outputs


def agree(network: QuantizedGraph, feeds: Arrays, *, reference: bool = True) -> list[NDArray[Any]]:
    """Check that all ways give the same, and return it."""
    computed_here = in_torch(network, feeds)
    files = {portable: emit(network, batch=None, portable=portable) for portable in (False, True)}
    given_by = {f"file, portable {portable}": in_file(file, feeds) for portable, file in files.items()}
    if reference:
        given_by["reference"] = ReferenceEvaluator(onnx.load_from_string(files[False])).run(None, feeds)
    for name, outputs in given_by.items():
        for y, wanted, known in zip(outputs, computed_here, network.workload.outputs, strict=True):
            np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-5, err_msg=name)
            assert y.shape == network.workload.type_of(known).shape
    return computed_here


def x(*shape: Dim, fmt: str = "fp32") -> TensorType:
    return TensorType(shape, fmt)


ALONE: Mapping[str, QuantizedGraph] = {
    "rms": network(x(2, 3, 8), op="RMSNormalization", weight=(8,), epsilon=1e-3),
    "rms of two": network(x(2, 3, 8), op="RMSNormalization", weight=(3, 8), axis=1),
    "silu": network(x(2, 5), op="Swish"),
    "swish": network(x(2, 5), op="Swish", alpha=1.7),
    "embedding": network(x(2, 3, fmt=IDS), op="Gather", weight=(7, 4)),
    "embedding of 8 bits": network(x(2, 3, fmt=IDS), op="Gather", weight=(7, 4), weight_format="int8"),
    "embedding in groups": network(x(2, 3, fmt=IDS), op="Gather", weight=(7, 64), weight_format="int4-g32"),
    "embedding in a group that is not full": network(
        x(2, fmt=IDS), op="Gather", weight=(7, 40), weight_format="int2-g128"
    ),
    "embedding by int32": network(x(2, 3, fmt="int32"), op="Gather", weight=(7, 4)),
    "first": network(x(2, 3, 4), op="Gather", axis=1, indices=0),
    "last": network(x(2, 3, 4), op="Gather", axis=-2, indices=-1),
    "chosen": network(x(2, 3, 4), op="Gather", axis=-1, indices=(3, 1)),
    "slice": network(x(4, 9), op="Slice", starts=(1, 2), ends=(3, 100), axes=(0, -1), steps=(1, 3)),
    "backwards": network(x(4, 9), op="Slice", starts=(-1,), ends=(-100,), axes=(1,), steps=(-2,)),
    "expand": network(x(3, 1), op="Expand", shape=(2, 1, 4)),
    "where": network(x(2, 1, fmt=IDS), x(2, 3), op="Where", value=-5.0),
    "where of two": network(x(3, fmt="bool"), x(2, 3), x(2, 1), op="Where"),
}


@pytest.mark.parametrize("name", ALONE)
def test_files_and_the_reference_give_what_torch_gives(name: str) -> None:
    agree(ALONE[name], numbers(ALONE[name].workload, below=2))


@pytest.mark.parametrize("name", ALONE)
def test_keys_say_what_layers_are(name: str) -> None:
    (layer,) = ALONE[name].workload.layers
    assert parse_key(layer.key()) == layer


def test_normalised_by_the_root_of_the_mean_square() -> None:
    layer = Layer.of("RMSNormalization", x(2, 8), weight=(8,))
    values, weight = torch.randn(2, 8), torch.randn(8)
    (y,) = computed(layer, [values], Constants(weight))
    by_hand = values / torch.sqrt((values**2).mean(1, keepdim=True) + 1e-5) * weight
    np.testing.assert_allclose(y, by_hand, atol=1e-5)
    assert params(layer) == 8


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(1, 4)),
    interleaved=st.booleans(),
    by_heads=st.booleans(),
    part=st.booleans(),
    read=st.sampled_from(("", "batch", "one")),
    start=st.integers(0, 5),
)
def test_rotary_positions_agree_over_shapes(
    shape: tuple[int, int, int, int], interleaved: bool, by_heads: bool, part: bool, read: str, start: int
) -> None:
    batch, sequence, heads, pairs = shape
    of = x(batch, heads, sequence, 2 * pairs) if by_heads else x(batch, sequence, heads * 2 * pairs)
    positions = {"": [], "batch": [x(batch, sequence, fmt=IDS)], "one": [x(1, sequence, fmt=IDS)]}[read]
    net = network(
        of,
        *positions,
        op="RotaryEmbedding",
        num_heads=heads,
        interleaved=int(interleaved),
        rotary_embedding_dim=2 * ((pairs + 1) // 2) if part else 0,
        theta=100.0,
        length=10,
        start=None if read else (start,),
    )
    agree(net, numbers(net.workload, below=10), reference=not part)


def test_a_position_turns_pairs_as_complex_numbers() -> None:
    layer = Layer.of("RotaryEmbedding", x(1, 5, 8), num_heads=2, interleaved=1, start=(3,), theta=50.0)
    values = torch.randn(1, 5, 8)
    (y,) = computed(layer, [values])
    pairs = torch.view_as_complex(values.view(1, 5, 2, 2, 2))
    frequencies = 50.0 ** (-torch.arange(2) / 2)
    angles = torch.outer(torch.arange(3.0, 8.0), frequencies)[None, :, None]
    turned = torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).reshape(1, 5, 8)
    np.testing.assert_allclose(y, turned, atol=1e-5)


ATTENTION = {
    "batch": st.integers(1, 2),
    "queries": st.integers(1, 4),
    "keys": st.integers(1, 4),
    "groups": st.integers(1, 2),
    "times": st.integers(1, 3),
    "depth": st.integers(1, 4),
    "value_depth": st.integers(1, 4),
    "past": st.sampled_from((None, 0, 1, 3)),
    "causal": st.booleans(),
    "mask": st.sampled_from(("", "real", "whole", "heads")),
    "by_heads": st.booleans(),
    "scale": st.sampled_from((None, 0.3)),
    "present": st.booleans(),
}


def attention_of(
    *,
    batch: int,
    queries: int,
    keys: int,
    groups: int,
    times: int,
    depth: int,
    value_depth: int,
    past: int | None,
    causal: bool,
    mask: str,
    by_heads: bool,
    scale: float | None,
    present: bool,
) -> QuantizedGraph:
    heads = groups * times
    keys = queries if past is not None or causal else keys
    sizes = ((queries, heads, depth), (keys, groups, depth), (keys, groups, value_depth))
    feeds = [x(batch, n, length, d) if by_heads else x(batch, length, n * d) for length, n, d in sizes]
    total = keys + (past or 0)
    masks = {
        "real": x(queries, total),
        "whole": x(batch, 1, 1, total, fmt=IDS),
        "heads": x(batch, heads, queries, total),
    }
    feeds += [masks[mask]] if mask else []
    feeds += [] if past is None else [x(batch, groups, past, depth), x(batch, groups, past, value_depth)]
    return network(
        *feeds,
        op="Attention",
        q_num_heads=heads,
        kv_num_heads=groups,
        is_causal=int(causal),
        scale=scale,
        present=int(present),
    )


@given(case=st.fixed_dictionaries(ATTENTION))
def test_attention_agrees_over_shapes(case: dict[str, Any]) -> None:
    net = attention_of(**case)
    feeds = numbers(net.workload)
    if case["mask"] == "whole":
        feeds["x3"][...] |= 1 - feeds["x3"].any(-1, keepdims=True)  # something can be attended to
        feeds["x3"][..., 0] = 1  # by the first position, too
    agree(net, feeds, reference=False)


def test_attention_is_that_of_torch_with_repeated_keys() -> None:
    layer = Layer.of(
        "Attention", *(x(2, 5, 4 * n) for n in (6, 2, 2)), q_num_heads=6, kv_num_heads=2, is_causal=1
    )
    tensors = [torch.randn(2, 5, 4 * n) for n in (6, 2, 2)]
    (y,) = computed(layer, tensors)
    q, k, v = (t.view(2, 5, -1, 4).transpose(1, 2) for t in tensors)
    k, v = (t.repeat_interleave(3, 1) for t in (k, v))
    scores = (q @ k.transpose(2, 3) / 2).masked_fill(torch.ones(5, 5).triu(1).bool(), float("-inf"))
    np.testing.assert_allclose(y, (scores.softmax(-1) @ v).transpose(1, 2).reshape(2, 5, -1), atol=1e-5)
    np.testing.assert_allclose(
        y, F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2), atol=1e-5
    )
    assert macs(layer) == 2 * 2 * 6 * 5 * 5 * 4


@pytest.mark.parametrize(
    ("op", "feeds", "attributes", "message"),
    [
        (
            "Attention",
            (x(1, 3, 8), x(1, 3, 6), x(1, 3, 6)),
            {"q_num_heads": 2, "kv_num_heads": 2},
            "do not fit",
        ),
        ("Attention", (x(1, 3, 8),) * 3, {"q_num_heads": 3, "kv_num_heads": 1}, "cannot be divided"),
        ("Attention", (x(1, 3, 8),) * 3, {}, "number of heads"),
        ("RotaryEmbedding", (x(1, 3, 6),), {"num_heads": 2}, "pairs"),
        ("RotaryEmbedding", (x(1, 3, 8),), {"num_heads": 2, "length": 2}, "more than the length 2"),
        ("RotaryEmbedding", (x(1, 3, 8), x(1, 3)), {"num_heads": 2}, "whole numbers"),
        ("Gather", (x(1, 3),), {"weight": (7, 2)}, "ids must be whole numbers"),
        ("Gather", (x(1, 3),), {"axis": 1, "indices": 3}, "no place"),
        ("Gather", (x(1, 3),), {}, "stored indices"),
        ("Where", (x(3), x(3)), {"value": 0.0}, "must be whole numbers"),
        ("Slice", (x("batch", 3),), {"starts": (0,), "ends": (1,), "axes": (0,)}, "bind it"),
    ],
)
def test_what_cannot_be_is_refused_with_a_reason(
    op: str, feeds: tuple[TensorType, ...], attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(TrilobitError, match=message):
        Layer.of(op, *feeds, **attributes)


def decoder(
    *,
    vocabulary: int = 11,
    width: int = 12,
    heads: int = 3,
    groups: int = 1,
    inner: int = 20,
    blocks: int = 1,
) -> Workload:
    """A LLaMA-type decoder that reads ids, their positions, and the keys and values of before."""
    depth = width // heads
    cache = TensorType(("batch", groups, "past", depth))
    sequence = TensorType(("batch", "sequence"), IDS)
    caches = [Feed(f"past.{i}.{part}", cache) for i in range(blocks) for part in ("key", "value")]
    net = GraphBuilder(feeds=(Feed("ids", sequence), Feed("positions", sequence), *caches))
    ids, positions, *past = net.inputs
    y, grown = net.op("embedding", "Gather", ids, weight=(vocabulary, width)), []
    for i in range(blocks):
        b = f"b{i}"
        z = net.op(f"{b}.norm", "RMSNormalization", y, weight=(width,))
        q, k, v = (
            net.op(f"{b}.{name}", "MatMul", z, weight=(width, n * depth))
            for name, n in (("q", heads), ("k", groups), ("v", groups))
        )
        turned = [
            net.op(f"{b}.{name}.turned", "RotaryEmbedding", t, positions, num_heads=n, length=32)
            for name, t, n in (("q", q, heads), ("k", k, groups))
        ]
        z = net.op(
            f"{b}.attention",
            "Attention",
            *turned,
            v,
            *past[2 * i : 2 * i + 2],
            q_num_heads=heads,
            kv_num_heads=groups,
            is_causal=1,
        )
        grown += [z + 1, z + 2]
        y = net.op(f"{b}.sum", "Add", y, net.op(f"{b}.o", "MatMul", z, weight=(width, width)))
        z = net.op(f"{b}.norm2", "RMSNormalization", y, weight=(width,))
        gate = net.op(f"{b}.silu", "Swish", net.op(f"{b}.gate", "MatMul", z, weight=(width, inner)))
        z = net.op(f"{b}.gated", "Mul", gate, net.op(f"{b}.up", "MatMul", z, weight=(width, inner)))
        y = net.op(f"{b}.sum2", "Add", y, net.op(f"{b}.down", "MatMul", z, weight=(inner, width)))
    y = net.op("norm", "RMSNormalization", y, weight=(width,))
    return net.build(net.op("logits", "MatMul", y, weight=(width, vocabulary)), *grown)


def step_feeds(work: Workload, ids: NDArray[np.int64], start: int, caches: list[NDArray[Any]]) -> Arrays:
    places = np.broadcast_to(np.arange(start, start + ids.shape[1]), ids.shape)
    values = (ids, np.ascontiguousarray(places), *caches)
    return {feed.name: value for feed, value in zip(work.feeds, values, strict=True)}


@pytest.mark.parametrize("portable", [False, True])
def test_a_decoder_gives_at_once_what_it_gives_token_by_token(portable: bool) -> None:
    """In torch and in one file with open sizes, which is that of prefill and of every decode."""
    work = decoder(blocks=2)
    net = random_network(work, rng=np.random.default_rng(0))
    file = emit(net, batch=None, portable=portable)
    ids = np.random.default_rng(1).integers(0, 11, (2, 6))
    empty = [np.zeros((2, 1, 0, 4), np.float32)] * 4
    for run in (lambda feeds: in_torch(net, feeds), lambda feeds: in_file(file, feeds)):
        whole, *caches = run(step_feeds(work, ids, 0, empty))
        np.testing.assert_allclose(whole, in_torch(net, step_feeds(work, ids, 0, empty))[0], atol=1e-5)
        now, parts = empty, []
        for place in range(6):
            logits, *now = run(step_feeds(work, ids[:, place : place + 1], place, now))
            parts.append(logits)
        np.testing.assert_allclose(np.concatenate(parts, 1), whole, atol=1e-5)
        for grown, cache in zip(now, caches, strict=True):
            np.testing.assert_allclose(grown, cache, atol=1e-5)


def test_a_decoder_runs_on_one_kernel_for_each_operation() -> None:
    work = bind(decoder(), {"batch": 1, "sequence": 4, "past": 3})
    net = random_network(work, rng=np.random.default_rng(0))
    kernels = optimised_ops(emit(net, batch=None))
    expected = {"RMSNormalization": 3, "RotaryEmbedding": 2, "Attention": 1, "QuickGelu": 1, "Gather": 1}
    assert {op: kernels[op] for op in expected} == expected
    assert set(kernels) - set(expected) <= {"MatMul", "Add", "Mul", "Conv"}
    assert not optimised_ops(emit(net, batch=None, portable=True))["Attention"]


def test_scenarios_of_a_decoder_cost_what_they_compute() -> None:
    work = decoder(blocks=2, width=12, heads=3, groups=1, inner=20, vocabulary=11)
    costs = {
        name: sum(macs(layer) for layer in bind(work, scenario).layers)
        for name, scenario in (("prompt", prefill(6)), ("next", decode(6)), ("later", decode(7)))
    }
    projections = 2 * (12 * 12 + 2 * 12 * 4 + 12 * 12 + 3 * 12 * 20) + 12 * 11
    assert costs["prompt"] == 6 * projections + 2 * 2 * 12 * 6 * 6
    assert costs["next"] == projections + 2 * 2 * 12 * 7
    assert costs["later"] - costs["next"] == 2 * 2 * 12
    grown = [peak_bytes(bind(work, decode(past))) for past in (100, 101)]
    # both caches of a position for each block that has run, and those that the second reads while it grows
    assert grown[1] - grown[0] == (2 * 2 + 2) * 4 * 4


def test_layers_that_read_ids_are_measured_on_ids_that_exist() -> None:
    work = bind(decoder(vocabulary=3), {"batch": 1, **decode(2)})
    embedding = single(work.layers[0])
    runtime = OrtRuntime()
    for network_of in (work, embedding):
        net = random_network(network_of, rng=np.random.default_rng(0))
        (artifact,) = runtime.build([Job(network_of, lambda net=net: emit(net, batch=1))])
        assert isinstance(artifact, Artifact)
        assert artifact.example is not None
        whole = [array for array in artifact.example.values() if array.dtype == np.int64]
        assert all(array.max() < 32 for array in whole)
        outputs = runtime.compile(artifact).run(artifact.example)
        assert all(np.isfinite(y).all() for y in outputs.values())
    assert runtime.supports(work.layers[0])
    assert runtime.supports(next(layer for layer in work.layers if layer.op == "Attention"))


@given(
    batch=st.lists(st.integers(1, 3), max_size=2),
    repeated=st.lists(st.booleans(), min_size=2, max_size=2),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)),
    stored=st.booleans(),
    bias=st.booleans(),
)
def test_matrix_products_of_any_rank_agree(
    batch: list[int], repeated: list[bool], sizes: tuple[int, int, int], stored: bool, bias: bool
) -> None:
    rows, inner, columns = sizes
    left = x(*(1 if once else size for size, once in zip(batch, repeated, strict=False)), rows, inner)
    right = (*batch[-1:], inner, columns) if not stored or len(batch) > 1 else (inner, columns)
    if stored:
        net = network(left, op="MatMul", weight=right, bias=int(bias))
    else:
        net = network(left, x(*right), op="MatMul")
    agree(net, numbers(net.workload))


def test_positions_counted_from_the_past_are_those_that_are_read() -> None:
    """A scenario binds the start; a file whose past is open must read positions."""
    cache = TensorType(("batch", 1, "past", 4))
    feeds = (Feed("x", TensorType(("batch", "sequence", 4))), Feed("keys", cache), Feed("values", cache))
    net = GraphBuilder(feeds=feeds)
    entry, keys, values = net.inputs
    turned = net.op("turned", "RotaryEmbedding", entry, num_heads=1, length=16, start=("past",))
    attended = net.op(
        "attention", "Attention", turned, turned, entry, keys, values, q_num_heads=1, kv_num_heads=1
    )
    work = net.build(turned, attended, attended + 1)
    with pytest.raises(TrilobitError, match="bind it or read positions"):
        emit(random_network(work, rng=np.random.default_rng(0)), batch=None)
    prompt = random_network(bind(work, {"batch": 2, "sequence": 3}), rng=np.random.default_rng(0))
    with pytest.raises(TrilobitError, match="bind it by a scenario, or read positions"):
        in_torch(prompt, {name: np.zeros((2, 3, 4), np.float32) for name in "xyz"})
    for scenario in (prefill(3), decode(7), {"sequence": 2, "past": 5}):
        bound = random_network(bind(work, {"batch": 2, **scenario}), rng=np.random.default_rng(0))
        given_here = numbers(bound.workload)
        own, *_ = agree(bound, given_here, reference=False)
        layer = Layer.of(
            "RotaryEmbedding",
            bound.workload.layers[0].inputs[0],
            x(1, scenario["sequence"], fmt=IDS),
            num_heads=1,
            length=16,
        )
        places = torch.arange(scenario["past"], scenario["past"] + scenario["sequence"])[None]
        (read,) = computed(layer, [torch.from_numpy(given_here["x"]), places])
        np.testing.assert_array_equal(own, read.numpy())
    # an open sequence is counted in the file
    short = random_network(bind(work, {"past": 2}), rng=np.random.default_rng(0))
    feeds_now = numbers(bind(short.workload, {"batch": 2, "sequence": 3}))
    for portable in (False, True):
        for y, wanted in zip(
            in_file(emit(short, batch=None, portable=portable), feeds_now),
            in_torch(short, feeds_now),
            strict=True,
        ):
            np.testing.assert_allclose(y, wanted, atol=1e-5)
    with pytest.raises(TrilobitError, match="more than the length 16"):
        bind(work, decode(16))


def test_of_a_table_in_groups_only_the_rows_that_are_read_become_real() -> None:
    net = network(x("batch", "sequence", fmt=IDS), op="Gather", weight=(50, 64), weight_format="int4-g32")
    file = emit(net, batch=None)
    kernels = optimised_ops(file)
    assert kernels["Gather"] == 2  # codes and scales
    assert not kernels["DequantizeLinear"]
    assert len(file) < 50 * 64
