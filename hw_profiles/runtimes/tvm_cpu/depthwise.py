"""Depthwise convolutions: one filter per channel.

The input is copied into padded planes of one vector of channels each, [block, row, column, lane]. There, four
neighbouring positions are one vector of bytes, so that one instruction multiplies four taps of all lanes (the
filter is padded with zeros to whole groups). Processors without one multiply tap by tap.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import s_tir, te, tirx

from hw_profiles.graph.layer import FP32, Layer
from hw_profiles.graph.windows import windows_of
from hw_profiles.reference.integer_ops import UnitNumbers
from hw_profiles.runtimes.tvm_cpu.dot import (
    GROUP,
    Instruction,
    checked_codes,
    instruction_of,
    shift_of,
)
from hw_profiles.runtimes.tvm_cpu.epilogue import constants_placeholder, finish, pack_constants, padding
from hw_profiles.runtimes.tvm_cpu.target import TvmTarget
from hw_profiles.runtimes.tvm_cpu.unit import DTYPES, Array, Template, Tile, blocks_of, divisors, lanes_of
from hw_profiles.runtimes.tvm_cpu.weights import (
    is_packed,
    pack_weights,
    unpack_at,
    unpacked_weights,
    weight_argument,
)

MAX_COLUMNS, MAX_ROWS, MAX_REAL_ROWS = 8, 8, 2
INTEGER_VECTORS, REAL_VECTORS = 8, 4  # sums at a time that were fastest for most shapes
MAX_TILES = 5


@dataclass(frozen=True)
class _Planes:
    """How a layer is laid out for vectors of `lanes` channels.

    Attributes:
        group: taps that are multiplied at once.
        blocks: vectors of channels.
        taps: groups of taps in one kernel row.
        height, width: of a padded plane.
    """

    lanes: int
    group: int
    blocks: int
    taps: int
    height: int
    width: int


def _planes(layer: Layer, target: TvmTarget, lanes: int) -> _Planes:
    group, windows = GROUP if _instruction(layer, target) else 1, windows_of(layer)
    taps = blocks_of(windows.kernel[1], group)
    height = (windows.rows - 1) * windows.strides[0] + windows.kernel[0]
    width = (windows.columns - 1) * windows.strides[1] + taps * group
    return _Planes(lanes, group, blocks_of(windows.channels, lanes), taps, height, width)


def _instruction(layer: Layer, target: TvmTarget) -> Instruction | None:
    instruction = instruction_of(layer, target)
    return instruction if instruction and instruction.shuffle <= target.features else None


def pack(layer: Layer, numbers: UnitNumbers, target: TvmTarget, tile: Tile) -> Sequence[Array]:
    """Return (weights, constants).

    Raises:
        ValueError: there are weight codes that would saturate.
    """
    instruction = _instruction(layer, target)
    weight = checked_codes(layer, numbers, instruction)
    planes = _planes(layer, target, tile.lanes)
    channels, (down, across) = planes.blocks * planes.lanes, windows_of(layer).kernel
    padded = np.zeros((channels, down, planes.taps * planes.group), weight.dtype)
    padded[: len(weight), :, :across] = weight[:, 0]
    grouped = padded.reshape(planes.blocks, planes.lanes, down, planes.taps, planes.group)
    grouped = grouped.transpose(0, 2, 3, 1, 4)
    return pack_weights(layer, grouped), pack_constants(layer, numbers, channels, shift_of(instruction))


def _padded_planes(layer: Layer, planes: _Planes, source: Any, constants: Any) -> Any:
    """Return the input with what stands around it."""
    windows, lanes, around = windows_of(layer), planes.lanes, padding(layer, constants)
    channels, height, width = windows.shape
    top, left = windows.pads[:2]
    whole = int(np.gcd(channels, lanes))  # so many lanes are channels all, or none

    def value(b: Any, y: Any, x: Any, c: Any) -> Any:
        inside = [y >= top, y < height + top, x >= left, x < width + left]
        if channels % lanes:
            inside.append(tirx.floordiv(b * lanes + c, whole) < channels // whole)
        return tirx.if_then_else(tirx.all(*inside), source[y - top, x - left, b * lanes + c], around)

    return te.compute((planes.blocks, planes.height, planes.width, lanes), value, name="padded")


def _computation(layer: Layer, target: TvmTarget, lanes: int) -> Any:
    planes = _planes(layer, target, lanes)
    channels, windows, group = planes.blocks * lanes, windows_of(layer), planes.group
    down, across = windows.strides
    argument = weight_argument(layer, (planes.blocks, windows.kernel[0], planes.taps, lanes, group))
    integer = layer.activation_format != FP32
    acc_dtype = "int32" if integer else "float32"
    shift = tirx.const(shift_of(_instruction(layer, target)), acc_dtype)
    source = te.placeholder((*windows.shape[1:], windows.channels), DTYPES[layer.activation_format], "source")
    packed = te.placeholder(argument.shape, argument.dtype, "weight")
    constants = constants_placeholder(layer, channels)
    weight = unpacked_weights(layer, packed, lanes, group)
    padded = _padded_planes(layer, planes, source, constants)
    extents = (("i", windows.kernel[0]), ("t", planes.taps), ("j", group))
    i, t, j = (te.reduce_axis((0, extent), name) for name, extent in extents)
    acc = te.compute(
        (windows.rows, windows.columns, planes.blocks, lanes),
        lambda y, x, b, c: te.sum(
            (padded[b, y * down + i, x * across + t * group + j, c].astype(acc_dtype) - shift)
            * weight[b, i, t, c, j].astype(acc_dtype),
            axis=[i, t, j],
        ),
        name="acc",
    )
    out = te.compute(
        (windows.rows, windows.columns, windows.channels),
        lambda y, x, n: finish(
            layer, acc[y, x, tirx.floordiv(n, lanes), tirx.floormod(n, lanes)], constants, n, target
        ),
        name="out",
    )
    return te.create_prim_func([source, packed, constants, out])


def schedule(layer: Layer, target: TvmTarget, tile: Tile) -> Any:
    """Return the layer with `tile.rows` x `tile.columns` outputs of one vector of channels in registers."""
    planes = _planes(layer, target, tile.lanes)
    sch = s_tir.Schedule(_computation(layer, target, tile.lanes))
    acc, out, padded = (sch.get_sblock(name) for name in ("acc", "out", "padded"))
    sch.set_scope(acc, 0, "local")  # on the stack, from where LLVM takes it into registers
    y, x, b, c, i, t, j = sch.get_loops(acc)
    outer_y, row = sch.split(y, [None, tile.rows])
    outer_x, column = sch.split(x, [None, tile.columns])
    sch.reorder(b, outer_y, outer_x, i, t, row, column, c, j)
    sch.compute_at(padded, b, preserve_unit_loops=True)
    _vectorize_last(sch, padded, int(np.gcd(windows_of(layer).channels, tile.lanes)))
    sch.reverse_compute_at(out, outer_x, preserve_unit_loops=True)
    _vectorize_last(sch, out, int(np.gcd(windows_of(layer).channels, tile.lanes)))
    if is_packed(layer):
        unpack_at(sch, b, tile.lanes * planes.group)
    for loop in (row, column, t):
        sch.unroll(loop)
    instruction = _instruction(layer, target)
    if not instruction:
        sch.vectorize(c)
    start = sch.decompose_reduction(acc, i)
    for loop, change in zip(
        sch.get_loops(start)[:-4:-1], (sch.vectorize, sch.unroll, sch.unroll), strict=True
    ):
        change(loop)
    sch.unroll(i)
    if instruction:
        sch.tensorize(c, instruction.taps(tile.lanes))
    return sch.mod["main"]


def _vectorize_last(sch: Any, block: Any, vector: int) -> None:
    _, lane = sch.split(sch.get_loops(block)[-1], [None, vector])
    sch.vectorize(lane)


def tiles(layer: Layer, target: TvmTarget) -> list[Tile]:
    """Register tiles that divide the output. Rows under each other share what they load and rearrange."""
    lanes = lanes_of(windows_of(layer).channels, target)
    windows = windows_of(layer)
    integer = layer.activation_format != FP32
    tallest, best = (MAX_ROWS, INTEGER_VECTORS) if integer else (MAX_REAL_ROWS, REAL_VECTORS)
    candidates = [
        Tile(lanes, columns, rows=rows)
        for rows in divisors(windows.rows, tallest)
        for columns in divisors(windows.columns, MAX_COLUMNS)
        if rows * columns <= 2 * best
    ]
    return sorted(candidates, key=lambda tile: (abs(tile.vectors - best), -tile.rows))[:MAX_TILES]


DEPTHWISE = Template(tiles, schedule, pack)
