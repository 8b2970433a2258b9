"""The integer network of a policy against the fake-quantized forward, and against ONNX Runtime."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hw_profiles.runtimes.ort.runtime import open_exactly
from nas.emit.to_onnx import emit
from supernet.families.family import Family
from supernet.graph.executor import forward, layered, recalibrated
from supernet.graph.quantized_graph import bias_codes
from supernet.graph.simulate import simulate
from supernet.qat.deploy import deploy
from supernet.qat.learned import LearnedQuantizers
from supernet.space.space import Candidate
from supernet.tasks.evaluate import build_network, calibration_examples
from supernet.tasks.image_classification import ImageClassification

AGREEMENT = 0.995
CLOSE = 0.05  # of the norm of the logits: a code that falls on the other side of a tie moves some
Draw = Callable[..., Tensor]


def policies(digits: Family, drawn: list[Candidate]) -> list[Candidate]:
    corners = digits.extremes()
    formats = ("fp32", "int8", "int4", "int2", "int8/int6", "int4/int4")
    return [*(corners[f"smallest/{fmt}"] for fmt in formats), *drawn[:3]]


@torch.no_grad()
def test_the_integer_network_is_the_fake_quantized_one(
    digits: Family,
    supernet: nn.Module,
    quantizers: LearnedQuantizers,
    drawn: list[Candidate],
    pixels: Draw,
) -> None:
    same = []
    for candidate in policies(digits, drawn):
        work, x = digits.workload(candidate), pixels(candidate, 100, 5)
        batches = [pixels(candidate, 32, seed) for seed in (1, 2)]
        statistics = recalibrated(layered(supernet), quantizers, work, batches)
        expected = forward(layered(supernet), quantizers, work, x, statistics=statistics)
        found = simulate(deploy(layered(supernet), quantizers, work, batches), x)
        same.append((found.argmax(1) == expected.argmax(1)).double().mean().item())
        assert float((found - expected).norm() / expected.norm()) <= CLOSE
    assert np.mean(same) >= AGREEMENT


@torch.no_grad()
def test_files_have_the_codes_of_the_simulation(
    digits: Family, supernet: nn.Module, quantizers: LearnedQuantizers, pixels: Draw
) -> None:
    for fmt in ("int8", "int2", "int4/int4"):
        candidate = digits.extremes()[f"smallest/{fmt}"]
        x = pixels(candidate, 64)
        network = deploy(layered(supernet), quantizers, digits.workload(candidate), [x])
        (found,) = open_exactly(emit(network, batch=len(x))).run(None, {"image": x.numpy()})
        expected = simulate(network, x).numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@torch.no_grad()
def test_an_extracted_subnet_deploys_as_the_supernet_does(
    digits: Family,
    supernet: nn.Module,
    quantizers: LearnedQuantizers,
    drawn: list[Candidate],
    pixels: Draw,
) -> None:
    candidate = drawn[0]
    work, batches = digits.workload(candidate), [pixels(candidate, 32)]
    one = deploy(layered(supernet), quantizers, work, batches)
    other = deploy(digits.extract(supernet, candidate), quantizers, work, batches)
    assert one.tensors == other.tensors
    for name, parameters in one.parameters.items():
        np.testing.assert_array_equal(parameters.weight.codes, other.parameters[name].weight.codes)
        np.testing.assert_allclose(parameters.bias, other.parameters[name].bias, atol=1e-4)


def test_negative_factors_of_batch_norm_flip_signs_and_not_codes(
    digits: Family, supernet: nn.Module, quantizers: LearnedQuantizers, pixels: Draw
) -> None:
    candidate = digits.extremes()["smallest/int4"]
    batches = [pixels(candidate, 32)]
    network = deploy(layered(supernet), quantizers, digits.workload(candidate), batches)
    stem = network.parameters["stem"]
    weight, norm = supernet.get_parameter("stem.weight"), supernet.get_parameter("stem.norm.weight")
    codes, _ = quantizers.codes("stem", weight, "int4")
    signs = np.where(norm.detach().numpy() < 0, -1, 1).reshape(-1, 1, 1, 1)
    assert (signs < 0).any()
    np.testing.assert_array_equal(stem.weight.codes, codes.numpy() * signs)
    assert (stem.weight.channel_scales > 0).all()


@pytest.mark.parametrize("factor", [0.0, 1e-12, -1e-9])
@torch.no_grad()
def test_channels_that_batch_norm_silences_keep_their_bias(
    digits: Family, quantizers: LearnedQuantizers, pixels: Draw, factor: float
) -> None:
    """Without a larger scale 32 bits would not hold it: residual blocks begin like that."""
    net = digits.supernet(rng=np.random.default_rng(0))
    candidate = digits.extremes()["smallest/int8"]
    for name in ("stem", "head"):
        net.get_parameter(f"{name}.norm.weight").fill_(factor)
        net.get_parameter(f"{name}.norm.bias").fill_(1.7)
    work, batches = digits.workload(candidate), [pixels(candidate, 32)]
    network = deploy(layered(net), quantizers, work, batches)
    for position, name in enumerate(work.names):
        if name in ("stem", "head"):
            parameters, (before,) = network.parameters[name], network.input_params(position)
            assert before is not None
            codes, scale = bias_codes(parameters, before.scale)
            np.testing.assert_allclose(codes * scale.astype(np.float64), parameters.bias, rtol=1e-6)
    statistics = recalibrated(layered(net), quantizers, work, batches)
    x = pixels(candidate, 16, 3)
    expected = forward(layered(net), quantizers, work, x, statistics=statistics)
    assert torch.isfinite(expected).all()
    torch.testing.assert_close(simulate(network, x), expected, rtol=0, atol=1e-4)


def test_networks_are_built_with_learned_scales_where_there_are_any(
    digits: Family, supernet: nn.Module, quantizers: LearnedQuantizers, few_digits: ImageClassification
) -> None:
    calibration = calibration_examples(few_digits, seed=0)
    candidate = digits.extremes()["smallest/int4"]
    built = build_network(digits, supernet, candidate, few_digits, calibration, quantizers)
    assert built.workload == digits.workload(candidate)
    assert built.tensors["head"] == quantizers.params("head", "int8")
    observed = build_network(digits, supernet, candidate, few_digits, calibration)
    assert observed.tensors["head"] != built.tensors["head"]
    batches = [few_digits.inputs(calibration, digits.resolution(candidate))]
    same = deploy(layered(supernet), quantizers, digits.workload(candidate), batches)
    np.testing.assert_array_equal(same.parameters["head"].bias, built.parameters["head"].bias)
