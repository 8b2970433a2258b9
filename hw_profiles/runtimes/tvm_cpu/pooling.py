"""Means and maxima of windows, or of whole maps: one schedule each, nothing to tune."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from tvm import s_tir, te, tirx

from hw_profiles.graph.layer import FP32, Layer
from hw_profiles.graph.windows import windows_of
from hw_profiles.reference.integer_ops import UnitNumbers, multipliers, window_counts
from hw_profiles.runtimes.tvm_cpu.elementwise import one_tile, pack_nothing
from hw_profiles.runtimes.tvm_cpu.epilogue import codes, output_zero_point
from hw_profiles.runtimes.tvm_cpu.rescale import rescaled
from hw_profiles.runtimes.tvm_cpu.target import TvmTarget
from hw_profiles.runtimes.tvm_cpu.unit import DTYPES, Array, Template, Tile

LEAST = -3.4e38  # of real numbers, where nothing is
OFFSET, MULTIPLIER, SHIFT, ZERO_POINT = range(4)  # rows of the constants of means of windows


def _global(layer: Layer, target: TvmTarget, tile: Tile) -> Any:
    windows = windows_of(layer)
    channels, pixels = windows.channels, windows.pixels
    integer = layer.activation_format != FP32
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
    return _global_schedule(te.create_prim_func(arguments), int(np.gcd(channels, 4 * tile.lanes)))


def _global_schedule(function: Any, vector: int) -> Any:
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


def _pack_global(layer: Layer, numbers: UnitNumbers, target: TvmTarget, tile: Tile) -> Sequence[Array]:
    if layer.activation_format == FP32:
        return ()
    zeros = np.array([numbers.input().zero_point, output_zero_point(layer, numbers)], np.int32)
    return (np.concatenate([*multipliers(layer, numbers), zeros]),)


def _taps(layer: Layer, source: Any, i: Any, j: Any, around: Any) -> Any:
    """Return what the window (r, x) has at its place (i, j); `around` beyond the map."""
    windows = windows_of(layer)
    (down, across), (taps_down, taps_across) = windows.strides, windows.dilations
    top, left = windows.pads[:2]

    def value(r: Any, x: Any, c: Any) -> Any:
        row, column = r * down + i * taps_down - top, x * across + j * taps_across - left
        if not windows.padded:
            return source[row, column, c]
        inside = tirx.all(row >= 0, row < windows.height, column >= 0, column < windows.width)
        return tirx.if_then_else(inside, source[row, column, c], around)

    return value


def _max(layer: Layer, target: TvmTarget, tile: Tile) -> Any:
    windows, dtype = windows_of(layer), DTYPES[layer.activation_format]
    source = te.placeholder((windows.height, windows.width, windows.channels), dtype, "source")
    i, j = (te.reduce_axis((0, size), name) for size, name in zip(windows.kernel, "ij", strict=True))
    around = tirx.const(LEAST if layer.activation_format == FP32 else 0, dtype)
    tap = _taps(layer, source, i, j, around)
    shape = (windows.rows, windows.columns, windows.channels)
    acc = te.compute(shape, lambda r, x, c: te.max(tap(r, x, c), axis=[i, j]), name="acc")
    out = te.compute(shape, lambda r, x, c: acc[r, x, c], name="out")
    return _window_schedule(te.create_prim_func([source, out]), windows.channels, tile)


def _average(layer: Layer, target: TvmTarget, tile: Tile) -> Any:
    windows, dtype = windows_of(layer), DTYPES[layer.activation_format]
    integer, count = layer.activation_format != FP32, windows.rows * windows.columns
    source = te.placeholder((windows.height, windows.width, windows.channels), dtype, "source")
    i, j = (te.reduce_axis((0, size), name) for size, name in zip(windows.kernel, "ij", strict=True))
    tap = _taps(layer, source, i, j, tirx.const(0, dtype))
    shape = (windows.rows, windows.columns, windows.channels)
    acc_dtype = "int32" if integer else "float32"
    acc = te.compute(shape, lambda r, x, c: te.sum(tap(r, x, c).astype(acc_dtype), axis=[i, j]), name="acc")
    if integer:
        constants = te.placeholder((4, count), "int32", "constants")
    else:
        constants = te.placeholder((count,), "float32", "shares")

    def finished(r: Any, x: Any, c: Any) -> Any:
        place = r * windows.columns + x
        if not integer:
            return acc[r, x, c] * constants[place]
        offset, m, shift, zero_point = (constants[row, place] for row in range(4))
        return codes(rescaled(acc[r, x, c], offset, m, shift, zero_point, target))

    out = te.compute(shape, finished, name="out")
    return _window_schedule(te.create_prim_func([source, constants, out]), windows.channels, tile)


def _pack_average(layer: Layer, numbers: UnitNumbers, target: TvmTarget, tile: Tile) -> Sequence[Array]:
    counts = window_counts(layer).ravel()
    if layer.activation_format == FP32:
        return (np.float32(1) / counts.astype(np.float32),)
    constants = np.zeros((4, len(counts)), np.int32)
    constants[MULTIPLIER], constants[SHIFT] = multipliers(layer, numbers)
    constants[OFFSET] = -_inside(layer) * numbers.input().zero_point
    constants[ZERO_POINT] = output_zero_point(layer, numbers)
    return (constants,)


def _inside(layer: Layer) -> Array:
    """Return (rows * columns,) how many places of each window are on the map."""
    without = replace(layer, attributes=tuple(a for a in layer.attributes if a[0] != "count_include_pad"))
    return window_counts(without).ravel()


def _window_schedule(function: Any, channels: int, tile: Tile) -> Any:
    """Return each position in turn, vectors of channels in registers."""
    sch = s_tir.Schedule(function)
    acc, out = sch.get_sblock("acc"), sch.get_sblock("out")
    r, x, c, i, j = sch.get_loops(acc)
    vector = int(np.gcd(channels, 4 * tile.lanes))
    outer, lane = sch.split(c, [None, vector])
    sch.reorder(r, x, outer, i, j, lane)
    sch.set_scope(acc, 0, "local")
    sch.reverse_compute_at(out, outer, preserve_unit_loops=True)
    sch.vectorize(sch.get_loops(out)[-1])
    sch.vectorize(lane)
    start = sch.decompose_reduction(acc, i)
    sch.vectorize(sch.get_loops(start)[-1])
    return sch.mod["main"]


POOL = Template(one_tile, _global, _pack_global)
MAX_POOL = Template(one_tile, _max, pack_nothing)
AVERAGE_POOL = Template(one_tile, _average, _pack_average)
