"""Decoders: one set of weights, its networks taken out, their files, in fp32 and in integers."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hw_profiles.graph.counts import params
from hw_profiles.runtimes.ort.runtime import optimised_ops
from hw_profiles.runtimes.runtime import single_output
from nas.checks.parity import open_file
from nas.emit.to_onnx import emit
from supernet.families.decoder import text_decoder, text_decoder_5m
from supernet.families.family import Size
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.graph.simulate import simulate
from supernet.ptq.calibrate import observe, quantize
from supernet.space.space import Candidate

FAMILY = text_decoder(in_channels=256, classes=256)
TEXTS, CALIBRATED = 8, 4  # 512 positions and more
PARITY = 1e-4  # sums in another order, over some twenty layers
PARTS = ("norm1", "q", "k", "v", "proj", "gate", "up", "down")


@pytest.fixture(scope="module")
def net() -> nn.Module:
    """The supernet, its blocks no identities."""
    net = FAMILY.supernet(rng=np.random.default_rng(0)).eval()
    generator = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5, generator=generator)
    return net


def texts(candidate: Candidate, n: int) -> Tensor:
    return FAMILY.input.drawn(n, FAMILY.resolution(candidate), generator=torch.Generator().manual_seed(1))


def calibrated(net: nn.Module, candidate: Candidate) -> tuple[QuantizedGraph, Tensor]:
    """The network in its own formats, and what it is tried on."""
    x, subnet = texts(candidate, TEXTS), FAMILY.extract(net, candidate).eval()
    return quantize(subnet, FAMILY.workload(candidate), observe(subnet, x[:CALIBRATED])), x


def drawn(n: int, seed: int = 2) -> list[Candidate]:
    return [
        FAMILY.space().candidate(row) for row in FAMILY.space().sample(n, rng=np.random.default_rng(seed))
    ]


def in_file(network: QuantizedGraph, x: Tensor) -> np.ndarray:
    return np.asarray(single_output(open_file(emit(network, batch=None)), x.numpy()))


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_supernet_the_subnet_and_the_file_compute_the_same(net: nn.Module, seed: int) -> None:
    (candidate,) = drawn(1, seed)
    x, subnet, arch = texts(candidate, 2), FAMILY.extract(net, candidate).eval(), FAMILY.arch(candidate)
    with torch.no_grad():
        elastic, static = net(x, arch), subnet(x)
    assert torch.equal(static, elastic)
    plain = quantize(subnet, FAMILY.plain_workload(arch), observe(subnet, x))
    assert torch.equal(simulate(plain, x), static)
    np.testing.assert_allclose(in_file(plain, x), elastic.numpy(), atol=PARITY * float(elastic.abs().max()))


@pytest.mark.parametrize(("size", "fmt"), [("smallest", "fp32"), ("largest", "fp32"), ("smallest", "int8")])
def test_a_file_in_one_format_says_the_bytes_that_the_simulation_says(
    net: nn.Module, size: Size, fmt: str
) -> None:
    assert agreement(*calibrated(net, FAMILY.extreme(size, fmt))) == 1


def test_many_blocks_of_integers_say_the_bytes_that_the_simulation_says_but_for_ties(net: nn.Module) -> None:
    """One code in some million is another one, which all that is said behind it in a text feels; random
    weights make the first two of 256 bytes as good as equal in a tenth of all positions.
    """
    network, x = calibrated(net, FAMILY.extreme("largest", "int8"))
    assert agreement(network, x) >= 0.98
    logits, in_a_file = simulate(network, x).numpy(), in_file(network, x)
    first = np.sort(logits, -1)
    clear = first[..., -1] - first[..., -2] > 0.5 * logits.std()
    assert clear.sum() >= 100
    assert (logits.argmax(-1) == in_a_file.argmax(-1))[clear].all()


def test_files_in_mixed_formats_say_the_bytes_that_the_simulation_says(net: nn.Module) -> None:
    for candidate in drawn(3):
        assert agreement(*calibrated(net, candidate)) >= 0.995


def agreement(network: QuantizedGraph, x: Tensor) -> float:
    """Return at how many positions the first choice of a file is that of the simulation."""
    expected = simulate(network, x).numpy().argmax(-1)
    assert expected.size >= 500
    assert len(set(expected.ravel().tolist())) > 20  # not one byte everywhere
    same: float = (in_file(network, x).argmax(-1) == expected).mean()
    return same


def test_what_comes_next_depends_on_what_came_before_alone(net: nn.Module) -> None:
    candidate = FAMILY.extreme("largest")
    subnet, x = FAMILY.extract(net, candidate).eval(), texts(candidate, 2)
    changed = x.clone()
    changed[:, 40:] = (changed[:, 40:] + 1) % 256
    with torch.no_grad():
        before, after = subnet(x), subnet(changed)
    assert torch.equal(before[:, :40], after[:, :40])
    assert not torch.equal(before[:, 40:], after[:, 40:])


def test_a_smaller_decoder_has_the_first_of_everything(net: nn.Module) -> None:
    small, large = (FAMILY.extract(net, FAMILY.extreme(size)) for size in ("smallest", "largest"))
    for name in ("embedding", *(f"s0.b0.{part}" for part in PARTS), "head"):
        narrow, wide = (each.layer(name).get_parameter("weight") for each in (small, large))
        assert narrow.shape != wide.shape
        assert torch.equal(narrow, wide[tuple(map(slice, narrow.shape))])


def test_every_matrix_runs_on_an_integer_kernel_and_every_operation_on_one_kernel(net: nn.Module) -> None:
    network, _ = calibrated(net, FAMILY.extreme("smallest", "int8"))
    blocks, kernels = 2, optimised_ops(emit(network))
    assert kernels["MatMulIntegerToFloat"] == 6 * blocks + 1
    assert kernels["QLinearMatMul"] == blocks  # values, which are kept as codes
    expected = {"RMSNormalization": 2 * blocks + 1, "RotaryEmbedding": 2 * blocks, "Attention": blocks}
    assert Counter({name: kernels[name] for name in expected}) == expected


def test_sizes_are_those_that_are_promised() -> None:
    sizes = {
        make: [
            sum(map(params, family.workload(family.extreme(size)).layers)) for size in ("smallest", "largest")
        ]
        for make in (text_decoder, text_decoder_5m)
        for family in [make(in_channels=256, classes=256)]
    }
    assert sizes[text_decoder] == [106_816, 656_512]
    assert sizes[text_decoder_5m] == [984_384, 4_852_992]


def test_parameters_are_those_of_the_formula() -> None:
    """Per block two norms, queries and the output, keys and values, three matrices."""
    for candidate in drawn(5):
        chosen = FAMILY.arch(candidate).options
        width, total = chosen["s0.width"], chosen["s0.width"] * (2 * 256 + 1)
        for b in range(chosen["s0.depth"]):
            heads, groups, hidden = (chosen[f"s0.b{b}.{role}"] for role in ("heads", "groups", "hidden"))
            total += 2 * width * (1 + 32 * (heads + groups)) + 3 * width * hidden
        assert sum(map(params, FAMILY.workload(candidate).layers)) == total
