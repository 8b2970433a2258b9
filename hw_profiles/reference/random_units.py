"""Made-up numbers for units, for measuring and testing: of a trained network's magnitude."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw_profiles.graph.formats import QuantParams
from hw_profiles.graph.layer import FP32, INPUT, Layer
from hw_profiles.graph.windows import map_shape
from hw_profiles.graph.workload import Workload
from hw_profiles.reference.integer_ops import CODES, LIMITS, UnitNumbers
from hw_profiles.reference.integer_sums import WIDEST_EXACT, IntegerSums

Array = NDArray[Any]

WEIGHT_RANGE: Mapping[str, tuple[int, int]] = {
    "int8": (-128, 127),
    "int8-exact": (-128, 127),
    "int6": (-32, 31),
    "int4": (-8, 7),
    "int2": (-2, 1),
}


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
    if layer.keeps_codes:
        output = inputs[0]
    if not layer.weighted:
        return UnitNumbers(inputs, output)
    shape = (*layer.values.integers("weight"), 1, 1)[:4]  # a linear layer is a 1x1 convolution
    out, fan_in = shape[0], math.prod(shape[1:])
    bias = rng.normal(0, 0.1, out).astype(np.float32)
    if layer.weight_format == FP32:
        weight = rng.normal(0, fan_in**-0.5, shape).astype(np.float32)
        return UnitNumbers(inputs, output, weight, np.ones(out, np.float32), bias)
    low, high = weight_range(layer.weight_format, sums)
    codes = rng.integers(low, high + 1, shape).astype(np.int8)
    spread = np.sqrt(((high - low) ** 2) / 12 * fan_in)  # standard deviation of a sum of such codes
    scale = (rng.uniform(0.5, 1.5, out) / spread).astype(np.float32)
    return UnitNumbers(inputs, output, codes, scale, bias)


def _random_quantization(rng: np.random.Generator, activation: str, fmt: str) -> QuantParams | None:
    if fmt == FP32:
        return None
    zero_point = int(rng.integers(96, 160)) if activation == "none" else 0
    widest = LIMITS.get(activation, LIMITS["none"])[1] / (CODES - 1)
    return QuantParams(float(np.float32(rng.uniform(0.01, min(0.03, widest)))), zero_point)


def random_inputs(layer: Layer, rng: np.random.Generator) -> tuple[Array, ...]:
    """Return one tensor, or two for a sum, (h, w, c) in the format that the layer reads."""
    channels, height, width = map_shape(layer.inputs[0])
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
