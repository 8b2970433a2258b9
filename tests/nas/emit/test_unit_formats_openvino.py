"""Which formats units can take on OpenVINO, whose graph depends on what else reads a tensor."""

import numpy as np
import pytest

pytest.importorskip("openvino")

from hw_profiles.runtimes.openvino.runtime import OpenVinoRuntime
from hw_profiles.runtimes.runtime import Artifact
from nas.emit.rewrite_onnx import rewrite_once
from nas.emit.unit_formats import unit_formats
from supernet.imported.import_onnx import import_onnx
from supernet.imported.model import ImportedModel
from tests.nas.emit.handmade import quantized
from tests.nas.emit.small_networks import Net

SHAPE = (1, 3, 16, 16)


def downsampling(*, with_block: bool) -> ImportedModel:
    """The shortcut of a residual block: a pointwise convolution with a stride, beside a dense one or not."""
    net = Net()
    x = net.op("Relu", net.conv("image", 3, 16))
    shortcut = net.conv(x, 16, 32, 1, strides=[2, 2])
    block = net.conv(x, 16, 32, strides=[2, 2]) if with_block else shortcut
    y = net.op("Relu", net.op("Add", block, shortcut) if with_block else shortcut)
    content = net.finish({"image": SHAPE}, {str(net.conv(y, 32, 8, 1)): (1, 8, 8, 8)})
    return import_onnx(content, shapes={"image": SHAPE})


def strided(model: ImportedModel) -> str:
    pointwise = (u for u in model.units if u.weighted and model.constants[u.weight].shape == (32, 16, 1, 1))
    return next(pointwise).name


def test_a_stride_is_taken_out_of_a_convolution_only_where_nothing_else_reads_its_input() -> None:
    runtime, model = OpenVinoRuntime(), downsampling(with_block=True)
    allowed = {unit: formats.allowed for unit, formats in unit_formats(model, runtime).items()}
    weighted = [unit.name for unit in model.units if unit.weighted]
    assert all("int8" in allowed[name] for name in weighted)
    numbers = quantized(
        model, {"image": np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)}, ("int8",)
    )
    whole = runtime.compile(Artifact(rewrite_once(numbers, dict.fromkeys(weighted, "int8")))).kernels()
    assert (whole["Convolution_I8"], whole["Convolution_f32"]) == (len(weighted), 0)


def test_alone_it_is_computed_in_real_numbers() -> None:
    model = downsampling(with_block=False)
    shortcut = unit_formats(model, OpenVinoRuntime())[strided(model)]
    assert "int8" not in shortcut.allowed
    assert "runs it in real numbers" in shortcut.refused["int8"]


def test_a_network_that_reads_raw_pixels_channels_last_begins_with_codes() -> None:
    """Their scale is 1, which OpenVINO would leave out, and the codes with it."""
    net, shape = Net(), (1, 16, 16, 3)
    x = net.op("Relu", net.conv(net.op("Transpose", "image", perm=[0, 3, 1, 2]), 3, 16))
    content = net.finish({"image": shape}, {str(net.conv(x, 16, 8, 1)): (1, 8, 16, 16)})
    model = import_onnx(content, shapes={"image": shape})
    pixels = np.linspace(0, 255, 16 * 16 * 3).round().astype(np.float32).reshape(shape)
    numbers = quantized(model, {"image": pixels}, ("int8",))
    assert 1.0 in [params.scale for params in numbers.tensors.values()]
    policy = {unit.name: "int8" for unit in model.units if unit.weighted}
    kernels = OpenVinoRuntime().compile(Artifact(rewrite_once(numbers, policy))).kernels()
    assert (kernels["Convolution_I8"], kernels["Convolution_f32"]) == (2, 0)
