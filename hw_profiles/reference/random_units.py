"""Made-up numbers for units, for measuring and testing: of a trained network's magnitude."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw_profiles.graph.formats import WHOLE, QuantParams, code_range
from hw_profiles.graph.integer_only import IN_MAPS, MOVES, WIDE
from hw_profiles.graph.layer import FP32, INPUT, Layer
from hw_profiles.graph.tensor_type import TensorType
from hw_profiles.graph.windows import map_shape
from hw_profiles.graph.workload import Workload
from hw_profiles.reference.integer_ops import CODES, LIMITS, UnitNumbers
from hw_profiles.reference.integer_sums import WIDEST_EXACT, IntegerSums
from hw_profiles.reference.integer_transformer_units import CURVES

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
    if inputs is None:
        inputs = tuple(_random_quantization(rng, "none", x.format) for x in layer.inputs)
    output = _random_quantization(rng, layer.nonlinearity, layer.out_format)
    if layer.keeps_codes or (layer.op == "Gather" and "weight" not in layer.values):
        output = inputs[0]
    if layer.op in ("LayerNormalization", "Add", "Gather") and "weight" in layer.values:
        return _stored_numbers(layer, rng, inputs, output)
    if not layer.weighted:
        return UnitNumbers(inputs, output)
    shape = (*layer.stored_shape, 1, 1)[:4]  # a linear layer is a 1x1 convolution
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


def _stored_numbers(
    layer: Layer,
    rng: np.random.Generator,
    inputs: tuple[QuantParams | None, ...],
    output: QuantParams | None,
) -> UnitNumbers:
    """Return a table, or the scales and offsets of a norm."""
    shape = layer.values.integers("weight")
    norm = layer.op == "LayerNormalization"
    weight = rng.uniform(0.5, 1.5, shape) if norm else rng.normal(0, 0.5, shape)
    offset = rng.normal(0, 0.1, shape if norm else shape[:1])
    real = (each.astype(np.float32) for each in (weight, np.ones(shape[0]), offset))
    return UnitNumbers(inputs, output, *real)


def _random_quantization(rng: np.random.Generator, activation: str, fmt: str) -> QuantParams | None:
    if fmt == FP32 or fmt in WHOLE:
        return None
    if fmt == WIDE:
        return QuantParams(float(np.float32(rng.uniform(1e-4, 3e-4))), 0, code_range(WIDE)[1])
    zero_point = int(rng.integers(96, 160)) if activation == "none" else 0
    widest = LIMITS.get(activation, LIMITS["none"])[1] / (CODES - 1)
    return QuantParams(float(np.float32(rng.uniform(0.01, min(0.03, widest)))), zero_point)


def random_inputs(layer: Layer, rng: np.random.Generator) -> tuple[Array, ...]:
    """Return one tensor, or two for a sum, (h, w, c) in the format that the layer reads."""
    if (layer.op == "Gather" and "weight" in layer.values) or layer.op == "Less":
        most = 2 * layer.values.integer("value") if layer.op == "Less" else layer.values.integers("weight")[0]
        return (rng.integers(0, most, int(layer.inputs[0].shape[1])).astype(layer.in_format),)
    return tuple(random_tensor(_stored_shape(layer, x), x.format, rng) for x in layer.inputs)


def _stored_shape(layer: Layer, x: TensorType) -> tuple[int, ...]:
    """Return the shape in which one example of a tensor lies in memory: of maps with their channels last."""
    own = layer.op in ("MatMul", "Gelu", *CURVES, "LayerNormalization", *MOVES) or len(x.shape) not in (2, 4)
    maps = layer.values.integer("maps") if "maps" in layer.values else 0
    if (own and not maps & IN_MAPS) or (layer.op == "Softmax" and x.format != FP32):
        return tuple(int(size) for size in x.shape[1:])
    channels, height, width = map_shape(x)
    return height, width, channels


def random_tensor(shape: tuple[int, ...], fmt: str, rng: np.random.Generator) -> Array:
    """Return normal real values, or codes."""
    if fmt == FP32:
        return rng.standard_normal(shape, np.float32)
    if fmt == WIDE:
        return np.clip(rng.normal(0, 4000, shape), *code_range(WIDE)).astype(np.int16)
    if fmt == "bool":
        return rng.integers(0, 2, shape).astype(np.uint8)
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
