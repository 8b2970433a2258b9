"""4-bit weights: two codes to a byte, taken apart in the kernel."""

from typing import Any

import numpy as np
from tvm import te, tirx

from hw_profiles.backends.tvm_cpu.unit import Argument, Array


def pack_nibbles(codes: Array) -> Array:
    """(..., lanes, group) codes in -8..7 as (..., lanes * group / 2) bytes.

    A byte holds code + 8 of the first half of a vector in its low bits, of the second half in its high bits:
    taking them apart then moves no lanes.
    """
    flat = (codes.reshape(*codes.shape[:-2], -1).astype(np.int16) + 8).astype(np.uint8)
    half = flat.shape[-1] // 2
    return np.ascontiguousarray(flat[..., :half] | flat[..., half:] << 4)


def unpacked(packed: Any, argument: Argument, lanes: int, group: int) -> Any:
    """int8 [..., lanes, group] from those bytes."""
    half = lanes * group // 2

    def code(*indices: Any) -> Any:
        *outer, lane, position = indices
        flat = lane * group + position
        low = packed[(*outer, flat)] & tirx.const(15, "uint8")
        high = packed[(*outer, flat - half)] >> tirx.const(4, "uint8")
        return tirx.if_then_else(flat < half, low, high).astype("int8") - tirx.const(8, "int8")

    return te.compute((*argument.shape[:-1], lanes, group), code, name="unpacked")


def unpack_at(sch: Any, loop: Any, codes: int) -> None:
    """Schedule it inside `loop`, a vector of `codes` at a time."""
    unpack = sch.get_sblock("unpacked")
    sch.compute_at(unpack, loop, preserve_unit_loops=True)
    fused = sch.fuse(*sch.get_loops(unpack)[-2:])
    half, lane = sch.split(fused, [2, codes // 2])
    sch.vectorize(lane)
    sch.unroll(half)
