"""Transposed convolutions that give other numbers of channels than they read: stored in fewer bits, in real
numbers computed.
"""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from hw_profiles.runtimes.ort.runtime import OrtRuntime
from nas.emit.rewrite_onnx import rewrite
from nas.emit.unit_formats import unit_formats
from supernet.data.samples import Samples
from supernet.imported.import_onnx import import_onnx
from supernet.ptq.quantize_model import quantize_model
from tests.nas.emit.handmade import run

RNG = np.random.default_rng(0)
PAIR = "int8/fp32"


def transposed(read: int, given: int, groups: int) -> bytes:
    stored = {
        "w": RNG.normal(0, 0.3, (read, given // groups, 4, 4)).astype(np.float32),
        "b": RNG.normal(0, 1, given).astype(np.float32),
    }
    graph = helper.make_graph(
        [helper.make_node("ConvTranspose", ["x", "w", "b"], ["y"], "up", strides=[2, 2], group=groups)],
        "up",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, read, 5, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


@pytest.mark.parametrize(("read", "given", "groups"), [(8, 4, 1), (8, 12, 2), (6, 6, 3)])
def test_weights_alone_are_stored_in_fewer_bits(read: int, given: int, groups: int) -> None:
    model = import_onnx(transposed(read, given, groups))
    formats = unit_formats(model, OrtRuntime(), more=[PAIR])["up"]
    assert PAIR in formats.allowed
    assert "runs it in real numbers" in formats.refused["int8"]
    x = RNG.normal(size=(8, 1, read, 5, 5)).astype(np.float32)
    samples = Samples({"x": x})
    quantization = quantize_model(model, samples, {"up": ("fp16", PAIR)}, rng=RNG)
    exact = run(model.content, {"x": x[0]})["y"]
    for choice in ("fp16", PAIR):
        rounded = run(rewrite(quantization, {"up": choice}), {"x": x[0]})["y"]
        assert 0 < np.abs(rounded - exact).max() < 0.05 * np.abs(exact).max()
