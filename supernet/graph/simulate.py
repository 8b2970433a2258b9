"""Runs a `Network` in torch exactly as an integer runtime does: the oracle for the exported file.

Integer tensors hold their codes as float32. A convolution of codes is exact there while every partial sum
stays below 2^24, which holds up to 518 products of 255 * 127; larger ones are computed in float64.
"""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hw_profiles.graph.layer import FLOATS, INPUT, Layer
from hw_profiles.reference.integer_sums import IntegerSums
from supernet.formats.format import QuantParams
from supernet.formats.loading import load_format
from supernet.graph.quantized_graph import Network, Parameters, bias_codes
from supernet.graph.saturation import saturation_error
from supernet.layers.activation import ACTIVATE
from supernet.layers.pooling import POOL

EXACT_PRODUCTS = 2**24 // (255 * 127)


def simulate(network: Network, images: Tensor, sums: IntegerSums = IntegerSums.EXACT) -> Tensor:
    """(n, c, h, w) fp32 -> logits (n, classes), with integer layers computed on their codes.

    Requantization is round-half-even(float32(accumulator) * float32(s_x * s_w / s_y)) + zero point, clipped
    to the codes of the output's format: ONNX Runtime's arithmetic.

    Args:
        sums: of the device: on one that saturates, signed weights beyond 7 bits give what they give there.
    """
    work = network.workload
    integer = _SATURATING if sums is IntegerSums.SATURATING else _INTEGER
    tensors: list[Tensor] = []
    with torch.no_grad():
        for position, (name, layer) in enumerate(zip(work.names, work.layers, strict=True)):
            sources = [images if i == INPUT else tensors[i] for i in work.inputs[position]]
            before, after = network.input_params(position), network.tensors.get(name)
            run = _FLOAT if layer.in_format in FLOATS and layer.out_format in FLOATS else integer
            y = run[layer.kind](layer, sources, before, after, network.parameters.get(name))
            tensors.append(y.half().float() if layer.out_format == "fp16" else y)
    return tensors[-1]


_Step = Callable[
    [Layer, list[Tensor], tuple[QuantParams | None, ...], QuantParams | None, Parameters | None], Tensor
]


def _float_conv(
    layer: Layer, x: list[Tensor], before: object, after: object, parameters: Parameters | None
) -> Tensor:
    assert parameters is not None
    weight, bias = torch.from_numpy(parameters.weight).float(), torch.from_numpy(parameters.bias)
    y = F.conv2d(x[0], weight, bias, layer.stride, layer.kernel // 2, 1, layer.groups)
    return ACTIVATE[layer.nonlinearity](y)


def _float_linear(
    layer: Layer, x: list[Tensor], before: object, after: object, parameters: Parameters | None
) -> Tensor:
    assert parameters is not None
    weight, bias = torch.from_numpy(parameters.weight).float(), torch.from_numpy(parameters.bias)
    return F.linear(x[0].flatten(1), weight, bias)


def _accumulate(
    layer: Layer, x: Tensor, params: QuantParams, parameters: Parameters, *, saturating: bool
) -> tuple[Tensor, Tensor]:
    """The int32 accumulator as float32 (n, out, h, w), and its scale (out,).

    Args:
        saturating: whether the device's kernels for signed weights are.
    """
    codes, scale = bias_codes(parameters, params.scale)
    products = layer.in_shape[0] // layer.groups * layer.kernel**2
    dtype = torch.float32 if products <= EXACT_PRODUCTS else torch.float64
    weight = torch.from_numpy(parameters.weight).to(dtype)
    if layer.kind == "linear":
        weight = weight[:, :, None, None]
    shifted = (x - params.zero_point).to(dtype)
    total = F.conv2d(shifted, weight, None, layer.stride, layer.kernel // 2, 1, layer.groups)
    if saturating and load_format(layer.weight_format).onnx_weight_type != "UINT8":
        total = total + saturation_error(layer, x, weight, params.zero_point).to(dtype)
    return (total + torch.from_numpy(codes).to(dtype)[:, None, None]).float(), torch.from_numpy(scale)


def _integer_conv(
    layer: Layer,
    x: list[Tensor],
    before: tuple[QuantParams | None, ...],
    after: QuantParams | None,
    parameters: Parameters | None,
    *,
    saturating: bool = False,
) -> Tensor:
    assert parameters is not None
    assert before[0] is not None
    assert after is not None
    total, scale = _accumulate(layer, x[0], before[0], parameters, saturating=saturating)
    # a ReLU needs no step of its own: its output has zero point 0, so clipping to its codes does it; that of
    # a ReLU6 reaches 6 at most
    return _requantize(total * (scale / torch.tensor(after.scale))[:, None, None], after)


def _integer_linear(
    layer: Layer,
    x: list[Tensor],
    before: tuple[QuantParams | None, ...],
    after: object,
    parameters: Parameters | None,
    *,
    saturating: bool = False,
) -> Tensor:
    assert parameters is not None
    assert before[0] is not None
    total, scale = _accumulate(layer, x[0], before[0], parameters, saturating=saturating)
    return (total * scale[:, None, None]).flatten(1)


def _integer_add(
    layer: Layer,
    x: list[Tensor],
    before: tuple[QuantParams | None, ...],
    after: QuantParams | None,
    parameters: object,
) -> Tensor:
    """In the order of ONNX Runtime's kernel: ratios of scales first, zero points as one constant, each
    product and sum rounded once as fused multiply-adds do. Without that, one code in 200,000 is on the other
    side of a tie.
    """
    assert after is not None
    first, second = before
    assert first is not None
    assert second is not None
    out = np.float32(after.scale)
    ratios = [float(np.float32(params.scale) / out) for params in (first, second)]
    offset = np.float32(ratios[0] * first.zero_point + float(np.float32(ratios[1] * second.zero_point)))
    constant = float(np.float32(after.zero_point) - offset)
    partial = (x[1].double() * ratios[1] + constant).float()  # the second operand first
    total = (x[0].double() * ratios[0] + partial.double()).float()
    return torch.clamp(torch.round(total), 0, after.largest)


def _integer_pool(
    layer: Layer,
    x: list[Tensor],
    before: tuple[QuantParams | None, ...],
    after: QuantParams | None,
    parameters: object,
) -> Tensor:
    assert after is not None
    return _requantize(_real(x[0], before[0]).mean((2, 3), keepdim=True) / after.scale, after)


def _integer_avgpool(
    layer: Layer,
    x: list[Tensor],
    before: tuple[QuantParams | None, ...],
    after: QuantParams | None,
    parameters: object,
) -> Tensor:
    """In real numbers, and the zero point before rounding: where that is odd, ties go the other way than
    elsewhere. The means of two or four codes are full of ties.
    """
    assert after is not None
    real = POOL[layer.kind](_real(x[0], before[0]), layer.kernel, layer.stride)
    return torch.clamp(torch.round(real / after.scale + after.zero_point), 0, after.largest)


def _integer_mul(
    layer: Layer,
    x: list[Tensor],
    before: tuple[QuantParams | None, ...],
    after: QuantParams | None,
    parameters: object,
) -> Tensor:
    """The product of the codes first, which is exact, then one ratio of scales: ONNX Runtime's order."""
    assert after is not None
    first, second = before
    assert first is not None
    assert second is not None
    ratio = np.float32(first.scale) * np.float32(second.scale) / np.float32(after.scale)
    return _requantize((x[0] - first.zero_point) * (x[1] - second.zero_point) * float(ratio), after)


def _integer_act(
    layer: Layer,
    x: list[Tensor],
    before: tuple[QuantParams | None, ...],
    after: QuantParams | None,
    parameters: object,
) -> Tensor:
    """In real numbers, with the sixth as a factor: no runtime has an integer kernel for these curves."""
    assert after is not None
    real = _real(x[0], before[0])
    gate = torch.clamp(real * float(np.float32(1 / 6)) + 0.5, 0, 1)
    y = gate if layer.nonlinearity == "hsigmoid" else real * gate
    return _requantize(y / after.scale, after)


def _requantize(scaled: Tensor, after: QuantParams) -> Tensor:
    return torch.clamp(torch.round(scaled) + after.zero_point, 0, after.largest)


def _real(codes: Tensor, params: QuantParams | None) -> Tensor:
    assert params is not None
    return (codes - params.zero_point) * params.scale


def _quantize(
    layer: Layer, x: list[Tensor], before: object, after: QuantParams | None, parameters: object
) -> Tensor:
    assert after is not None
    return _requantize(x[0] / after.scale, after)


def _dequantize(
    layer: Layer,
    x: list[Tensor],
    before: tuple[QuantParams | None, ...],
    after: object,
    parameters: object,
) -> Tensor:
    return _real(x[0], before[0])


_FLOAT: Mapping[str, _Step] = {
    "stem": _float_conv,
    "conv": _float_conv,
    "linear": _float_linear,
    "add": lambda layer, x, *_: ACTIVATE[layer.nonlinearity](x[0] + x[1]),
    "add_converted": lambda layer, x, *_: ACTIVATE[layer.nonlinearity](x[0] + x[1]),
    "maxpool": lambda layer, x, *_: POOL[layer.kind](x[0], layer.kernel, layer.stride),
    "avgpool": lambda layer, x, *_: POOL[layer.kind](x[0], layer.kernel, layer.stride),
    "pool": lambda layer, x, *_: x[0].mean((2, 3), keepdim=True),
    "mul": lambda layer, x, *_: x[0] * x[1],
    "quantize": lambda layer, x, *_: x[0],  # to fp16: the tensor is rounded as every other of that format
    "dequantize": lambda layer, x, *_: x[0],
}
_INTEGER: Mapping[str, _Step] = {
    "stem": _integer_conv,
    "conv": _integer_conv,
    "linear": _integer_linear,
    "add": _integer_add,
    "add_converted": _integer_add,
    "pool": _integer_pool,
    "maxpool": lambda layer, x, *_: POOL[layer.kind](x[0], layer.kernel, layer.stride),
    "avgpool": _integer_avgpool,
    "mul": _integer_mul,
    "act": _integer_act,
    "quantize": _quantize,
    "dequantize": _dequantize,
}
_SATURATING: Mapping[str, _Step] = {
    **_INTEGER,
    "stem": partial(_integer_conv, saturating=True),
    "conv": partial(_integer_conv, saturating=True),
    "linear": partial(_integer_linear, saturating=True),
}
