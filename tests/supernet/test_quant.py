"""The integer simulation against ONNX Runtime, numpy and the fp32 network."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from hw_profiles.graph.formats import QuantParams
from hw_profiles.graph.layer import INPUT, Layer, map_layer
from hw_profiles.graph.workload import Workload
from hw_profiles.runtimes.ort.runtime import open_exactly
from nas.emit.to_onnx import emit, random_network
from supernet.families.family import Family, load_family
from supernet.formats.quantized_tensor import QuantizedTensor
from supernet.graph import simulate as simulation
from supernet.graph.quantized_graph import Parameters, QuantizedGraph, bias_codes
from supernet.graph.simulate import EXACT_SUM, simulate
from supernet.graph.subnet import Subnet, recalibrate
from supernet.ptq.calibrate import observe, quantize
from supernet.space.space import Candidate, in_fp32

FP32_ROUNDING = 1e-5  # folding batch norm and another order of sums, over some thirty layers
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


def network_of(family: Family, supernet: nn.Module, candidate: Candidate) -> QuantizedGraph:
    subnet = subnet_of(family, supernet, candidate)
    return quantize(
        subnet, family.workload(candidate), observe(subnet, images(128, family.resolution(candidate)))
    )


def file_logits(network: QuantizedGraph, x: torch.Tensor) -> np.ndarray:
    session = open_exactly(emit(network))
    return np.concatenate([session.run(None, {"image": image[None].numpy()})[0] for image in x])


def mixed_candidates(family: Family, n: int) -> list[Candidate]:
    space = family.space()
    return [space.candidate(row) for row in space.sample(n, rng=np.random.default_rng(5))]


def test_fp32_simulation_is_the_subnet(family: Family, supernet: nn.Module) -> None:
    space = family.space()
    drawn = in_fp32(space, space.sample(6, rng=np.random.default_rng(3)))
    for candidate in (family.extremes()["largest/fp32"], *map(space.candidate, space.canonical(drawn))):
        x = images(8, family.resolution(candidate))
        with torch.no_grad():
            expected = subnet_of(family, supernet, candidate)(x)
        found = simulate(network_of(family, supernet, candidate), x)
        assert float((found - expected).abs().max()) <= FP32_ROUNDING * float(expected.abs().max())


@pytest.mark.parametrize("corner", ["smallest/int8", "largest/int8"])
def test_integer_simulation_has_the_codes_of_the_file(
    family: Family, supernet: nn.Module, corner: str
) -> None:
    network = network_of(family, supernet, family.extremes()[corner])
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
    corners = family.extremes()
    exact, rounded = (network_of(family, supernet, corners[f"largest/{f}"]) for f in ("fp32", "int8"))
    x = images(64, exact.workload.in_shape[1])
    expected, found = simulate(exact, x), simulate(rounded, x)
    assert 0 < float((found - expected).norm() / expected.norm()) < 0.2


def one_layer(layer: Layer, *, seed: int = 0) -> QuantizedGraph:
    """Quantize the image, then `layer`, with random numbers."""
    image = map_layer("quantize", layer.in_shape, layer.in_shape[0], activation_format="int8")
    work = Workload(("q", "layer"), (image, layer), ((INPUT,), (0,)))
    return random_network(work, rng=np.random.default_rng(seed))


def accumulated(layer: Layer, codes: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(n, out, h, w) exact sums of products, tap by tap; int64 `codes` (n, in, h, w) are 0 at zero."""
    _, height, width = layer.out_shape
    edge, stride = layer.kernel // 2, layer.stride
    padded = np.pad(codes, ((0, 0), (0, 0), (edge, edge), (edge, edge)))
    total = np.zeros((len(codes), layer.out_channels, height, width), np.int64)
    for row, column in np.ndindex(layer.kernel, layer.kernel):
        seen = padded[:, :, row::stride, column::stride][:, :, :height, :width]
        tap = weight[:, :, row, column].astype(np.int64)
        total += seen * tap[:, 0, None, None] if layer.depthwise else np.einsum("nchw,oc->nohw", seen, tap)
    return total


@pytest.mark.parametrize(
    "layer",
    [
        map_layer("conv", (8, 6, 6), 12, 1, 1, 1, "relu", "int8", "int8"),
        map_layer("conv", (8, 7, 5), 8, 3, 1, 8, "relu", "int8", "int8"),
        map_layer("conv", (8, 7, 5), 8, 5, 2, 8, "none", "int8", "int8"),
        map_layer("conv", (8, 3, 3), 8, 7, 2, 8, "relu", "int8", "int8"),  # a kernel beyond the map
        map_layer("stem", (3, 9, 9), 8, 3, 2, 1, "relu", "int8", "int8"),
        map_layer("conv", (800, 2, 2), 4, 1, 1, 1, "none", "int8", "int8"),
    ],
    ids=Layer.key,
)
def test_one_integer_convolution_equals_numpy(layer: Layer) -> None:
    network = one_layer(layer)
    x = torch.randn(3, *layer.in_shape, generator=torch.Generator().manual_seed(0))
    before, after, weights = network.tensors["q"], network.tensors["layer"], network.parameters["layer"]
    scaled = np.rint(x.numpy() / np.float32(before.scale)) + before.zero_point
    codes = np.clip(scaled, 0, 255).astype(np.int64) - before.zero_point
    bias, scale = bias_codes(weights, before.scale)
    total = accumulated(layer, codes, weights.weight.codes) + bias[:, None, None]
    factor = (scale / np.float32(after.scale))[:, None, None]
    expected = np.clip(np.rint(total.astype(np.float32) * factor) + after.zero_point, 0, 255)
    found = simulate(network, x).numpy()
    assert len(np.unique(found)) > 20  # neither all clipped nor all zero
    np.testing.assert_array_equal(found, expected)


def test_sums_beyond_what_float32_holds_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the products go up to 10^10, the other half comes back: float32 would lose what is left."""
    channels = 2**19
    layer = map_layer("linear", (channels, 1, 1), 2, weight_format="int8", activation_format="int8")
    network, rng = one_layer(layer), np.random.default_rng(0)
    weight = np.repeat([127, -127], channels // 2).astype(np.int8)[None] * np.ones((2, 1), np.int8)
    weight[:, rng.integers(0, channels, 999)] = 1
    parameters = Parameters(QuantizedTensor(weight, np.ones(2, np.float32)), np.zeros(2, np.float32))
    image = QuantParams(1.0, 0)
    network = replace(network, parameters={"layer": parameters}, tensors={**network.tensors, "q": image})
    codes = rng.integers(200, 256, channels)
    x = torch.from_numpy(codes.astype(np.float32)).view(1, channels, 1, 1)
    expected = (weight.astype(np.int64) @ codes).astype(np.float32)
    np.testing.assert_array_equal(simulate(network, x).numpy()[0], expected)
    monkeypatch.setattr(simulation, "EXACT_SUM", 127 * channels)
    assert (simulate(network, x).numpy()[0] != expected).any()


def test_the_largest_sum_that_float32_is_left_with_is_exact() -> None:
    assert 255 * EXACT_SUM < 2**24 <= 255 * (EXACT_SUM + 1)
    whole, rest = divmod(EXACT_SUM, 127)
    values = np.array([127] * whole + [rest], np.int8)
    layer = map_layer("linear", (len(values), 1, 1), 1, weight_format="int8", activation_format="int8")
    network = one_layer(layer)
    parameters = Parameters(QuantizedTensor(values[None], np.ones(1, np.float32)), np.zeros(1, np.float32))
    tensors = {**network.tensors, "q": QuantParams(1.0, 0)}
    x = torch.full((1, len(values), 1, 1), 255.0)
    found = simulate(replace(network, parameters={"layer": parameters}, tensors=tensors), x)
    assert int(found) == 255 * EXACT_SUM


def test_bias_codes_are_the_bias_at_the_accumulator_s_scale() -> None:
    rng = np.random.default_rng(0)
    scale, bias = rng.uniform(1e-4, 1e-2, 50).astype(np.float32), rng.normal(size=50).astype(np.float32)
    parameters = Parameters(QuantizedTensor(np.zeros((50, 1), np.int8), scale), bias)
    codes, code_scale = bias_codes(parameters, 0.02)
    assert codes.dtype == np.int32
    np.testing.assert_allclose(code_scale, 0.02 * scale, rtol=1e-6)
    assert (np.abs(codes * code_scale.astype(np.float64) - bias) <= code_scale / 2).all()


def test_a_bias_that_no_code_reaches_takes_the_nearest() -> None:
    parameters = Parameters(
        QuantizedTensor(np.zeros((2, 1), np.int8), np.full(2, 1e-8, np.float32)),
        np.array([1e5, -1e5], np.float32),
    )
    assert bias_codes(parameters, 1e-3)[0].tolist() == [2**31 - 1, -(2**31)]


def test_weights_and_ranges_do_not_depend_on_the_rest_of_the_policy(
    family: Family, supernet: nn.Module
) -> None:
    """What two policies of one architecture have in common is equal in both networks."""
    space, whole = family.space(), family.extremes()["largest/int8"]
    mixed = space.encode({**space.decode(whole), "s1.b0.depthwise.format": "fp32", "head.format": "fp32"})
    one, other = network_of(family, supernet, whole), network_of(family, supernet, mixed)
    shared = set(one.tensors) & set(other.tensors)
    assert {name: one.tensors[name] for name in shared} == {name: other.tensors[name] for name in shared}
    assert set(one.tensors) - shared == {"s1.b0.depthwise", "head", "pool"}
    for name, parameters in one.parameters.items():
        same_format = other.parameters[name].weight.codes.dtype == parameters.weight.codes.dtype
        assert same_format == (name not in ("s1.b0.depthwise", "head"))
        if same_format:
            np.testing.assert_array_equal(other.parameters[name].weight.codes, parameters.weight.codes)


def test_observed_ranges_are_those_of_every_tensor(family: Family, supernet: nn.Module) -> None:
    subnet = subnet_of(family, supernet, family.extremes()["smallest/fp32"])
    x = images(16, subnet.workload.in_shape[1])
    ranges = observe(subnet, x)
    assert ranges.image == (float(x.min()), float(x.max()))
    with torch.no_grad():
        logits = subnet(x)
    assert ranges.layers["classifier"] == (float(logits.min()), float(logits.max()))
    for name, layer in zip(subnet.workload.names, subnet.workload.layers, strict=True):
        assert layer.nonlinearity != "relu" or ranges.layers[name][0] == 0
    assert list(ranges.layers) == list(subnet.workload.names)


def test_recalibration_is_the_mean_of_batch_statistics(family: Family, supernet: nn.Module) -> None:
    candidate = family.extremes()["smallest/fp32"]
    batches = [images(64, family.resolution(candidate)) * scale for scale in (1.0, 2.0)]
    subnet = family.extract(supernet, candidate)
    seen: dict[nn.Module, list[torch.Tensor]] = {}
    norms = [module for module in subnet.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.register_forward_pre_hook(lambda module, x: seen.setdefault(module, []).append(x[0]))
    recalibrate(subnet, batches)
    assert not subnet.training
    for norm in norms:
        means = torch.stack([x.mean((0, 2, 3)) for x in seen[norm]])
        variances = torch.stack([x.var((0, 2, 3)) for x in seen[norm]])  # unbiased
        assert len(means) == 2
        torch.testing.assert_close(norm.running_mean, means.mean(0))
        torch.testing.assert_close(norm.running_var, variances.mean(0))


def test_recalibrating_again_forgets_what_was_before(family: Family, supernet: nn.Module) -> None:
    candidate = family.extremes()["smallest/fp32"]
    first, second = images(32, family.resolution(candidate)), 2 * images(48, family.resolution(candidate))
    once, twice = family.extract(supernet, candidate), family.extract(supernet, candidate)
    recalibrate(twice, [first])
    for subnet in (once, twice):
        recalibrate(subnet, [second])
    for name, tensor in once.state_dict().items():
        assert torch.equal(tensor, twice.state_dict()[name]), name


def test_network_without_quantization_is_refused(family: Family, supernet: nn.Module) -> None:
    network = network_of(family, supernet, family.extremes()["smallest/int8"])
    with pytest.raises(ValueError, match="not known"):
        replace(network, tensors={})
