"""The integer simulation against ONNX Runtime, numpy and the fp32 network."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from hw_profiles.backends.ort import open_session
from hw_profiles.workload import INPUT, LayerSpec, Workload
from nas.export.to_onnx import emit, random_network
from supernet.family import Family, load_family
from supernet.network import Network, bias_codes
from supernet.quant.calibrate import observe, quantize
from supernet.quant.simulate import EXACT_PRODUCTS, simulate
from supernet.space import Candidate
from supernet.subnet import Subnet, recalibrate

FP32_ROUNDING = 1e-4  # folding batch norm and another order of sums, over some thirty layers
SAME_CODES = 1e-5  # equal codes everywhere leave only the last fp32 product to differ
AGREEMENT = 0.995  # mixed precision: fp32 convolutions differ in the last bit, and a code may tip over


@pytest.fixture(scope="module")
def family() -> Family:
    return load_family("digits-mbconv", in_channels=1, classes=10)


@pytest.fixture(scope="module")
def supernet(family: Family) -> nn.Module:
    net = family.supernet(rng=np.random.default_rng(0))
    generator = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.normal_(1, 0.3, generator=generator)
            module.bias.data.normal_(0, 0.3, generator=generator)
    nn.init.normal_(net.classifier.weight, std=0.3, generator=generator)
    return net


def images(n: int, resolution: int) -> torch.Tensor:
    return torch.randn(n, 1, resolution, resolution, generator=torch.Generator().manual_seed(1))


def subnet_of(family: Family, supernet: nn.Module, candidate: Candidate) -> Subnet:
    subnet = family.extract(supernet, candidate)
    recalibrate(subnet, [images(128, family.resolution(candidate))])
    return subnet


def network_of(family: Family, supernet: nn.Module, candidate: Candidate) -> Network:
    subnet = subnet_of(family, supernet, candidate)
    return quantize(
        subnet, family.workload(candidate), observe(subnet, images(128, family.resolution(candidate)))
    )


def file_logits(network: Network, x: torch.Tensor) -> np.ndarray:
    session = open_session(emit(network))
    return np.concatenate([session.run(None, {"image": one[None].numpy()})[0] for one in x])


def mixed_candidates(family: Family, n: int) -> list[Candidate]:
    space = family.space()
    return [space.candidate(row) for row in space.sample(n, rng=np.random.default_rng(5))]


def test_fp32_simulation_is_the_subnet(family: Family, supernet: nn.Module) -> None:
    candidate = family.corners()["largest/fp32"]
    x = images(8, family.resolution(candidate))
    with torch.no_grad():
        expected = subnet_of(family, supernet, candidate)(x)
    found = simulate(network_of(family, supernet, candidate), x)
    assert torch.allclose(found, expected, atol=FP32_ROUNDING * float(expected.abs().max()))


@pytest.mark.parametrize("corner", ["smallest/int8", "largest/int8"])
def test_integer_simulation_has_the_codes_of_the_file(
    family: Family, supernet: nn.Module, corner: str
) -> None:
    network = network_of(family, supernet, family.corners()[corner])
    x = images(256, network.workload.in_shape[1])
    assert np.abs(file_logits(network, x) - simulate(network, x).numpy()).max() <= SAME_CODES


def test_mixed_precision_predicts_what_the_file_predicts(family: Family, supernet: nn.Module) -> None:
    same = []
    for candidate in mixed_candidates(family, 8):
        network = network_of(family, supernet, candidate)
        x = images(200, network.workload.in_shape[1])
        same.append(file_logits(network, x).argmax(1) == simulate(network, x).numpy().argmax(1))
    assert np.mean(same) >= AGREEMENT


def test_int8_is_near_fp32(family: Family, supernet: nn.Module) -> None:
    corners = family.corners()
    exact, rounded = (network_of(family, supernet, corners[f"largest/{f}"]) for f in ("fp32", "int8"))
    x = images(64, exact.workload.in_shape[1])
    expected, found = simulate(exact, x), simulate(rounded, x)
    assert 0 < float((found - expected).norm() / expected.norm()) < 0.2


@pytest.mark.parametrize("channels", [8, EXACT_PRODUCTS + 200])
def test_one_integer_convolution_equals_numpy(channels: int) -> None:
    """Also past the channels for which float32 sums are exact."""
    layers = (
        LayerSpec("quantize", (channels, 2, 2), channels, activation_format="int8"),
        LayerSpec("conv", (channels, 2, 2), 4, weight_format="int8", activation_format="int8"),
    )
    network = random_network(Workload(("q", "c"), layers, ((INPUT,), (0,))), rng=np.random.default_rng(0))
    x = torch.randn(3, channels, 2, 2, generator=torch.Generator().manual_seed(0))
    before, after, weights = network.tensors["q"], network.tensors["c"], network.parameters["c"]
    codes = np.clip(np.rint(x.numpy() / np.float32(before.scale)) + before.zero_point, 0, 255).astype(
        np.int64
    )
    bias, scale = bias_codes(weights, before.scale)
    total = np.einsum("nchw,oc->nohw", codes - before.zero_point, weights.weight[:, :, 0, 0].astype(np.int64))
    scaled = (total + bias[:, None, None]).astype(np.float32) * (scale / np.float32(after.scale))[
        :, None, None
    ]
    expected = np.clip(np.rint(scaled) + after.zero_point, 0, 255)
    assert np.array_equal(simulate(network, x).numpy(), expected)


def test_ranges_do_not_depend_on_the_policy(family: Family, supernet: nn.Module) -> None:
    corners = family.corners()
    fp32, int8 = (subnet_of(family, supernet, corners[f"largest/{f}"]) for f in ("fp32", "int8"))
    x = images(32, family.resolution(corners["largest/fp32"]))
    assert observe(fp32, x) == observe(int8, x)


def test_recalibration_is_the_mean_of_batch_statistics(family: Family, supernet: nn.Module) -> None:
    candidate = family.corners()["smallest/fp32"]
    batches = [images(64, family.resolution(candidate)) * scale for scale in (1.0, 2.0)]
    subnet = family.extract(supernet, candidate)
    recalibrate(subnet, batches)
    stem = subnet.layer("stem")
    means = [stem.conv(batch).mean((0, 2, 3)) for batch in batches]  # type: ignore[union-attr, operator]
    assert torch.allclose(stem.norm.running_mean, torch.stack(means).mean(0), atol=1e-5)  # type: ignore[union-attr, arg-type]


def test_network_without_quantization_is_refused(family: Family, supernet: nn.Module) -> None:
    network = network_of(family, supernet, family.corners()["smallest/int8"])
    with pytest.raises(ValueError, match="not known"):
        replace(network, tensors={})
