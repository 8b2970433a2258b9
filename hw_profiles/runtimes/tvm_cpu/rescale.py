"""Dyadic rescaling as an operation of TVM's own, so that we say how a vector of it is computed.

Written out as int64 arithmetic, each half of a vector is widened, multiplied in 64 bits and narrowed
again: 12 instructions for 16 lanes, slow ones among them. Here even lanes and odd lanes are multiplied
where they stand, 32 x 32 -> 64 bits: 8 fast ones.
"""

from collections.abc import Sequence
from typing import Any

import tvm
from tvm import tirx
from tvm.ir.op import Op, register_op_attr
from tvm.tirx.op import register_intrin_lowering

from hw_profiles.runtimes.tvm_cpu.target import TvmTarget

NAME = "tirx.trilobit_rescale"
PURE = 1  # tvm's CallEffectKind: no side effects, the same arguments give the same result
LEVEL = 99  # above TVM's own rules
HALF = 32  # bits
TOP = 62  # 2^TOP is above every product, and 2^c divides it


def rescaled(value: Any, offset: Any, m: Any, c: Any, zero_point: Any, target: TvmTarget) -> Any:
    """Return round((value + offset) * m / 2^c) + zero_point, half up, all int32:
    `hw_profiles.reference.integer_ops.rescale`.

    What depends on everything but `value` is computed apart, for a loop to compute it once.
    """
    if NAME not in set(Op.list_op_names()):
        tvm.ir._ffi_api.RegisterOp(NAME, "round((value + offset) * m / 2^c) + zero_point, half up")
        register_op_attr(NAME, "TVectorizable", True)
        register_op_attr(NAME, "TCallEffectKind", PURE)
        register_op_attr(NAME, "TScriptPrinterName", "trilobit_rescale")
        register_intrin_lowering(NAME, target="llvm", f=_lowered, level=LEVEL)
    above = 0 if target.shifts_signs else TOP
    return tirx.call_intrin("int32", NAME, value, offset, m, c, zero_point, above)


def _lowered(call: Any) -> Any:
    *operands, zero_point, bits = call.args
    lanes, above = _lanes(call), int(bits.value if isinstance(bits, tirx.Broadcast) else bits)
    if lanes % 2:
        wide = [each.astype(_vector("int64", lanes)) for each in operands]
        return _scaled(wide, lanes, 0).astype(_vector("int32", lanes)) + zero_point
    count, odd_places = lanes // 2, [place | 1 for place in range(lanes)]
    even = [_low(each, count) for each in operands]
    odd = [_low(tirx.Shuffle([each], odd_places), count) for each in operands]
    joined = _joined(_scaled(even, count, above), _scaled(odd, count, above), count)
    if not above:
        return joined + zero_point
    return joined + (zero_point - _joined(_excess(even, count, above), _excess(odd, count, above), count))


def _low(value: Any, count: int) -> Any:
    """Return the lower halves of pairs of int32, as int64, so that LLVM sees that only 32 bits are
    multiplied.
    """
    shift = _constant(HALF, count)
    return (tirx.reinterpret(_vector("int64", count), value) << shift) >> shift


def _joined(even: Any, odd: Any, count: int) -> Any:
    """Return the lower halves of two vectors of int64, in turns."""
    both = (odd << _constant(HALF, count)) | (even & _constant(2**HALF - 1, count))
    return tirx.reinterpret(_vector("int32", 2 * count), both)


def _scaled(operands: Sequence[Any], lanes: int, above: int) -> Any:
    """Return the quotient, with `above` what 2^above adds to it: made positive, a sum needs no arithmetic
    shift.

    The masks change nothing, for m and c are positive. The first keeps LLVM from taking value * m and
    offset * m for one product of 64 bits, the second from extending the sign of c.
    """
    value, offset, m, c = operands
    same, shift = m & _constant(2 ** (HALF - 1) - 1, lanes), c & _constant(63, lanes)
    one = _constant(1, lanes)
    constant = offset * same + (one << (shift - one))
    if not above:
        return (value * m + constant) >> shift
    unsigned = _vector("uint64", lanes)
    total = value * m + (constant + _constant(1 << above, lanes))
    shifted = tirx.reinterpret(unsigned, total) >> tirx.reinterpret(unsigned, shift)
    return tirx.reinterpret(_vector("int64", lanes), shifted)


def _excess(operands: Sequence[Any], lanes: int, above: int) -> Any:
    """Return what 2^above adds to the quotient."""
    return _constant(1, lanes) << (_constant(above, lanes) - (operands[-1] & _constant(63, lanes)))


def _constant(value: int, lanes: int) -> Any:
    scalar = tirx.const(value, "int64")
    return tirx.Broadcast(scalar, lanes) if lanes > 1 else scalar


def _vector(dtype: str, lanes: int) -> str:
    return f"{dtype}x{lanes}" if lanes > 1 else dtype


def _lanes(call: Any) -> int:
    return int(str(call.ty).partition("x")[2] or 1)
