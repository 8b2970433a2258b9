"""What follows an accumulator: bias, requantization, activation; and the constants that it needs, packed."""

from typing import Any

import numpy as np
from tvm import te, tirx

from hw_profiles.arithmetic import (
    UnitNumbers,
    accumulator_scale,
    bias_codes,
    multipliers,
)
from hw_profiles.backends.tvm_cpu.unit import Array
from hw_profiles.workload import FP32, LayerSpec

BIAS, MULTIPLIER, SHIFT, ZERO_POINTS = range(4)  # rows of the constants
INPUT_ZERO, OUTPUT_ZERO = range(2)  # columns of the last row
WIDTH = 8  # the least number of columns


def integer_constants(channels: int) -> Any:
    """The placeholder of an integer unit's constants: int32 (4, channels)."""
    return te.placeholder((4, max(channels, WIDTH)), "int32", "constants")


def pack_constants(layer: LayerSpec, numbers: UnitNumbers, channels: int) -> Array:
    """Those constants, channels padded to `channels`.

    The input's zero point is folded into the bias: sum (x - z) w + b = sum x w + (b - z sum w).
    """
    weight, _, _ = numbers.parameters
    out, zero_point = layer.out_channels, numbers.input().zero_point
    constants = np.zeros((4, max(channels, WIDTH)), np.int32)
    constants[SHIFT] = 1  # of padding: a shift by nothing has no rounding bit
    sums = weight.astype(np.int64).reshape(out, -1).sum(1)
    constants[BIAS, :out] = (bias_codes(numbers).astype(np.int64) - zero_point * sums).astype(np.int32)
    constants[ZERO_POINTS, INPUT_ZERO] = zero_point
    if layer.out_format == FP32:
        constants[MULTIPLIER, :out] = accumulator_scale(numbers).view(np.int32)
        return constants
    assert numbers.output is not None
    constants[MULTIPLIER, :out], constants[SHIFT, :out] = multipliers(layer, numbers)
    constants[ZERO_POINTS, OUTPUT_ZERO] = numbers.output.zero_point
    return constants


def pack_bias(numbers: UnitNumbers, channels: int) -> Array:
    """The bias of an fp32 unit, padded to `channels`."""
    _, _, bias = numbers.parameters
    padded = np.zeros(channels, np.float32)
    padded[: len(bias)] = bias
    return padded


def finish(layer: LayerSpec, acc: Any, constants: Any, channel: Any) -> Any:
    """What the unit writes for the accumulator `acc` of one output channel."""
    if layer.activation_format == FP32:
        total = acc + constants[channel]
        return tirx.max(total, tirx.const(0.0, "float32")) if layer.activation == "relu" else total
    total = acc + constants[BIAS, channel]
    if layer.out_format == FP32:
        return total.astype("float32") * tirx.reinterpret("float32", constants[MULTIPLIER, channel])
    scaled = rescaled(total, constants[MULTIPLIER, channel], constants[SHIFT, channel])
    return codes(layer, scaled, constants[ZERO_POINTS, OUTPUT_ZERO])


def rescaled(value: Any, m: Any, c: Any) -> Any:
    """round(value * m / 2^c), half up, as int32: `hw_profiles.arithmetic.rescale`."""
    shift = c.astype("int64")
    half = tirx.const(1, "int64") << (shift - tirx.const(1, "int64"))
    return ((value.astype("int64") * m.astype("int64") + half) >> shift).astype("int32")


def codes(layer: LayerSpec, scaled: Any, zero_point: Any) -> Any:
    """uint8 codes of an int32 at the output's scale."""
    low = zero_point if layer.activation == "relu" else 0
    return tirx.min(tirx.max(scaled + zero_point, low), 255).astype("uint8")
