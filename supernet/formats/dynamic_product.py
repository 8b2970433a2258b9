"""Matrix products on integers whose scales each inference finds, as ONNX Runtime fuses them."""

import numpy as np

from supernet.formats.onnx_weights import OnnxWriter
from supernet.formats.quantized_tensor import Array, QuantizedTensor


def dynamic_product(writer: OnnxWriter, name: str, x: str, tensor: QuantizedTensor, bias: Array) -> str:
    """Write `x` (..., in), rounded to 8 bits, times a weight (out, in), plus a bias (out,) or (0,).

    Returns:
        `name`, which its output has.
    """
    scale, zero = f"{name}.xs", f"{name}.xz"
    codes = writer.node("DynamicQuantizeLinear", f"{name}.xq", [x], more=(scale, zero))
    weight = writer.typed(f"{name}.wc", tensor.codes.T.astype(np.int16), "INT8")
    sums = writer.node("MatMulInteger", f"{name}.sums", [codes, weight, zero])
    real = writer.node("Cast", f"{name}.real", [sums], to="FLOAT")
    channels = writer.typed(f"{name}.ws", tensor.channel_scales, "FLOAT")
    scales = writer.node("Mul", f"{name}.scales", [scale, channels])
    product = writer.node("Mul", f"{name}.product" if len(bias) else name, [real, scales])
    if not len(bias):
        return product
    return writer.node("Add", name, [product, writer.typed(f"{name}.b", bias, "FLOAT")])
