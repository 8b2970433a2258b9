"""What ONNX Runtime makes of weights in any combination of element, granularity and scale."""

from collections.abc import Callable, Iterator

import numpy as np
import onnx
import pytest
import torch

from hw_profiles import registry
from hw_profiles.graph.layer import INPUT, Layer, map_layer
from hw_profiles.graph.workload import Workload
from hw_profiles.runtimes.ort.runtime import open_exactly
from nas.emit.to_onnx import emit, file_size, random_network
from supernet.formats.loading import load_format
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.graph.simulate import simulate
from tests.contracts.blocked_formats import ENTRY_POINTS, WEIGHTS

NEAR = 1e-5  # of the largest output


@pytest.fixture(scope="module", autouse=True)
def plugins() -> Iterator[None]:
    """Formats that are found as those of an installed plug-in are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "plugins", {"trilobit.formats": ENTRY_POINTS}.get)
        yield


def convolution(name: str) -> Layer:
    """72 weights a channel: not a whole number of groups."""
    return map_layer("conv", (8, 6, 6), 12, kernel=3, activation="relu", weight_format=name)


def linear(name: str, features: int = 70) -> Layer:
    return map_layer("linear", (features, 1, 1), 10, weight_format=name)


def network_of(layer: Layer) -> QuantizedGraph:
    return random_network(Workload(("layer",), (layer,), ((INPUT,),)), rng=np.random.default_rng(0))


def images(layer: Layer) -> torch.Tensor:
    return torch.randn(4, *layer.in_shape, generator=torch.Generator().manual_seed(0))


def error_of_the_file(network: QuantizedGraph) -> float:
    """The largest difference of file and simulation, of the largest output."""
    x = images(network.workload.layers[0])
    (output,) = open_exactly(emit(network, batch=len(x))).run(None, {"image": x.numpy()})
    expected = simulate(network, x).numpy()
    return float(np.abs(output - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("name", WEIGHTS)
def test_the_runtime_computes_with_the_decoded_weights(name: str) -> None:
    errors = {make.__name__: error_of_the_file(network_of(make(name))) for make in (convolution, linear)}
    assert max(errors.values()) <= NEAR, errors


@pytest.mark.parametrize("features", [64, 70])
@pytest.mark.parametrize("name", ["i4g32", "u4g32", "i3g16"])
def test_groups_of_four_bits_are_one_node_of_a_linear_layer(name: str, features: int) -> None:
    """Which computes what plain numbers say, and whose weight is half a byte each, but for its scales."""
    network = network_of(linear(name, features))
    model = onnx.load_from_string(emit(network, batch=4))
    (node,) = (node for node in model.graph.node if node.domain)
    assert (node.op_type, node.domain) == ("MatMulNBits", "com.microsoft")
    assert {"DequantizeLinear", "Gemm"}.isdisjoint(node.op_type for node in model.graph.node)
    parameters, x = network.parameters["layer"], images(network.workload.layers[0])
    weight = load_format(name).weight.decode(parameters.weight)
    expected = x.flatten(1).numpy() @ weight.T + parameters.bias
    (found,) = open_exactly(model.SerializeToString()).run(None, {"image": x.numpy()})
    np.testing.assert_allclose(found, expected, atol=NEAR * np.abs(expected).max())
    assert file_size(linear(name, 4096)) < 4096 * 10 / 2 * 1.6 < file_size(linear("i8g16", 4096))


@pytest.mark.parametrize(("make", "name"), [(convolution, "i4g32"), (linear, "i4g48"), (linear, "i8g16")])
def test_other_layers_dequantize_blocks(make: Callable[[str], Layer], name: str) -> None:
    nodes = onnx.load_from_string(emit(network_of(make(name)))).graph.node
    (blocked,) = (node for node in nodes if node.op_type == "DequantizeLinear")
    assert any(attribute.name == "block_size" for attribute in blocked.attribute)
    assert not any(node.domain for node in nodes)
