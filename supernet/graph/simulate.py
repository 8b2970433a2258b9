"""Runs a `QuantizedGraph` in torch exactly as an integer runtime does: the oracle for the exported file.

Integer tensors hold their codes as float32. A convolution of codes is exact there while every partial sum
stays below 2^24, which the weights' codes tell; larger sums are computed in float64, ten times as slowly.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hw_profiles.graph.consumer import Consumer
from hw_profiles.graph.formats import FLOAT16, WHOLE, Int, NearestCode, QuantParams, is_integer
from hw_profiles.graph.layer import FP32, Layer, computes_in_integers
from hw_profiles.graph.ops import OPS
from hw_profiles.reference.integer_sums import IntegerSums
from supernet.formats.loading import load_activation_format, load_format
from supernet.graph.key_value_cache import attended_through_cache
from supernet.graph.operations import NOTHING, TORCH, Constants, as_stored, computed, execute
from supernet.graph.quantized_graph import Parameters, QuantizedGraph, bias_codes, cache_names
from supernet.graph.saturation import saturated_rows, saturation_error

EXACT_SUM = (
    2**24 // 255
)  # of the magnitudes of an output's weights, whose products with codes float32 adds up


def simulate(
    network: QuantizedGraph,
    images: Tensor,
    sums: IntegerSums = IntegerSums.EXACT,
    fused: Collection[str] = (),
) -> Tensor:
    """Return logits (n, ..., classes) of fp32 images (n, c, h, w) or of tokens (n, t), with integer layers
    computed on their codes.

    Requantization is round-half-even(float32(accumulator) * float32(s_x * s_w / s_y)) + zero point, clipped
    to the codes of the output's format: ONNX Runtime's arithmetic. Layers that no integer kernel computes get
    the real values that weights and tensors stand for.

    Args:
        sums: of the device: on one that saturates, signed weights beyond 7 bits give what they give there.
        fused: convolutions that it computes with the sum behind them, which reads what is not rounded yet.
    """
    return simulate_all(network, (images,), sums, fused)[0]


def simulate_all(
    network: QuantizedGraph,
    feeds: Sequence[Tensor],
    sums: IntegerSums = IntegerSums.EXACT,
    fused: Collection[str] = (),
) -> list[Tensor]:
    """Return all that a network gives for all that it is given, computed as `simulate` does."""
    work = network.workload

    def step(position: int, x: list[Tensor]) -> Sequence[Tensor]:
        name, layer = work.names[position], work.layers[position]
        read, written = network.input_params(position), network.tensors.get(name)
        saturating = sums is IntegerSums.SATURATING
        call = Call(layer, x, read, written, network.parameters.get(name), saturating, name in fused)
        if layer.op == "Attention" and layer.values.text("cache") != FP32:
            return attended_through_cache(layer, x, [network.tensors.get(key) for key in cache_names(name)])
        return INTEGERS[layer.op](call) if computes_in_integers(layer) else _in_reals(call)

    with torch.no_grad():
        tensors = execute(work, feeds, step)
    return [feeds[-1 - i] if i < 0 else tensors[i] for i in work.outputs]


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
        in_sum: whether it is computed with the sum behind it, which reads what is not rounded yet.
    """

    layer: Layer
    x: list[Tensor]
    read: tuple[QuantParams | None, ...]
    written: QuantParams | None
    weights: Parameters | None
    saturating: bool
    in_sum: bool = False

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
        if params is None or not is_integer(self.layer.in_format):
            return x
        return (x - params.zero_point) * params.scale

    def bias(self) -> Tensor | None:
        """Return the bias's real values; None without."""
        return torch.from_numpy(self.parameters.bias) if len(self.parameters.bias) else None

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
    if fmt in WHOLE:  # read by ids
        return x
    return x.half().float() if _element(fmt) == FLOAT16 else x


def _in_reals(call: Call) -> Sequence[Tensor]:
    """Return the outputs of a layer that computes in real numbers, as their format stores them: integers as
    codes, all else as real values."""
    layer, constants = call.layer, NOTHING
    if "weight" in layer.values:
        constants = Constants(as_stored(layer, call.real_weight()), call.bias())
    outputs = computed(layer, _operands(call), constants)
    return [_stored(y, layer.out_format, call.written) for y in outputs]


def _operands(call: Call) -> list[Tensor]:
    """Return what a layer reads, rounded where its product does that at each inference."""
    real, weight = [call.real(i) for i in range(len(call.x))], load_format(call.layer.weight_format).weight
    if weight.operand is None or not weight.whole(call.layer.op):
        return real
    rows = [x.flatten(1) if call.layer.op == "Gemm" else x for x in real]  # as files multiply them
    rounded = [torch.from_numpy(weight.operand.rounded(x.numpy())) for x in rows]
    return [y.reshape(x.shape) for x, y in zip(real, rounded, strict=True)]


def _stored(y: Tensor, fmt: str, written: QuantParams | None) -> Tensor:
    if fmt in WHOLE:
        return y
    element = load_activation_format(fmt).element
    if written is None:
        return _as_native(y, fmt)
    if isinstance(element, Int):
        return _requantize(y / written.scale, written)
    table = NearestCode.of(element)
    steps = torch.bucketize(y / written.scale, torch.from_numpy(table.thresholds))
    return torch.from_numpy(table.values)[steps] * written.scale


def _accumulate(call: Call) -> tuple[Tensor, Tensor]:
    """Return the int32 accumulator as float32 (n, out, ...), and its scale (out,)."""
    codes, scale = bias_codes(call.parameters, call.input().scale)
    total = _sums(call)
    bias = _channels(torch.from_numpy(codes).double(), total)
    return (total.double() + bias).float(), torch.from_numpy(scale)


def _sums(call: Call) -> Tensor:
    """Return what a weighted layer multiplies and adds of its codes, exactly, without the bias."""
    layer, zero, x = call.layer, call.input().zero_point, call.x[0]
    weight = torch.from_numpy(call.parameters.weight.codes).float()
    exact = bool(weight.abs().flatten(1).sum(1).max() <= EXACT_SUM)
    dtype = torch.float32 if exact else torch.float64
    weight, shifted = weight.to(dtype), (x - zero).to(dtype)
    (total,) = TORCH[layer.op](layer, [shifted], Constants(as_stored(layer, weight)))
    if call.saturating and not load_format(layer.weight_format).weight.offset:
        total = total + _lost_to_saturation(layer, x, weight, zero).to(dtype).view(total.shape)
    return total


def _lost_to_saturation(layer: Layer, x: Tensor, weight: Tensor, zero_point: int) -> Tensor:
    if layer.op == "MatMul":
        return saturated_rows(x.flatten(0, -2), weight)
    return saturation_error(layer, x, weight if layer.op == "Conv" else weight[:, :, None, None], zero_point)


def _channels(values: Tensor, of: Tensor) -> Tensor:
    """Return (channels,) values so that they broadcast over what comes behind the channels of a tensor."""
    return values.view(-1, *(1,) * (of.ndim - 2))


def _integer_conv(call: Call) -> Tensor:
    total, scale = _accumulate(call)
    # a ReLU needs no step of its own: its output has zero point 0, so clipping to its codes does it; that of
    # a ReLU6 reaches 6 at most
    scaled = total * _channels(scale / torch.tensor(call.output.scale), total)
    return scaled + call.output.zero_point if call.in_sum else _requantize(scaled, call.output)


def _integer_linear(call: Call) -> Tensor:
    total, scale = _accumulate(call)
    return total * scale


def _integer_matmul(call: Call) -> Tensor:
    """Return a product of codes with the stored ones, or of two computed matrices of codes. The bias is added
    in real numbers; all is given as the tensor's format stores it.
    """
    if call.weights is None:
        first, second = call.input(0), call.input(1)
        left, right = ((x - p.zero_point).double() for x, p in zip(call.x, (first, second), strict=True))
        total, scale = left @ right, torch.tensor(np.float32(first.scale) * np.float32(second.scale))
    else:
        codes_scale = np.float32(call.input().scale)
        total, scale = _sums(call), torch.from_numpy(call.parameters.weight.channel_scales * codes_scale)
    real, bias = total.float() * scale, call.bias() if call.weights else None
    return _stored(real if bias is None else real + bias, call.layer.out_format, call.written)


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
    (real,) = computed(layer, [call.real()])
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
    y = gate if call.layer.op == "HardSigmoid" else real * gate
    return _requantize(y / call.output.scale, call.output)


def _requantize(scaled: Tensor, output: QuantParams) -> Tensor:
    return torch.clamp(torch.round(scaled) + output.zero_point, 0, output.largest)


def _in_integers(function: Callable[[Call], Tensor]) -> Callable[[Call], Sequence[Tensor]]:
    return lambda call: (function(call),)


def _moved(call: Call) -> Sequence[Tensor]:
    """Return codes that are chosen or moved, nothing else."""
    return computed(call.layer, call.x)


_FUNCTIONS: Mapping[str, Callable[[Call], Tensor]] = {
    "Conv": _integer_conv,
    "Gemm": _integer_linear,
    "MatMul": _integer_matmul,
    "Add": _integer_add,
    "Mul": _integer_mul,
    "GlobalAveragePool": _integer_pool,
    "AveragePool": _integer_avgpool,
    "HardSwish": _integer_act,
    "HardSigmoid": _integer_act,
    "QuantizeLinear": lambda call: _requantize(call.x[0] / call.output.scale, call.output),
    "DequantizeLinear": lambda call: call.real(),
}
INTEGERS: Consumer[Callable[[Call], Sequence[Tensor]]] = Consumer(
    "integer oracle",
    {
        **{op: _in_integers(function) for op, function in _FUNCTIONS.items()},
        **{op.name: _moved for op in OPS.values() if op.picks},
        "Relu": _in_reals,
        "Clip": _in_reals,
    },
    otherwise="it has no arithmetic of integers; keep it fp32",
    refusals={"InvertedResidual": "it runs as the layers within it; lower the workload"},
)
