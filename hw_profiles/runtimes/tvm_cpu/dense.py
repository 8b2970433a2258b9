"""Windows of the input times one matrix: pointwise and full convolutions, the stem, linear layers.

Rows of the NHWC input are taken as flat, so that what a kernel row covers is one contiguous run of bytes, and
neighbouring windows may overlap. Nothing is unfolded. Weights are packed [block, kernel row, group, lane, 4].
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import s_tir, te, tirx

from hw_profiles.graph.layer import FP32, Layer
from hw_profiles.graph.windows import map_shape, windows_of
from hw_profiles.reference.integer_ops import UnitNumbers
from hw_profiles.runtimes.tvm_cpu.dot import GROUP, checked_codes, instruction_of, shift_of
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

# by vector registers: accumulators that leave room for the operands, and how many were the fastest for most
# shapes: enough to hide how long a multiplication takes, few enough to leave room for constants
MOST_VECTORS, BEST_VECTORS = {16: 14, 32: 24}, {16: 8, 32: 13}
MAX_COLUMNS = 16
MAX_BLOCKS = 4  # more, and the constants of the channels no longer fit beside the sums
MAX_TILES = 6


@dataclass(frozen=True)
class _Rows:
    """Where the windows of a layer lie in its flat rows.

    Attributes:
        source: (rows, elements per row) of the input.
        padded: the same with what stands around it.
        before: (rows, pixels) that stand before the input's own.
        rows, columns: of the output.
        kernel: kernel rows.
        row_step, step: input rows, and elements of a row, between neighbouring windows.
        window, padded_window: elements of a kernel row; rounded up to whole groups.
        channels: elements of a pixel.
    """

    source: tuple[int, int]
    padded: tuple[int, int]
    before: tuple[int, int]
    rows: int
    columns: int
    kernel: int
    row_step: int
    step: int
    window: int
    padded_window: int
    channels: int

    @property
    def copied(self) -> bool:
        """Whether the input has to be copied into a padded buffer."""
        return self.padded != self.source


def _rows(layer: Layer, group: int) -> _Rows:
    windows = windows_of(layer)
    channels, (kernel, across) = windows.channels, windows.kernel
    if windows.pointwise:  # all pixels are one row of columns
        source, before = (1, windows.pixels * channels), (0, 0)
        strides, rows, columns = (1, 1), 1, windows.pixels
    else:
        source, before = (windows.height, windows.width * channels), windows.pads[:2]
        strides, rows, columns = windows.strides, windows.rows, windows.columns
    window, step = across * channels, strides[1] * channels
    padded_window = blocks_of(window, group) * group
    # the last window is rounded up too, and what no window reaches needs no copy
    reach = (columns - 1) * step + padded_window
    wide = source[1]
    if reach > wide or before[1]:
        wide = max(wide, blocks_of(reach, channels) * channels)
    high = max(source[0] + before[0], (rows - 1) * strides[0] + kernel)
    return _Rows(
        source, (high, wide), before, rows, columns, kernel, strides[0], step, window, padded_window, channels
    )


def _group(layer: Layer, target: TvmTarget) -> int:
    return GROUP if instruction_of(layer, target) else 1


def pack(layer: Layer, numbers: UnitNumbers, target: TvmTarget, tile: Tile) -> Sequence[Array]:
    """Return (weights, constants).

    Raises:
        ValueError: there are weight codes that would saturate.
    """
    weight = checked_codes(layer, numbers, instruction_of(layer, target))
    group, lanes = _group(layer, target), tile.lanes
    windows = _rows(layer, group)
    out = layer.stored_shape[0]
    blocks = blocks_of(out, lanes)
    # (out, kernel row, kernel column and channel) as they follow each other in memory
    flat = _filters(layer, weight).transpose(0, 2, 3, 1).reshape(out, windows.kernel, windows.window)
    padded = np.zeros((blocks * lanes, windows.kernel, windows.padded_window), flat.dtype)
    padded[:out, :, : windows.window] = flat
    grouped = padded.reshape(blocks, lanes, windows.kernel, -1, group).transpose(0, 2, 3, 1, 4)
    shift = shift_of(instruction_of(layer, target))
    return pack_weights(layer, grouped), pack_constants(layer, numbers, blocks * lanes, shift)


def _filters(layer: Layer, weight: Array) -> Array:
    """Return weights (out, in, k, k); those of a linear layer as a 1x1 filter over channels that are last."""
    if layer.op != "Gemm":
        return weight
    filters = weight.reshape(len(weight), *map_shape(layer.inputs[0]))
    return filters.transpose(0, 2, 3, 1).reshape(len(weight), -1, 1, 1)


def _padded_rows(layer: Layer, windows: _Rows, source: Any, constants: Any) -> Any:
    """Return the input with what stands around it."""
    height, length = windows.source
    channels, (top, left) = windows.channels, windows.before
    width, around = length // channels, padding(layer, constants)

    def value(row: Any, x: Any) -> Any:
        column = tirx.floordiv(x, channels)
        inside = tirx.all(row >= top, row < height + top, column >= left, column < width + left)
        return tirx.if_then_else(inside, source[row - top, x - left * channels], around)

    return te.compute(windows.padded, value, name="padded")


def _computation(layer: Layer, target: TvmTarget, lanes: int) -> Any:
    group = _group(layer, target)
    windows = _rows(layer, group)
    blocks, shift = blocks_of(layer.stored_shape[0], lanes), shift_of(instruction_of(layer, target))
    argument = weight_argument(layer, (blocks, windows.kernel, windows.padded_window // group, lanes, group))
    channels = blocks * lanes
    integer = layer.activation_format != FP32
    acc_dtype = "int32" if integer else "float32"
    source = te.placeholder(windows.source, DTYPES[layer.activation_format], "source")
    packed = te.placeholder(argument.shape, argument.dtype, "weight")
    constants = constants_placeholder(layer, channels)
    weight = unpacked_weights(layer, packed, lanes, group)
    rows = _padded_rows(layer, windows, source, constants) if windows.copied else source
    i = te.reduce_axis((0, windows.kernel), "i")
    q = te.reduce_axis((0, windows.padded_window), "q")

    def product(r: Any, x: Any, n: Any) -> Any:
        place = (
            tirx.floordiv(n, lanes),
            i,
            tirx.floordiv(q, group),
            tirx.floormod(n, lanes),
            tirx.floormod(q, group),
        )
        left = rows[r * windows.row_step + i, x * windows.step + q].astype(acc_dtype)
        left = left - shift if shift else left
        return te.sum(left * weight[place].astype(acc_dtype), axis=[i, q])

    acc = te.compute((windows.rows, windows.columns, channels), product, name="acc")
    out = te.compute(
        (windows.rows, windows.columns, layer.stored_shape[0]),
        lambda r, x, n: finish(layer, acc[r, x, n], constants, n, target),
        name="out",
    )
    return te.create_prim_func([source, packed, constants, out])


def schedule(layer: Layer, target: TvmTarget, tile: Tile) -> Any:
    """Return the layer with one register tile of `tile.columns` positions x `tile.blocks` vectors of
    channels.
    """
    sch = s_tir.Schedule(_computation(layer, target, tile.lanes))
    acc, out = sch.get_sblock("acc"), sch.get_sblock("out")
    sch.set_scope(acc, 0, "local")  # on the stack, from where LLVM takes it into registers
    r, x, n, i, q = sch.get_loops(acc)
    n_blocks, lane = sch.split(n, [None, tile.lanes])
    groups, in_group = sch.split(q, [None, _group(layer, target)])
    outer_n, block = sch.split(n_blocks, [None, tile.blocks])
    outer_x, column = sch.split(x, [None, tile.columns])
    sch.reorder(outer_n, r, outer_x, i, groups, column, block, lane, in_group)
    _finish_at(sch, layer, out, outer_x, tile)
    if is_packed(layer):
        # once for all positions; a lone one takes its codes as it goes, from registers
        places = windows_of(layer)
        lone = places.rows * places.columns == tile.columns
        unpack_at(sch, groups if lone else outer_n, tile.lanes * _group(layer, target))
    instruction = instruction_of(layer, target)
    if not instruction:
        sch.vectorize(lane)
    sch.unroll(block)
    sch.unroll(column)
    start = sch.decompose_reduction(acc, i)
    for loop, change in zip(
        sch.get_loops(start)[:-4:-1], (sch.vectorize, sch.unroll, sch.unroll), strict=True
    ):
        change(loop)
    if instruction:
        sch.tensorize(lane, instruction.dot(tile.lanes))
    windows = _rows(layer, _group(layer, target))
    if windows.copied:
        _copy_in_vectors(sch, windows)
    return sch.mod["main"]


def _finish_at(sch: Any, layer: Layer, out: Any, loop: Any, tile: Tile) -> None:
    sch.reverse_compute_at(out, loop, preserve_unit_loops=True)
    channels = sch.get_loops(out)[-1]
    # a vector must not reach beyond the last channel
    vector = np.gcd(layer.stored_shape[0], tile.lanes)
    _, lane = sch.split(channels, [None, int(vector)])
    sch.vectorize(lane)
    if layer.stored_shape[0] % tile.lanes == 0:
        for inner in sch.get_loops(out)[-4:-1]:
            sch.unroll(inner)


def _copy_in_vectors(sch: Any, windows: _Rows) -> None:
    _, x = sch.get_loops(sch.get_sblock("padded"))
    _, channel = sch.split(x, [None, windows.channels])
    vector = int(np.gcd(windows.channels, 64))
    if vector >= 4:
        _, lane = sch.split(channel, [None, vector])
        sch.vectorize(lane)


def tiles(layer: Layer, target: TvmTarget) -> list[Tile]:
    """Register tiles that divide the output, those with the most reuse of what they load first."""
    windows = _rows(layer, _group(layer, target))
    lanes = lanes_of(layer.stored_shape[0], target)
    blocks = blocks_of(layer.stored_shape[0], lanes)
    most, best = MOST_VECTORS[target.registers], BEST_VECTORS[target.registers]
    candidates = [
        Tile(lanes, columns, block)
        for columns in divisors(windows.columns, MAX_COLUMNS)
        for block in divisors(blocks, MAX_BLOCKS if windows.columns > 1 else most)
        if columns * block <= most
    ]
    return sorted(candidates, key=lambda tile: (abs(tile.vectors - best), -tile.columns))[:MAX_TILES]


DENSE = Template(tiles, schedule, pack)
