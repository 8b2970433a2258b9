"""Vector instructions that TVM does not reach by itself, as tensor intrinsics under our own names.

The shipped `dot_16x4_vnni` does not pass LLVM 22's verification: vpdpbusd now takes vectors of bytes.
"""

from dataclasses import asdict, dataclass

import tvm
from tvm import s_tir

BITS = 32  # of one lane

_SIGNATURE = """
@T.prim_func(s_tir=True)
def intrinsic(
    A: T.Buffer({shape}, "uint8", offset_factor=1),
    B: T.Buffer(({lanes}, 4), "int8", offset_factor=1),
    C: T.Buffer(({lanes},), "int32", offset_factor=1, scope="local"),
) -> None:
    with T.sblock("root"):
        T.reads(C[0:{lanes}], A[{all}], B[0:{lanes}, 0:4])
        T.writes(C[0:{lanes}])
"""
_DESCRIPTION = """\
        for c in T.serial(0, {lanes}):
            for j in T.serial(0, 4):
                with T.sblock("update"):
                    vc, vj = T.axis.remap("SR", [c, j])
                    C[vc] = C[vc] + T.cast(A[{one}], "int32") * T.cast(B[vc, vj], "int32")
"""
_IMPLEMENTATION = """\
        {before}C[T.ramp(T.int32(0), 1, {lanes})] = T.call_llvm_pure_intrin(
            T.llvm_lookup_intrinsic_id("{instruction}"),
            C.vload([0], dtype="int32x{lanes}"),
            {vector},
            B.vload([0, 0], dtype="int8x{bytes}"),
            dtype="int32x{lanes}",
        )
"""


@dataclass(frozen=True)
class _Inputs:
    """Where the inputs A come from, in TVM's script.

    Attributes:
        shape: of A.
        all: of A, what is read.
        one: of A, what is multiplied with B[c, j].
        vector: all of A as a vector whose byte 4 c + j is multiplied with B[c, j].
        before: a line of its own before that.
    """

    shape: str
    all: str
    one: str
    vector: str
    before: str = ""


# one group of four, the same for all lanes
_DOT = _Inputs(
    "(4,)",
    "0:4",
    "vj",
    'T.reinterpret(T.broadcast(group, {lanes}), dtype="uint8x{bytes}")',
    'group = T.reinterpret(A.vload([0], "uint8x4"), dtype="int32")\n        ',
)
# four neighbouring positions of every lane: the four bytes of a lane are brought next to each other
_TAPS = _Inputs(
    "(4, {lanes})",
    "0:4, 0:{lanes}",
    "vj, vc",
    'T.Shuffle([A.vload([0, 0], dtype="uint8x{bytes}")], {order})',
)


def dot_intrinsic(lanes: int) -> str:
    """Name of: C[c] += sum over four j of A[j] * B[c, j], for `lanes` (8 or 16) c."""
    return _registered(f"trilobit_dot_{lanes}x4", _DOT, lanes)


def taps_intrinsic(lanes: int) -> str:
    """Name of: C[c] += sum over four j of A[j, c] * B[c, j], for `lanes` (8 or 16) c."""
    return _registered(f"trilobit_taps_{lanes}x4", _TAPS, lanes)


def _registered(name: str, inputs: _Inputs, lanes: int) -> str:
    if s_tir.TensorIntrin.get(name, allow_missing=True) is None:
        values: dict[str, object] = {
            "lanes": lanes,
            "bytes": 4 * lanes,
            "instruction": f"llvm.x86.avx512.vpdpbusd.{BITS * lanes}",
            "order": [position * lanes + c for c in range(lanes) for position in range(4)],
        }
        values |= {part: text.format(**values) for part, text in asdict(inputs).items()}
        texts = ((_SIGNATURE + body).format(**values) for body in (_DESCRIPTION, _IMPLEMENTATION))
        s_tir.TensorIntrin.register(name, *map(tvm.script.from_source, texts))
    return name
