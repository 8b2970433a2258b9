"""Sums, global pooling and format conversions: one schedule each, nothing to tune."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import s_tir, te, tirx

from hw_profiles.graph.layer import FP32, Layer
from hw_profiles.reference.integer_ops import UnitNumbers, inverse_scale, multipliers
from hw_profiles.runtimes.tvm_cpu.epilogue import codes, output_zero_point
from hw_profiles.runtimes.tvm_cpu.rescale import rescaled
from hw_profiles.runtimes.tvm_cpu.short_dyadic import shortened
from hw_profiles.runtimes.tvm_cpu.target import TvmTarget
from hw_profiles.runtimes.tvm_cpu.unit import DTYPES, Array, Template, Tile

BOUND = 1024.0  # whatever the zero point, what is beyond is clipped
# Added to a smaller number, it leaves the integer nearest to that in the low bits, ties to even. TVM's own
# nearbyint is not vectorized.
ROUNDER = 1.5 * 2**23
ROUNDER_BITS = int(np.float32(ROUNDER).view(np.int32))


def one_tile(layer: Layer, target: TvmTarget) -> list[Tile]:
    """Return full vectors of 32-bit values."""
    return [Tile(target.vector_bytes // 4)]


def _vectorized(function: Any, block: str, lanes: int) -> Any:
    """Return all loops of `block` as one, in vectors."""
    sch = s_tir.Schedule(function)
    loop = sch.get_loops(sch.get_sblock(block))[-1]
    _, lane = sch.split(loop, [None, lanes])
    sch.vectorize(lane)
    return sch.mod["main"]


def _flat(layer: Layer, dtype: str, name: str) -> Any:
    return te.placeholder((int(np.prod(layer.in_shape)),), dtype, name)


def _vector(layer: Layer, tile: Tile) -> int:
    """Return lanes of a vector that divides the tensor."""
    return int(np.gcd(int(np.prod(layer.in_shape)), tile.lanes))


ADD_MULTIPLIERS, ADD_SHIFTS, ADD_ZERO_POINTS = (0, 1), (2, 3), (4, 5, 6)


def _add(layer: Layer, target: TvmTarget, tile: Tile) -> Any:
    dtype = DTYPES[layer.activation_format]
    first, second = _flat(layer, dtype, "first"), _flat(layer, dtype, "second")
    relu = layer.nonlinearity == "relu"
    if layer.activation_format == FP32:
        zero = tirx.const(0.0, "float32")

        def total(i: Any) -> Any:
            both = first[i] + second[i]
            return tirx.max(both, zero) if relu else both

        out = te.compute(first.shape, total, name="out")
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


def _pack_add(layer: Layer, numbers: UnitNumbers, target: TvmTarget, tile: Tile) -> Sequence[Array]:
    if layer.activation_format == FP32:
        return ()
    zeros = (numbers.input(0).zero_point, numbers.input(1).zero_point, output_zero_point(layer, numbers))
    pairs = [shortened(int(m), int(c)) for m, c in zip(*multipliers(layer, numbers), strict=True)]
    return (np.array([*(m for m, _ in pairs), *(c for _, c in pairs), *zeros], np.int32),)


def _pool(layer: Layer, target: TvmTarget, tile: Tile) -> Any:
    channels, height, width = layer.in_shape
    integer, pixels = layer.activation_format != FP32, height * width
    acc_dtype = "int32" if integer else "float32"
    source = te.placeholder((pixels, channels), DTYPES[layer.activation_format], "source")
    p = te.reduce_axis((0, pixels), "p")
    acc = te.compute((channels,), lambda c: te.sum(source[p, c].astype(acc_dtype), axis=p), name="acc")
    constants = te.placeholder((4,), "int32", "constants")

    def finished(c: Any) -> Any:
        if not integer:
            return acc[c] * tirx.const(1 / pixels, "float32")
        return codes(
            rescaled(acc[c], -pixels * constants[2], constants[0], constants[1], constants[3], target)
        )

    out = te.compute((channels,), finished, name="out")
    arguments = [source, constants, out] if integer else [source, out]
    return _pool_schedule(te.create_prim_func(arguments), int(np.gcd(channels, 4 * tile.lanes)))


def _pool_schedule(function: Any, vector: int) -> Any:
    sch = s_tir.Schedule(function)
    acc, out = sch.get_sblock("acc"), sch.get_sblock("out")
    c, p = sch.get_loops(acc)
    outer, lane = sch.split(c, [None, vector])
    sch.reorder(outer, p, lane)
    sch.vectorize(lane)
    sch.reverse_compute_at(out, outer, preserve_unit_loops=True)
    sch.vectorize(sch.get_loops(out)[-1])
    start = sch.decompose_reduction(acc, p)
    sch.vectorize(sch.get_loops(start)[-1])
    return sch.mod["main"]


def _pack_pool(layer: Layer, numbers: UnitNumbers, target: TvmTarget, tile: Tile) -> Sequence[Array]:
    if layer.activation_format == FP32:
        return ()
    zeros = np.array([numbers.input().zero_point, output_zero_point(layer, numbers)], np.int32)
    return (np.concatenate([*multipliers(layer, numbers), zeros]),)


def _quantize(layer: Layer, target: TvmTarget, tile: Tile) -> Any:
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
POOL = Template(one_tile, _pool, _pack_pool)
QUANTIZE = Template(one_tile, _quantize, _pack_quantize)
DEQUANTIZE = Template(one_tile, _dequantize, _pack_dequantize)
