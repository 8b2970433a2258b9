"""What follows an accumulator: bias, requantization, activation; and the constants that it needs, packed."""

import math
from typing import Any

import numpy as np
from tvm import te, tirx

from hw_profiles.graph.integer_only import WIDE
from hw_profiles.graph.layer import FP32, Layer
from hw_profiles.reference.integer_ops import (
    CODES,
    UnitNumbers,
    accumulator_scale,
    code_limits,
    multipliers,
    real_limits,
    unit_bias,
)
from hw_profiles.runtimes.tvm_cpu.rescale import rescaled
from hw_profiles.runtimes.tvm_cpu.target import TvmTarget
from hw_profiles.runtimes.tvm_cpu.unit import DTYPES, Array

BIAS, MULTIPLIER, SHIFT, ZERO_POINTS = range(4)  # rows of the constants
INPUT_ZERO, OUTPUT_ZERO, LOWEST, HIGHEST = range(4)  # columns of the last row
WIDTH = 8  # the least number of columns


def constants_placeholder(layer: Layer, channels: int) -> Any:
    """Return the placeholder of a unit's constants: of integers int32 (4, channels), else its bias
    (channels,).
    """
    if layer.activation_format == FP32:
        return te.placeholder((channels,), "float32", "bias")
    return te.placeholder((4, max(channels, WIDTH)), "int32", "constants")


def pack_constants(layer: Layer, numbers: UnitNumbers, channels: int, shift: int = 0) -> Array:
    """Return those constants, channels padded to `channels`.

    The input's zero point is folded into the bias, and so is what was taken off the input already:
    sum (x - z) w + b = sum (x - shift) w + (b + (shift - z) sum w).
    """
    weight, _, bias = numbers.parameters
    if layer.activation_format == FP32:
        padded = np.zeros(channels, np.float32)
        padded[: len(bias)] = bias
        return padded
    out, zero_point = layer.stored_shape[0], numbers.input().zero_point
    constants = np.zeros((4, max(channels, WIDTH)), np.int32)
    constants[SHIFT] = 1  # of padding: a shift by nothing has no rounding bit
    sums = weight.astype(np.int64).reshape(out, -1).sum(1)
    folded = unit_bias(numbers).astype(np.int64) + (shift - zero_point) * sums
    constants[BIAS, :out] = folded.astype(np.int32)
    constants[ZERO_POINTS, INPUT_ZERO] = zero_point
    if layer.out_format == FP32:
        constants[MULTIPLIER, :out] = accumulator_scale(numbers).view(np.int32)
        return constants
    constants[MULTIPLIER, :out], constants[SHIFT, :out] = multipliers(layer, numbers)
    if layer.out_format == WIDE:  # its codes are not those of what a ReLU lets pass: it is applied
        constants[ZERO_POINTS, LOWEST : HIGHEST + 1] = code_limits(layer, numbers)
        return constants
    constants[ZERO_POINTS, OUTPUT_ZERO] = output_zero_point(layer, numbers)
    return constants


def padding(layer: Layer, constants: Any) -> Any:
    """Return what stands around the input: for codes that is the zero point."""
    if layer.activation_format == FP32:
        return tirx.const(0.0, "float32")
    return constants[ZERO_POINTS, INPUT_ZERO].astype("uint8")


def finish(layer: Layer, acc: Any, constants: Any, channel: Any, target: TvmTarget) -> Any:
    """Return what the unit writes for the accumulator `acc` of one output channel."""
    if layer.activation_format == FP32:
        return activated(layer, acc + constants[channel])
    bias, multiplier = constants[BIAS, channel], constants[MULTIPLIER, channel]
    if layer.out_format == FP32:
        real = (acc + bias).astype("float32") * tirx.reinterpret("float32", multiplier)
        return activated(layer, real)
    if layer.out_format == WIDE:
        low, high = constants[ZERO_POINTS, LOWEST], constants[ZERO_POINTS, HIGHEST]
        scaled = rescaled(acc, bias, multiplier, constants[SHIFT, channel], tirx.const(0, "int32"), target)
        return tirx.min(tirx.max(scaled, low), high).astype(DTYPES[WIDE])
    # after a ReLU it is 0: clipping is all
    linear = layer.nonlinearity == "none"
    zero_point = constants[ZERO_POINTS, OUTPUT_ZERO] if linear else tirx.const(0, "int32")
    return codes(rescaled(acc, bias, multiplier, constants[SHIFT, channel], zero_point, target))


def activated(layer: Layer, total: Any) -> Any:
    """Return a real value behind the layer's activation."""
    low, high = map(float, real_limits(layer))
    if low > -math.inf:
        total = tirx.max(total, tirx.const(low, "float32"))
    return tirx.min(total, tirx.const(high, "float32")) if high < math.inf else total


def codes(shifted: Any) -> Any:
    """Return uint8 codes of an int32 at the output's scale, zero point added."""
    return tirx.min(tirx.max(shifted, 0), CODES - 1).astype("uint8")


def output_zero_point(layer: Layer, numbers: UnitNumbers) -> int:
    """Return the output's zero point.

    Raises:
        ValueError: behind an activation some codes would have to be clipped: those of a ReLU begin with 0,
            and those of a ReLU6 end with 6.
    """
    if layer.nonlinearity != "none" and tuple(map(int, code_limits(layer, numbers))) != (0, CODES - 1):
        written = numbers.written
        raise ValueError(
            f"the output of a {layer.nonlinearity} has zero point 0 and only codes that it gives; "
            f"got {written.zero_point} and a scale of {written.scale:.3g}"
        )
    return numbers.written.zero_point
