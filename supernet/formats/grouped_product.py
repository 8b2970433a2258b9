"""Matrix products whose weights are groups of integers that a kernel of ONNX Runtime multiplies as they are.

`MatMulNBits` of its domain reads packed codes and makes reals of them in registers, or multiplies them with
inputs that it rounds to 8 bits, group by group, so that a weight stays packed in memory too; a blocked
DequantizeLinear would write the whole weight out at every inference.
"""

import numpy as np
from numpy.typing import NDArray

from hw_profiles.graph.formats import ElementType, Int
from supernet.formats.activation_format import ActivationFormat
from supernet.formats.onnx_weights import OnnxWriter, onnx_type
from supernet.formats.quantized_tensor import Array, Codes, Granularity, QuantizedTensor

DOMAIN = "com.microsoft"
GROUPS = (16, 32, 64, 128, 256)  # that the kernel takes
IN_FLOAT32, IN_INT8 = 1, 4  # its accuracy levels: whether it rounds inputs to 8 bits, group by group
BYTE = 8


def has_kernel(element: ElementType, granularity: Granularity, operand: ActivationFormat | None) -> bool:
    """Return whether the kernel takes weights of this kind: of 4 bits on real numbers; of 2 and 8 bits it is
    slow on these, so only on inputs that it rounds."""
    if not isinstance(element, Int) or granularity.group not in GROUPS:
        return False
    if operand is None:
        return _width(element) == 4
    return operand.element == Int(8) and operand.group == granularity.group


def _width(element: Int) -> int:
    return int(onnx_type(element).rpartition("INT")[2])


def grouped_product(
    writer: OnnxWriter,
    name: str,
    x: str,
    weight: tuple[Granularity, QuantizedTensor],
    bias: Array,
    element: Int,
    operand: ActivationFormat | None,
) -> str:
    """Write `x` (..., in) times a weight (out, in) of groups, plus a bias (out,) or (0,), as one node.

    Args:
        element: of the weight.
        operand: what `x` is rounded to, None for as it is.

    Returns:
        `name`, which its output has.
    """
    granularity, tensor = weight
    assert tensor.scales is not None
    zeros, bits = tensor.zero_points, _width(element)
    middle = 2 ** (bits - 1)  # the code that stands for 0 where no zero points are given
    codes = granularity.blocks(tensor.codes.astype(np.int16)) + (middle if zeros is None else 0)
    inputs = [
        x,
        writer.typed(f"{name}.wc", _packed(codes, bits), "UINT8"),
        writer.typed(f"{name}.ws", tensor.scales, "FLOAT"),
        "" if zeros is None else writer.typed(f"{name}.wz", _packed(zeros, bits), "UINT8"),
        "",
        writer.typed(f"{name}.b", bias, "FLOAT") if len(bias) else "",
    ]
    while not inputs[-1]:
        inputs.pop()
    out, features = tensor.codes.shape
    sizes = {"N": out, "K": features, "bits": bits, "block_size": granularity.group}
    level = IN_FLOAT32 if operand is None else IN_INT8
    return writer.node("MatMulNBits", name, inputs, domain=DOMAIN, accuracy_level=level, **sizes)


def _packed(codes: Codes, bits: int) -> NDArray[np.uint8]:
    """Return codes (..., n), several to a byte, the first in its lowest bits; an odd end is filled up."""
    many = BYTE // bits
    ends = [(0, 0)] * (codes.ndim - 1) + [(0, -codes.shape[-1] % many)]
    parts = np.pad(codes, ends).astype(np.uint8).reshape(*codes.shape[:-1], -1, many)
    shifts = np.arange(0, BYTE, bits, dtype=np.uint8)
    return np.asarray(np.bitwise_or.reduce(parts << shifts, axis=-1), np.uint8)
