"""Number formats as graphs and runtimes see them: what elements weights and tensors are made of.

An element type is data. What encodes, rounds and writes weights in it is in `supernet.formats`, which builds
on this table: bits, ranges and grids are said here, once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from hw_profiles.registry import load, names

Grid = NDArray[np.float32]
FP32 = "fp32"  # the baseline that other formats are compared with


@dataclass(frozen=True)
class Int:
    """Integers of so many bits.

    Attributes:
        codes: `symmetric` from -(2^(b-1) - 1) to 2^(b-1) - 1, as many steps on both sides of an exact zero;
            `full` from -2^(b-1); `unsigned` from 0 to 2^b - 1, with a zero point.
    """

    bits: int
    codes: Literal["symmetric", "full", "unsigned"] = "symmetric"

    @property
    def largest(self) -> int:
        """Largest code."""
        return int(2 ** (self.bits - (self.codes != "unsigned")) - 1)

    @property
    def smallest(self) -> int:
        """Smallest code."""
        return {"symmetric": -self.largest, "full": -self.largest - 1, "unsigned": 0}[self.codes]

    @property
    def native(self) -> bool:
        """Whether values need no scale."""
        return False


@dataclass(frozen=True)
class Float:
    """So many bits of exponent and of mantissa, and a sign.

    Attributes:
        specials: which codes are no numbers: `ieee` those of the largest exponent, `nan` the largest of all
            (E4M3 of OCP), `none`.
        signed: whether there is a bit for the sign; types of scales have none.
    """

    exponent: int
    mantissa: int
    specials: Literal["ieee", "nan", "none"] = "ieee"
    signed: bool = True

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return self.signed + self.exponent + self.mantissa

    @property
    def largest(self) -> float:
        """Largest finite value."""
        top = 2**self.exponent - 1 - self.bias - (self.specials == "ieee")
        steps = 2**self.mantissa - 1 - (self.specials == "nan")
        return float(2.0**top * (1 + steps / 2**self.mantissa))

    @property
    def bias(self) -> int:
        """What is subtracted from the exponent's field."""
        return int(2 ** (self.exponent - 1) - 1)

    @property
    def native(self) -> bool:
        """Whether arrays hold it as it is, and its exponent reaches so far that values need no scale."""
        return (self.exponent, self.mantissa) in ((8, 23), (5, 10))

    @cached_property
    def values(self) -> Grid:
        """(2^bits,) value of each code; NaN of codes that are no numbers."""
        codes = np.arange(2**self.bits)
        field, steps = (codes >> self.mantissa) % 2**self.exponent, codes % 2**self.mantissa
        normal = field > 0
        magnitude = 2.0 ** (np.maximum(field, 1) - self.bias) * (normal + steps / 2**self.mantissa)
        magnitude[magnitude > self.largest] = np.nan
        negative = codes >> (self.exponent + self.mantissa) > 0
        return np.asarray(np.where(negative, -magnitude, magnitude), np.float32)


@dataclass(frozen=True)
class Codebook:
    """Any finite set of values, each known by its index.

    Attributes:
        levels: the values, ascending.
    """

    levels: tuple[float, ...]

    @property
    def bits(self) -> int:
        """Bits of an index."""
        return (len(self.levels) - 1).bit_length()

    @property
    def largest(self) -> float:
        """Largest magnitude."""
        return max(map(abs, self.levels))

    @property
    def native(self) -> bool:
        """Whether values need no scale."""
        return False

    @cached_property
    def values(self) -> Grid:
        """(levels,) value of each code."""
        return np.array(self.levels, np.float32)


ElementType = Int | Float | Codebook


@dataclass(frozen=True, eq=False)
class NearestCode:
    """How values are rounded to the elements of a small float or codebook.

    Attributes:
        codes: (n,) codes of different values, in the order of these.
        values: (n,) ascending.
        thresholds: (n - 1,) a value above the i-th is nearer to the (i + 1)-th; ties go to the even code of a
            float, to the smaller value of a codebook.
    """

    codes: NDArray[np.uint8]
    values: Grid
    thresholds: Grid

    @staticmethod
    @cache
    def of(element: Float | Codebook) -> "NearestCode":
        """Return the table of an element type of at most 8 bits."""
        codes = np.arange(len(element.values))
        finite = codes[np.isfinite(element.values)]
        finite = finite[np.lexsort((finite, element.values[finite]))]
        values = element.values[finite]
        first = np.append(True, np.diff(values) > 0)  # +0 and -0 are one value: the code 0
        codes, values = finite[first], values[first]
        middle = (values[1:] + values[:-1]) / 2
        if isinstance(element, Float):
            magnitudes = codes & (2 ** (element.bits - 1) - 1)
            middle = np.where(magnitudes[:-1] % 2, np.nextafter(middle, np.float32(-np.inf)), middle)
        return NearestCode(codes.astype(np.uint8), values, middle.astype(np.float32))


@dataclass(frozen=True)
class ElementTypes:
    """What a number format is made of.

    Attributes:
        weight: elements of weights.
        tensor: elements of activations; None of a format for weights only.
        scaled: whether activations are codes with a stored scale.
        multiplied: whether kernels that multiply integers can read such weights.
        unsigned: whether signed weights are stored unsigned, for other kernels than those of signed ones.
    """

    weight: ElementType
    tensor: ElementType | None
    scaled: bool
    multiplied: bool = False
    unsigned: bool = False


@dataclass(frozen=True, slots=True)
class QuantParams:
    """Per-tensor activation quantization: real value = scale * (code - zero_point).

    Codes are in [0, largest]; those of 16 bits, which have no zero point, in [-largest, largest].
    """

    scale: float
    zero_point: int
    largest: int = 255


def accumulator_codes(bias: Grid, scale: Grid) -> NDArray[np.int32]:
    """Return a bias (out,) as the int32 that is added to accumulators of scale s_x * s_w (out,)."""
    codes = np.rint(bias.astype(np.float64) / scale)
    return np.clip(codes, -(2**31), 2**31 - 1).astype(np.int32)


FLOAT32, FLOAT16 = Float(8, 23), Float(5, 10)
E8M0 = Float(8, 0, "none", signed=False)  # as the type of a scale: a power of two
ELEMENTS: Mapping[str, ElementTypes] = {
    FP32: ElementTypes(FLOAT32, FLOAT32, scaled=False),
    "fp16": ElementTypes(FLOAT16, FLOAT16, scaled=False),
    **{
        f"int{bits}": ElementTypes(Int(bits), Int(bits, "unsigned"), scaled=True, multiplied=True)
        for bits in (8, 6, 4, 2)
    },
    "int8-exact": ElementTypes(Int(8), None, scaled=True, multiplied=True, unsigned=True),
    # weights of products that round their other operand themselves, at each inference
    "int8-dynamic": ElementTypes(Int(8), None, scaled=True),
    "int8-g128": ElementTypes(Int(8, "full"), None, scaled=True),
    "int4-g32": ElementTypes(Int(4, "full"), None, scaled=True),
    "int4-g128": ElementTypes(Int(4, "full"), None, scaled=True),
    "int2-g128": ElementTypes(Int(2, "full"), None, scaled=True),
}
# Whole numbers that stand for themselves: ids, positions, masks, by numpy's names. Networks read them, but no
# number is rounded to them, so that they are not among the formats that can be chosen.
WHOLE: Mapping[str, ElementTypes] = {
    name: ElementTypes(Int(bits, "full"), Int(bits, "full"), scaled=False)
    for name, bits in (("int64", 64), ("int32", 32), ("bool", 8))
}
# What a key-value cache is kept in, by the number format that it is called by. Its tensors are networks' own
# inputs and outputs, as they are stored: scales of codes are known to the attention that reads them.
CACHED: Mapping[str, ElementTypes] = {
    "cache16": ElementTypes(FLOAT16, FLOAT16, scaled=False),
    "cache8": ElementTypes(Int(8, "full"), Int(8, "full"), scaled=False),
}
CACHES: Mapping[str, str] = {FP32: FP32, "fp16": "cache16", "int8": "cache8"}
CACHE_DTYPES: Mapping[str, str] = {FP32: "float32", "cache16": "float16", "cache8": "int8"}  # numpy's names
# Codes that tensors of integer-only networks have between layers: no weight is rounded to them, and who reads
# and gives them says where they are, so that they are not among the formats that can be chosen either.
BETWEEN: Mapping[str, ElementTypes] = {"int16": ElementTypes(Int(16), Int(16), scaled=True)}
UNCHOSEN: Mapping[str, ElementTypes] = {**WHOLE, **CACHED, **BETWEEN}  # that tensors have by what they are
_BUILTIN = dict.fromkeys(ELEMENTS, "")  # known names, of which none is loaded here


def element_types(name: str) -> ElementTypes:
    """Return what the format registered as `name` is made of, a plug-in's among them.

    Raises:
        TrilobitError: no such format.
    """
    return ELEMENTS.get(name) or UNCHOSEN.get(name) or _of_plugin(name)


@cache
def _of_plugin(name: str) -> ElementTypes:
    elements: ElementTypes = load("trilobit.formats", _BUILTIN, name).elements
    return elements


def is_known(*formats: str) -> bool:
    """Return whether all of these names are registered here; profiles of other installations have others."""
    return all(
        name in ELEMENTS or name in UNCHOSEN or name in names("trilobit.formats", _BUILTIN)
        for name in formats
    )


def needs_scale(name: str) -> bool:
    """Return whether tensors of a format are codes with a scale, rather than real values.

    Raises:
        TrilobitError: no such format.
    """
    return element_types(name).scaled


def is_integer(name: str) -> bool:
    """Return whether tensors of a format are integers, which kernels can multiply as they are.

    Raises:
        TrilobitError: no such format.
    """
    elements = element_types(name)
    return elements.scaled and isinstance(elements.tensor, Int)


def in_integers(weight: str, activation: str) -> bool:
    """Return whether kernels multiply such weights and activations as integers; otherwise they compute in
    real numbers, whatever both are stored as.

    Raises:
        TrilobitError: no such format.
    """
    return element_types(weight).multiplied and is_integer(activation)


def code_range(name: str) -> tuple[int, int]:
    """Return the smallest and the largest code of tensors in a format of integers.

    >>> code_range("int8"), code_range("int16")
    ((0, 255), (-32767, 32767))

    Raises:
        TrilobitError: no such format, or its tensors are no integers.
    """
    element = element_types(name).tensor
    if not isinstance(element, Int):
        raise TrilobitError(f"tensors of {name} are no integers")
    return element.smallest, element.largest


def weight_bits(name: str) -> int:
    """Return the bits of one weight in a format, scales not counted.

    Raises:
        TrilobitError: no such format.
    """
    return element_types(name).weight.bits


def tensor_bits(name: str) -> int:
    """Return the bits of one element of a tensor in a format.

    Raises:
        TrilobitError: no such format, or one for weights only.
    """
    element = element_types(name).tensor
    if element is None:
        raise TrilobitError(f"{name} is a number format of weights only; no tensor has it")
    return element.bits
