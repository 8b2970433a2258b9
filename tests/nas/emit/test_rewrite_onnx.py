"""Policies written into prepared models compute what they say, and nothing else changes."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from hw_profiles.runtimes.info import DeviceInfo
from hw_profiles.runtimes.ort.runtime import OrtRuntime, optimised_ops
from hw_profiles.runtimes.runtime import Artifact
from nas.emit.kernels import check_kernels
from nas.emit.rewrite_onnx import rewrite
from nas.emit.unit_formats import unit_formats
from supernet.imported.import_onnx import import_onnx
from supernet.imported.model import ImportedModel
from supernet.ptq.quantization import Quantization
from tests.nas.emit.handmade import Feeds, fake_quantized, quantized, run
from tests.nas.emit.small_networks import Net, attention, conv_net, curved_net

FORMATS = ("int8", "int8-exact", "int4", "int2", "fp16")
MAP = helper.make_tensor_value_info("inside", TensorProto.FLOAT, (1, 8, 6, 6))
OF_MATRICES = ("int8-dynamic", "int8-g128", "int4-g32", "int4-g128", "int2-g128")
# of the largest value, by which roundings that fall otherwise at a tie may move a whole network's output
TOLERANCE = 0.08
FLIPPED = 0.002  # of the numbers, at most


@cache
def network(name: str) -> tuple[Quantization, Feeds]:
    rng = np.random.default_rng(1)
    if name == "conv":
        feeds: Feeds = {"image": rng.standard_normal((2, 3, 16, 16), np.float32)}
        model = import_onnx(conv_net(), shapes={"image": (2, 3, 16, 16)})
    elif name == "curved":
        feeds = {
            "image": 2 * rng.standard_normal((1, 3, 12, 10), np.float32),
            "mask": rng.standard_normal((1, 1, 12, 10), np.float32),
        }
        model = import_onnx(curved_net(), shapes={name: array.shape for name, array in feeds.items()})
    else:
        feeds = {
            "tokens": rng.standard_normal((1, 7, 32), np.float32),
            "positions": rng.standard_normal((1, 7, 32), np.float32),
        }
        model = import_onnx(attention(), shapes={name: array.shape for name, array in feeds.items()})
    return quantized(model, feeds, (*FORMATS[:-1], *OF_MATRICES)), feeds


def _choosable(model: ImportedModel) -> list[str]:
    return [unit.name for unit in model.units if unit.weighted]


@st.composite
def policies(draw: st.DrawFn, name: str) -> dict[str, str]:
    formats = unit_formats(network(name)[0].model, OrtRuntime())
    choices = {unit: draw(st.sampled_from(each.allowed)) for unit, each in formats.items()}
    return {unit: choice for unit, choice in choices.items() if choice != "fp32"}


def _check(name: str, policy: Mapping[str, str]) -> bytes:
    quantization, feeds = network(name)
    content, runtime = rewrite(quantization, policy), OrtRuntime()
    assert not check_kernels(runtime.compile(Artifact(content)), runtime, quantization, policy)
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    outputs, expected = run(content, feeds), fake_quantized(quantization, policy, feeds)
    for key, array in expected.items():
        off = np.abs(outputs[key] - array) > TOLERANCE * np.abs(array).max()
        assert off.mean() <= FLIPPED  # a code next to a tie, which coarse weights make a whole step of
    return content


@settings(max_examples=8, deadline=None)
@given(policies("conv"))
def test_any_policy_of_a_convolutional_network_computes_what_it_says(policy: dict[str, str]) -> None:
    _check("conv", policy)


@settings(max_examples=8, deadline=None)
@given(policies("curved"))
def test_any_policy_of_a_network_with_curves_computes_what_it_says(policy: dict[str, str]) -> None:
    _check("curved", policy)


@settings(max_examples=8, deadline=None)
@given(policies("attention"))
def test_any_policy_of_a_transformer_computes_what_it_says(policy: dict[str, str]) -> None:
    _check("attention", policy)


def test_an_fp32_policy_is_the_model() -> None:
    for name in ("conv", "attention"):
        quantization, feeds = network(name)
        outputs, expected = run(rewrite(quantization, {}), feeds), run(quantization.model.content, feeds)
        assert all(np.array_equal(outputs[key], expected[key]) for key in expected)


def test_all_int8_leaves_no_convolution_in_real_numbers_and_converts_at_the_ends_only() -> None:
    quantization, _ = network("conv")
    kernels = optimised_ops(_check("conv", dict.fromkeys(_choosable(quantization.model), "int8")))
    assert kernels["Conv"] == kernels["Gemm"] == 0
    assert (kernels["QLinearConv"], kernels["QGemm"]) == (7, 1)
    # of the image, and of what is pooled in windows: that is faster in real numbers
    assert (kernels["QuantizeLinear"], kernels["QLinearAveragePool"]) == (2, 0)


def test_inputs_and_outputs_stay_as_they_were() -> None:
    quantization, _ = network("conv")
    before = onnx.load_from_string(quantization.model.content)
    after = onnx.load_from_string(
        rewrite(quantization, dict.fromkeys(_choosable(quantization.model), "int8"), metadata={"a": "b"})
    )
    assert list(after.graph.input) == list(before.graph.input)
    assert list(after.graph.output) == list(before.graph.output)
    assert {prop.key: prop.value for prop in after.metadata_props}["a"] == "b"


def test_formats_of_units_are_found_by_trying() -> None:
    model = network("conv")[0].model
    formats = unit_formats(model, OrtRuntime())
    for unit in model.units:
        found = formats[unit.name]
        if unit.op == "Conv":
            assert found.allowed == ("fp32", "fp16", "int8", "int4", "int2")
            assert set(found.refused) == set(OF_MATRICES)
        elif unit.op == "Gemm":
            assert set(OF_MATRICES) < set(found.allowed)
        else:
            assert found.follows == (unit.op not in ("AveragePool", "Softmax"))
            assert found.allowed == ("fp32",)


def test_an_fp32_product_between_codes_stays_one() -> None:
    """ONNX Runtime would round its weights to 8 bits; check_kernels sees it where it happens."""
    quantization, _ = network("conv")
    units = [unit.name for unit in quantization.model.units if unit.op == "Conv"]
    for between in units[1:-1]:
        policy = {unit: "int8" for unit in units if unit != between}
        assert optimised_ops(_check("conv", policy))["Conv"] == 1


def test_pairs_for_size_only_are_tried_where_they_are_asked_for() -> None:
    quantization, feeds = network("conv")
    model = quantization.model
    pair = "int8/fp32"
    units = [unit.name for unit in model.units if unit.op == "Conv"]
    formats = unit_formats(model, OrtRuntime(), more=[pair])
    assert all(pair in formats[unit].allowed for unit in units)
    policy = dict.fromkeys(units, pair)
    content = rewrite(quantized(model, feeds, [pair]), policy)
    assert len(content) < len(model.content)
    assert optimised_ops(content) == optimised_ops(model.content)


def test_a_hard_swish_of_a_narrow_range_keeps_its_steps() -> None:
    """Codes that had to reach down to -3 would leave a handful for what is read."""
    for size, kernel in ((0.02, "HardSigmoid"), (2.0, "QLinearMul")):
        net = Net()
        net.conv(net.op("HardSwish", net.conv("image", 3, 8)), 8, 8)
        net.nodes[-1].output[0] = "result"
        model = import_onnx(net.finish({"image": (1, 3, 8, 8)}, {"result": (1, 8, 8, 8)}))
        image = size * np.random.default_rng(0).standard_normal((1, 3, 8, 8), np.float32)
        quantization = quantized(model, {"image": image}, ("int8",))
        content = rewrite(quantization, dict.fromkeys(_choosable(model), "int8"))
        assert optimised_ops(content)[kernel] == 1
        expected = run(model.content, {"image": image})["result"]
        error = run(content, {"image": image})["result"] - expected
        assert np.abs(error).max() <= TOLERANCE * np.abs(expected).max()


class Saturating(OrtRuntime):
    """ONNX Runtime on a processor whose integer sums saturate."""

    def describe(self) -> DeviceInfo:
        return replace(super().describe(), integer_sums="saturating")


def test_weights_of_all_eight_bits_are_offered_where_sums_saturate() -> None:
    model = network("conv")[0].model
    convolution = next(unit.name for unit in model.units if unit.op == "Conv")
    assert "int8-exact" in unit_formats(model, Saturating())[convolution].allowed
    assert "int8-exact" not in unit_formats(model, OrtRuntime())[convolution].allowed


def test_a_tensor_is_read_by_graphs_inside_and_twice_by_a_sum() -> None:
    net = Net()
    x = net.conv("image", 3, 8)
    y = net.op("Relu", net.conv(net.op("Add", x, x), 8, 8))
    branches = [
        helper.make_graph([helper.make_node(op, [y], ["inside"])], op, [], [value])
        for op, value in (("Neg", MAP), ("Abs", MAP))
    ]
    net.nodes.append(
        helper.make_node("If", ["which"], ["result"], "/if", then_branch=branches[0], else_branch=branches[1])
    )
    proto = onnx.load_from_string(net.finish({"image": (1, 3, 6, 6)}, {"result": (1, 8, 6, 6)}))
    proto.graph.input.append(helper.make_tensor_value_info("which", TensorProto.BOOL, ()))
    feeds: Feeds = {"image": np.ones((1, 3, 6, 6), np.float32), "which": np.array(True)}
    quantization = quantized(import_onnx(proto.SerializeToString()), feeds, ("int8",))
    policy = dict.fromkeys(_choosable(quantization.model), "int8")
    content = rewrite(quantization, policy)
    assert optimised_ops(content)["QLinearConv"] == 2
    expected = fake_quantized(quantization, policy, feeds)["result"]
    np.testing.assert_allclose(run(content, feeds)["result"], expected, atol=0.05)
