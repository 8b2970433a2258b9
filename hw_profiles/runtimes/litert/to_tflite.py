"""From the bytes of an ONNX file to those of a `.tflite` file."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from hw_profiles.errors import TrilobitError, one_line
from hw_profiles.runtimes.litert.conversion import LAST, Order
from hw_profiles.runtimes.litert.flat_file import serialise
from hw_profiles.runtimes.litert.flat_model import FlatModel
from hw_profiles.runtimes.litert.onnx_source import load_source, open_inputs
from hw_profiles.runtimes.litert.operators import converted

Sizes = Mapping[str, Sequence[int]]
Places = Mapping[str, tuple[int, Order]]
# what sizes and numbers that do not fit make of arithmetic
_MALFORMED = (
    *(ValueError, KeyError, IndexError, AttributeError, TypeError, AssertionError),
    *(OverflowError, MemoryError, ZeroDivisionError),
)


def input_sizes(content: bytes) -> dict[str, tuple[int | None, ...]]:
    """Return the sizes of what an ONNX file reads; None of those that are open.

    Raises:
        TrilobitError: it is no ONNX file.
    """
    return open_inputs(_loaded(content))


def to_tflite(content: bytes, sizes: Sizes | None = None, *, lean: bool = False) -> bytes:
    """Return the `.tflite` file of an ONNX file: channels last, int8 where that has QuantizeLinear and
    DequantizeLinear around what LiteRT computes on codes.

    Args:
        sizes: of inputs whose sizes are open; without, a first dimension that is open is 1.
        lean: see `hw_profiles.runtimes.litert.operators.converted`.

    Raises:
        TrilobitError: it is no ONNX file, a size is open, or an operation is not written; says which.
    """
    model = _loaded(content)
    bound = _bound(open_inputs(model), sizes or {})
    try:
        with np.errstate(all="ignore"):  # of numbers that are none, which stay what they are
            return _written(*converted(load_source(model, bound), lean=lean))
    except _MALFORMED as error:
        raise TrilobitError(f"LiteRT: the file cannot be converted: {one_line(error)}") from None


def _written(flat: FlatModel, inputs: Places, outputs: Places) -> bytes:
    last = [name for name, (_, order) in {**inputs, **outputs}.items() if order == LAST]
    reads, gives = ([place for place, _ in each.values()] for each in (inputs, outputs))
    return serialise(flat, reads, gives, last)


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
