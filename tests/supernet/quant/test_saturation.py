"""Kernels that add pairs of products in 16 bits: simulated, against plain numpy, and against ONNX Runtime
where this processor saturates.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.graph.builder import WorkloadBuilder
from hw_profiles.graph.layer import INPUT, Layer, map_layer
from hw_profiles.graph.workload import Workload
from hw_profiles.reference.integer_sums import WIDEST_EXACT, IntegerSums
from hw_profiles.runtimes.onnx_file import needs_exact_sums
from hw_profiles.runtimes.ort.runtime import CPU, integer_sums, open_exactly, open_session
from nas.emit.to_onnx import emit, random_network
from supernet.formats.quantized_tensor import QuantizedTensor
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.graph.saturation import saturation_error
from supernet.graph.simulate import simulate

SATURATES = integer_sums(CPU) == "saturating"
HERE = IntegerSums(integer_sums(CPU))


def conv(channels: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1, size: int = 7) -> Layer:
    formats = {"weight_format": "int8", "activation_format": "int8"}
    return map_layer("conv", (channels, size, size), out, kernel, stride, groups, "relu", **formats)


LAYERS = {
    "pointwise": conv(16, 32),
    "pointwise, odd": conv(9, 5),
    "pointwise, many": conv(640, 16, size=3),
    "dense": conv(16, 16, 3),
    "dense, stride 2": conv(12, 24, 3, 2),
    "image": conv(3, 16, 3, 2),
    "grey image": conv(1, 8, 3, 2),
    "depthwise": conv(16, 16, 3, 1, 16),
    "depthwise 5": conv(24, 24, 5, 2, 24),
    "linear": map_layer("linear", (64, 1, 1), 10, weight_format="int8", activation_format="int8"),
}


def network_of(layer: Layer) -> QuantizedGraph:
    """The layer behind a conversion of its input, with weights of the whole range and codes of all sizes."""
    net = WorkloadBuilder(layer.in_shape)
    net.add("it", layer, INPUT)
    network = random_network(net.build(), rng=np.random.default_rng(0))
    rng = np.random.default_rng(1)
    known = network.parameters["it"]
    codes = rng.choice([-127, -90, 90, 127], known.weight.codes.shape).astype(np.int8)
    weight = QuantizedTensor(codes, known.weight.channel_scales * np.float32(0.25))
    parameters = replace(known, weight=weight)
    return replace(network, parameters={"it": parameters})


def images_of(work: Workload, n: int) -> np.ndarray:
    return np.random.default_rng(2).uniform(-1.5, 3.0, (n, *work.in_shape)).astype(np.float32)


def in_plain_numpy(layer: Layer, x: np.ndarray, weight: np.ndarray, zero_point: int) -> np.ndarray:
    """(n, out, h, w) accumulators, product by product: what vpmaddubsw and vpmaddwd do."""
    edge, kernel = layer.kernel // 2, layer.kernel
    padded = np.pad(x, ((0, 0), (0, 0), (edge, edge), (edge, edge)), constant_values=zero_point)
    size = (padded.shape[2] - kernel) // layer.stride + 1
    accumulators = np.zeros((len(x), len(weight), size, size), np.int64)
    for image, out, row, column in np.ndindex(accumulators.shape):
        top, left = row * layer.stride, column * layer.stride
        patch = padded[image, :, top : top + kernel, left : left + kernel].transpose(1, 2, 0).ravel()
        products = patch.astype(np.int64) * weight[out].transpose(1, 2, 0).ravel()
        products = np.append(products, [0] * (len(products) % 2)).reshape(-1, 2)
        accumulators[image, out, row, column] = np.clip(products.sum(axis=1), -(2**15), 2**15 - 1).sum()
    return accumulators - zero_point * weight.astype(np.int64).sum(axis=(1, 2, 3))[:, None, None]


@given(
    channels=st.integers(1, 7),
    kernel=st.sampled_from([1, 3]),
    stride=st.integers(1, 2),
    zero_point=st.integers(0, 255),
    seed=st.integers(0, 2**16),
)
def test_a_sum_is_that_of_pairs_in_16_bits(
    channels: int, kernel: int, stride: int, zero_point: int, seed: int
) -> None:
    rng, layer = np.random.default_rng(seed), conv(channels, 3, kernel, stride, size=3)
    x = rng.choice([0, 120, 255], (2, *layer.in_shape))
    weight = rng.choice([-127, -64, 3, 64, 127], (3, channels, kernel, kernel))
    shifted, real = torch.from_numpy(x - zero_point).double(), torch.from_numpy(weight).double()
    exact = torch.nn.functional.conv2d(shifted, real, stride=stride, padding=kernel // 2)
    error = saturation_error(layer, torch.from_numpy(x), torch.from_numpy(weight), zero_point)
    np.testing.assert_array_equal((exact + error).numpy(), in_plain_numpy(layer, x, weight, zero_point))


@pytest.mark.parametrize("name", LAYERS)
def test_the_file_gives_what_this_processor_is_simulated_to_give(name: str) -> None:
    network = network_of(LAYERS[name])
    images = images_of(network.workload, 4)
    (found,) = open_session(emit(network, batch=4)).run(None, {"image": images})
    expected = simulate(network, torch.from_numpy(images), HERE).numpy()
    if (last := network.tensors.get("it")) is not None:
        found = np.rint(found / np.float32(last.scale)) + last.zero_point
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_saturation_changes_all_but_depthwise_kernels(name: str) -> None:
    network = network_of(LAYERS[name])
    images = torch.from_numpy(images_of(network.workload, 4))
    exact, saturated = (
        simulate(network, images, sums) for sums in (IntegerSums.EXACT, IntegerSums.SATURATING)
    )
    assert torch.equal(exact, saturated) == LAYERS[name].depthwise


@pytest.mark.parametrize("name", LAYERS)
def test_reduced_and_unsigned_weights_are_the_same_everywhere(name: str) -> None:
    network = network_of(LAYERS[name])
    known = network.parameters["it"]
    reduced = replace(known, weight=replace(known.weight, codes=known.weight.codes // 2))
    assert np.abs(reduced.weight.codes).max() <= WIDEST_EXACT
    exactly = replace(LAYERS[name], weight_format="int8-exact")
    layers = (*network.workload.layers[:-1], exactly)
    unsigned = replace(network, workload=replace(network.workload, layers=layers))
    for same in (replace(network, parameters={"it": reduced}), unsigned):
        images = images_of(network.workload, 4)
        model = emit(same, batch=4)
        assert not needs_exact_sums(model)
        (found,) = open_session(model).run(None, {"image": images})
        exact, saturated = (
            simulate(same, torch.from_numpy(images), sums).numpy()
            for sums in (IntegerSums.EXACT, IntegerSums.SATURATING)
        )
        if (last := network.tensors.get("it")) is not None:
            found = np.rint(found / np.float32(last.scale)) + last.zero_point
        np.testing.assert_array_equal(exact, saturated)
        np.testing.assert_allclose(found, exact, rtol=1e-6)


def test_with_the_session_option_a_file_of_the_whole_range_is_exact_everywhere() -> None:
    network = network_of(LAYERS["pointwise"])
    images = images_of(network.workload, 4)
    model, last = emit(network, batch=4), network.tensors["it"]
    assert needs_exact_sums(model)
    (found,) = open_exactly(model).run(None, {"image": images})
    codes = np.rint(found / np.float32(last.scale)) + last.zero_point
    np.testing.assert_array_equal(codes, simulate(network, torch.from_numpy(images)).numpy())
