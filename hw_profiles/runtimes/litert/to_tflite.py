"""From the bytes of an ONNX file to those of a `.tflite` file."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from hw_profiles.errors import TrilobitError, one_line
from hw_profiles.runtimes.litert.conversion import INT8, LAST
from hw_profiles.runtimes.litert.flat_file import serialise
from hw_profiles.runtimes.litert.flat_model import FlatModel, FlatOperator
from hw_profiles.runtimes.litert.onnx_source import load_source, open_inputs
from hw_profiles.runtimes.litert.operators import converted

# operators that only change what numbers are stored as, by ONNX's names
CONVERSIONS = {"QUANTIZE": "QuantizeLinear", "DEQUANTIZE": "DequantizeLinear"}
_MOVING = frozenset(
    ("RESHAPE", "TRANSPOSE", "PAD", "PADV2", "STRIDED_SLICE", "SLICE", "GATHER", "CONCATENATION")
)
Sizes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class FlatFile:
    """A `.tflite` file that was made here.

    Attributes:
        content: its bytes.
        kernels: how many operators of each kind it has that run at each inference; those that compute on
            codes end in `_INT8`.
    """

    content: bytes
    kernels: Mapping[str, int]


def input_sizes(content: bytes) -> dict[str, tuple[int | None, ...]]:
    """Return the sizes of what an ONNX file reads; None of those that are open.

    Raises:
        TrilobitError: it is no ONNX file.
    """
    return open_inputs(_loaded(content))


def to_tflite(content: bytes, sizes: Sizes | None = None) -> FlatFile:
    """Return the `.tflite` file of an ONNX file: channels last, int8 where that has QuantizeLinear and
    DequantizeLinear around what LiteRT computes on codes.

    Args:
        sizes: of inputs whose sizes are open; without, a first dimension that is open is 1.

    Raises:
        TrilobitError: it is no ONNX file, a size is open, or an operation is not written; says which.
    """
    model = _loaded(content)
    bound = _bound(open_inputs(model), sizes or {})
    try:
        flat, inputs, outputs = converted(load_source(model, bound))
    except TrilobitError:
        raise
    except (ValueError, KeyError, IndexError, AttributeError, TypeError, AssertionError) as error:
        raise TrilobitError(f"LiteRT: the file cannot be converted: {one_line(error)}") from None
    named = {**inputs, **outputs}
    last = [name for name, (_, order) in named.items() if order == LAST]
    places = ([place for place, _ in each.values()] for each in (inputs, outputs))
    return FlatFile(serialise(flat, *places, channels_first=last), _kernels(flat))


def _loaded(content: bytes) -> onnx.ModelProto:
    try:
        return onnx.load_from_string(content)
    except Exception as error:  # whatever else it is
        raise TrilobitError(f"LiteRT: neither an ONNX file nor a .tflite file: {one_line(error)}") from None


def _bound(known: Mapping[str, tuple[int | None, ...]], sizes: Sizes) -> dict[str, tuple[int, ...]]:
    bound = {}
    for name, shape in known.items():
        given = tuple(sizes.get(name, shape))
        if len(given) != len(shape):
            raise TrilobitError(f"LiteRT: {name} has {len(shape)} dimensions, {len(given)} sizes are given")
        whole = tuple(1 if size is None and place == 0 else size for place, size in enumerate(given))
        if None in whole:
            raise TrilobitError(f"LiteRT: the sizes of {name} are open; files have fixed ones")
        bound[name] = tuple(int(size or 0) for size in whole)
    return bound


def _kernels(flat: FlatModel) -> Counter[str]:
    return Counter(kind for operator in flat.operators if (kind := kernel_of(flat, operator)))


def kernel_of(flat: FlatModel, operator: FlatOperator) -> str:
    """Return the kind of kernel that an operator is; empty of one that only runs once, on stored numbers."""
    first = flat.tensors[operator.inputs[0]]
    if operator.code in CONVERSIONS:
        return "" if first.data is not None else CONVERSIONS[operator.code]
    if operator.code in _MOVING:
        return operator.code
    return f"{operator.code}_INT8" if flat.tensors[operator.outputs[0]].dtype == INT8 else operator.code
