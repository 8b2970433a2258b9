"""The units of integer-only transformers in plain numpy: I-ViT's operators (arXiv:2207.01405) between codes,
and the numbers that their kernels share with them.

Each operator computes on differences from the zero point, as they are, and gives integers at a scale of its
own; these are brought to the output's scale by a dyadic number, rounded half up as everywhere. Tensors have
their own shape without the batch; maps have their channels last.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.formats import code_range
from hw_profiles.graph.integer_only import IN_MAPS, OUT_MAPS
from hw_profiles.graph.layer import Layer
from hw_profiles.reference import integer_transformer_ops as ops
from hw_profiles.reference.dyadic import Ints, dyadic, rescale
from hw_profiles.reference.unit_numbers import Array, UnitNumbers, as_codes

Int64s = NDArray[np.int64]
# of the probabilities and sigmoids within a unit: in 8 bits long rows lose half of their mass, and of sums of
# 32 bits the reciprocal is a coarse integer
CURVE_BITS, CURVE_WORD = 16, 64
CURVE: Mapping[str, int] = {"bits": CURVE_BITS, "word": CURVE_WORD}
NORM_BITS = 31 - 8  # of a norm's multipliers; the others go to offsets of up to 2^38
# of a norm's square root: ten are published; six more, which change nothing once it is found, find it in
# rows that spread 64 times less, as those of an image's even parts do
NORM_STEPS = ops.ROOT_STEPS + 6
FLATTEST = 2.0**-8  # of a norm's gamma, in shares of beta / sqrt(c)


# of 8 bits, whose values are so few that they are stored
CURVES: Mapping[str, Callable[[NDArray[Any]], NDArray[Any]]] = {"Tanh": np.tanh}


class Exponential(NamedTuple):
    """What a kernel has to know of an exponential: halvings that are kept, steps of one halving."""

    shifts: int
    steps: int


class NormNumbers(NamedTuple):
    """How a norm is computed.

    Attributes:
        offset, m, c: (c,) a normalised number u becomes the output's code round((u + offset) * m / 2^c).
        epsilon: the norm's own, at the scale of a row's sum of squares.
    """

    offset: Int64s
    m: Ints
    c: Ints
    epsilon: int


def product(layer: Layer, numbers: UnitNumbers, inputs: Sequence[Array]) -> Array:
    """Return the product of two computed matrices, or of as many as the dimensions before hold."""
    left, right = (_differences(numbers, inputs, i) for i in range(2))
    return _written(layer, numbers, left @ right, *product_multiplier(numbers))


def product_multiplier(numbers: UnitNumbers) -> tuple[Ints, Ints]:
    """Return (m, c) that bring the sums of a product of two tensors to its output's scale."""
    step = float(np.float32(numbers.input(0).scale) * np.float32(numbers.input(1).scale))
    return dyadic(step / numbers.written_scale)


def softmax(layer: Layer, numbers: UnitNumbers, inputs: Sequence[Array]) -> Array:
    """Return Shiftmax over the last dimension, in 16 bits within, of what a mask leaves."""
    power, scores = softmax_exponential(numbers), _differences(numbers, inputs)
    mask = inputs[1] if len(inputs) > 1 else True
    shares = ops.shiftmax(scores, numbers.scale_of(), n=power.shifts, mask=mask, **CURVE)
    return _written(layer, numbers, shares, *softmax_multiplier(numbers))


def softmax_exponential(numbers: UnitNumbers) -> Exponential:
    """Return the exponential of a Shiftmax."""
    return Exponential(ops.SOFTMAX_SHIFTS, math.ceil(1 / numbers.scale_of()))


def softmax_multiplier(numbers: UnitNumbers) -> tuple[Ints, Ints]:
    """Return (m, c) that bring its shares to the output's scale."""
    return dyadic(2.0 ** -(CURVE_BITS - 1) / numbers.written_scale)


def gelu(layer: Layer, numbers: UnitNumbers, inputs: Sequence[Array]) -> Array:
    """Return ShiftGELU, comparing each number with the largest of its row."""
    n = gelu_exponential(numbers).shifts
    x = ops.shift_gelu(_differences(numbers, inputs), numbers.scale_of(), n=n, **CURVE)
    return _written(layer, numbers, x, *gelu_multiplier(numbers))


def gelu_exponential(numbers: UnitNumbers) -> Exponential:
    """Return the exponential of a ShiftGELU: of the halvings that fit its scale best.

    Raises:
        ValueError: the range of its input is too wide.
    """
    params, scale = numbers.input(), numbers.scale_of()
    return Exponential(_shifts(scale, params.zero_point), math.ceil(1 / (ops.GELU_SLOPE * scale)))


@lru_cache(1024)
def _shifts(scale: float, zero_point: int) -> int:
    return ops.gelu_shifts(scale, low=-zero_point, high=255 - zero_point, **CURVE)


def gelu_multiplier(numbers: UnitNumbers) -> tuple[Ints, Ints]:
    """Return (m, c) that bring its products to the output's scale."""
    return dyadic(numbers.scale_of() * 2.0 ** -(CURVE_BITS - 1) / numbers.written_scale)


def tabulated(layer: Layer, numbers: UnitNumbers, inputs: Sequence[Array]) -> Array:
    """Return a curve by its table."""
    return curve_table(layer, numbers)[inputs[0]]


def curve_table(layer: Layer, numbers: UnitNumbers) -> NDArray[np.uint8]:
    """Return what becomes of each code of 8 bits."""
    read, (_, most) = numbers.input(), code_range(layer.in_format)
    real = CURVES[layer.op]((np.arange(most + 1) - read.zero_point) * numbers.scale_of())
    codes = np.rint(real / numbers.written_scale).astype(np.int64) + numbers.written.zero_point
    return np.asarray(as_codes(codes, layer.out_format), np.uint8)


def less(layer: Layer, numbers: UnitNumbers, inputs: Sequence[Array]) -> Array:
    """Return 1 for each whole number that is below a stored one, else 0."""
    return np.asarray(inputs[0] < layer.values.integer("value"), np.uint8)


def layer_norm(layer: Layer, numbers: UnitNumbers, inputs: Sequence[Array]) -> Array:
    """Return I-LayerNorm over the last dimension."""
    x = _differences(numbers, inputs)
    known = norm_numbers(layer, numbers)
    normalised = ops.normalised(x, known.epsilon, NORM_STEPS) + known.offset
    return _written(layer, numbers, normalised, known.m, known.c)


def norm_numbers(layer: Layer, numbers: UnitNumbers) -> NormNumbers:
    """Return what brings normalised numbers to the output's scale: I-LayerNorm's offsets
    floor(beta / gamma * 2^30 / sqrt(c)), and its scales gamma * sqrt(c) / 2^30 over the output's.

    Where gamma is so small that an offset would leave 38 bits, it counts as beta / (256 sqrt(c)): that moves
    no result by more than 1/256 of beta.
    """
    gamma, _, beta = (each.astype(np.float64) for each in numbers.parameters)
    least = np.maximum(np.abs(beta) * FLATTEST / math.sqrt(len(gamma)), np.finfo(np.float32).tiny)
    gamma = np.where(np.abs(gamma) < least, np.where(gamma < 0, -least, least), gamma)
    ratio = ops.layer_norm_scale(np.abs(gamma)) / numbers.written_scale
    ratio = np.maximum(ratio, 2.0**-60)  # of a channel that gives nothing
    m, c = dyadic(ratio)
    kept = np.sign(gamma).astype(np.int64) * (m.astype(np.int64) >> (31 - NORM_BITS))
    epsilon = layer.values.number("epsilon") * len(gamma) / numbers.scale_of() ** 2
    return NormNumbers(
        ops.layer_norm_offset(gamma, beta),
        kept.astype(np.int32),
        c - np.int32(31 - NORM_BITS),
        round(min(epsilon, ops.WIDEST)),
    )


def table_codes(layer: Layer, numbers: UnitNumbers) -> Ints:
    """Return a stored table, of a sum or of embeddings, as codes at the output's scale; of a sum with maps it
    has channels last.
    """
    table, _, _ = numbers.parameters
    table = table.reshape(layer.values.integers("weight"))
    if layer.op == "Add":
        table = np.broadcast_to(table, tuple(int(size) for size in layer.outputs[0].shape[1:]))
        table = np.moveaxis(table, 0, -1) if layer.values.integer("maps") else table
    codes = np.rint(table.astype(np.float64) / numbers.written_scale)
    return np.asarray(np.clip(codes, -(2**24), 2**24), np.int32)


def requantized(layer: Layer, numbers: UnitNumbers, inputs: Sequence[Array]) -> Array:
    """Return codes of one format as codes of another."""
    return _written(layer, numbers, _differences(numbers, inputs), *requantizer(numbers))


def requantizer(numbers: UnitNumbers) -> tuple[Ints, Ints]:
    """Return (m, c) that bring codes to the output's scale."""
    return dyadic(numbers.scale_of() / numbers.written_scale)


def moved(layer: Layer, numbers: UnitNumbers, inputs: Sequence[Array]) -> Array:
    """Return what is read in another order, or some of it; or rows of a stored table."""
    if layer.op == "Gather" and "weight" in layer.values:
        rows = table_codes(layer, numbers)[inputs[0]] + numbers.written.zero_point
        return as_codes(rows, layer.out_format)
    maps = layer.values.integer("maps") if "maps" in layer.values else 0
    x = inputs[0]
    logical = np.moveaxis(x, -1, 0) if maps & IN_MAPS else x
    y = _arranged(layer, logical[None])[0]
    return np.ascontiguousarray(np.moveaxis(y, 0, -1) if maps & OUT_MAPS else y)


def _arranged(layer: Layer, x: Array) -> Array:
    """Return the result of an operation that moves numbers (1, ...)."""
    a, shape = layer.values, (1, *(int(size) for size in layer.outputs[0].shape[1:]))
    if layer.op in ("Reshape", "Flatten"):
        return x.reshape(shape)
    if layer.op == "Transpose":
        return x.transpose(a.integers("perm"))
    if layer.op == "Expand":
        return np.broadcast_to(x, shape)
    if layer.op == "Gather":
        indices = a.integers("indices") if a.is_list("indices") else a.integer("indices")
        return np.take(x, indices, a.integer("axis"))
    if layer.op == "Slice":
        starts, ends, axes = map(a.integers, ("starts", "ends", "axes"))
        index = [slice(None)] * x.ndim
        for start, end, axis, step in zip(starts, ends, axes, a.integers("steps", len(axes)), strict=True):
            index[axis] = slice(start, end if end >= -x.shape[axis] else None, step)
        return x[tuple(index)]
    raise TrilobitError(f"{layer.op} moves nothing")


def _differences(numbers: UnitNumbers, inputs: Sequence[Array], position: int = 0) -> Int64s:
    """Return codes less their zero point."""
    return inputs[position].astype(np.int64) - numbers.input(position).zero_point


def _written(layer: Layer, numbers: UnitNumbers, values: Int64s, m: Array, c: Array) -> Array:
    """Return integers of a scale of their own as codes of the output."""
    return as_codes(rescale(values, m, c) + numbers.written.zero_point, layer.out_format)
