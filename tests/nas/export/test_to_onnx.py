"""The emitted file: valid, described, as large as predicted, and run on the kernels the policy asks for."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from hw_profiles.graph.builder import WorkloadBuilder
from hw_profiles.graph.layer import INPUT, map_layer
from hw_profiles.runtimes.ort.runtime import INTEGER_OPS, expected_kernels, open_exactly, optimised_ops
from nas.emit.to_onnx import OPSET, emit, file_overhead, file_size, random_network
from supernet.families.family import Family, load_family
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.graph.simulate import simulate

SIZE_ERROR = 0.03  # layer names differ in length
FLOAT_STEP = {"fp32": 1e-4, "fp16": 1e-3}  # of logits around 1
CODE_STEPS = 2  # a reference evaluator that rounds a tie the other way is one step off, and sums two tensors


def random_networks(family: Family, n: int) -> list[QuantizedGraph]:
    space, rng = family.space(), np.random.default_rng(3)
    return [
        random_network(family.workload(space.candidate(row)), rng=rng) for row in space.sample(n, rng=rng)
    ]


def test_file_is_valid_and_described(family: Family) -> None:
    (network,) = random_networks(family, 1)
    model = onnx.load_from_string(emit(network, metadata={"classes": "a\nb"}))
    onnx.checker.check_model(model, full_check=True)
    assert {prop.key: prop.value for prop in model.metadata_props} == {"classes": "a\nb"}
    assert [entry.version for entry in model.opset_import] == [OPSET]
    (image,), (logits,) = model.graph.input, model.graph.output
    assert image.name == "image"
    assert [d.dim_value for d in image.type.tensor_type.shape.dim] == [1, *network.workload.in_shape]
    assert [d.dim_value for d in logits.type.tensor_type.shape.dim] == [1, family.classes]


def test_the_same_network_gives_the_same_bytes(family: Family) -> None:
    (first, other), (again, _) = random_networks(family, 2), random_networks(family, 2)
    assert emit(first) == emit(again) != emit(other)


def test_a_batch_is_its_images_one_by_one(family: Family) -> None:
    network = random_network(
        family.workload(family.extremes()["smallest/int8"]), rng=np.random.default_rng(0)
    )
    x = np.random.default_rng(1).standard_normal((3, *network.workload.in_shape), dtype=np.float32)
    (whole,) = open_exactly(emit(network, batch=3)).run(None, {"image": x})
    single = open_exactly(emit(network))
    np.testing.assert_array_equal(whole, [single.run(None, {"image": one[None]})[0][0] for one in x])


def test_a_network_that_ends_in_codes_gives_real_values(family: Family) -> None:
    layer = map_layer("pool", (4, 3, 3), 4, activation_format="int8")
    net = WorkloadBuilder(layer.in_shape)
    net.add("pool", layer, INPUT)
    network = random_network(net.build(), rng=np.random.default_rng(0))
    x = np.random.default_rng(1).uniform(-1, 1, (1, *layer.in_shape)).astype(np.float32)
    (found,) = open_exactly(emit(network)).run(None, {"image": x})
    step = network.tensors["pool"].scale
    assert found.dtype == np.float32
    assert found.shape == (1, 4, 1, 1)
    assert np.abs(found[..., 0, 0] - x.mean((2, 3))).max() <= step  # half a step on the way in, half out


def test_size_is_the_sum_of_its_layers(family: Family) -> None:
    for network in random_networks(family, 10):
        predicted = file_overhead() + sum(map(file_size, network.workload.layers))
        assert abs(predicted / len(emit(network)) - 1) < SIZE_ERROR


@pytest.mark.parametrize(("fmt", "largest"), [("int8", 0.30), ("int4", 0.20)])
def test_files_of_codes_are_as_small_as_promised(fmt: str, largest: float) -> None:
    """Beside the codes there is little: scales, biases, and names."""
    family = load_family("cifar-mbconv", in_channels=3, classes=10, formats=("fp32", fmt))
    space, rng = family.space(), np.random.default_rng(0)
    formats = [column for column, choice in enumerate(space.choices) if choice.kind == "precision"]
    for genome in space.sample(5, rng=rng):
        bytes_of = []
        for gene in (0, 1):
            genome[formats] = gene
            work = family.workload(space.candidate(space.canonical(genome[None])[0]))
            bytes_of.append(len(emit(random_network(work, rng=rng))))
        assert bytes_of[1] <= largest * bytes_of[0]


def test_parameters_of_a_tensor_are_stored_once(family: Family) -> None:
    (network,) = random_networks(family, 1)
    model = onnx.load_from_string(emit(network))
    names = [tensor.name for tensor in model.graph.initializer]
    assert len(names) == len(set(names))
    scales = [tensor.float_data or tensor.raw_data for tensor in model.graph.initializer if tensor.dims == []]
    assert len(scales) == len({bytes(one) for one in scales})


def test_kernels_are_those_of_the_policy(family: Family) -> None:
    for network in random_networks(family, 12):
        found, expected = optimised_ops(emit(network)), expected_kernels(network.workload)
        assert {op: found[op] for op in expected} == dict(expected)


def test_uniform_int8_leaves_no_float_convolution(family: Family) -> None:
    work = family.workload(family.extremes()["largest/int8"])
    found = optimised_ops(emit(random_network(work, rng=np.random.default_rng(0))))
    assert found["Conv"] == 0
    assert sum(found[op] for op in INTEGER_OPS) == sum(
        layer.kind not in ("quantize",) for layer in work.layers
    )


@pytest.mark.parametrize("groups", [1, 16])
def test_an_fp32_convolution_between_integers_stays_one_with_no_option(groups: int, tmp_path: Path) -> None:
    """ONNX Runtime's WeightBiasQuantization is on by default, and would round its weights to 8 bits."""
    net = WorkloadBuilder((16, 8, 8))
    x = INPUT
    for i, fmt in enumerate(("int8", "fp32", "int8")):
        shape = (16, 8, 8)
        layer = map_layer("conv", shape, 16, 3, 1, groups, "relu", weight_format=fmt, activation_format=fmt)
        x = net.add(f"conv{i}", layer, x)
    network = random_network(net.build(), rng=np.random.default_rng(0))
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    model = emit(network)
    onnxruntime.InferenceSession(model, options)
    kernels = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert kernels["Conv"] + kernels["FusedConv"] == expected_kernels(network.workload)["Conv"] == 1
    assert kernels["QLinearConv"] == 2
    image = np.random.default_rng(1).standard_normal((1, 16, 8, 8), dtype=np.float32)
    last = network.tensors["conv2"]
    expected = (simulate(network, torch.from_numpy(image)).numpy() - last.zero_point) * last.scale
    (found,) = open_exactly(model).run(None, {"image": image})
    assert np.abs(found - expected).max() <= 1e-6


@pytest.mark.parametrize("fmt", ["fp32", "fp16", "int8", "int6", "int4", "int2", "int8/int6", "int4/int4"])
def test_reference_evaluator_agrees(fmt: str) -> None:
    """What a file says by ONNX's own definition of each operator is what ONNX Runtime makes of it."""
    family = load_family("digits-mbconv", in_channels=1, classes=10, formats=(fmt,))
    network = random_network(
        family.workload(family.extremes()[f"smallest/{fmt}"]), rng=np.random.default_rng(0)
    )
    model = emit(network)
    x = np.random.default_rng(1).standard_normal((1, *network.workload.in_shape), dtype=np.float32)
    (expected,) = ReferenceEvaluator(onnx.load_from_string(model)).run(None, {"image": x})
    (found,) = open_exactly(model).run(None, {"image": x})
    step = max((params.scale for params in network.tensors.values()), default=FLOAT_STEP.get(fmt, 0))
    assert np.abs(found - expected).max() <= CODE_STEPS * step
    assert np.ptp(expected) > 10 * FLOAT_STEP["fp32"]
