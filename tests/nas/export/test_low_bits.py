"""4-bit weights run on integer kernels from packed codes; half precision is stored and computed as such."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.ort.runtime import INTEGER_OPS, expected_kernels, open_exactly, optimised_ops
from nas.emit.file_types import needed_opset
from nas.emit.to_onnx import emit, file_overhead, file_size, random_network
from supernet.families.family import Family, load_family
from supernet.formats.onnx_weights import OPSET, OPSETS
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.graph.simulate import simulate

TIES = 0.05  # of the largest logit
HALF_ERROR = 0.02  # of the largest logit: some 20 layers of 11-bit roundings


def family_of(*formats: str) -> Family:
    return load_family("digits-mbconv", in_channels=1, classes=10, formats=formats)


def networks(family: Family, n: int = 3) -> list[QuantizedGraph]:
    space, rng = family.space(), np.random.default_rng(3)
    works = [family.workload(space.candidate(row)) for row in space.sample(n, rng=rng)]
    return [random_network(work, rng=rng) for work in works]


def images(network: QuantizedGraph, n: int = 32) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((n, *network.workload.in_shape), dtype=np.float32)


@pytest.mark.parametrize("formats", [("int4",), ("int8", "int4"), ("fp32", "int4")])
def test_4_bit_weights_give_what_the_simulation_gives(formats: tuple[str, ...]) -> None:
    for network in networks(family_of(*formats)):
        x = images(network)
        (found,) = open_exactly(emit(network, batch=len(x))).run(None, {"image": x})
        expected = simulate(network, torch.from_numpy(x)).numpy()
        exact = (np.abs(found - expected).max(axis=1) < 1e-4).mean()
        assert exact >= 0.3  # random scales make ties, on which one code may round the other way
        assert np.abs(found - expected).max() <= TIES * np.abs(expected).max()


@pytest.mark.parametrize("narrow", ["int6", "int4", "int2"])
def test_weights_of_few_bits_run_on_the_kernels_of_8_bit_ones(narrow: str) -> None:
    family = family_of("int8", narrow)
    for network in networks(family):
        found, expected = optimised_ops(emit(network)), expected_kernels(network.workload)
        assert {op: found[op] for op in INTEGER_OPS} == {op: expected[op] for op in INTEGER_OPS}
        assert found["Cast"] == 0


def test_4_bit_weights_take_half_the_bytes_and_the_size_table_knows() -> None:
    family, rng = family_of("int8", "int4"), np.random.default_rng(0)
    corners = family.extremes()
    works = [family.workload(corners[f"largest/{fmt}"]) for fmt in ("int8", "int4")]
    int8, int4 = (len(emit(random_network(work, rng=rng))) for work in works)
    weights = sum(layer.out_channels * layer.kernel**2 * layer.in_shape[0] // layer.groups
                  for layer in works[0].layers if layer.weighted)  # fmt: skip
    assert int8 - int4 == pytest.approx(weights / 2, rel=0.15)
    predicted = file_overhead() + sum(map(file_size, works[1].layers))
    assert predicted == pytest.approx(int4, rel=0.03)


def test_2_bit_weights_take_a_quarter_of_the_bytes_and_a_newer_opset() -> None:
    family, rng = family_of("int8", "int2"), np.random.default_rng(0)
    corners = family.extremes()
    networks = [
        random_network(family.workload(corners[f"largest/{fmt}"]), rng=rng) for fmt in ("int8", "int2")
    ]
    int8, int2 = (emit(network) for network in networks)
    weights = sum(network.weight.codes.size for network in networks[0].parameters.values())
    assert len(int8) - len(int2) == pytest.approx(0.75 * weights, rel=0.15)
    opsets = [onnx.load_from_string(model).opset_import[0].version for model in (int8, int2)]
    assert opsets == [OPSET, OPSETS["INT2"]] == [needed_opset(network.workload) for network in networks]


def test_narrow_activations_are_clipped_to_their_codes_on_the_same_kernels() -> None:
    for network in networks(family_of("int4/int6", "int8/int4")):
        found, expected = optimised_ops(emit(network)), expected_kernels(network.workload)
        assert {op: found[op] for op in INTEGER_OPS} == {op: expected[op] for op in INTEGER_OPS}
        narrow = sum(layer.out_format in ("int6", "int4") for layer in network.workload.layers)
        assert found["Clip"] == narrow > 0


def test_half_precision_is_stored_as_such_and_close_to_its_simulation() -> None:
    for network in networks(family_of("fp32", "fp16")):
        x = images(network)
        model = emit(network, batch=len(x))
        types = {tensor.data_type for tensor in onnx.load_from_string(model).graph.initializer}
        assert TensorProto.FLOAT16 in types
        (found,) = open_exactly(model).run(None, {"image": x})
        expected = simulate(network, torch.from_numpy(x)).numpy()
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() <= HALF_ERROR * np.abs(expected).max()


def test_a_format_twice_is_refused() -> None:
    with pytest.raises(TrilobitError, match="each once; got 'int8, int8'"):
        family_of("int8", "int8")
