"""Families of networks that read tokens: elastic, taken out, simulated, and as a file."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from hw_profiles.graph.builder import GraphBuilder
from hw_profiles.graph.counts import params
from hw_profiles.graph.tensor_type import TensorType
from hw_profiles.graph.workload import Feed, Workload
from hw_profiles.runtimes.runtime import single_output
from nas.checks.parity import open_file
from nas.emit.to_onnx import emit, random_network
from nas.testing.family import FamilyCase, check_family
from supernet.families.family import Family
from supernet.graph.executor import layered
from supernet.graph.simulate import simulate
from supernet.ptq.calibrate import observe, quantize
from supernet.qat.deploy import deploy
from supernet.qat.learned import new_quantizers
from supernet.train.student import structure_of
from tests.supernet.families.tokens import tiny_text, tiny_texts

BOTH = pytest.mark.parametrize("make", [tiny_text, tiny_texts])
PARITY = 1e-5


@BOTH
def test_it_keeps_what_families_promise(make: Callable[..., Family]) -> None:
    check_family(make)


@BOTH
def test_files_say_what_the_simulation_says(make: Callable[..., Family]) -> None:
    case = FamilyCase(make)
    family, space = case.family, case.family.space()
    for row in space.sample(3, rng=np.random.default_rng(1)):
        candidate = space.candidate(row)
        x = family.input.drawn(40, family.resolution(candidate), generator=torch.Generator().manual_seed(1))
        subnet = family.extract(case.net, candidate).eval()
        network = quantize(subnet, family.workload(candidate), observe(subnet, x))
        expected = simulate(network, x).numpy()
        answer = single_output(open_file(emit(network, batch=None)), x.numpy())
        assert (answer.argmax(-1) == expected.argmax(-1)).mean() >= 0.995
        with torch.no_grad():
            real = subnet(x).numpy()
        assert np.corrcoef(real.ravel(), expected.ravel())[0, 1] > 0.99


@torch.no_grad()
def test_learned_scales_of_tables_and_matrices_are_deployed() -> None:
    """Tables have no bias, and matrices of keys none that integers would add."""
    case = FamilyCase(tiny_text)
    family, elastic = case.family, layered(case.net)
    candidate = family.extreme("smallest", "int8")
    work = family.workload(candidate)
    x = family.input.drawn(20, family.resolution(candidate), generator=torch.Generator().manual_seed(1))
    quantizers = new_quantizers(structure_of(work), elastic, [(work, x)])
    network = deploy(elastic, quantizers, work, [x])
    expected = simulate(network, x).numpy()
    answer = single_output(open_file(emit(network, batch=None)), x.numpy())
    assert (answer.argmax(-1) == expected.argmax(-1)).mean() >= 0.995
    assert not len(network.parameters["embedding"].bias)


def test_its_feed_is_ids_of_the_length_that_a_network_chose() -> None:
    family = tiny_text(in_channels=30, classes=4)
    for candidate, tokens in ((family.extreme("smallest"), 8), (family.extreme("largest"), 16)):
        work = family.workload(candidate)
        assert work.feeds == (Feed("input_ids", TensorType(("batch", tokens), "int64")),)
        assert work.in_size == family.resolution(candidate) == family.arch(candidate).resolution == tokens
        table = params(work.layers[work.names.index("positions")])
        assert table == tokens * family.arch(candidate).options["s0.width"]


def test_which_tokens_are_text_is_worked_out_from_ids() -> None:
    """Behind the end is what is 5: it changes nothing of what the others get."""

    def attending(tokens: int) -> Workload:
        net = GraphBuilder(feeds=[Feed("input_ids", TensorType(("batch", tokens), "int64"))])
        x = net.embedding("embedding", net.input, 6, 8)
        text = net.reshape("rows", net.op("text", "Less", net.input, value=5), 0, 1, 1, tokens)
        net.op("mixed", "Attention", x, x, x, text, q_num_heads=2, kv_num_heads=2)
        return net.build()

    filled, short = (random_network(attending(tokens), rng=np.random.default_rng(0)) for tokens in (4, 2))
    assert [layer.out_format for layer in filled.workload.layers[1:3]] == ["bool", "bool"]
    ids = np.array([[3, 0, 5, 5], [1, 4, 5, 5]])
    expected = simulate(short, torch.from_numpy(ids[:, :2])).numpy()
    simulated = simulate(filled, torch.from_numpy(ids)).numpy()
    np.testing.assert_allclose(simulated[:, :2], expected, atol=PARITY)
    for portable in (False, True):
        answer = single_output(open_file(emit(filled, batch=None, portable=portable)), ids)
        np.testing.assert_allclose(answer, simulated, atol=PARITY)
