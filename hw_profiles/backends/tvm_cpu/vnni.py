"""Vector instructions that TVM does not reach by itself, as tensor intrinsics under our own names.

The shipped `dot_16x4_vnni` does not pass LLVM 22's verification: vpdpbusd now takes vectors of bytes.
"""

import tvm
from tvm import s_tir

BITS = 32  # of one lane

# C[c] += sum over j of A[j] * B[c, j]: one group of four inputs, `lanes` output channels
_DOT = """
@T.prim_func(s_tir=True)
def description(
    A: T.Buffer((4,), "uint8", offset_factor=1),
    B: T.Buffer(({lanes}, 4), "int8", offset_factor=1),
    C: T.Buffer(({lanes},), "int32", offset_factor=1, scope="local"),
) -> None:
    with T.sblock("root"):
        T.reads(C[0:{lanes}], A[0:4], B[0:{lanes}, 0:4])
        T.writes(C[0:{lanes}])
        for c in T.serial(0, {lanes}):
            for j in T.serial(0, 4):
                with T.sblock("update"):
                    vc, vj = T.axis.remap("SR", [c, j])
                    C[vc] = C[vc] + T.cast(A[vj], "int32") * T.cast(B[vc, vj], "int32")
"""
_DOT_IMPLEMENTATION = """
@T.prim_func(s_tir=True)
def implementation(
    A: T.Buffer((4,), "uint8", offset_factor=1),
    B: T.Buffer(({lanes}, 4), "int8", offset_factor=1),
    C: T.Buffer(({lanes},), "int32", offset_factor=1, scope="local"),
) -> None:
    with T.sblock("root"):
        T.reads(C[0:{lanes}], A[0:4], B[0:{lanes}, 0:4])
        T.writes(C[0:{lanes}])
        group = T.reinterpret(A.vload([0], "uint8x4"), dtype="int32")
        C[T.ramp(T.int32(0), 1, {lanes})] = T.call_llvm_pure_intrin(
            T.llvm_lookup_intrinsic_id("{instruction}"),
            C.vload([0], dtype="int32x{lanes}"),
            T.reinterpret(T.broadcast(group, {lanes}), dtype="uint8x{bytes}"),
            B.vload([0, 0], dtype="int8x{bytes}"),
            dtype="int32x{lanes}",
        )
"""
# C[c] += sum over j of A[j, c] * B[c, j]: four neighbouring positions, `lanes` channels each with its filter
_TAPS = """
@T.prim_func(s_tir=True)
def description(
    A: T.Buffer((4, {lanes}), "uint8", offset_factor=1),
    B: T.Buffer(({lanes}, 4), "int8", offset_factor=1),
    C: T.Buffer(({lanes},), "int32", offset_factor=1, scope="local"),
) -> None:
    with T.sblock("root"):
        T.reads(C[0:{lanes}], A[0:4, 0:{lanes}], B[0:{lanes}, 0:4])
        T.writes(C[0:{lanes}])
        for c in T.serial(0, {lanes}):
            for j in T.serial(0, 4):
                with T.sblock("update"):
                    vc, vj = T.axis.remap("SR", [c, j])
                    C[vc] = C[vc] + T.cast(A[vj, vc], "int32") * T.cast(B[vc, vj], "int32")
"""
_TAPS_IMPLEMENTATION = """
@T.prim_func(s_tir=True)
def implementation(
    A: T.Buffer((4, {lanes}), "uint8", offset_factor=1),
    B: T.Buffer(({lanes}, 4), "int8", offset_factor=1),
    C: T.Buffer(({lanes},), "int32", offset_factor=1, scope="local"),
) -> None:
    with T.sblock("root"):
        T.reads(C[0:{lanes}], A[0:4, 0:{lanes}], B[0:{lanes}, 0:4])
        T.writes(C[0:{lanes}])
        C[T.ramp(T.int32(0), 1, {lanes})] = T.call_llvm_pure_intrin(
            T.llvm_lookup_intrinsic_id("{instruction}"),
            C.vload([0], dtype="int32x{lanes}"),
            T.Shuffle([A.vload([0, 0], dtype="uint8x{bytes}")], {order}),
            B.vload([0, 0], dtype="int8x{bytes}"),
            dtype="int32x{lanes}",
        )
"""


def dot_intrinsic(lanes: int) -> str:
    """Name of: C[c] += sum over four j of A[j] * B[c, j], for `lanes` (8 or 16) c."""
    return _registered(f"trilobit_dot_{lanes}x4", _DOT, _DOT_IMPLEMENTATION, lanes)


def taps_intrinsic(lanes: int) -> str:
    """Name of: C[c] += sum over four j of A[j, c] * B[c, j], for `lanes` (8 or 16) c."""
    return _registered(f"trilobit_taps_{lanes}x4", _TAPS, _TAPS_IMPLEMENTATION, lanes)


def _registered(name: str, description: str, implementation: str, lanes: int) -> str:
    if s_tir.TensorIntrin.get(name, allow_missing=True) is None:
        values = {
            "lanes": lanes,
            "bytes": 4 * lanes,
            "instruction": f"llvm.x86.avx512.vpdpbusd.{BITS * lanes}",
            # the four bytes of one channel next to each other
            "order": [position * lanes + c for c in range(lanes) for position in range(4)],
        }
        functions = (tvm.script.from_source(text.format(**values)) for text in (description, implementation))
        s_tir.TensorIntrin.register(name, *functions)
    return name
