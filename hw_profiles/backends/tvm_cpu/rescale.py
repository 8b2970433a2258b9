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

NAME = "tirx.trilobit_rescale"
PURE = 1  # tvm's CallEffectKind: no side effects, the same arguments give the same result
LEVEL = 99  # above TVM's own rules
HALF = 32  # bits


def rescaled(value: Any, offset: Any, m: Any, c: Any) -> Any:
    """round((value + offset) * m / 2^c), half up, all int32: `hw_profiles.arithmetic.rescale`.

    What depends on `offset`, `m` and `c` alone is computed apart, for a loop to compute it once.
    """
    if NAME not in set(Op.list_op_names()):
        tvm.ir._ffi_api.RegisterOp(NAME, "round((value + offset) * m / 2^c), half up")
        register_op_attr(NAME, "TVectorizable", True)
        register_op_attr(NAME, "TCallEffectKind", PURE)
        register_op_attr(NAME, "TScriptPrinterName", "trilobit_rescale")
        register_intrin_lowering(NAME, target="llvm", f=_lowered, level=LEVEL)
    return tirx.call_intrin("int32", NAME, value, offset, m, c)


def _lowered(call: Any) -> Any:
    lanes = _lanes(call)
    if lanes % 2:
        operands = [each.astype(_vector("int64", lanes)) for each in call.args]
        return _scaled(operands, lanes).astype(_vector("int32", lanes))
    pairs = [tirx.reinterpret(_vector("int64", lanes // 2), each) for each in call.args]
    count = lanes // 2
    shift = _constant(HALF, count)
    even = _scaled([(each << shift) >> shift for each in pairs], count)
    odd = _scaled([each >> shift for each in pairs], count)
    joined = (odd << shift) | (even & _constant(2**HALF - 1, count))
    return tirx.reinterpret(_vector("int32", lanes), joined)


def _scaled(operands: Sequence[Any], lanes: int) -> Any:
    value, offset, m, c = operands
    one = _constant(1, lanes)
    return (value * m + (offset * m + (one << (c - one)))) >> c


def _constant(value: int, lanes: int) -> Any:
    scalar = tirx.const(value, "int64")
    return tirx.Broadcast(scalar, lanes) if lanes > 1 else scalar


def _vector(dtype: str, lanes: int) -> str:
    return f"{dtype}x{lanes}" if lanes > 1 else dtype


def _lanes(call: Any) -> int:
    return int(str(call.ty).partition("x")[2] or 1)
