"""A decoder as a workload: its cache, its scenarios, its kernels."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.builder import GraphBuilder
from hw_profiles.graph.counts import macs
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.memory import peak_bytes
from hw_profiles.graph.scenario import bind, decode, prefill
from hw_profiles.graph.tensor_type import TensorType
from hw_profiles.graph.workload import Feed, Workload, single
from hw_profiles.runtimes.ort.runtime import OrtRuntime, optimised_ops
from hw_profiles.runtimes.runtime import Artifact, Job
from nas.emit.to_onnx import emit, random_network
from supernet.graph.operations import computed
from tests.contracts.operation_parity import IDS, Arrays, agree, in_file, in_torch, numbers, x


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
