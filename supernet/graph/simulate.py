"""Runs a `Network` in torch exactly as an integer runtime does: the oracle for the exported file.

Integer tensors hold their codes as float32. A convolution of codes is exact there while every partial sum
stays below 2^24, which holds up to 518 products of 255 * 127; larger ones are computed in float64.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hw_profiles.graph.formats import FLOAT16, Int, NearestCode, QuantParams
from hw_profiles.graph.layer import INPUT, Layer, computes_in_integers
from hw_profiles.reference.integer_sums import IntegerSums
from supernet.formats.loading import load_activation_format, load_format
from supernet.graph.quantized_graph import Network, Parameters, bias_codes
from supernet.graph.saturation import saturation_error
from supernet.layers.activation import ACTIVATE
from supernet.layers.pooling import POOL

EXACT_PRODUCTS = 2**24 // (255 * 127)


def simulate(network: Network, images: Tensor, sums: IntegerSums = IntegerSums.EXACT) -> Tensor:
    """Return logits (n, classes) of fp32 images (n, c, h, w), with integer layers computed on their codes.

    Requantization is round-half-even(float32(accumulator) * float32(s_x * s_w / s_y)) + zero point, clipped
    to the codes of the output's format: ONNX Runtime's arithmetic. Layers that no integer kernel computes get
    the real values that weights and tensors stand for.

    Args:
        sums: of the device: on one that saturates, signed weights beyond 7 bits give what they give there.
    """
    work = network.workload
    tensors: list[Tensor] = []
    with torch.no_grad():
        for position, (name, layer) in enumerate(zip(work.names, work.layers, strict=True)):
            call = Call(
                layer,
                [images if i == INPUT else tensors[i] for i in work.inputs[position]],
                network.input_params(position),
                network.tensors.get(name),
                network.parameters.get(name),
                saturating=sums is IntegerSums.SATURATING,
            )
            tensors.append(_INTEGER[layer.kind](call) if computes_in_integers(layer) else _in_reals(call))
    return tensors[-1]


@dataclass(frozen=True)
class Call:
    """One layer with what it reads and how its output is stored.

    Attributes:
        layer: its operation and formats.
        x: tensors (n, c, h, w) that it reads: codes of integers, real values of all else.
        read, written: quantization of the tensors that it reads and of the one it gives; None where they have
            no scale.
        weights: of a weighted layer.
        saturating: whether the device's kernels for signed weights are.
    """

    layer: Layer
    x: list[Tensor]
    read: tuple[QuantParams | None, ...]
    written: QuantParams | None
    weights: Parameters | None
    saturating: bool

    @property
    def parameters(self) -> Parameters:
        """Weights and biases.

        Raises:
            ValueError: the layer has none.
        """
        if self.weights is None:
            raise ValueError(f"{self.layer.key()} has no weights")
        return self.weights

    @property
    def output(self) -> QuantParams:
        """Quantization of the output.

        Raises:
            ValueError: it has none.
        """
        return self._known(self.written)

    def input(self, position: int = 0) -> QuantParams:
        """Return the quantization of a tensor that it reads.

        Raises:
            ValueError: it has none.
        """
        return self._known(self.read[position])

    def real(self, position: int = 0) -> Tensor:
        """Return the real values of a tensor that it reads."""
        params, x = self.read[position], self.x[position]
        if params is None or not isinstance(_element(self.layer.in_format), Int):
            return x
        return (x - params.zero_point) * params.scale

    def real_weight(self) -> Tensor:
        """Return the weight's real values, in the type that the layer computes in."""
        weight = torch.from_numpy(load_format(self.layer.weight_format).weight.decode(self.parameters.weight))
        return _as_native(weight, self.layer.in_format)

    def _known(self, params: QuantParams | None) -> QuantParams:
        if params is None:
            raise ValueError(f"{self.layer.key()} reads or gives a tensor without a scale")
        return params


def _element(fmt: str) -> object:
    return load_activation_format(fmt).element


def _as_native(x: Tensor, fmt: str) -> Tensor:
    """Return float32 values as a native floating-point format holds them."""
    return x.half().float() if _element(fmt) == FLOAT16 else x


def _in_reals(call: Call) -> Tensor:
    """Return the output of a layer that computes in real numbers, as its format stores it: integers as codes,
    all else as real values."""
    y, fmt = _FLOAT[call.layer.kind](call, [call.real(i) for i in range(len(call.x))]), call.layer.out_format
    element = load_activation_format(fmt).element
    if call.written is None:
        return _as_native(y, fmt)
    if isinstance(element, Int):
        return _requantize(y / call.written.scale, call.written)
    table = NearestCode.of(element)
    steps = torch.bucketize(y / call.written.scale, torch.from_numpy(table.thresholds))
    return torch.from_numpy(table.values)[steps] * call.written.scale


def _float_conv(call: Call, x: list[Tensor]) -> Tensor:
    layer, bias = call.layer, torch.from_numpy(call.parameters.bias)
    y = F.conv2d(x[0], call.real_weight(), bias, layer.stride, layer.kernel // 2, 1, layer.groups)
    return ACTIVATE[layer.nonlinearity](y)


def _float_linear(call: Call, x: list[Tensor]) -> Tensor:
    return F.linear(x[0].flatten(1), call.real_weight(), torch.from_numpy(call.parameters.bias))


def _accumulate(call: Call) -> tuple[Tensor, Tensor]:
    """Return the int32 accumulator as float32 (n, out, h, w), and its scale (out,)."""
    layer, params, x = call.layer, call.input(), call.x[0]
    codes, scale = bias_codes(call.parameters, params.scale)
    products = layer.in_shape[0] // layer.groups * layer.kernel**2
    dtype = torch.float32 if products <= EXACT_PRODUCTS else torch.float64
    weight = torch.from_numpy(call.parameters.weight.codes).to(dtype)
    if layer.kind == "linear":
        weight = weight[:, :, None, None]
    shifted = (x - params.zero_point).to(dtype)
    total = F.conv2d(shifted, weight, None, layer.stride, layer.kernel // 2, 1, layer.groups)
    if call.saturating and not load_format(layer.weight_format).weight.offset:
        total = total + saturation_error(layer, x, weight, params.zero_point).to(dtype)
    return (total + torch.from_numpy(codes).to(dtype)[:, None, None]).float(), torch.from_numpy(scale)


def _integer_conv(call: Call) -> Tensor:
    total, scale = _accumulate(call)
    # a ReLU needs no step of its own: its output has zero point 0, so clipping to its codes does it; that of
    # a ReLU6 reaches 6 at most
    return _requantize(total * (scale / torch.tensor(call.output.scale))[:, None, None], call.output)


def _integer_linear(call: Call) -> Tensor:
    total, scale = _accumulate(call)
    return (total * scale[:, None, None]).flatten(1)


def _integer_add(call: Call) -> Tensor:
    """Return a sum in the order of ONNX Runtime's kernel: ratios of scales first, zero points as one
    constant, each product and sum rounded once as fused multiply-adds do. Without that, one code in 200,000
    is on the other side of a tie.
    """
    first, second, output = call.input(0), call.input(1), call.output
    out = np.float32(output.scale)
    ratios = [float(np.float32(params.scale) / out) for params in (first, second)]
    offset = np.float32(ratios[0] * first.zero_point + float(np.float32(ratios[1] * second.zero_point)))
    constant = float(np.float32(output.zero_point) - offset)
    partial = (call.x[1].double() * ratios[1] + constant).float()  # the second operand first
    total = (call.x[0].double() * ratios[0] + partial.double()).float()
    return torch.clamp(torch.round(total), 0, output.largest)


def _integer_pool(call: Call) -> Tensor:
    return _requantize(call.real().mean((2, 3), keepdim=True) / call.output.scale, call.output)


def _integer_avgpool(call: Call) -> Tensor:
    """Return means in real numbers, and the zero point added before rounding: where that is odd, ties go the
    other way than elsewhere. The means of two or four codes are full of ties.
    """
    layer, output = call.layer, call.output
    real = POOL[layer.kind](call.real(), layer.kernel, layer.stride)
    return torch.clamp(torch.round(real / output.scale + output.zero_point), 0, output.largest)


def _integer_mul(call: Call) -> Tensor:
    """Return the product of the codes, which is exact, times one ratio of scales: ONNX Runtime's order."""
    first, second = call.input(0), call.input(1)
    ratio = np.float32(first.scale) * np.float32(second.scale) / np.float32(call.output.scale)
    product = (call.x[0] - first.zero_point) * (call.x[1] - second.zero_point)
    return _requantize(product * float(ratio), call.output)


def _integer_act(call: Call) -> Tensor:
    """Return a curve in real numbers, with the sixth as a factor: no runtime has an integer kernel for it."""
    real = call.real()
    gate = torch.clamp(real * float(np.float32(1 / 6)) + 0.5, 0, 1)
    y = gate if call.layer.nonlinearity == "hsigmoid" else real * gate
    return _requantize(y / call.output.scale, call.output)


def _requantize(scaled: Tensor, after: QuantParams) -> Tensor:
    return torch.clamp(torch.round(scaled) + after.zero_point, 0, after.largest)


_FLOAT: Mapping[str, Callable[[Call, list[Tensor]], Tensor]] = {
    "stem": _float_conv,
    "conv": _float_conv,
    "linear": _float_linear,
    "add": lambda call, x: ACTIVATE[call.layer.nonlinearity](x[0] + x[1]),
    "add_converted": lambda call, x: ACTIVATE[call.layer.nonlinearity](x[0] + x[1]),
    "act": lambda call, x: ACTIVATE[call.layer.nonlinearity](x[0]),
    "maxpool": lambda call, x: POOL[call.layer.kind](x[0], call.layer.kernel, call.layer.stride),
    "avgpool": lambda call, x: POOL[call.layer.kind](x[0], call.layer.kernel, call.layer.stride),
    "pool": lambda call, x: x[0].mean((2, 3), keepdim=True),
    "mul": lambda call, x: x[0] * x[1],
    "quantize": lambda call, x: x[0],
    "dequantize": lambda call, x: x[0],
}
_INTEGER: Mapping[str, Callable[[Call], Tensor]] = {
    "stem": _integer_conv,
    "conv": _integer_conv,
    "linear": _integer_linear,
    "add": _integer_add,
    "add_converted": _integer_add,
    "pool": _integer_pool,
    "maxpool": lambda call: POOL[call.layer.kind](call.x[0], call.layer.kernel, call.layer.stride),
    "avgpool": _integer_avgpool,
    "mul": _integer_mul,
    "act": _integer_act,
    "quantize": lambda call: _requantize(call.x[0] / call.output.scale, call.output),
    "dequantize": lambda call: call.real(),
}
