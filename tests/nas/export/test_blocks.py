"""Whole blocks through the exporter: h-swish, ReLU6 and squeeze-and-excitation in every format."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hw_profiles.graph.layer import changed, map_layer
from hw_profiles.graph.workload import single
from hw_profiles.runtimes.ort.runtime import expected_kernels, open_exactly, optimised_ops
from nas.emit.to_onnx import emit, file_overhead, file_size, random_network
from supernet.families.family import load_family
from supernet.families.ofa_mobile import MobileFamily, MobileLayers, MobileStage
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.graph.simulate import simulate
from supernet.graph.subnet import recalibrate
from supernet.layers.activation import ACTIVATE
from supernet.ptq.calibrate import before_curve, observe, quantize
from supernet.space.space import Candidate

BATCH = 8
FLOAT_PARITY = (
    1e-4  # relative to the largest logit: batch norm is folded, which rounds every weight once more
)
SAME_CODES = 1e-6  # no code differs; the last layer gives real values
SIZE_ERROR = 0.001  # names differ in length
FORMATS = ("fp32", "int8", "int4", "int4/int6")
CURVED = (MobileStage(16, 2, "relu", True, (1, 2)), MobileStage(16, 1, "hswish", True, (1, 2)))
CLIPPED = (MobileStage(16, 2, "relu6", depths=(1, 2)), MobileStage(24, 1, "relu6", depths=(1, 2)))
FAMILIES = {
    "hswish": MobileFamily(
        "v3", MobileLayers(3, 16, 16, CURVED, 48, 64, 10, "hswish", "relu"), 1e-5, FORMATS, (24,)
    ),
    "relu6": MobileFamily(
        "v2", MobileLayers(3, 24, 16, CLIPPED, 64, 0, 10, "relu6", "relu6"), 1e-3, FORMATS, (24,)
    ),
}


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> MobileFamily:
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def net(family: MobileFamily) -> nn.Module:
    """Every curve is met on all of its parts."""
    net = family.supernet(rng=np.random.default_rng(0))
    generator = torch.Generator().manual_seed(0)
    for name, tensor in net.named_parameters():
        if name.endswith("norm.weight"):
            nn.init.uniform_(tensor, 1.0, 3.0, generator=generator)
        elif name.endswith("bias"):
            nn.init.uniform_(tensor, -1.0, 1.0, generator=generator)
        elif name == "classifier.weight":
            nn.init.normal_(tensor, generator=generator)
    return net.eval()


def images(seed: int = 0) -> torch.Tensor:
    return torch.randn(BATCH, 3, 24, 24, generator=torch.Generator().manual_seed(seed))


def built(family: MobileFamily, net: nn.Module, candidate: Candidate) -> QuantizedGraph:
    subnet = family.extract(net, candidate)
    recalibrate(subnet, [images(1)])
    return quantize(subnet, family.workload(candidate), observe(subnet, images(1)))


def through_file(network: QuantizedGraph) -> np.ndarray:
    (logits,) = open_exactly(emit(network, batch=BATCH)).run(None, {"image": images().numpy()})
    return logits


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("size", ["smallest", "largest"])
def test_uniform_files_compute_what_the_simulation_computes(
    family: MobileFamily, net: nn.Module, size: str, fmt: str
) -> None:
    network = built(family, net, family.extremes()[f"{size}/{fmt}"])
    expected = simulate(network, images()).numpy()
    tolerance = (FLOAT_PARITY if fmt == "fp32" else SAME_CODES) * np.abs(expected).max()
    assert np.abs(through_file(network) - expected).max() <= tolerance


def test_fp32_simulation_is_the_subnet(family: MobileFamily, net: nn.Module) -> None:
    candidate = family.extremes()["largest/fp32"]
    subnet = family.extract(net, candidate)
    recalibrate(subnet, [images(1)])
    with torch.no_grad():
        expected = subnet(images())
    found = simulate(built(family, net, candidate), images())
    torch.testing.assert_close(found, expected, rtol=0, atol=FLOAT_PARITY * float(expected.abs().max()))


def test_eight_bits_are_near_fp32(family: MobileFamily, net: nn.Module) -> None:
    fp32, int8 = (
        simulate(built(family, net, family.extremes()[f"largest/{fmt}"]), images())
        for fmt in ("fp32", "int8")
    )
    assert 0 < float((int8 - fp32).norm() / fp32.norm()) < 0.15


def test_kernels_are_those_of_the_policy(family: MobileFamily, net: nn.Module) -> None:
    space = family.space()
    for genome in space.sample(6, rng=np.random.default_rng(0)):
        network = built(family, net, space.candidate(genome))
        found, expected = optimised_ops(emit(network)), expected_kernels(network.workload)
        assert {op: found[op] for op in expected} == dict(expected)


def test_integers_need_no_kernel_for_a_relu6(net: nn.Module) -> None:
    family = FAMILIES["relu6"]
    network = random_network(family.workload(family.extremes()["largest/int8"]), rng=np.random.default_rng(0))
    assert optimised_ops(emit(network))["Clip"] == 0


@pytest.mark.parametrize("name", ["ofa-mbv3", "ofa-proxyless"])
def test_size_is_the_sum_of_its_units(name: str) -> None:
    published, rng = load_family(name, in_channels=3, classes=10), np.random.default_rng(0)
    work = published.workload(published.space().candidate(published.space().sample(1, rng=rng)[0]))
    predicted = file_overhead() + sum(map(file_size, work.layers))
    assert abs(predicted / len(emit(random_network(work, rng=rng))) - 1) < SIZE_ERROR


@pytest.mark.parametrize("fmt", ["fp32", "fp16", "int8", "int4"])
@pytest.mark.parametrize("activation", ["relu", "relu6", "hswish"])
def test_a_block_by_itself_is_a_network(activation: str, fmt: str) -> None:
    stored = (fmt, "int8" if fmt == "int4" else fmt)
    block = map_layer("mbconv", (16, 6, 6), 16, 3, 1, 1, activation, *stored, expanded=32, residual=True)
    for layer in (block, changed(block, squeeze=True), changed(block, residual=False, stride=2)):
        with pytest.raises(ValueError, match="mbconv is a unit, not a layer that runs"):
            QuantizedGraph(single(layer), {}, {})
        network = random_network(single(layer), rng=np.random.default_rng(0))
        assert network.workload.names[0] == "mbconv.expand"


curves = st.sampled_from(["hswish", "hsigmoid"])


@given(activation=curves, seen=st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=20))
def test_the_range_before_a_curve_loses_nothing(activation: str, seen: list[float]) -> None:
    before = torch.tensor(seen)
    after = ACTIVATE[activation](before)
    low, high = before_curve(activation, float(after.max()))
    clipped = ACTIVATE[activation](before.clamp(low, high))
    torch.testing.assert_close(clipped, after, rtol=0, atol=1e-5)


@given(activation=curves, seen=st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=20))
def test_the_range_before_an_hswish_is_no_wider_than_needed(activation: str, seen: list[float]) -> None:
    highest = max(*seen, 0.0)
    _, high = before_curve(activation, float(ACTIVATE[activation](torch.tensor(highest))))
    assert high <= max(highest, 3.0 if activation == "hsigmoid" else 0.0) + 1e-5


@pytest.mark.parametrize("name", ["ofa-mbv3", "digits-mbconv"])
def test_the_size_of_a_unit_does_not_depend_on_its_map(name: str) -> None:
    """What `nas.problem.costs` relies on."""
    published = load_family(name, in_channels=3, classes=10)
    space, rng = published.space(), np.random.default_rng(0)
    units = {
        unit
        for genome in space.sample(4, rng=rng)
        for unit in published.workload(space.candidate(genome)).layers
    }
    assert len(units) > 20
    for unit in units:
        assert file_size(unit) == file_size(changed(unit, in_shape=(unit.in_shape[0], 1, 1)))
