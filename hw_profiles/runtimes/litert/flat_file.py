"""Writes `.tflite` files with the classes of the schema that LiteRT's package ships."""

from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from hw_profiles.runtimes.litert.flat_model import FlatModel, FlatOperator, FlatTensor

VERSION, IDENTIFIER = 3, b"TFL3"
_TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "int8": schema.TensorType.INT8,
    "int32": schema.TensorType.INT32,
}
# classes of the words that an option may be
_WORDS: Mapping[str, Any] = {
    "padding": schema.Padding,
    "fusedActivationFunction": schema.ActivationFunctionType,
}


def serialise(flat: FlatModel, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
    """Return the file.

    Args:
        inputs, outputs: places of the tensors that it reads and gives.
    """
    codes = list(dict.fromkeys((each.code, each.version) for each in flat.operators))
    buffers = [schema.BufferT()]  # the first is empty, and that of all that is computed
    graph = schema.SubGraphT()
    graph.name, graph.inputs, graph.outputs = "main", list(inputs), list(outputs)
    graph.tensors = [_tensor(each, buffers) for each in flat.tensors]
    graph.operators = [_operator(each, codes.index((each.code, each.version))) for each in flat.operators]
    model = schema.ModelT()
    model.version, model.description, model.subgraphs, model.buffers = VERSION, "", [graph], buffers
    model.operatorCodes = [_code(*each) for each in codes]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def _tensor(tensor: FlatTensor, buffers: list[Any]) -> Any:
    written = schema.TensorT()
    written.name, written.shape, written.type = tensor.name, list(tensor.shape), _TYPES[tensor.dtype]
    written.hasRank, written.buffer = True, 0
    if tensor.scales:
        written.quantization = schema.QuantizationParametersT()
        written.quantization.scale = np.array(tensor.scales, np.float32)
        written.quantization.zeroPoint = np.full(len(tensor.scales), tensor.zero_point, np.int64)
        written.quantization.quantizedDimension = tensor.axis
    if tensor.data is not None:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(tensor.data).tobytes(), np.uint8)
        buffers.append(buffer)
        written.buffer = len(buffers) - 1
    return written


def _operator(operator: FlatOperator, code: int) -> Any:
    written = schema.OperatorT()
    written.opcodeIndex, written.inputs, written.outputs = code, list(operator.inputs), list(operator.outputs)
    if operator.kind:
        options = getattr(schema, f"{operator.kind}T")()
        for name, value in operator.options.items():
            setattr(options, name, getattr(_WORDS[name], value) if name in _WORDS else value)
        written.builtinOptionsType = getattr(schema.BuiltinOptions, operator.kind)
        written.builtinOptions = options
    return written


def _code(name: str, version: int) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, name)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)  # what readers of before look at
    code.version = version
    return code
