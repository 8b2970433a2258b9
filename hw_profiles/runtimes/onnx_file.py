"""What an ONNX file says of itself, without running it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hw_profiles.reference.integer_sums import WIDEST_EXACT
from hw_profiles.runtimes.runtime import TensorInfo

EXACT_SUMS = "session.x64quantprecision"  # ONNX Runtime's session option that keeps sums from saturating


@dataclass(frozen=True)
class NamedTensor:
    """One input or output of a file.

    Attributes:
        shape: numbers, names of open sizes, None of those without one.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...]


def signature(model: bytes) -> tuple[tuple[NamedTensor, ...], tuple[NamedTensor, ...]] | None:
    """Return what an ONNX file reads besides what it stores, and what it gives; None where it is none."""
    try:
        graph = onnx.load_from_string(model).graph
    except Exception:  # whoever opens it says what is wrong
        return None
    stored = {tensor.name for tensor in graph.initializer}
    read = tuple(_named(value) for value in graph.input if value.name not in stored)
    return read, tuple(map(_named, graph.output))


def _named(value: onnx.ValueInfoProto) -> NamedTensor:
    kind = value.type.tensor_type
    shape = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in kind.shape.dim)
    return NamedTensor(value.name, np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type)), shape)


def tensor_infos(values: Iterable[onnx.ValueInfoProto]) -> tuple[TensorInfo, ...]:
    """Return the inputs or outputs of an ONNX graph; sizes that have a name are open."""
    return tuple(map(_tensor_info, values))


def input_infos(model: bytes) -> tuple[TensorInfo, ...]:
    """Return the inputs of an ONNX file."""
    return tensor_infos(onnx.load_from_string(model).graph.input)


def end_infos(model: bytes) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    """Return what an ONNX file reads besides what it stores, and what it gives."""
    graph = onnx.load_from_string(model).graph
    stored = {tensor.name for tensor in graph.initializer}
    read = [value for value in graph.input if value.name not in stored]
    return tensor_infos(read), tensor_infos(graph.output)


def _tensor_info(value: onnx.ValueInfoProto) -> TensorInfo:
    element = value.type.tensor_type.elem_type
    return TensorInfo(value.name, sizes_of(value), str(helper.tensor_dtype_to_np_dtype(element)))


def sizes_of(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    """Return the sizes of a tensor; None of those that are open, which some exporters write as -1."""
    dimensions = value.type.tensor_type.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else None for d in dimensions)


def needs_exact_sums(model: bytes) -> bool:
    """Return whether a model has signed 8-bit weight codes beyond +-64: with those, kernels that add pairs of
    products in 16 bits compute something else. What is no ONNX file needs nothing.
    """
    try:
        proto = onnx.load_from_string(model)
    except Exception:  # whoever opens it says what is wrong
        return False
    return any(_is_wide(tensor) for tensor in proto.graph.initializer)


def _is_wide(tensor: onnx.TensorProto) -> bool:
    """Return whether a constant is a matrix or a filter of signed codes with some beyond +-64."""
    if tensor.data_type != TensorProto.INT8 or len(tensor.dims) < 2:
        return False
    codes = numpy_helper.to_array(tensor).astype(np.int16)
    return bool(codes.size and np.abs(codes).max() > WIDEST_EXACT)
