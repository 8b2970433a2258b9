"""Sums, activations by themselves, softmax and format conversions: one schedule each, nothing to tune."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import s_tir, te, tirx

from hw_profiles.graph.layer import FP32, Layer
from hw_profiles.graph.windows import windows_of
from hw_profiles.reference.integer_ops import UnitNumbers, code_limits, inverse_scale, multipliers
from hw_profiles.runtimes.tvm_cpu import transformer
from hw_profiles.runtimes.tvm_cpu.epilogue import activated, codes, output_zero_point
from hw_profiles.runtimes.tvm_cpu.short_dyadic import shortened
from hw_profiles.runtimes.tvm_cpu.target import TvmTarget
from hw_profiles.runtimes.tvm_cpu.transformer import one_tile as one_tile
from hw_profiles.runtimes.tvm_cpu.unit import DTYPES, Array, Template, Tile

BOUND = 1024.0  # whatever the zero point, what is beyond is clipped
# Added to a smaller number, it leaves the integer nearest to that in the low bits, ties to even. TVM's own
# nearbyint is not vectorized.
ROUNDER = 1.5 * 2**23
ROUNDER_BITS = int(np.float32(ROUNDER).view(np.int32))


def _vectorized(function: Any, block: str, lanes: int) -> Any:
    """Return all loops of `block` as one, in vectors."""
    sch = s_tir.Schedule(function)
    loop = sch.get_loops(sch.get_sblock(block))[-1]
    _, lane = sch.split(loop, [None, lanes])
    sch.vectorize(lane)
    return sch.mod["main"]


def _flat(layer: Layer, dtype: str, name: str) -> Any:
    return te.placeholder((_size(layer),), dtype, name)


def _size(layer: Layer) -> int:
    return int(np.prod(windows_of(layer).shape))


def _vector(layer: Layer, tile: Tile) -> int:
    """Return lanes of a vector that divides the tensor."""
    return int(np.gcd(_size(layer), tile.lanes))


ADD_MULTIPLIERS, ADD_SHIFTS, ADD_ZERO_POINTS = (0, 1), (2, 3), (4, 5, 6)


def _add(layer: Layer, target: TvmTarget, tile: Tile) -> Any:
    if _is_wide(layer):
        return transformer.add(layer, target, tile)
    dtype = DTYPES[layer.activation_format]
    first, second = _flat(layer, dtype, "first"), _flat(layer, dtype, "second")
    if layer.activation_format == FP32:
        out = te.compute(first.shape, lambda i: activated(layer, first[i] + second[i]), name="out")
        return _vectorized(te.create_prim_func([first, second, out]), "out", _vector(layer, tile))
    constants = te.placeholder((7,), "int32", "constants")

    def operand(x: Any, which: int, i: Any) -> Any:
        zero_point = constants[ADD_ZERO_POINTS[which]]
        m, c = constants[ADD_MULTIPLIERS[which]], constants[ADD_SHIFTS[which]]
        return (x[i].astype("int32") * m + ((1 << (c - 1)) - zero_point * m)) >> c

    out = te.compute(
        first.shape,
        lambda i: codes(operand(first, 0, i) + operand(second, 1, i) + constants[ADD_ZERO_POINTS[2]]),
        name="out",
    )
    return _vectorized(te.create_prim_func([first, second, constants, out]), "out", _vector(layer, tile))


def _is_wide(layer: Layer) -> bool:
    """Return whether a sum has a tensor of 16 bits, or a stored table."""
    return not layer.is_add or any(x.format == "int16" for x in (*layer.inputs, *layer.outputs))


def _pack_add(layer: Layer, numbers: UnitNumbers, target: TvmTarget, tile: Tile) -> Sequence[Array]:
    if _is_wide(layer):
        return transformer.pack_add(layer, numbers)
    if layer.activation_format == FP32:
        return ()
    zeros = (numbers.input(0).zero_point, numbers.input(1).zero_point, output_zero_point(layer, numbers))
    pairs = [shortened(int(m), int(c)) for m, c in zip(*multipliers(layer, numbers), strict=True)]
    return (np.array([*(m for m, _ in pairs), *(c for _, c in pairs), *zeros], np.int32),)


def _activation(layer: Layer, target: TvmTarget, tile: Tile) -> Any:
    source = _flat(layer, DTYPES[layer.activation_format], "source")
    if layer.activation_format == FP32:
        out = te.compute(source.shape, lambda i: activated(layer, source[i]), name="out")
        return _vectorized(te.create_prim_func([source, out]), "out", _vector(layer, tile))
    constants = te.placeholder((6,), "int32", "constants")
    m, c, zero_point, low, high, written = (constants[i] for i in range(6))

    def code(i: Any) -> Any:
        scaled = (source[i].astype("int32") * m + ((1 << (c - 1)) - zero_point * m)) >> c
        return tirx.min(tirx.max(scaled + written, low), high).astype("uint8")

    out = te.compute(source.shape, code, name="out")
    return _vectorized(te.create_prim_func([source, constants, out]), "out", _vector(layer, tile))


def _pack_activation(layer: Layer, numbers: UnitNumbers, target: TvmTarget, tile: Tile) -> Sequence[Array]:
    if layer.activation_format == FP32:
        return ()
    [(m, c)] = zip(*multipliers(layer, numbers), strict=True)
    zeros = numbers.input().zero_point, *map(int, code_limits(layer, numbers)), numbers.written.zero_point
    return (np.array([*shortened(int(m), int(c)), *zeros], np.int32),)


def _softmax(layer: Layer, target: TvmTarget, tile: Tile) -> Any:
    if layer.activation_format != FP32:
        return transformer.SHIFTMAX.schedule(layer, target, tile)
    windows = windows_of(layer)
    rows, channels = windows.pixels, windows.channels
    source = te.placeholder((rows, channels), "float32", "source")
    k, n = (te.reduce_axis((0, channels), name) for name in "kn")
    largest = te.compute((rows,), lambda r: te.max(source[r, k], axis=k), name="largest")
    power = te.compute((rows, channels), lambda r, c: tirx.exp(source[r, c] - largest[r]), name="power")
    total = te.compute((rows,), lambda r: te.sum(power[r, n], axis=n), name="total")
    out = te.compute((rows, channels), lambda r, c: power[r, c] / total[r], name="out")
    return s_tir.Schedule(te.create_prim_func([source, out])).mod["main"]


def _pack_softmax(layer: Layer, numbers: UnitNumbers, target: TvmTarget, tile: Tile) -> Sequence[Array]:
    return () if layer.activation_format == FP32 else transformer.SHIFTMAX.pack(layer, numbers, target, tile)


def pack_nothing(layer: Layer, numbers: UnitNumbers, target: TvmTarget, tile: Tile) -> Sequence[Array]:
    """Return no parameters."""
    return ()


def _quantize(layer: Layer, target: TvmTarget, tile: Tile) -> Any:
    if layer.in_format != FP32:
        return transformer.requantize(layer, target, tile)
    source = _flat(layer, "float32", "source")
    constants = te.placeholder((2,), "float32", "constants")

    def code(i: Any) -> Any:
        bound = tirx.const(BOUND, "float32")
        clipped = tirx.min(tirx.max(source[i] * constants[0], -bound), bound)
        rounded = tirx.reinterpret("int32", clipped + tirx.const(ROUNDER, "float32")) - ROUNDER_BITS
        return codes(rounded + constants[1].astype("int32"))

    out = te.compute(source.shape, code, name="out")
    return _vectorized(te.create_prim_func([source, constants, out]), "out", _vector(layer, tile))


def _pack_quantize(layer: Layer, numbers: UnitNumbers, target: TvmTarget, tile: Tile) -> Sequence[Array]:
    if layer.in_format != FP32:
        return transformer.pack_requantize(layer, numbers)
    return (np.array([inverse_scale(numbers), numbers.written.zero_point], np.float32),)


def _dequantize(layer: Layer, target: TvmTarget, tile: Tile) -> Any:
    source = _flat(layer, "uint8", "source")
    constants = te.placeholder((2,), "float32", "constants")
    out = te.compute(
        source.shape,
        lambda i: (source[i].astype("int32").astype("float32") - constants[1]) * constants[0],
        name="out",
    )
    return _vectorized(te.create_prim_func([source, constants, out]), "out", _vector(layer, tile))


def _pack_dequantize(layer: Layer, numbers: UnitNumbers, target: TvmTarget, tile: Tile) -> Sequence[Array]:
    params = numbers.input()
    return (np.array([params.scale, params.zero_point], np.float32),)


ADD = Template(one_tile, _add, _pack_add)
ACTIVATION = Template(one_tile, _activation, _pack_activation)
SOFTMAX = Template(one_tile, _softmax, _pack_softmax)
QUANTIZE = Template(one_tile, _quantize, _pack_quantize)
DEQUANTIZE = Template(one_tile, _dequantize, _pack_dequantize)
