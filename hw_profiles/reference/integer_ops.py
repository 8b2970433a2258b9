"""The arithmetic of one unit in plain numpy: what every integer kernel must give bit for bit.

Integer tensors are uint8 codes with a scale and a zero point, weights are signed codes with one scale per
output channel. The accumulator is int32. It is brought to the output scale in integers only, by a dyadic
number m / 2^c (HAWQ-V3, arXiv:2011.10680), rounded half up: dialect "half-up". Another runtime that rounds
half to even may differ by one code where the quotient is an exact tie.

Pooling has two dialects: "half-up", which is what our kernels do, rounds the mean once, at the output scale;
"truncated" is HAWQ-V3's, which truncates the mean + 0.01 at the input's scale.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hw_profiles.graph.consumer import Consumer
from hw_profiles.graph.formats import QuantParams, accumulator_codes
from hw_profiles.graph.layer import FP32, INPUT, Layer
from hw_profiles.graph.workload import Workload
from hw_profiles.reference.integer_sums import WIDEST_EXACT, IntegerSums

Array = NDArray[Any]
Pooling = Literal["half-up", "truncated"]
Ints = NDArray[np.int32]

CODES = 256  # of an activation
MANTISSA_BITS = 31
MAX_SHIFT = 62  # so that accumulator * mantissa + 2^(shift - 1) stays within 63 bits
WEIGHT_RANGE: Mapping[str, tuple[int, int]] = {
    "int8": (-128, 127),
    "int8-exact": (-128, 127),
    "int6": (-32, 31),
    "int4": (-8, 7),
    "int2": (-2, 1),
}


@dataclass(frozen=True, eq=False)
class UnitNumbers:
    """The numbers in one unit. What the unit does not have is None.

    Attributes:
        inputs: one per tensor that it reads; None where that is fp32.
        output: None where it gives fp32.
        weight: (out, in / groups, k, k): int8 codes, or real values where the weight format is fp32.
        scale: (out,) float32; the real weight is code * scale.
        bias: (out,): float32 real values, or int32 codes at scale s_x * s_w.
    """

    inputs: tuple[QuantParams | None, ...]
    output: QuantParams | None = None
    weight: NDArray[np.int8 | np.float32] | None = None
    scale: NDArray[np.float32] | None = None
    bias: NDArray[np.int32 | np.float32] | None = None

    @property
    def parameters(self) -> tuple[Array, Array, Array]:
        """(weight, scale, bias) of a weighted unit.

        Raises:
            ValueError: it has none.
        """
        if self.weight is None or self.scale is None or self.bias is None:
            raise ValueError("the unit has no weights")
        return self.weight, self.scale, self.bias

    @property
    def written(self) -> QuantParams:
        """Quantization of an integer output.

        Raises:
            ValueError: the output has none.
        """
        return _known(self.output)

    def input(self, position: int = 0) -> QuantParams:
        """Return the quantization of an integer input.

        Raises:
            ValueError: the input has none.
        """
        return _known(self.inputs[position])


def _known(params: QuantParams | None) -> QuantParams:
    if params is None:
        raise ValueError("a tensor of real numbers has no scale")
    return params


def dyadic(ratio: ArrayLike) -> tuple[Ints, Ints]:
    """Return (m, c) int32 with m / 2^c equal to `ratio` within 2^-31 of it; m is in [2^30, 2^31).

    A ratio below 2^-31 gets fewer bits: it moves no accumulator by more than one code.

    Raises:
        ValueError: a ratio is not above 0, or 2^30 or more.

    >>> m, c = dyadic(0.75)
    >>> int(m) / 2 ** int(c)
    0.75
    """
    values = np.asarray(ratio, np.float64)
    if not (np.all(values > 0) and np.all(values < 2.0**30)):
        raise ValueError("a ratio of scales must be above 0 and below 2^30")
    fraction, exponent = np.frexp(values)
    mantissa = np.floor(fraction * 2.0**MANTISSA_BITS + 0.5).astype(np.int64)
    shift = MANTISSA_BITS - exponent.astype(np.int64)
    whole = mantissa == 2**MANTISSA_BITS  # rounded up to the next power of two
    mantissa, shift = np.where(whole, mantissa // 2, mantissa), np.where(whole, shift - 1, shift)
    excess = np.clip(shift - MAX_SHIFT, 0, MANTISSA_BITS)
    return (mantissa >> excess).astype(np.int32), np.minimum(shift, MAX_SHIFT).astype(np.int32)


def rescale(values: ArrayLike, m: ArrayLike, c: ArrayLike) -> NDArray[np.int64]:
    """Return round(values * m / 2^c), half up, in int64; the arguments broadcast."""
    wide, shift = np.asarray(values, np.int64), np.asarray(c, np.int64)
    return np.asarray((wide * np.asarray(m, np.int64) + (np.int64(1) << (shift - 1))) >> shift, np.int64)


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

    (out,) each for a convolution, (2,) for the two operands of a sum, (1,) for pooling.
    """
    out = float(np.float32(numbers.written.scale))
    if layer.weighted:
        return dyadic(accumulator_scale(numbers).astype(np.float64) / out)
    scales = np.array(
        [np.float32(qparams.scale) for qparams in numbers.inputs if qparams is not None], np.float64
    )
    area = layer.in_shape[1] * layer.in_shape[2] if layer.kind == "pool" else 1
    return dyadic(scales / out / area)


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
        inputs: (h, w, c) each, float32 or uint8 codes; two for a sum.
        pooling: dialect of integer pooling.

    Returns:
        (h, w, out) float32 or uint8 codes; (1, 1, out) of a linear layer or pooling. Real convolutions are
        computed in float64 and rounded once.
    """
    if pooling == "truncated" and layer.kind == "pool" and layer.activation_format != FP32:
        return _pool_truncated(layer, numbers, inputs)
    return REFERENCE[layer.op](layer, numbers, inputs)


def _windows(layer: Layer, x: Array, padding: object) -> Array:
    """Return (h, w, c, k, k): what the kernel sees at each output position."""
    edge, k = layer.kernel // 2, layer.kernel
    padded = np.pad(x, ((edge, edge), (edge, edge), (0, 0)), constant_values=padding)  # type: ignore[call-overload]
    views = np.lib.stride_tricks.sliding_window_view(padded, (k, k), axis=(0, 1))
    return np.asarray(views[:: layer.stride, :: layer.stride])


def _products(layer: Layer, windows: Array, weight: Array) -> Array:
    """Return (h, w, out) sums of window * weight, in the type of the arguments."""
    if layer.depthwise:
        return np.asarray(np.einsum("hwcij,cij->hwc", windows, weight[:, 0]))
    return np.asarray(np.tensordot(windows, weight, ((2, 3, 4), (1, 2, 3))))


def _conv(layer: Layer, numbers: UnitNumbers, inputs: Sequence[Array]) -> Array:
    weight, _, bias = numbers.parameters
    if layer.activation_format == FP32:
        windows = _windows(layer, inputs[0].astype(np.float64), 0.0)
        total = _products(layer, windows, weight.astype(np.float64)) + bias
        return np.asarray(np.maximum(total, 0) if layer.nonlinearity == "relu" else total, np.float32)
    acc = _accumulate(layer, numbers, inputs[0])
    if layer.out_format == FP32:
        return np.asarray(acc.astype(np.float32) * accumulator_scale(numbers))
    low = numbers.written.zero_point if layer.nonlinearity == "relu" else 0
    return np.maximum(
        requantize(acc, *multipliers(layer, numbers), numbers.written.zero_point), np.uint8(low)
    )


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
        total = inputs[0].astype(np.float32) + inputs[1].astype(np.float32)
        return np.asarray(np.maximum(total, np.float32(0)) if layer.nonlinearity == "relu" else total)
    m, c = multipliers(layer, numbers)
    shifted = [x.astype(np.int64) - numbers.input(i).zero_point for i, x in enumerate(inputs)]
    # both operands at the output scale, no clipping before the sum: HAWQ-V3
    both = rescale(shifted[0], m[0], c[0]) + rescale(shifted[1], m[1], c[1])
    low = numbers.written.zero_point if layer.nonlinearity == "relu" else 0
    return np.asarray(np.clip(both + numbers.written.zero_point, low, CODES - 1), np.uint8)


def _pool(layer: Layer, numbers: UnitNumbers, inputs: Sequence[Array]) -> Array:
    if layer.activation_format == FP32:
        return np.asarray(inputs[0].astype(np.float64).mean((0, 1), keepdims=True), np.float32)
    total = (inputs[0].astype(np.int64) - numbers.input().zero_point).sum((0, 1), keepdims=True)
    return requantize(total, *multipliers(layer, numbers), numbers.written.zero_point)


def _pool_truncated(layer: Layer, numbers: UnitNumbers, inputs: Sequence[Array]) -> Array:
    """Return trunc(mean + 0.01), in integers; then to the output scale, which HAWQ-V3 leaves as it is."""
    area = layer.in_shape[1] * layer.in_shape[2]
    total = (inputs[0].astype(np.int64) - numbers.input().zero_point).sum((0, 1), keepdims=True)
    hundredths = 100 * total + area  # of the mean + 0.01, times the area
    mean = np.sign(hundredths) * (np.abs(hundredths) // (100 * area))
    ratio = float(np.float32(numbers.input().scale)) / float(np.float32(numbers.written.scale))
    return requantize(mean, *dyadic(ratio), numbers.written.zero_point)


def _quantize(layer: Layer, numbers: UnitNumbers, inputs: Sequence[Array]) -> Array:
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
        "Add": _add,
        "GlobalAveragePool": _pool,
        "QuantizeLinear": _quantize,
        "DequantizeLinear": _dequantize,
    },
    otherwise="it is the reference of the kernels that Trilobit writes itself, which do not have it",
)


def weight_range(weight_format: str, sums: IntegerSums = IntegerSums.EXACT) -> tuple[int, int]:
    """Return the lowest and the highest code of weights that are made for a device with such sums."""
    low, high = WEIGHT_RANGE[weight_format]
    if weight_format == "int8" and sums.reduced:
        return max(low, -WIDEST_EXACT), min(high, WIDEST_EXACT)
    return low, high


def random_numbers(
    layer: Layer,
    rng: np.random.Generator,
    inputs: tuple[QuantParams | None, ...] | None = None,
    *,
    sums: IntegerSums = IntegerSums.EXACT,
) -> UnitNumbers:
    """Return numbers for measuring and testing, of a trained network's magnitude.

    Denormal floats would change the time, codes that all clip would hide errors.

    Args:
        inputs: quantization of the tensors that it reads, where that is given.
        sums: of the device that the weights are made for.
    """
    count = 2 if layer.is_add else 1
    if inputs is None:
        inputs = tuple(_random_quantization(rng, "none", layer.in_format) for _ in range(count))
    output = _random_quantization(rng, layer.nonlinearity, layer.out_format)
    if not layer.weighted:
        return UnitNumbers(inputs, output)
    channels = layer.in_shape[0] // layer.groups
    shape = (layer.out_channels, channels, layer.kernel, layer.kernel)
    fan_in = channels * layer.kernel**2
    bias = rng.normal(0, 0.1, layer.out_channels).astype(np.float32)
    if layer.weight_format == FP32:
        weight = rng.normal(0, fan_in**-0.5, shape).astype(np.float32)
        return UnitNumbers(inputs, output, weight, np.ones(layer.out_channels, np.float32), bias)
    low, high = weight_range(layer.weight_format, sums)
    codes = rng.integers(low, high + 1, shape).astype(np.int8)
    spread = np.sqrt(((high - low) ** 2) / 12 * fan_in)  # standard deviation of a sum of such codes
    scale = (rng.uniform(0.5, 1.5, layer.out_channels) / spread).astype(np.float32)
    return UnitNumbers(inputs, output, codes, scale, bias)


def _random_quantization(rng: np.random.Generator, activation: str, fmt: str) -> QuantParams | None:
    if fmt == FP32:
        return None
    zero_point = 0 if activation == "relu" else int(rng.integers(96, 160))
    return QuantParams(float(np.float32(rng.uniform(0.01, 0.03))), zero_point)


def random_inputs(layer: Layer, rng: np.random.Generator) -> tuple[Array, ...]:
    """Return one tensor, or two for a sum, (h, w, c) in the format that the layer reads."""
    channels, height, width = layer.in_shape
    count = 2 if layer.is_add else 1
    return tuple(random_tensor((height, width, channels), layer.in_format, rng) for _ in range(count))


def random_tensor(shape: tuple[int, ...], fmt: str, rng: np.random.Generator) -> Array:
    """Return normal real values, or codes."""
    if fmt == FP32:
        return rng.standard_normal(shape, np.float32)
    return rng.integers(0, CODES, shape).astype(np.uint8)


def random_units(
    work: Workload, rng: np.random.Generator, *, sums: IntegerSums = IntegerSums.EXACT
) -> dict[str, UnitNumbers]:
    """Return numbers for each layer by its name; neighbours agree about the tensor between them.

    Args:
        sums: of the device that the weights are made for.
    """
    image = _random_quantization(rng, "none", work.in_format)
    numbers: dict[str, UnitNumbers] = {}
    for name, layer, sources in zip(work.names, work.layers, work.inputs, strict=True):
        inputs = tuple(image if i == INPUT else numbers[work.names[i]].output for i in sources)
        numbers[name] = random_numbers(layer, rng, inputs, sums=sums)
    return numbers


def run_network(
    work: Workload, numbers: Mapping[str, UnitNumbers], image: Array, *, pooling: Pooling = "half-up"
) -> Array:
    """Return the last layer's output for one image (h, w, c), unit by unit."""
    tensors: list[Array] = []
    for name, layer, sources in zip(work.names, work.layers, work.inputs, strict=True):
        inputs = [image if i == INPUT else tensors[i] for i in sources]
        tensors.append(run_unit(layer, numbers[name], inputs, pooling=pooling))
    return tensors[-1]
