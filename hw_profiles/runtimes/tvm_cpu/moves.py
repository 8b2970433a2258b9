"""Units of integer-only networks that move codes, or look them up: one loop each, nothing to tune.

The arithmetic is that of `hw_profiles.reference.integer_transformer_units`, bit for bit.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
from tvm import s_tir, te, tirx

from hw_profiles.graph.formats import code_range
from hw_profiles.graph.integer_only import IN_MAPS, OUT_MAPS
from hw_profiles.graph.layer import Layer
from hw_profiles.reference import integer_transformer_units as units
from hw_profiles.reference.unit_numbers import UnitNumbers
from hw_profiles.runtimes.tvm_cpu.target import TvmTarget
from hw_profiles.runtimes.tvm_cpu.transformer import one_tile, sizes_of
from hw_profiles.runtimes.tvm_cpu.unit import DTYPES, Array, Template, Tile

Indices = tuple[Any, ...]


def _moved(layer: Layer, target: TvmTarget, tile: Tile) -> Any:
    if "weight" in layer.values:
        return _rows_of_table(layer)
    maps = layer.values.integer("maps") if "maps" in layer.values else 0
    read, given = sizes_of(layer.inputs[0]), sizes_of(layer.outputs[0])
    source = te.placeholder(_last(read) if maps & IN_MAPS else read, DTYPES[layer.in_format], "source")

    def value(*place: Any) -> Any:
        logical = (place[-1], *place[:-1]) if maps & OUT_MAPS else place
        where = _WHERE[layer.op](layer, read, given, logical)
        return source[_last(where) if maps & IN_MAPS else where]

    out = te.compute(_last(given) if maps & OUT_MAPS else given, value, name="out")
    sch = s_tir.Schedule(te.create_prim_func([source, out]))
    return sch.mod["main"]


def _last(sizes: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return dimensions with the channels last."""
    return (*sizes[1:], sizes[0])


def _reshaped(layer: Layer, read: tuple[int, ...], given: tuple[int, ...], place: Indices) -> Indices:
    flat: Any = 0
    for size, index in zip(given, place, strict=True):
        flat = flat * size + index
    where: list[Any] = []
    for size in reversed(read):
        where.insert(0, tirx.floormod(flat, size))
        flat = tirx.floordiv(flat, size)
    return tuple(where)


def _transposed(layer: Layer, read: tuple[int, ...], given: tuple[int, ...], place: Indices) -> Indices:
    perm = [axis - 1 for axis in layer.values.integers("perm")[1:]]
    return tuple(place[perm.index(axis)] for axis in range(len(read)))


def _sliced(layer: Layer, read: tuple[int, ...], given: tuple[int, ...], place: Indices) -> Indices:
    a, where = layer.values, list(place)
    starts, axes = a.integers("starts"), a.integers("axes")
    for start, axis, step in zip(starts, axes, a.integers("steps", len(axes)), strict=True):
        own = axis % (len(read) + 1) - 1
        first = min(start, read[own]) if start >= 0 else max(start + read[own], 0)
        where[own] = first + step * place[own]
    return tuple(where)


def _chosen(layer: Layer, read: tuple[int, ...], given: tuple[int, ...], place: Indices) -> Indices:
    a = layer.values
    axis = a.integer("axis") % (len(read) + 1) - 1
    if not a.is_list("indices"):
        return (*place[:axis], a.integer("indices") % read[axis], *place[axis:])
    index: Any = 0
    for position, chosen in enumerate(a.integers("indices")):
        index = tirx.if_then_else(place[axis] == position, chosen % read[axis], index)
    return (*place[:axis], index, *place[axis + 1 :])


def _expanded(layer: Layer, read: tuple[int, ...], given: tuple[int, ...], place: Indices) -> Indices:
    own = place[len(given) - len(read) :]
    return tuple(0 if size == 1 else index for size, index in zip(read, own, strict=True))


_WHERE: dict[str, Callable[[Layer, tuple[int, ...], tuple[int, ...], Indices], Indices]] = {
    "Reshape": _reshaped,
    "Flatten": _reshaped,
    "Transpose": _transposed,
    "Slice": _sliced,
    "Gather": _chosen,
    "Expand": _expanded,
}


def _rows_of_table(layer: Layer) -> Any:
    weight, (length,) = layer.values.integers("weight"), sizes_of(layer.inputs[0])
    ids = te.placeholder((length,), layer.in_format, "ids")
    table = te.placeholder(weight, DTYPES[layer.out_format], "table")
    first, last = (tirx.const(row, layer.in_format) for row in (0, weight[0] - 1))

    def row(i: Any) -> Any:
        """Return which row an id is, never one that is not there."""
        return tirx.min(tirx.max(ids[i], first), last)

    out = te.compute((length, *weight[1:]), lambda i, *x: table[(row(i), *x)], name="out")
    return s_tir.Schedule(te.create_prim_func([ids, table, out])).mod["main"]


def _pack_moved(layer: Layer, numbers: UnitNumbers, target: TvmTarget, tile: Tile) -> Sequence[Array]:
    if "weight" not in layer.values:
        return ()
    rows = units.table_codes(layer, numbers) + numbers.written.zero_point
    return (np.clip(rows, *code_range(layer.out_format)).astype(DTYPES[layer.out_format]),)


def _tabulated(layer: Layer, target: TvmTarget, tile: Tile) -> Any:
    size, dtype = prod(sizes_of(layer.inputs[0])), DTYPES[layer.in_format]
    source = te.placeholder((size,), dtype, "source")
    table = te.placeholder((code_range(layer.in_format)[1] + 1,), DTYPES[layer.out_format], "table")
    out = te.compute((size,), lambda i: table[source[i].astype("int32")], name="out")
    return s_tir.Schedule(te.create_prim_func([source, table, out])).mod["main"]


def _pack_table(layer: Layer, numbers: UnitNumbers, target: TvmTarget, tile: Tile) -> Sequence[Array]:
    return (units.curve_table(layer, numbers),)


def _less(layer: Layer, target: TvmTarget, tile: Tile) -> Any:
    source = te.placeholder(sizes_of(layer.inputs[0]), layer.in_format, "source")
    limit = tirx.const(layer.values.integer("value"), layer.in_format)
    out = te.compute(source.shape, lambda *x: (source[x] < limit).astype(DTYPES["bool"]), name="out")
    return s_tir.Schedule(te.create_prim_func([source, out])).mod["main"]


def _pack_nothing(layer: Layer, numbers: UnitNumbers, target: TvmTarget, tile: Tile) -> Sequence[Array]:
    return ()


MOVE = Template(one_tile, _moved, _pack_moved)
TABULATED = Template(one_tile, _tabulated, _pack_table)
LESS = Template(one_tile, _less, _pack_nothing)
