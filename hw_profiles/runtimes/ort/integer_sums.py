"""Which of ONNX Runtime's integer kernels saturate here: one small model whose sums leave 16 bits, run once.

The processor's name says nothing: which kernels are chosen depends on instructions, on the provider and on
the version of the engine.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 21, 10
CHANNELS, SIZE, OUTPUTS = 64, 4, 16
LARGEST_INPUT, LARGEST_WEIGHT = 255, 127
EXACT = 200  # the code of the exact sum
# By kind of kernel, (out, in / groups, k, k) of its weights, or (out, in); by channel it is an own kernel.
KERNELS: Mapping[str, tuple[int, ...]] = {
    "pointwise": (OUTPUTS, CHANNELS, 1, 1),
    "dense": (OUTPUTS, CHANNELS, 3, 3),
    "depthwise": (CHANNELS, 1, 3, 3),
    "linear": (OUTPUTS, CHANNELS),
}


def saturating_model() -> bytes:
    """Return an ONNX model of every kind of integer kernel: inputs `image` (1, 64, 4, 4) and `row` (1, 64),
    one output of codes by the name of each kind. No output of a kernel is what the next one reads.
    """
    scale = numpy_helper.from_array(np.array(1.0, np.float32), "scale")
    zero = numpy_helper.from_array(np.array(0, np.uint8), "zero")
    nodes, initialisers, outputs = [], [scale, zero], []
    for name in ("image", "row"):
        nodes.append(helper.make_node("QuantizeLinear", [name, "scale", "zero"], [f"{name}.codes"]))
    for name, shape in KERNELS.items():
        more, constants = _kernel(name, shape)
        nodes += more
        initialisers += [numpy_helper.from_array(array, key) for key, array in constants.items()]
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    inputs = [
        helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, CHANNELS, SIZE, SIZE)),
        helper.make_tensor_value_info("row", TensorProto.FLOAT, (1, CHANNELS)),
    ]
    graph = helper.make_graph(nodes, "saturating", inputs, outputs, initialisers)
    opsets = [helper.make_opsetid("", OPSET)]
    data: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION).SerializeToString()
    return data


def _kernel(name: str, shape: Sequence[int]) -> tuple[list[onnx.NodeProto], dict[str, NDArray[np.generic]]]:
    """Return the nodes of one kernel with all weights at their largest code, and its constants."""
    exact = LARGEST_INPUT * LARGEST_WEIGHT * int(np.prod(shape[1:]))
    ones = np.ones(shape[0], np.float32)
    constants: dict[str, NDArray[np.generic]] = {
        f"{name}.w": np.full(shape, LARGEST_WEIGHT, np.int8),
        f"{name}.ws": ones,
        f"{name}.wz": np.zeros(shape[0], np.int8),
        f"{name}.b": np.zeros(shape[0], np.int32),
        f"{name}.s": np.array(exact / EXACT, np.float32),
    }
    linear = len(shape) == 2
    node = helper.make_node
    source = "row.codes" if linear else "image.codes"
    inputs = [f"{name}.x", f"{name}.real", f"{name}.bias"]
    if linear:
        compute = node("Gemm", inputs, [f"{name}.y"], transB=1)
    else:
        groups = CHANNELS if shape[1] == 1 else 1
        compute = node("Conv", inputs, [f"{name}.y"], kernel_shape=shape[2:], pads=[0] * 4, group=groups)
    nodes = [
        node("DequantizeLinear", [source, "scale", "zero"], [f"{name}.x"]),
        node("DequantizeLinear", [f"{name}.w", f"{name}.ws", f"{name}.wz"], [f"{name}.real"], axis=0),
        node("DequantizeLinear", [f"{name}.b", f"{name}.ws"], [f"{name}.bias"], axis=0),
        compute,
        node("QuantizeLinear", [f"{name}.y", f"{name}.s", "zero"], [f"{name}.codes"]),
        node("DequantizeLinear", [f"{name}.codes", "scale", "zero"], [name]),
    ]
    return nodes, constants


def largest_inputs() -> dict[str, NDArray[np.float32]]:
    """Return what the model reads: the largest activation code everywhere."""
    image, row = (1, CHANNELS, SIZE, SIZE), (1, CHANNELS)
    return {
        "image": np.full(image, LARGEST_INPUT, np.float32),
        "row": np.full(row, LARGEST_INPUT, np.float32),
    }


def saturating_kinds(outputs: Mapping[str, NDArray[np.float32]]) -> tuple[str, ...]:
    """Return the kinds whose codes are not those of the exact sums."""
    return tuple(
        name for name in KERNELS if not np.array_equal(outputs[name], np.full_like(outputs[name], EXACT))
    )
