"""What an ONNX file must have for a network: types of its tensors, and the version of ONNX's operations."""

import numpy as np
from onnx import TensorProto, helper

from hw_profiles.graph.formats import CACHE_DTYPES, CACHED, WHOLE, needs_scale
from hw_profiles.graph.tensor_type import TensorType
from hw_profiles.graph.workload import Workload
from nas.emit.operations import SINCE
from supernet.formats.loading import load_activation_format, load_format
from supernet.formats.onnx_weights import OPSET, OPSETS, OnnxType

IR_VERSIONS = {OPSET: 10, 23: 11, 25: 13}


def real_type(fmt: str) -> OnnxType:
    """Return the ONNX type of the real values that a layer computes with which reads tensors of a format."""
    real = needs_scale(fmt) or fmt in WHOLE or fmt in CACHED
    return "FLOAT" if real else load_activation_format(fmt).stored_as


def fed_type(x: TensorType) -> int:
    """Return ONNX's type of what a network reads or gives: real numbers in fp32, whole ones and what a cache
    holds as they are.
    """
    stored = x.format if x.format in WHOLE else CACHE_DTYPES.get(x.format)
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(stored))) if stored else TensorProto.FLOAT


def needed_opset(work: Workload, *, portable: bool = False) -> int:
    """Return the oldest opset that has the types of a network's weights and tensors, and its operations where
    they are not spelled out.
    """
    types = {load_format(layer.weight_format).weight.stored_as for layer in work.layers if layer.weighted}
    formats = {layer.out_format for layer in work.layers} - WHOLE.keys()
    types |= {load_activation_format(fmt).stored_as for fmt in formats}
    operations = [] if portable else [SINCE.get(layer.op, OPSET) for layer in work.layers]
    return max([OPSET, *operations, *(OPSETS.get(each, OPSET) for each in types)])
