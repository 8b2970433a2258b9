"""Key-value caches: one network, its files and its simulation, in every format that a cache can have."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.builder import GraphBuilder
from hw_profiles.graph.cache import cache_bytes, cached_layer, in_scenario, scenario_workload, with_cache
from hw_profiles.graph.formats import CACHE_DTYPES, CACHES
from hw_profiles.graph.layer import parse_key
from hw_profiles.graph.lowering import lower
from hw_profiles.graph.memory import peak_bytes
from hw_profiles.graph.scenario import bind, decode, prefill
from hw_profiles.graph.tensor_type import TensorType
from hw_profiles.graph.workload import Feed, Workload
from hw_profiles.runtimes.ort.runtime import expected_kernels, optimised_ops
from nas.emit.to_onnx import emit, random_network
from supernet.families.family import load_family
from tests.contracts.operation_parity import IDS, Arrays, in_file, in_torch

POSITIONS, VOCABULARY = 32, 11
TOLERANCE = {"fp32": 1e-5, "fp16": 1e-5, "int8": 1e-5}


def decoder(
    cache: str = "fp32", *, blocks: int = 2, heads: int = 3, groups: int = 1, depth: int = 4
) -> Workload:
    """A LLaMA-type decoder as families describe it: it reads ids, and nothing is past."""
    width = heads * depth
    net = GraphBuilder(feeds=(Feed("ids", TensorType(("batch", "sequence"), IDS)),))
    y = net.op("embedding", "Gather", net.input, weight=(VOCABULARY, width))
    for i in range(blocks):
        b = f"b{i}"
        z = net.op(f"{b}.norm", "RMSNormalization", y, weight=(width,))
        q, k, v = (
            net.op(f"{b}.{name}", "MatMul", z, weight=(width, n * depth))
            for name, n in (("q", heads), ("k", groups), ("v", groups))
        )
        q, k = (
            net.op(f"{b}.{name}.turned", "RotaryEmbedding", t, num_heads=n, length=POSITIONS)
            for name, t, n in (("q", q, heads), ("k", k, groups))
        )
        counts = {"q_num_heads": heads, "kv_num_heads": groups}
        z = net.op(f"{b}.attention", "Attention", q, k, v, **counts, is_causal=1, cache=cache)
        y = net.op(f"{b}.sum", "Add", y, net.op(f"{b}.o", "MatMul", z, weight=(width, width)))
        y = net.op(f"{b}.down", "MatMul", net.op(f"{b}.silu", "Swish", y), weight=(width, width))
    return net.build(net.op("logits", "MatMul", y, weight=(width, VOCABULARY)))


def step(work: Workload, ids: np.ndarray, start: int, caches: list[np.ndarray]) -> Arrays:
    places = np.ascontiguousarray(np.broadcast_to(np.arange(start, start + ids.shape[1]), ids.shape))
    return dict(zip((feed.name for feed in work.feeds), (ids, places, *caches), strict=True))


def empty(work: Workload, batch: int) -> list[np.ndarray]:
    return [
        np.zeros((batch, int(x.shape[1]), 0, int(x.shape[3])), CACHE_DTYPES[x.format])
        for _, x in work.feeds[2:]
    ]


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("cache", CACHES)
def test_a_text_at_once_is_the_text_token_by_token(cache: str, portable: bool) -> None:
    """In simulation and in files, without a cache and with one in each of its formats."""
    plain = random_network(decoder(cache), rng=np.random.default_rng(0))
    cached = replace(plain, workload=with_cache(plain.workload))
    file = emit(cached, batch=None, portable=portable)
    ids = np.random.default_rng(1).integers(0, VOCABULARY, (2, 6))
    (whole,) = in_torch(plain, {"ids": ids})
    (of_file,) = in_file(emit(plain, batch=None, portable=portable), {"ids": ids})
    np.testing.assert_allclose(of_file, whole, atol=TOLERANCE[cache])
    none = empty(cached.workload, 2)
    for run in (lambda feeds: in_torch(cached, feeds), lambda feeds: in_file(file, feeds)):
        logits, *caches = run(step(cached.workload, ids, 0, none))
        np.testing.assert_allclose(logits, whole, atol=TOLERANCE[cache])
        now, parts = none, []
        for place in range(6):
            logits, *now = run(step(cached.workload, ids[:, place : place + 1], place, now))
            parts.append(logits)
        np.testing.assert_allclose(np.concatenate(parts, 1), whole, atol=TOLERANCE[cache])
        for grown, at_once in zip(now, caches, strict=True):
            assert grown.dtype == at_once.dtype == CACHE_DTYPES[CACHES[cache]]
            np.testing.assert_allclose(grown.astype(np.float32), at_once.astype(np.float32), atol=1e-5)


def test_one_query_reads_codes_as_they_are_and_gives_what_files_of_any_length_give() -> None:
    cached = random_network(with_cache(decoder("int8", depth=8)), rng=np.random.default_rng(0))
    bound = replace(cached, workload=bind(cached.workload, {"sequence": 1}))
    files = [emit(net, batch=None) for net in (cached, bound)]
    kernels = optimised_ops(files[1])
    assert (kernels["GroupQueryAttention"], kernels["Attention"], kernels["DequantizeLinear"]) == (2, 0, 0)
    assert optimised_ops(files[0])["Attention"] == 2
    rng = np.random.default_rng(1)
    past = [rng.integers(-128, 128, (2, 1, 9, 8)).astype(np.int8) for _ in range(4)]
    feeds = step(cached.workload, rng.integers(0, VOCABULARY, (2, 1)), 9, past)
    open_one, one = (in_file(file, feeds) for file in files)
    for y, wanted, known in zip(one, open_one, in_torch(bound, feeds), strict=True):
        np.testing.assert_allclose(y, wanted, atol=1e-5)
        np.testing.assert_allclose(y, known, atol=1e-5)


@pytest.mark.parametrize("cache", CACHES)
def test_kernels_of_quantized_decoders_are_those_that_are_expected(cache: str) -> None:
    """Values that nothing reads but a cache of codes are rounded by the product's own kernel."""
    family = load_family("text-decoder", in_channels=1, classes=256)
    space = family.space()
    genes = np.array([family.extreme("smallest", "int8").genes], np.int16)
    options = space.choices[space.columns["cache.format"]].options
    genes[:, space.columns["cache.format"]] = options.index(cache)
    work = lower(family.workload(space.candidate(space.canonical(genes)[0])))
    kernels = optimised_ops(emit(random_network(work, rng=np.random.default_rng(0))))
    expected = expected_kernels(work)
    assert {name: kernels[name] for name in expected} == dict(expected)
    assert (expected["QLinearMatMul"] > 0) == (cache == "int8")


def test_files_call_their_inputs_and_outputs_as_those_of_others() -> None:
    import onnx

    graph = onnx.load_from_string(
        emit(random_network(with_cache(decoder()), rng=np.random.default_rng(0)), batch=None)
    ).graph
    caches = [f"{i}.{part}" for i in range(2) for part in ("key", "value")]
    past = [f"past_key_values.{cache}" for cache in caches]
    assert [x.name for x in graph.input] == ["input_ids", "position_ids", *past]
    assert [x.name for x in graph.output] == ["logits", *(f"present.{cache}" for cache in caches)]


@given(
    cache=st.sampled_from(list(CACHES)),
    groups=st.sampled_from([1, 2]),
    past=st.integers(0, 20),
    sequence=st.integers(1, 8),
)
def test_layers_of_a_scenario_are_those_of_its_network(
    cache: str, groups: int, past: int, sequence: int
) -> None:
    work = decoder(cache, heads=2, groups=groups)
    scenario = {"sequence": sequence, "past": past}
    bound = scenario_workload(work, scenario)
    assert bound.symbols == {"batch"}
    assert [in_scenario(layer, **scenario) for layer in work.layers] == list(bound.layers)
    assert all(parse_key(layer.key()) == layer for layer in bound.layers)
    assert all(x.with_formats(x.weight_format, "fp32") == x for x in bound.layers if x.op == "Attention")
    given_back = sum(cache_bytes(layer, scenario) for layer in work.layers)
    bits = {"fp32": 32, "fp16": 16, "int8": 8}[cache]
    assert given_back == 2 * 2 * groups * 4 * (past + sequence) * bits // 8


def test_memory_counts_what_a_cache_holds() -> None:
    """Whole caches at the end of the step, of which the last block's past is read meanwhile."""
    sizes = {cache: peak_bytes(scenario_workload(decoder(cache), decode(31))) for cache in CACHES}
    caches = {cache: sum(cache_bytes(x, decode(31)) for x in decoder(cache).layers) for cache in CACHES}
    assert caches["fp32"] == 2 * caches["fp16"] == 4 * caches["int8"]
    assert sizes["fp32"] > sizes["fp16"] > sizes["int8"] >= caches["int8"]


def test_what_has_no_cache_or_too_few_positions_is_refused() -> None:
    net = GraphBuilder((1, 8, 8))
    image = net.build(net.linear("classifier", net.global_pool("pool", net.input), 10))
    with pytest.raises(TrilobitError, match="only a decoder has a key-value cache"):
        with_cache(image)
    with pytest.raises(TrilobitError, match="only a decoder"):
        scenario_workload(image, prefill(8))
    with pytest.raises(TrilobitError, match="1 positions behind 32 are more than the 32 that the network"):
        scenario_workload(decoder(), decode(32))
    with pytest.raises(TrilobitError, match="40 positions behind 0"):
        in_scenario(next(x for x in decoder().layers if x.op == "RotaryEmbedding"), **prefill(40))
    with pytest.raises(TrilobitError, match="no key-value cache in 'int4'; it can be in fp32, fp16, int8"):
        decoder("int4")
    attention = next(layer for layer in decoder("int8").layers if layer.op == "Attention")
    wrong = tuple(TensorType(x.shape) for x in cached_layer(attention).inputs[-2:])
    with pytest.raises(TrilobitError, match="a cache of int8 holds cache8, not"):
        replace(attention, inputs=(*attention.inputs, *wrong))
