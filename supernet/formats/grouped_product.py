"""Linear layers whose groups of 4-bit integers a kernel of ONNX Runtime multiplies as they are.

`MatMulNBits` of its domain reads two codes from a byte and makes reals of them in registers, so that a weight
stays packed in memory too; a blocked DequantizeLinear would write the whole weight out at every inference.
"""

import numpy as np
from numpy.typing import NDArray

from hw_profiles.graph.formats import ElementType, Int
from supernet.formats.onnx_weights import OnnxWriter, onnx_type
from supernet.formats.quantized_tensor import Array, Codes, Granularity, QuantizedTensor

DOMAIN = "com.microsoft"
BITS = 4
GROUPS = (16, 32, 64, 128, 256)  # that the kernel takes
MIDDLE = 2 ** (BITS - 1)  # the code that stands for 0 where no zero points are given
IN_FLOAT32 = 1  # its accuracy level: sums are not made of inputs rounded to 8 bits


def has_kernel(element: ElementType, granularity: Granularity) -> bool:
    """Return whether the kernel takes weights of this kind."""
    four = isinstance(element, Int) and onnx_type(element) in ("INT4", "UINT4")
    return four and granularity.group in GROUPS


def grouped_product(
    writer: OnnxWriter,
    name: str,
    x: str,
    weight: tuple[Granularity, QuantizedTensor],
    bias: Array,
) -> str:
    """Write `x` (n, in) times a weight (out, in) of groups, plus a bias (out,) or (0,), as one node.

    Returns:
        `name`, which its output has.
    """
    granularity, tensor = weight
    assert tensor.scales is not None
    zeros = tensor.zero_points
    codes = granularity.blocks(tensor.codes.astype(np.int16)) + (MIDDLE if zeros is None else 0)
    inputs = [
        x,
        writer.typed(f"{name}.wc", _packed(codes), "UINT8"),
        writer.typed(f"{name}.ws", tensor.scales, "FLOAT"),
        "" if zeros is None else writer.typed(f"{name}.wz", _packed(zeros), "UINT8"),
        "",
        writer.typed(f"{name}.b", bias, "FLOAT") if len(bias) else "",
    ]
    while not inputs[-1]:
        inputs.pop()
    out, features = tensor.codes.shape
    sizes = {"N": out, "K": features, "bits": BITS, "block_size": granularity.group}
    return writer.node("MatMulNBits", name, inputs, domain=DOMAIN, accuracy_level=IN_FLOAT32, **sizes)


def _packed(codes: Codes) -> NDArray[np.uint8]:
    """Return codes (..., n) two to a byte, the first in its lower half; an odd end is filled up."""
    even = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, codes.shape[-1] % 2)]).astype(np.uint8)
    return np.asarray(even[..., ::2] | even[..., 1::2] << BITS, np.uint8)
