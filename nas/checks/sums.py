"""What a file needs of the processor that it runs on, read off its weights."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from hw_profiles.reference.integer_sums import WIDEST_EXACT
from hw_profiles.runtimes.ort.runtime import open_session

if TYPE_CHECKING:
    import onnxruntime


def needs_exact_sums(model: bytes | Path) -> bool:
    """Return whether a model has signed 8-bit weight codes beyond +-64: with those, kernels that add pairs of
    products in 16 bits compute something else. What is no ONNX file needs nothing.
    """
    try:
        proto = onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(model)
    except Exception:  # whoever opens it says what is wrong
        return False
    return any(_is_wide(tensor) for tensor in proto.graph.initializer)


def _is_wide(tensor: onnx.TensorProto) -> bool:
    """Whether a constant is a matrix or a filter of signed codes with some beyond +-64."""
    if tensor.data_type != TensorProto.INT8 or len(tensor.dims) < 2:
        return False
    codes = numpy_helper.to_array(tensor).astype(np.int16)
    return bool(codes.size and np.abs(codes).max() > WIDEST_EXACT)


def open_exactly(model: bytes | Path, **options: Any) -> "onnxruntime.InferenceSession":
    """Return a session that computes what a file says on every processor: with the option that keeps sums
    from saturating where it needs that (`hw_profiles.runtimes.ort.runtime.open_session` takes `options`).
    """
    return open_session(model, exact_sums=needs_exact_sums(model), **options)
