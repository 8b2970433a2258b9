"""LiteRT as a runtime: its files compute what ONNX files of the same network do."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.builder import WorkloadBuilder, convert
from hw_profiles.graph.layer import INPUT, Layer, changed, map_layer
from hw_profiles.graph.workload import Workload, single
from hw_profiles.runtimes.litert.emitter import refusal
from hw_profiles.runtimes.runtime import single_output
from nas.checks.parity import open_file
from nas.emit.to_onnx import emit, random_network
from nas.export.library.to_tvm import unit_numbers
from supernet.families.family import load_family

MEANS_OFF = 0.08  # of the largest logit: codes of means are rounded otherwise


def executable_of(*arguments: Any) -> Any:
    pytest.importorskip("ai_edge_litert")
    from hw_profiles.runtimes.litert.options import LitertOptions
    from hw_profiles.runtimes.litert.runtime import LitertExecutable, to_tflite

    return LitertExecutable(to_tflite(*arguments), LitertOptions())


def answers(work: Workload) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What LiteRT and what ONNX Runtime say of the same noise, channels first."""
    network = random_network(work, rng=np.random.default_rng(0))
    executable = executable_of(network.workload, unit_numbers(network))
    noise = np.random.default_rng(1).standard_normal((4, *work.in_shape)).astype(np.float32)
    ours = [executable.run({"image": image.transpose(1, 2, 0)[None]})["output"] for image in noise]
    theirs = single_output(open_file(emit(network)), noise)
    whole = np.concatenate(ours)
    return (whole.transpose(0, 3, 1, 2) if whole.ndim == 4 else whole).reshape(theirs.shape), theirs


def alone(layer: Layer) -> Workload:
    """A layer between an image and real numbers."""
    net = WorkloadBuilder(layer.in_shape)
    tensor = net.add("layer", layer, *[INPUT] * len(layer.inputs))
    for conversion in convert(net.type(tensor), "fp32"):
        net.add("real", conversion, tensor)
    return net.build()


@pytest.mark.parametrize(
    "fields",
    [
        ("stem", (3, 12, 12), 16, 3, 2, 1, "relu"),
        ("conv", (16, 8, 8), 32, 1, 1, 1, "none"),
        ("conv", (32, 9, 9), 32, 5, 2, 32, "relu"),
        ("conv", (32, 8, 8), 32, 3, 1, 32, "relu6"),
        ("pool", (24, 3, 3), 24),
        ("linear", (64, 1, 1), 10),
        ("add", (24, 6, 6), 24),
    ],
    ids=("dense", "pointwise", "strided", "depthwise", "pool", "linear", "add"),
)
def test_a_layer_gives_the_codes_of_onnx_runtime(fields: tuple[Any, ...]) -> None:
    layer = changed(map_layer(*fields), activation_format="int8")
    ours, theirs = answers(alone(changed(layer, weight_format="int8") if layer.weighted else layer))
    assert len(np.unique(theirs)) > 20
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


@pytest.mark.parametrize("family", ["digits-mbconv", "cifar-fused"])
@pytest.mark.parametrize(("fmt", "off"), [("fp32", 1e-5), ("int8", MEANS_OFF)])
def test_a_network_answers_as_in_onnx_runtime(family: str, fmt: str, off: float) -> None:
    made = load_family(family, in_channels=1, classes=10, formats=("fp32", "int8"))
    ours, theirs = answers(made.workload(made.extremes()[f"smallest/{fmt}"]))
    assert np.abs(ours - theirs).max() <= off * np.abs(theirs).max()


def test_what_is_not_written_is_refused_in_one_line() -> None:
    grouped = Layer.of("Conv", map_layer("conv", (8, 4, 4), 8).inputs[0], weight=(8, 4, 3, 3), group=2)
    narrow = changed(map_layer("conv", (8, 4, 4), 8), weight_format="int4", activation_format="int8")
    for layer, said in (
        (grouped, "in groups"),
        (narrow, "no conv of int4 weights on int8 activations"),
        (map_layer("conv", (8, 4, 4), 8, 1, 1, 1, "hswish"), "no hswish fused"),
        (Layer.of("Softmax", map_layer("conv", (8, 4, 4), 8).inputs[0]), "not written as .tflite yet"),
    ):
        assert said in refusal(layer)
        assert "\n" not in refusal(layer)
    assert not refusal(map_layer("conv", (8, 4, 4), 8))


def test_a_layer_that_it_lacks_is_a_row_with_its_error() -> None:
    pytest.importorskip("ai_edge_litert")
    from hw_profiles.runtimes.litert.runtime import LitertRuntime, to_tflite
    from nas.testing.device import job

    act = single(map_layer("conv", (8, 4, 4), 8, 1, 1, 1, "hswish"))
    [error] = LitertRuntime().build([job(act)])
    assert isinstance(error, str)
    assert "hswish" in error
    with pytest.raises(TrilobitError, match="hswish"):
        to_tflite(act, {})
