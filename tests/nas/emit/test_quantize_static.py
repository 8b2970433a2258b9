"""All-int8 files against those of ONNX Runtime's own quantization tool, calibrated on the same example."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from hw_profiles.graph.formats import QuantParams
from nas.emit.rewrite_onnx import rewrite
from supernet.imported.import_onnx import import_onnx
from tests.nas.emit.handmade import Feeds, quantized, run
from tests.nas.emit.small_networks import attention, conv_net

# of the largest value: theirs rounds sums with biases, and operations that ours leaves in real numbers
TOLERANCE = 0.06


class One(CalibrationDataReader):  # type: ignore[misc]
    """An example to calibrate on."""

    def __init__(self, feeds: Feeds) -> None:
        self.left = [dict(feeds)]

    def get_next(self) -> dict[str, Any] | None:
        return self.left.pop() if self.left else None


@pytest.mark.parametrize(("content", "ops"), [(conv_net(), ("Conv", "Gemm")), (attention(), ("MatMul",))])
def test_all_int8_is_what_the_runtimes_own_tool_makes_of_the_same_scales(
    content: bytes, ops: tuple[str, ...], tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    names = [value.name for value in onnx.load_from_string(content).graph.input]
    shape = (2, 3, 16, 16) if names == ["image"] else (1, 7, 32)
    feeds = {name: rng.standard_normal(shape, np.float32) for name in names}
    model = import_onnx(content, shapes=dict.fromkeys(names, shape))
    quantization = quantized(model, feeds, ("int8",))
    policy = {unit.name: "int8" for unit in model.units if unit.op in ops}
    ours = run(rewrite(quantization, policy), feeds)
    path = tmp_path / "theirs.onnx"
    quantize_static(
        onnx.load_from_string(model.content),
        path,
        One(feeds),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=[*ops, *({unit.op for unit in model.units} if "Conv" in ops else ())],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        extra_options={"TensorQuantOverrides": _given(quantization.tensors)},
    )
    theirs, plain = run(path.read_bytes(), feeds), run(model.content, feeds)
    for name, array in theirs.items():
        assert np.abs(ours[name] - array).max() <= TOLERANCE * np.abs(plain[name]).max()


def _given(tensors: Mapping[str, QuantParams]) -> dict[str, Any]:
    """Return scales and zero points as the tool takes them."""
    return {
        name: [
            {
                "scale": np.array(params.scale, np.float32),
                "zero_point": np.array(params.zero_point, np.uint8),
                "quant_type": QuantType.QUInt8,
            }
        ]
        for name, params in tensors.items()
    }
