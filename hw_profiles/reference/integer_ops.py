"""The arithmetic of one unit in plain numpy: what every integer kernel must give bit for bit.

Integer tensors are uint8 codes with a scale and a zero point, weights are signed codes with one scale per
output channel. The accumulator is int32. It is brought to the output scale in integers only, by a dyadic
number m / 2^c (HAWQ-V3, arXiv:2011.10680), rounded half up: dialect "half-up". Another runtime that rounds
half to even may differ by one code where the quotient is an exact tie.

Pooling has two dialects: "half-up", which is what our kernels do, rounds the mean once, at the output scale;
"truncated" is HAWQ-V3's, which truncates the mean + 0.01 at the input's scale.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hw_profiles.graph.consumer import Consumer
from hw_profiles.graph.formats import accumulator_codes, code_range
from hw_profiles.graph.integer_only import MOVES, is_product_of_two
from hw_profiles.graph.layer import FP32, INPUT, Layer
from hw_profiles.graph.windows import windows_of
from hw_profiles.graph.workload import Workload
from hw_profiles.reference import integer_transformer_units as units
from hw_profiles.reference.dyadic import MAX_SHIFT as MAX_SHIFT
from hw_profiles.reference.dyadic import Ints
from hw_profiles.reference.dyadic import dyadic as dyadic
from hw_profiles.reference.dyadic import rescale as rescale
from hw_profiles.reference.unit_numbers import Array, as_codes
from hw_profiles.reference.unit_numbers import UnitNumbers as UnitNumbers

Pooling = Literal["half-up", "truncated"]

CODES = 256  # of an activation
# least and largest value behind an activation; those of a Clip are its attributes
LIMITS: Mapping[str, tuple[float, float]] = {
    "none": (-math.inf, math.inf),
    "relu": (0.0, math.inf),
    "relu6": (0.0, 6.0),
}


def requantize(acc: ArrayLike, m: ArrayLike, c: ArrayLike, zero_point: int) -> NDArray[np.uint8]:
    """Return an int32 accumulator as codes: `rescale`, plus the zero point, clipped to 0..255."""
    return np.clip(rescale(acc, m, c) + zero_point, 0, CODES - 1).astype(np.uint8)


def accumulator_scale(numbers: UnitNumbers) -> NDArray[np.float32]:
    """Return (out,) s_x * s_w, rounded to float32: what one step of the accumulator is worth."""
    _, scale, _ = numbers.parameters
    return np.asarray(np.float32(numbers.input().scale) * scale, np.float32)


def unit_bias(numbers: UnitNumbers) -> Ints:
    """Return the (out,) int32 bias at the accumulator's scale."""
    _, _, bias = numbers.parameters
    if np.issubdtype(bias.dtype, np.integer):
        return bias.astype(np.int32)
    return accumulator_codes(bias, accumulator_scale(numbers))


def multipliers(layer: Layer, numbers: UnitNumbers) -> tuple[Ints, Ints]:
    """Return (m, c) that bring an integer unit to its output scale.

    (out,) each for a convolution, (2,) for the two operands of a sum, (1,) for a mean over the whole map or
    an activation, (rows * columns,) for means of windows.
    """
    out = float(np.float32(numbers.written.scale))
    if layer.weighted:
        return dyadic(accumulator_scale(numbers).astype(np.float64) / out)
    scales = np.array(
        [np.float32(qparams.scale) for qparams in numbers.inputs if qparams is not None], np.float64
    )
    if layer.op == "AveragePool":
        return dyadic(scales / out / window_counts(layer).ravel())
    area = windows_of(layer).pixels if layer.op == "GlobalAveragePool" else 1
    return dyadic(scales / out / area)


def window_counts(layer: Layer) -> Ints:
    """Return (rows, columns) how many numbers each mean of an AveragePool is over."""
    windows = windows_of(layer)
    if layer.values.integer("count_include_pad"):
        return np.full((windows.rows, windows.columns), np.prod(windows.kernel), np.int32)
    inside = np.ones((windows.height, windows.width, 1), np.int32)
    return np.asarray(_windows(layer, inside, 0).sum((2, 3, 4)), np.int32)


def inverse_scale(numbers: UnitNumbers) -> np.float32:
    """Return what `quantize` multiplies with: 1 / scale, rounded to float32.

    A product takes a fifth of a quotient's time, and differs from it by at most one code, at ties.
    """
    return np.float32(np.float32(1) / np.float32(numbers.written.scale))


def run_unit(
    layer: Layer, numbers: UnitNumbers, inputs: Sequence[Array], *, pooling: Pooling = "half-up"
) -> Array:
    """Return what `layer` makes of `inputs`.

    Args:
        inputs: (h, w, c) each, float32 or codes; two for a sum. What is no map has its own shape, without
            the batch.
        pooling: dialect of integer pooling.

    Returns:
        (h, w, out) float32 or codes; (1, 1, out) of a linear layer or pooling. Real convolutions are
        computed in float64 and rounded once.
    """
    if pooling == "truncated" and layer.op == "GlobalAveragePool" and layer.activation_format != FP32:
        return _pool_truncated(layer, numbers, inputs)
    return REFERENCE[layer.op](layer, numbers, inputs)


def _windows(layer: Layer, x: Array, padding: object) -> Array:
    """Return (h, w, c, k, k): what the kernel sees at each output position."""
    windows = windows_of(layer)
    top, left, bottom, right = windows.pads
    around = ((top, bottom), (left, right), (0, 0))
    padded = np.pad(x, around, constant_values=padding)  # type: ignore[call-overload]
    spans = [(k - 1) * d + 1 for k, d in zip(windows.kernel, windows.dilations, strict=True)]
    views = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=(0, 1))
    (down, across), (taps_down, taps_across) = windows.strides, windows.dilations
    return np.asarray(views[::down, ::across, :, ::taps_down, ::taps_across])


def _products(layer: Layer, windows: Array, weight: Array) -> Array:
    """Return (h, w, out) sums of window * weight, in the type of the arguments."""
    if layer.depthwise:
        return np.asarray(np.einsum("hwcij,cij->hwc", windows, weight[:, 0]))
    return np.asarray(np.tensordot(windows, weight, ((2, 3, 4), (1, 2, 3))))


def _matmul(layer: Layer, numbers: UnitNumbers, inputs: Sequence[Array]) -> Array:
    if is_product_of_two(layer):
        return units.product(layer, numbers, inputs)
    x = inputs[0]
    y = _conv(layer, numbers, [x.reshape(1, -1, x.shape[-1])])  # a row of pixels
    return y.reshape(*x.shape[:-1], y.shape[-1])


def _conv(layer: Layer, numbers: UnitNumbers, inputs: Sequence[Array]) -> Array:
    weight, _, bias = numbers.parameters
    x = inputs[0]
    if layer.op == "Gemm":  # channels first, as ONNX flattens
        x = x.transpose(2, 0, 1).reshape(1, 1, -1)
    if layer.activation_format == FP32:
        total = _products(layer, _windows(layer, x.astype(np.float64), 0.0), weight.astype(np.float64)) + bias
        return _activated(layer, total)
    acc = _accumulate(layer, numbers, x)
    if layer.out_format == FP32:
        return _activated(layer, acc.astype(np.float32) * accumulator_scale(numbers))
    scaled = rescale(acc, *multipliers(layer, numbers)) + numbers.written.zero_point
    return as_codes(np.clip(scaled, *code_limits(layer, numbers)), layer.out_format)


def _activated(layer: Layer, total: Array) -> Array:
    """Return real values behind the layer's activation."""
    low, high = real_limits(layer)
    return np.asarray(np.clip(total, low, high), np.float32)


def real_limits(layer: Layer) -> tuple[np.float32, np.float32]:
    """Return the least and the largest value that a layer's activation, or a Clip by itself, lets pass."""
    low, high = LIMITS.get(layer.nonlinearity, LIMITS["none"])
    if layer.op == "Clip":
        low = layer.values.number("min") if "min" in layer.values else low
        high = layer.values.number("max") if "max" in layer.values else high
    return np.float32(low), np.float32(high)


def code_limits(layer: Layer, numbers: UnitNumbers) -> tuple[int, int]:
    """Return the same as codes of the layer's output."""
    written, ends, (least, most) = numbers.written, real_limits(layer), code_range(layer.out_format)
    beyond = most + CODES  # whatever the zero point
    codes = [np.clip(end / np.float32(written.scale), -beyond, beyond) for end in ends]
    low, high = (int(np.clip(np.rint(code) + written.zero_point, least, most)) for code in codes)
    return low, high


def _accumulate(layer: Layer, numbers: UnitNumbers, x: Array) -> Ints:
    """Return (h, w, out) int32 sums of (x - zero point) * weight, and the bias, exact below 2^53."""
    zero_point = numbers.input().zero_point
    windows = _windows(layer, x, zero_point).astype(np.float64) - zero_point
    weight, _, _ = numbers.parameters
    return np.asarray(_products(layer, windows, weight.astype(np.float64)).astype(np.int32)) + unit_bias(
        numbers
    )


def _add(layer: Layer, numbers: UnitNumbers, inputs: Sequence[Array]) -> Array:
    if layer.activation_format == FP32:
        return _activated(layer, inputs[0].astype(np.float32) + inputs[1].astype(np.float32))
    m, c = multipliers(layer, numbers)
    if not layer.is_add:
        table = units.table_codes(layer, numbers)
        own = rescale(inputs[0].astype(np.int64) - numbers.input().zero_point, m[0], c[0]) + table
        return as_codes(
            np.clip(own + numbers.written.zero_point, *code_limits(layer, numbers)), layer.out_format
        )
    shifted = [x.astype(np.int64) - numbers.input(i).zero_point for i, x in enumerate(inputs)]
    # both operands at the output scale, no clipping before the sum: HAWQ-V3
    both = rescale(shifted[0], m[0], c[0]) + rescale(shifted[1], m[1], c[1])
    return as_codes(
        np.clip(both + numbers.written.zero_point, *code_limits(layer, numbers)), layer.out_format
    )


def _pool(layer: Layer, numbers: UnitNumbers, inputs: Sequence[Array]) -> Array:
    if layer.activation_format == FP32:
        return np.asarray(inputs[0].astype(np.float64).mean((0, 1), keepdims=True), np.float32)
    total = (inputs[0].astype(np.int64) - numbers.input().zero_point).sum((0, 1), keepdims=True)
    return requantize(total, *multipliers(layer, numbers), numbers.written.zero_point)


def _pool_truncated(layer: Layer, numbers: UnitNumbers, inputs: Sequence[Array]) -> Array:
    """Return trunc(mean + 0.01), in integers; then to the output scale, which HAWQ-V3 leaves as it is."""
    area = windows_of(layer).pixels
    total = (inputs[0].astype(np.int64) - numbers.input().zero_point).sum((0, 1), keepdims=True)
    hundredths = 100 * total + area  # of the mean + 0.01, times the area
    mean = np.sign(hundredths) * (np.abs(hundredths) // (100 * area))
    ratio = float(np.float32(numbers.input().scale)) / float(np.float32(numbers.written.scale))
    return requantize(mean, *dyadic(ratio), numbers.written.zero_point)


def _max_pool(layer: Layer, numbers: UnitNumbers, inputs: Sequence[Array]) -> Array:
    least = 0 if layer.activation_format != FP32 else -np.inf
    return np.asarray(_windows(layer, inputs[0], least).max((3, 4)))


def _average_pool(layer: Layer, numbers: UnitNumbers, inputs: Sequence[Array]) -> Array:
    if layer.activation_format == FP32:
        total = _windows(layer, inputs[0].astype(np.float64), 0.0).sum((3, 4))
        return np.asarray(total / window_counts(layer)[:, :, None], np.float32)
    zero_point = numbers.input().zero_point
    total = (_windows(layer, inputs[0].astype(np.int64), zero_point) - zero_point).sum((3, 4))
    m, c = (each.reshape(*total.shape[:2], 1) for each in multipliers(layer, numbers))
    return requantize(total, m, c, numbers.written.zero_point)


def _activation(layer: Layer, numbers: UnitNumbers, inputs: Sequence[Array]) -> Array:
    if layer.activation_format == FP32:
        return _activated(layer, inputs[0])
    m, c = multipliers(layer, numbers)
    scaled = rescale(inputs[0].astype(np.int64) - numbers.input().zero_point, m, c)
    codes = np.clip(scaled + numbers.written.zero_point, *code_limits(layer, numbers))
    return np.asarray(codes, np.uint8)


def _softmax(layer: Layer, numbers: UnitNumbers, inputs: Sequence[Array]) -> Array:
    if layer.activation_format != FP32:
        return units.softmax(layer, numbers, inputs)
    powers = np.exp(inputs[0].astype(np.float64) - inputs[0].max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True), np.float32)


def _quantize(layer: Layer, numbers: UnitNumbers, inputs: Sequence[Array]) -> Array:
    if layer.in_format != FP32:
        return units.requantized(layer, numbers, inputs)
    codes = np.rint(inputs[0].astype(np.float32) * inverse_scale(numbers)) + np.float32(
        numbers.written.zero_point
    )
    return np.asarray(np.clip(codes, 0, CODES - 1), np.uint8)


def _dequantize(layer: Layer, numbers: UnitNumbers, inputs: Sequence[Array]) -> Array:
    params = numbers.input()
    return np.asarray(
        (inputs[0].astype(np.float32) - np.float32(params.zero_point)) * np.float32(params.scale)
    )


REFERENCE: Consumer[Callable[[Layer, UnitNumbers, Sequence[Array]], Array]] = Consumer(
    "numpy reference",
    {
        "Conv": _conv,
        "Gemm": _conv,
        "MatMul": _matmul,
        "Add": _add,
        "GlobalAveragePool": _pool,
        "MaxPool": _max_pool,
        "AveragePool": _average_pool,
        "Relu": _activation,
        "Clip": _activation,
        "Softmax": _softmax,  # over channels, which are last here
        "Gelu": units.gelu,
        **dict.fromkeys(units.CURVES, units.tabulated),
        "Less": units.less,
        "LayerNormalization": units.layer_norm,
        **dict.fromkeys(MOVES, units.moved),
        "QuantizeLinear": _quantize,
        "DequantizeLinear": _dequantize,
    },
    otherwise="it is the reference of the kernels that Trilobit writes itself, which do not have it",
)


def run_network(
    work: Workload, numbers: Mapping[str, UnitNumbers], image: Array, *, pooling: Pooling = "half-up"
) -> Array:
    """Return the last layer's output for one image (h, w, c), or one example of what the network reads, unit
    by unit.
    """
    tensors: list[Array] = []
    for name, layer, sources in zip(work.names, work.layers, work.inputs, strict=True):
        inputs = [image if i == INPUT else tensors[i] for i in sources]
        tensors.append(run_unit(layer, numbers[name], inputs, pooling=pooling))
    return tensors[-1]
