"""Units that no weight enters: the simulation gives ONNX Runtime's codes, every one of them."""

import numpy as np
import pytest
import torch
from torch import Tensor

from hw_profiles.graph.builder import WorkloadBuilder
from hw_profiles.graph.formats import QuantParams
from hw_profiles.graph.layer import INPUT, Layer, map_layer
from hw_profiles.graph.workload import Workload
from hw_profiles.runtimes.ort.runtime import open_exactly
from nas.emit.to_onnx import emit
from supernet.formats.quantized_tensor import QuantizedTensor
from supernet.graph.quantized_graph import Parameters, QuantizedGraph
from supernet.graph.simulate import simulate

CODES = 256
UNIT = 127  # a weight of this code and of scale 1 / UNIT is 1


def codes(network: QuantizedGraph, image: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Those that the simulation ends in, and those of the file, whose last tensor is dequantized."""
    last = network.tensors[network.workload.names[-1]]
    (real,) = open_exactly(emit(network)).run(None, {"image": image.numpy()})
    return simulate(network, image).numpy(), np.rint(real / np.float32(last.scale)) + last.zero_point


def quantized(shape: tuple[int, int, int], *layers: Layer) -> Workload:
    """The image in int8, then `layers` one after the other."""
    net, x = WorkloadBuilder(shape), INPUT
    for i, layer in enumerate(layers):
        x = net.add(f"layer{i}", layer, x)
    return net.build()


@pytest.mark.parametrize("activation", ["none", "relu"])
@pytest.mark.parametrize("seed", [0, 1, 6, 14, 27])  # in all but the first, one pair tells the operands apart
def test_sums_of_every_two_codes(seed: int, activation: str) -> None:
    rng = np.random.default_rng(seed)
    *scales, after = rng.uniform(0.01, 0.05, 3).tolist()
    zero = int(rng.integers(64, 192))
    net = WorkloadBuilder((2, CODES, CODES))
    x = net.add("image", map_layer("quantize", (2, CODES, CODES), 2, activation_format="int8"), INPUT)
    select = map_layer("conv", (2, CODES, CODES), 1, weight_format="int8", activation_format="int8")
    operands = [net.add(f"operand{i}", select, x) for i in range(2)]
    add = map_layer("add", (1, CODES, CODES), 1, activation=activation, activation_format="int8")
    net.add("sum", add, *operands)
    # each operand is one channel of the image, its codes unchanged but its scale its own
    chosen = np.eye(2, dtype=np.int8)[:, None, :, None, None] * UNIT
    parameters = {
        f"operand{i}": Parameters(QuantizedTensor(chosen[i], np.float32([scale / UNIT])), np.float32([0]))
        for i, scale in enumerate(scales)
    }
    tensors = {
        "image": QuantParams(1.0, zero),
        **{f"operand{i}": QuantParams(scale, zero) for i, scale in enumerate(scales)},
        "sum": QuantParams(after, 0 if activation == "relu" else int(rng.integers(64, 192))),
    }
    every = torch.stack(torch.meshgrid(torch.arange(CODES), torch.arange(CODES), indexing="ij"))
    image = (every.float() - zero)[None]
    found, expected = codes(QuantizedGraph(net.build(), parameters, tensors), image)
    np.testing.assert_array_equal(found, expected)
    assert np.unique(expected).size > CODES / 8


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize(("before", "after"), [((0.02, 0), (0.02, 0)), ((0.0213, 117), (0.0171, 131))])
def test_means_of_windows(before: tuple[float, int], after: tuple[float, int], size: int) -> None:
    """Full of ties, which an odd zero point sends the other way; a window at an odd edge has fewer codes."""
    image = torch.randn(1, 32, 8 * size, 8 * size - 8 + size, generator=torch.Generator().manual_seed(0))
    _, channels, height, width = image.shape
    layer = map_layer("avgpool", (channels, height, width), channels, 2, 2, activation_format="int8")
    work = quantized(layer.in_shape, layer)
    tensors = {work.names[0]: QuantParams(*before), "layer0": QuantParams(*after)}
    found, expected = codes(QuantizedGraph(work, {}, tensors), image)
    np.testing.assert_array_equal(found, expected)
    assert found.shape == (1, channels, -(-height // 2), -(-width // 2))


@pytest.mark.parametrize("zero", [0, 117])
def test_the_largest_of_windows(zero: int) -> None:
    image = torch.randn(1, 32, 21, 30, generator=torch.Generator().manual_seed(0))
    layer = map_layer("maxpool", (32, 21, 30), 32, 3, 2, activation_format="int8")
    work, params = quantized(layer.in_shape, layer), QuantParams(0.02, zero)
    found, expected = codes(QuantizedGraph(work, {}, dict.fromkeys(work.names, params)), image)
    np.testing.assert_array_equal(found, expected)
    assert np.unique(found).size > 50
