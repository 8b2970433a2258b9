"""Units of integer-only networks: products of two tensors, Shiftmax, ShiftGELU, I-LayerNorm (I-ViT,
arXiv:2207.01405), sums in 16 bits, and what moves numbers. One schedule each, nothing to tune.

The arithmetic is that of `hw_profiles.reference.integer_transformer_units`, bit for bit. Integers that may
leave 32 bits have 64.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
from tvm import s_tir, te, tirx

from hw_profiles.graph.formats import code_range
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.tensor_type import TensorType
from hw_profiles.reference import integer_transformer_units as units
from hw_profiles.reference.integer_ops import code_limits, multipliers
from hw_profiles.reference.integer_transformer_ops import RECIPROCAL, ROOT_START
from hw_profiles.reference.unit_numbers import UnitNumbers
from hw_profiles.runtimes.tvm_cpu.rescale import rescaled
from hw_profiles.runtimes.tvm_cpu.target import TvmTarget
from hw_profiles.runtimes.tvm_cpu.unit import DTYPES, Array, Template, Tile

WIDEST_VECTOR = 64  # lanes
Indices = tuple[Any, ...]


def one_tile(layer: Layer, target: TvmTarget) -> list[Tile]:
    """Return full vectors of 32-bit values."""
    return [Tile(target.vector_bytes // 4)]


def sizes_of(x: TensorType) -> tuple[int, ...]:
    """Return the dimensions of one example, of which each has a size."""
    return tuple(int(size) for size in x.shape[1:])


def _rows_of(layer: Layer) -> tuple[int, int]:
    """Return (rows, numbers of each) along the last dimension."""
    sizes = sizes_of(layer.inputs[0])
    return prod(sizes[:-1]), sizes[-1]


def _lanes(size: int) -> int:
    """Return lanes of a vector that divides a row."""
    return max(lanes for lanes in range(1, min(size, WIDEST_VECTOR) + 1) if size % lanes == 0)


def _wide(value: Any) -> Any:
    return value.astype("int64")


def _codes(layer: Layer, value: Any) -> Any:
    """Return integers, the zero point added, as codes of the layer's output."""
    low, high = code_range(layer.out_format)
    return tirx.min(tirx.max(value, low), high).astype(DTYPES[layer.out_format])


def _scaled(value: Any, m: Any, c: Any) -> Any:
    """Return round(value * m / 2^c), half up, in 64 bits."""
    shift = _wide(c)
    one = tirx.const(1, "int64")
    return (value * _wide(m) + (one << (shift - one))) >> shift


def _constants(count: int) -> tuple[Any, list[Any]]:
    tensor = te.placeholder((count,), "int32", "constants")
    return tensor, [tensor[i] for i in range(count)]


def _packed(*numbers: Any) -> Sequence[Array]:
    """Return numbers, and arrays of them, as one array of constants."""
    return (np.concatenate([np.atleast_1d(number) for number in numbers]).astype(np.int32),)


def _by_rows(arguments: Sequence[Any], vectors: Sequence[str]) -> Any:
    """Return a computation row by row: all that is computed of a row while that is at hand, the blocks that
    are named in vectors.
    """
    sch = s_tir.Schedule(te.create_prim_func(list(arguments)))
    out = sch.get_sblock("out")
    row = sch.get_loops(out)[0]
    blocks = [
        each for each in sch.get_child_blocks(sch.get_sblock("root")) if sch.get(each).name_hint != "out"
    ]
    for block in reversed(blocks):
        sch.compute_at(block, row, preserve_unit_loops=True)
    for name in (*vectors, "out"):
        loop = sch.get_loops(sch.get_sblock(name))[-1]
        size = int(sch.get(loop).extent)
        _, lane = sch.split(loop, [None, _lanes(size)])
        sch.vectorize(lane)
    return sch.mod["main"]


# -- products of two tensors -------------------------------------------------------------------------


def _product(layer: Layer, target: TvmTarget, tile: Tile) -> Any:
    (*outer, rows, depth), (*_, columns) = map(sizes_of, layer.inputs)
    batch = prod(outer)
    left = te.placeholder((batch, rows, depth), DTYPES[layer.inputs[0].format], "left")
    right = te.placeholder((batch, depth, columns), DTYPES[layer.inputs[1].format], "right")
    constants, (left_zero, right_zero, m, c, written) = _constants(5)
    k = te.reduce_axis((0, depth), "k")

    def sums(b: Any, r: Any, n: Any) -> Any:
        first = left[b, r, k].astype("int32") - left_zero
        return te.sum(first * (right[b, k, n].astype("int32") - right_zero), axis=k)

    acc = te.compute((batch, rows, columns), sums, name="acc")
    zero = tirx.const(0, "int32")
    out = te.compute(
        acc.shape,
        lambda b, r, n: _codes(layer, rescaled(acc[b, r, n], zero, m, c, written, target)),
        name="out",
    )
    sch = s_tir.Schedule(te.create_prim_func([left, right, constants, out]))
    block, finish = sch.get_sblock("acc"), sch.get_sblock("out")
    b, r, n, depth_loop = sch.get_loops(block)
    outer_n, lane = sch.split(n, [None, _lanes(columns)])
    sch.reorder(b, r, outer_n, depth_loop, lane)
    sch.set_scope(block, 0, "local")
    sch.reverse_compute_at(finish, outer_n, preserve_unit_loops=True)
    sch.vectorize(sch.get_loops(finish)[-1])
    sch.vectorize(lane)
    start = sch.decompose_reduction(block, depth_loop)
    sch.vectorize(sch.get_loops(start)[-1])
    return sch.mod["main"]


def _pack_product(layer: Layer, numbers: UnitNumbers, target: TvmTarget, tile: Tile) -> Sequence[Array]:
    zeros = [numbers.input(i).zero_point for i in range(2)]
    return _packed(*zeros, *units.product_multiplier(numbers), numbers.written.zero_point)


# -- curves ------------------------------------------------------------------------------------------


def _power(d: Any, n: Any, steps: Any, divide: Callable[[Any, Any], Any]) -> Any:
    """Return `integer_transformer_ops.shift_exp` of an int32, in 64 bits."""
    t = tirx.max(d + (d >> 1) - (d >> 4), -n * steps)
    q = divide(-t, steps)
    fraction = _wide(t + q * steps + 2 * steps)
    return (fraction << _wide(tirx.max(n - q, 0))) >> tirx.const(1, "int64")


def _shares(power: Any, share: Any) -> Any:
    """Return a power's share of what `share` is the reciprocal of, in units of 2^-15, in 64 bits."""
    return (power * share) >> tirx.const(units.CURVE_WORD - units.CURVE_BITS, "int64")


def _reciprocal(total: Any) -> Any:
    """Return `integer_transformer_ops.reciprocal`: sums of 64 bits are never larger."""
    return tirx.truncdiv(tirx.const(2 ** (units.CURVE_WORD - 1) - 1, "int64"), total)


def _softmax(layer: Layer, target: TvmTarget, tile: Tile) -> Any:
    rows, size = _rows_of(layer)
    source = te.placeholder((rows, size), DTYPES[layer.in_format], "source")
    mask = [te.placeholder((size,), DTYPES["bool"], "mask")] if len(layer.inputs) > 1 else []
    constants, (n, steps, m, c, written) = _constants(5)
    i, j = (te.reduce_axis((0, size), name) for name in "ij")

    def seen(x: Any, value: Any, dtype: str = "int32") -> Any:
        """Return a value, or 0 where the mask hides it."""
        return tirx.Select(mask[0][x] != 0, value, tirx.const(0, dtype)) if mask else value

    largest = te.compute(
        (rows,), lambda r: te.max(seen(i, source[r, i].astype("int32")), axis=i), name="largest"
    )
    power = te.compute(
        (rows, size),
        lambda r, x: seen(
            x, _power(seen(x, source[r, x].astype("int32") - largest[r]), n, steps, tirx.truncdiv), "int64"
        ),
        name="power",
    )
    total = te.compute((rows,), lambda r: te.sum(power[r, j], axis=j), name="total")
    least = tirx.const(1, "int64")  # of a row that is hidden altogether
    reciprocal = te.compute((rows,), lambda r: _reciprocal(tirx.max(total[r], least)), name="reciprocal")
    out = te.compute(
        (rows, size),
        lambda r, x: _codes(layer, _scaled(_shares(power[r, x], reciprocal[r]), m, c) + _wide(written)),
        name="out",
    )
    return _by_rows([source, *mask, constants, out], ["power"])


def _pack_softmax(layer: Layer, numbers: UnitNumbers, target: TvmTarget, tile: Tile) -> Sequence[Array]:
    known = units.softmax_exponential(numbers)
    return _packed(*known, *units.softmax_multiplier(numbers), numbers.written.zero_point)


def _gelu(layer: Layer, target: TvmTarget, tile: Tile) -> Any:
    rows, size = _rows_of(layer)
    source = te.placeholder((rows, size), DTYPES[layer.in_format], "source")
    constants, (zero, n, steps, m, c, written) = _constants(6)
    i = te.reduce_axis((0, size), "i")
    largest = te.compute((rows,), lambda r: te.max(source[r, i].astype("int32"), axis=i), name="largest")
    one = te.compute((rows,), lambda r: _power(zero - largest[r], n, steps, tirx.floordiv), name="one")
    power = te.compute(
        (rows, size),
        lambda r, x: _power(source[r, x].astype("int32") - largest[r], n, steps, tirx.truncdiv),
        name="power",
    )

    def curved(r: Any, x: Any) -> Any:
        sigmoid = _shares(power[r, x], _reciprocal(power[r, x] + one[r]))
        return _codes(
            layer, _scaled(_wide(source[r, x].astype("int32") - zero) * sigmoid, m, c) + _wide(written)
        )

    out = te.compute((rows, size), curved, name="out")
    return _by_rows([source, constants, out], ["power"])


def _pack_gelu(layer: Layer, numbers: UnitNumbers, target: TvmTarget, tile: Tile) -> Sequence[Array]:
    known, multiplier = units.gelu_exponential(numbers), units.gelu_multiplier(numbers)
    return _packed(numbers.input().zero_point, *known, *multiplier, numbers.written.zero_point)


def _norm(layer: Layer, target: TvmTarget, tile: Tile) -> Any:
    rows, size = _rows_of(layer)
    source = te.placeholder((rows, size), DTYPES[layer.in_format], "source")
    offset = te.placeholder((size + 1,), "int64", "offset")  # the last one is epsilon
    constants = te.placeholder((3, size), "int32", "constants")
    i, j = (te.reduce_axis((0, size), name) for name in "ij")
    total = te.compute((rows,), lambda r: te.sum(source[r, i].astype("int32"), axis=i), name="total")
    mean = te.compute((rows,), lambda r: _mean(total[r], size), name="mean")

    def centred(r: Any, x: Any) -> Any:
        return _wide(source[r, x].astype("int32") - mean[r])

    squares = te.compute((rows,), lambda r: te.sum(centred(r, j) * centred(r, j), axis=j), name="squares")
    spread = te.compute((rows,), lambda r: squares[r] + offset[size], name="spread")
    root = te.compute((rows,), lambda r: tirx.const(ROOT_START, "int64"), name="first")
    for step in range(units.NORM_STEPS):
        root = _heron(spread, root, f"root_{step}")
    reciprocal = te.compute(
        (rows,), lambda r: tirx.truncdiv(tirx.const(RECIPROCAL, "int64"), root[r]), name="reciprocal"
    )

    def normalised(r: Any, x: Any) -> Any:
        u = (centred(r, x) * reciprocal[r]) >> tirx.const(1, "int64")
        return _codes(
            layer, _scaled(u + offset[x], constants[0, x], constants[1, x]) + _wide(constants[2, x])
        )

    out = te.compute((rows, size), normalised, name="out")
    return _by_rows([source, offset, constants, out], [])


def _heron(squares: Any, root: Any, name: str) -> Any:
    """Return one step of Heron's rule for the square roots of each row."""
    half = tirx.const(1, "int64")
    return te.compute(root.shape, lambda r: (root[r] + tirx.truncdiv(squares[r], root[r])) >> half, name=name)


def _mean(total: Any, size: int) -> Any:
    """Return total / size, half to even."""
    floor = tirx.floordiv(total, size)
    twice = 2 * (total - floor * size)
    odd = tirx.bitwise_and(floor, 1) == 1
    return floor + tirx.any(twice > size, tirx.all(twice == size, odd)).astype("int32")


def _pack_norm(layer: Layer, numbers: UnitNumbers, target: TvmTarget, tile: Tile) -> Sequence[Array]:
    known = units.norm_numbers(layer, numbers)
    zeros = np.full_like(known.m, numbers.written.zero_point)
    return np.append(known.offset, known.epsilon), np.stack([known.m, known.c, zeros])


# -- number by number --------------------------------------------------------------------------------


def _flat(arguments: Sequence[Any], size: int, tile: Tile) -> Any:
    sch = s_tir.Schedule(te.create_prim_func(list(arguments)))
    (loop,) = sch.get_loops(sch.get_sblock("out"))
    _, lane = sch.split(loop, [None, int(np.gcd(size, tile.lanes))])
    sch.vectorize(lane)
    return sch.mod["main"]


def add(layer: Layer, target: TvmTarget, tile: Tile) -> Any:
    """Return a sum of codes of any widths, or one with a stored table, as a TIR function."""
    size = prod(sizes_of(layer.inputs[0]))
    sources = [te.placeholder((size,), DTYPES[x.format], f"source_{i}") for i, x in enumerate(layer.inputs)]
    table = [] if layer.is_add else [te.placeholder((size,), "int32", "table")]
    constants, values = _constants(3 * len(sources) + 3)
    written, low, high = values[-3:]

    def total(x: Any) -> Any:
        sum_of = table[0][x] + written if table else written
        for which, source in enumerate(sources):
            zero, m, c = values[3 * which : 3 * which + 3]
            nothing = tirx.const(0, "int32")
            sum_of = sum_of + rescaled(source[x].astype("int32"), -zero, m, c, nothing, target)
        return tirx.min(tirx.max(sum_of, low), high).astype(DTYPES[layer.out_format])

    out = te.compute((size,), total, name="out")
    return _flat([*sources, *table, constants, out], size, tile)


def pack_add(layer: Layer, numbers: UnitNumbers) -> Sequence[Array]:
    """Return the parameters of that."""
    m, c = multipliers(layer, numbers)
    pairs = [(numbers.input(i).zero_point, m[i], c[i]) for i in range(len(layer.inputs))]
    flat = [number for pair in pairs for number in pair]
    constants = _packed(*flat, numbers.written.zero_point, *code_limits(layer, numbers))
    return constants if layer.is_add else (units.table_codes(layer, numbers).ravel(), *constants)


def requantize(layer: Layer, target: TvmTarget, tile: Tile) -> Any:
    """Return codes of one format as codes of another, as a TIR function."""
    size = prod(sizes_of(layer.inputs[0]))
    source = te.placeholder((size,), DTYPES[layer.in_format], "source")
    constants, (zero, m, c, written) = _constants(4)
    out = te.compute(
        (size,),
        lambda x: _codes(layer, rescaled(source[x].astype("int32"), -zero, m, c, written, target)),
        name="out",
    )
    return _flat([source, constants, out], size, tile)


def pack_requantize(layer: Layer, numbers: UnitNumbers) -> Sequence[Array]:
    """Return the parameters of that."""
    return _packed(numbers.input().zero_point, *units.requantizer(numbers), numbers.written.zero_point)


PRODUCT = Template(one_tile, _product, _pack_product)
SHIFTMAX = Template(one_tile, _softmax, _pack_softmax)
SHIFT_GELU = Template(one_tile, _gelu, _pack_gelu)
LAYER_NORM = Template(one_tile, _norm, _pack_norm)
