"""Dot products of four unsigned and four signed bytes in every lane of a vector, with the instructions that a
processor has for them, as tensor intrinsics under our own names.

TVM's shipped ones are not used: `dot_16x4_vnni` does not pass LLVM 22's verification, for vpdpbusd now takes
vectors of bytes, and none of them says how large a weight may be.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import s_tir
from tvm.script.parser import tirx

from hw_profiles.graph.formats import element_types
from hw_profiles.graph.layer import FP32, Layer
from hw_profiles.graph.workload import Workload
from hw_profiles.reference.integer_ops import UnitNumbers
from hw_profiles.reference.integer_sums import WIDEST_EXACT, IntegerSums
from hw_profiles.runtimes.tvm_cpu.target import TvmTarget

Array = NDArray[Any]

GROUP = 4  # inputs that one lane multiplies
BITS = 32  # of one lane
ALL_CODES = 128  # no magnitude of a signed byte is larger
EXACT = "int8-exact"  # the weight format that keeps all codes where `int8` is reduced to fewer

_SIGNATURE = """
@text.prim_func(s_tir=True)
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
                    C[vc] = C[vc] + {left} * T.cast(B[vc, vj], "int32")
"""
_IMPLEMENTATION = """\
        {before}a = {vector}
        b = B.vload([0, 0], dtype="int8x{bytes}")
        c = C.vload([0], dtype="int32x{lanes}")
        C[T.ramp(T.int32(0), 1, {lanes})] = {sum}
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


@dataclass(frozen=True)
class Instruction:
    """How a processor multiplies groups of four bytes and adds them up.

    Attributes:
        name: in the names of its intrinsics.
        features: LLVM's that it takes, by the bits of a vector.
        sum: c + a . b in TVM's script, for vectors of so many bits.
        largest: magnitude of the weight codes up to which nothing saturates, whatever the inputs are.
        shift: what is taken off the inputs, for they are multiplied as signed bytes.
        shuffle: LLVM's features without which bringing the bytes of a lane together costs more than it saves.
    """

    name: str
    features: Mapping[int, frozenset[str]]
    sum: Callable[[int], str]
    largest: int = ALL_CODES
    shift: int = 0
    shuffle: frozenset[str] = frozenset()

    def fits(self, target: TvmTarget) -> bool:
        """Return whether the processor has it for its widest vectors."""
        needed = self.features.get(8 * target.vector_bytes)
        return needed is not None and needed <= target.features

    def dot(self, lanes: int) -> str:
        """Return the name of: C[c] += sum over four j of (A[j] - shift) * B[c, j], for `lanes` c."""
        return self._registered("dot", _DOT, lanes)

    def taps(self, lanes: int) -> str:
        """Return the name of: C[c] += sum over four j of (A[j, c] - shift) * B[c, j], for `lanes` c."""
        return self._registered("taps", _TAPS, lanes)

    def _registered(self, kind: str, inputs: _Inputs, lanes: int) -> str:
        name = f"trilobit_{self.name}_{kind}_{lanes}x4"
        if s_tir.TensorIntrin.get(name, allow_missing=True) is None:
            left = f'T.cast(A[{inputs.one}], "int32")'
            values: dict[str, object] = {
                "lanes": lanes,
                "bytes": GROUP * lanes,
                "sum": self.sum(BITS * lanes),
                "left": f"({left} - {self.shift})" if self.shift else left,
                "order": [position * lanes + c for c in range(lanes) for position in range(GROUP)],
            }
            values |= {part: text.format(**values) for part, text in asdict(inputs).items()}
            texts = ((_SIGNATURE + body).format(**values) for body in (_DESCRIPTION, _IMPLEMENTATION))
            s_tir.TensorIntrin.register(name, *map(_parsed, texts))
        return name


def _parsed(text: str) -> Any:
    """Return a function of TVM's script. The parser needs a decorator for its keywords; TVM's own looks
    through all frames and modules for a class around the function, .3 s in a large process.
    """
    decorated = SimpleNamespace(dispatch_token=tirx.prim_func.dispatch_token)
    names = {"T": tirx, "text": SimpleNamespace(prim_func=lambda **keywords: decorated)}
    return tvm.script.from_source(text, names)


def _vector(dtype: str, bits: int) -> str:
    return f"{dtype}x{bits // int(dtype.lstrip('uint'))}"


def _call(name: str, result: str, *operands: str) -> str:
    words = ", ".join([f'T.llvm_lookup_intrinsic_id("{name}")', *operands, f'dtype="{result}"'])
    return f"T.call_llvm_pure_intrin({words})"


def _as(dtype: str, bits: int, value: str) -> str:
    return f'T.reinterpret({value}, dtype="{_vector(dtype, bits)}")'


def _words(value: int, bits: int, dtype: str = "int16") -> str:
    return f"T.broadcast(T.{dtype}({value}), {bits // 16})"


_MADD_BYTES = {
    512: "llvm.x86.avx512.pmaddubs.w.512",
    256: "llvm.x86.avx2.pmadd.ub.sw",
    128: "llvm.x86.ssse3.pmadd.ub.sw.128",
}
_MADD_WORDS = {
    512: "llvm.x86.avx512.pmaddw.d.512",
    256: "llvm.x86.avx2.pmadd.wd",
    128: "llvm.x86.sse2.pmadd.wd",
}


def _madd_words(bits: int, left: str, right: str) -> str:
    return _call(_MADD_WORDS[bits], _vector("int32", bits), left, right)


def _vpdpbusd(bits: int) -> str:
    return _call(f"llvm.x86.avx512.vpdpbusd.{bits}", _vector("int32", bits), "c", "a", "b")


def _bytes(bits: int) -> str:
    """Return products of bytes, added in pairs to 16 bits with saturation, those in pairs to 32."""
    pairs = _call(_MADD_BYTES[bits], _vector("int16", bits), "a", "b")
    return f"c + {_madd_words(bits, pairs, _words(1, bits))}"


def _widened(bits: int) -> str:
    """Return bytes at even and at odd places as 16 bits each, whose products are added in pairs to 32."""
    byte = _words(8, bits)
    left, right = _as("int16", bits, "a"), _as("int16", bits, "b")
    even = _madd_words(bits, f"{left} & {_words(255, bits)}", f"({right} << {byte}) >> {byte}")
    high = f"{_as('uint16', bits, 'a')} >> {_words(8, bits, 'uint16')}"
    odd = _madd_words(bits, _as("int16", bits, high), f"{right} >> {byte}")
    return f"c + {even} + {odd}"


def _usdot(bits: int) -> str:
    return _call("llvm.aarch64.neon.usdot", _vector("int32", bits), "c", "a", "b")


def _sdot(bits: int) -> str:
    """Return the product with signed bytes: the highest bit of a byte turned over takes 128 off it."""
    signed = _as("int8", bits, f"a ^ T.broadcast(T.uint8(128), {bits // 8})")
    return _call("llvm.aarch64.neon.sdot", _vector("int32", bits), "c", signed, "b")


_X86 = {512: frozenset({"avx512bw"}), 256: frozenset({"avx2"}), 128: frozenset({"ssse3"})}
# of those that a processor has, the first one that is exact for the weights is taken
INSTRUCTIONS = (
    Instruction(
        "vpdpbusd",
        {512: frozenset({"avx512vnni", "avx512vl", "avx512bw"}), 256: frozenset({"avxvnni"})},
        _vpdpbusd,
        shuffle=frozenset({"avx512vbmi"}),
    ),
    Instruction("pmaddubsw", _X86, _bytes, largest=WIDEST_EXACT),
    Instruction("pmaddwd", _X86, _widened),
    Instruction("usdot", {128: frozenset({"i8mm"})}, _usdot),
    Instruction("sdot", {128: frozenset({"dotprod"})}, _sdot, shift=128),
)


def instruction_of(layer: Layer, target: TvmTarget) -> Instruction | None:
    """Return what `layer` is multiplied with: None where it computes in fp32, or byte by byte."""
    if layer.activation_format == FP32:
        return None
    return _first_fitting(target, exact=element_types(layer.weight_format).unsigned)


def _first_fitting(target: TvmTarget, *, exact: bool) -> Instruction | None:
    fitting = (each for each in INSTRUCTIONS if each.fits(target))
    return next((each for each in fitting if each.largest == ALL_CODES or not exact), None)


def sums_of(target: TvmTarget) -> IntegerSums:
    """Return what the fastest kernels for `target` do with weights of all 8-bit codes."""
    fastest = _first_fitting(target, exact=False)
    return IntegerSums.SATURATING if fastest and fastest.largest < ALL_CODES else IntegerSums.EXACT


def shift_of(instruction: Instruction | None) -> int:
    """Return what is taken off the inputs before they are multiplied."""
    return instruction.shift if instruction else 0


def checked_codes(layer: Layer, numbers: UnitNumbers, instruction: Instruction | None) -> Array:
    """Return the unit's weights.

    Raises:
        ValueError: they have codes for which the instruction would saturate.
    """
    weight, _, _ = numbers.parameters
    if instruction and (largest := _magnitude(weight)) > instruction.largest:
        raise ValueError(
            f"{layer.key()}: weight code {largest} would saturate, {instruction.name} takes up to "
            f"{instruction.largest}; compile the unit with w={EXACT}"
        )
    return weight


def _magnitude(weight: Array) -> int:
    return int(np.abs(weight.astype(np.int16)).max(initial=0))


def exact_where_needed(work: Workload, numbers: Mapping[str, UnitNumbers], target: TvmTarget) -> Workload:
    """Return the workload with weight format `int8-exact` in those layers whose codes the fastest instruction
    of `target` does not take: their kernels take all, at less speed.

    Args:
        numbers: of each layer by its name.
    """
    return replace(
        work,
        layers=tuple(
            _exact(layer) if _needs_exact(layer, numbers[name], target) else layer
            for name, layer in zip(work.names, work.layers, strict=True)
        ),
    )


def _needs_exact(layer: Layer, numbers: UnitNumbers, target: TvmTarget) -> bool:
    instruction = instruction_of(layer, target)
    return bool(layer.weighted and instruction and _magnitude(numbers.parameters[0]) > instruction.largest)


def _exact(layer: Layer) -> Layer:
    return replace(layer, weight_format=EXACT)


def register_intrinsics(target: TvmTarget) -> None:
    """Give TVM everything that kernels for `target` may use."""
    widest = target.vector_bytes // GROUP
    for instruction in INSTRUCTIONS:
        if instruction.fits(target):
            for lanes in {widest, min(widest, 8)}:
                instruction.dot(lanes)
                instruction.taps(lanes)
