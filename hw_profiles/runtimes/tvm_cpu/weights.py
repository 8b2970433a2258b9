"""Weights as kernels read them: a group of neighbouring ones for each lane of a vector. Those of 4 bits stand
two to a byte, and are taken apart in the kernel.
"""

from typing import Any

import numpy as np
from tvm import te, tirx

from hw_profiles.graph.formats import weight_bits
from hw_profiles.graph.layer import FP32, Layer
from hw_profiles.runtimes.tvm_cpu.unit import Argument, Array

PACKED_BITS = 4


def is_packed(layer: Layer) -> bool:
    """Return whether its weights stand two to a byte."""
    return weight_bits(layer.weight_format) == PACKED_BITS


def weight_argument(layer: Layer, shape: tuple[int, ...]) -> Argument:
    """Return the layer's weights of `shape` (..., lanes, group)."""
    if is_packed(layer):
        *outer, lanes, group = shape
        return Argument((*outer, lanes * group // 2), "uint8")
    return Argument(shape, "float32" if layer.weight_format == FP32 else "int8")


def pack_weights(layer: Layer, grouped: Array) -> Array:
    """Return (..., lanes, group) weights as that argument."""
    return _pack_nibbles(grouped) if is_packed(layer) else np.ascontiguousarray(grouped)


def unpacked_weights(layer: Layer, packed: Any, lanes: int, group: int) -> Any:
    """Return the tensor [..., lanes, group] of them in a computation."""
    return _unpacked(packed, lanes, group) if is_packed(layer) else packed


def _pack_nibbles(codes: Array) -> Array:
    """Return (..., lanes, group) codes in -8..7 as (..., lanes * group / 2) bytes.

    A byte holds code + 8 of the first half of a vector in its low bits, of the second half in its high bits:
    taking them apart then moves no lanes.
    """
    flat = (codes.reshape(*codes.shape[:-2], -1).astype(np.int16) + 8).astype(np.uint8)
    half = flat.shape[-1] // 2
    return np.ascontiguousarray(flat[..., :half] | flat[..., half:] << 4)


def _unpacked(packed: Any, lanes: int, group: int) -> Any:
    """Return int8 [..., lanes, group] from those bytes."""
    half = lanes * group // 2

    def code(*indices: Any) -> Any:
        *outer, lane, position = indices
        flat = lane * group + position
        low = packed[(*outer, flat)] & tirx.const(15, "uint8")
        high = packed[(*outer, flat - half)] >> tirx.const(4, "uint8")
        return tirx.if_then_else(flat < half, low, high).astype("int8") - tirx.const(8, "int8")

    return te.compute((*packed.shape[:-1], lanes, group), code, name="unpacked")


def unpack_at(sch: Any, loop: Any, codes: int) -> None:
    """Set where 4-bit weights are taken apart: inside `loop`, a vector of `codes` at a time."""
    unpack = sch.get_sblock("unpacked")
    sch.compute_at(unpack, loop, preserve_unit_loops=True)
    fused = sch.fuse(*sch.get_loops(unpack)[-2:])
    half, lane = sch.split(fused, [2, codes // 2])
    sch.vectorize(lane)
    sch.unroll(half)
