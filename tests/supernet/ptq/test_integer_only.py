"""Networks in integers only: scales with which the operators compute what they stand for, near the network in
real numbers.
"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("tvm")  # the numbers of a network are read as its kernels take them

from hw_profiles.graph.formats import QuantParams
from hw_profiles.graph.layer import parse_key
from hw_profiles.reference import integer_transformer_ops as ops
from hw_profiles.reference.integer_ops import run_unit
from hw_profiles.reference.unit_numbers import UnitNumbers
from supernet.data.tokens import PADDING
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.graph.subnet import Subnet
from supernet.ptq.integer_only import _observed, _params, _spelled_out, quantize_integer_only
from tests.supernet.ptq.integer_networks import (
    ENCODER,
    FAMILIES,
    TEXTS,
    VIT,
    by_arithmetic,
    examples,
    subnet_of,
)

ERROR = 0.15  # of the answers, over their standard deviation: curves of shifts, 8 bits
LABELS = 0.85  # of networks with weights at random, whose best two answers are near each other


@pytest.fixture(scope="module")
def vit() -> Subnet:
    return subnet_of(VIT)


@pytest.fixture(scope="module")
def network(vit: Subnet) -> QuantizedGraph:
    return quantize_integer_only(vit, examples(VIT, 64))


@pytest.mark.parametrize("name", FAMILIES)
def test_answers_are_near_those_of_the_network_in_real_numbers(name: str) -> None:
    family = FAMILIES[name]
    subnet, tried = subnet_of(family), examples(family, 24, seed=2)
    network = quantize_integer_only(subnet, examples(family, 64))
    with torch.no_grad():
        exact = subnet(tried).numpy()
    found = by_arithmetic(network, tried).reshape(exact.shape)
    assert np.sqrt(((found - exact) ** 2).mean()) < ERROR * exact.std()
    assert (found.argmax(-1) == exact.argmax(-1)).mean() >= LABELS


def test_exponentials_halve_in_a_whole_number_of_steps(network: QuantizedGraph) -> None:
    scores, hidden = network.tensors["s0.b0.scores"].scale, network.tensors["s0.b0.fc1"].scale
    for steps in (1 / scores, 1 / (ops.GELU_SLOPE * hidden)):
        assert steps == pytest.approx(round(steps), rel=1e-6)


def test_a_gelu_reads_no_range_that_its_exponential_does_not_reach(vit: Subnet) -> None:
    """Whatever the network does before it."""
    with torch.no_grad():
        vit.layer("s0.b0.fc1").weight.mul_(20)
        network = quantize_integer_only(vit, examples(VIT, 16))
        vit.layer("s0.b0.fc1").weight.div_(20)
    params = network.tensors["s0.b0.fc1"]
    ops.check_gelu(params.scale, params.largest, ops.MOST_SHIFTS)


def test_what_is_normalised_has_sums_of_squares_of_32_bits(network: QuantizedGraph, vit: Subnet) -> None:
    with torch.no_grad():
        tensors = dict(zip(vit.workload.names, vit.tensors(examples(VIT, 64)), strict=True))
    for name in ("tokens", "s0.b0.add1", "s0.b0.add2"):
        params = network.tensors[name]
        codes = np.rint(tensors[name].numpy() / params.scale).astype(np.int64)
        squares = ((codes - codes.mean(-1, keepdims=True)) ** 2).sum(-1)
        assert squares.max() < ops.WIDEST
        assert np.abs(codes).max() <= params.largest / 2 + 1


def test_queries_come_divided() -> None:
    subnet = subnet_of(ENCODER)
    network = quantize_integer_only(subnet, examples(ENCODER, 16))
    stored = network.parameters["s0.b0.q"].weight
    exact = subnet.layer("s0.b0.q").weight.detach().numpy() / np.sqrt(ENCODER.head_width)
    # fitted to what it reads, which moves it by some codes
    np.testing.assert_allclose(
        stored.codes * stored.channel_scales[:, None], exact, atol=5 * float(stored.channel_scales.max())
    )
    assert len(subnet.workload.names) < len(network.workload.names)


def test_scores_of_what_is_hidden_are_in_no_range() -> None:
    ids = examples(TEXTS, 32)
    observed = _observed(_spelled_out(subnet_of(TEXTS)), ids)
    scores = observed.values["s0.b0.attention.scores"]
    hidden = np.broadcast_to((ids == PADDING)[:, None, None].numpy(), scores.shape)
    np.testing.assert_array_equal(np.isinf(scores), hidden)
    params = _params("s0.b0.attention.scores", "int8", observed)
    assert 0 < params.scale < 0.1


NORM = parse_key('LayerNormalization batch,4,24:int16 none w=fp32 {"to":"int8","weight":[24]}')


@given(
    st.integers(0, 2**32 - 1),
    st.floats(1e-5, 1e-3),
    st.floats(0.01, 2),
    st.sampled_from([0.0, 1e-3, 1.0, -0.5]),
)
def test_norms_are_near_real_ones(seed: int, scale: float, spread: float, gamma: float) -> None:
    """Also of rows that spread little, and of channels whose gamma is nothing."""
    rng = np.random.default_rng(seed)
    codes = np.clip(rng.normal(0, spread / scale, (4, 24)), -32767, 32767).round().astype(np.int16)
    gammas, betas = rng.uniform(0.5, 1.5, 24).astype(np.float32), rng.normal(0, 0.5, 24).astype(np.float32)
    gammas[::3] = gamma
    output = QuantParams(float(np.float32(0.04)), 128)
    read = QuantParams(float(np.float32(scale)), 0, 32767)
    numbers = UnitNumbers((read,), output, gammas, np.ones(24, np.float32), betas)
    found = (run_unit(NORM, numbers, [codes]).astype(np.float64) - 128) * output.scale
    real = codes * read.scale
    centred = real - real.mean(-1, keepdims=True)
    exact = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * gammas + betas
    exact = np.clip(exact, -128 * output.scale, 127 * output.scale)
    # half a code, the mean rounded to one code, and beta / 256 where gamma is nothing
    rounded = np.abs(gammas).max() / (np.sqrt((codes.astype(np.float64) ** 2).mean()) + 1)
    assert np.abs(found - exact).max() < output.scale / 2 + 4 * rounded + np.abs(betas).max() / 256 + 0.01
