"""Writes `.tflite` files with the classes of the schema that LiteRT's package ships, and reads what Trilobit
notes in them: which inputs and outputs have their channels last where the network that the file was made of
has them first.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.litert.flat_model import FlatModel, FlatOperator, FlatTensor

VERSION, IDENTIFIER = 3, b"TFL3"
SIGNATURE = "serving_default"
ORDERS = "trilobit.channels_first"  # name of the metadata
_TYPES: Mapping[str, int] = {
    "float32": schema.TensorType.FLOAT32,
    "float16": schema.TensorType.FLOAT16,
    "int8": schema.TensorType.INT8,
    "uint8": schema.TensorType.UINT8,
    "int32": schema.TensorType.INT32,
    "int64": schema.TensorType.INT64,
    "bool": schema.TensorType.BOOL,
}
DAMAGED = "it is no whole .tflite file: fetch it again, or export it again"
# operators that only change what numbers are stored as, by ONNX's names
CONVERSIONS: Mapping[str, str] = {"QUANTIZE": "QuantizeLinear", "DEQUANTIZE": "DequantizeLinear"}
# operators that only move numbers
MOVES = frozenset(
    ("RESHAPE", "TRANSPOSE", "PAD", "PADV2", "STRIDED_SLICE", "SLICE", "GATHER", "CONCATENATION", "TILE")
)
MOST_OPERATORS = 100_000
_CODES = {value: name for name, value in vars(schema.BuiltinOperator).items() if name.isupper()}
_MOST_NAMES, _LONGEST_NOTE = 1_000, 100_000


class _Types:
    """Element types by numpy's names, as attributes."""

    def __getattr__(self, name: str) -> int:
        return _TYPES[name]


# classes of the words that an option may be
_WORDS: Mapping[str, Any] = {
    "padding": schema.Padding,
    "fusedActivationFunction": schema.ActivationFunctionType,
    "inDataType": _Types(),
    "outDataType": _Types(),
    "outputType": _Types(),
}


def serialise(
    flat: FlatModel, inputs: Sequence[int], outputs: Sequence[int], channels_first: Sequence[str] = ()
) -> bytes:
    """Return the file.

    Args:
        inputs, outputs: places of the tensors that it reads and gives.
        channels_first: those of them that have their channels last here, and first in the network that the
            file was made of; noted in it.

    Raises:
        TrilobitError: a tensor has an element type that is not written.
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
    model.signatureDefs = [_signature(flat, inputs, outputs)]
    if channels_first:
        model.metadata = [_note(channels_first, buffers)]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def is_flat(content: bytes) -> bool:
    """Return whether these are the bytes of a `.tflite` file, by how it begins."""
    return content[4:8] == IDENTIFIER


def channels_first(content: bytes) -> frozenset[str]:
    """Return the inputs and outputs that a file of Trilobit's notes; see `serialise`. None of others' files.

    Raises:
        TrilobitError: the file is damaged.
    """
    try:
        model = schema.Model.GetRootAs(content, 0)
        for place in range(min(model.MetadataLength(), _MOST_NAMES)):
            entry = model.Metadata(place)
            if entry is not None and entry.Name() == ORDERS.encode():
                data = model.Buffers(entry.Buffer()).DataAsNumpy()
                names = json.loads(bytes(data[:_LONGEST_NOTE]))
                return frozenset(name for name in names[:_MOST_NAMES] if isinstance(name, str))
    except Exception:  # whatever a damaged file makes of offsets
        raise TrilobitError(DAMAGED) from None
    return frozenset()


def kernels(content: bytes) -> Counter[str]:
    """Return how many operators of each kind a file has that run at each inference, by the schema's words;
    those that give codes and compute end in `_INT8`, conversions of numbers are called as in ONNX.

    Raises:
        TrilobitError: the file is damaged.
    """
    try:
        model = schema.Model.GetRootAs(content, 0)
        graph = model.Subgraphs(0)
        places = range(min(graph.OperatorsLength(), MOST_OPERATORS))
        return Counter(filter(None, (_kernel(model, graph, graph.Operators(place)) for place in places)))
    except Exception:  # whatever a damaged file makes of offsets
        raise TrilobitError(DAMAGED) from None


def _kernel(model: Any, graph: Any, operator: Any) -> str:
    """Return the kind of an operator; empty of one that only runs once, on stored numbers."""
    code = model.OperatorCodes(operator.OpcodeIndex())
    name = _CODES.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "CUSTOM")
    if name in CONVERSIONS:
        stored = graph.Tensors(operator.Inputs(0)).Buffer()
        return "" if model.Buffers(stored).DataLength() else CONVERSIONS[name]
    gives = graph.Tensors(operator.Outputs(0)).Type()
    return f"{name}_INT8" if gives == schema.TensorType.INT8 and name not in MOVES else name


def _signature(flat: FlatModel, inputs: Sequence[int], outputs: Sequence[int]) -> Any:
    """Return what LiteRT's own tools find inputs and outputs by: their names."""
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = SIGNATURE, 0
    signature.inputs, signature.outputs = (
        [_named(flat.tensors[place].name, place) for place in places] for places in (inputs, outputs)
    )
    return signature


def _named(name: str, place: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, place
    return entry


def _note(names: Sequence[str], buffers: list[Any]) -> Any:
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(json.dumps(sorted(names)).encode(), np.uint8)
    buffers.append(buffer)
    entry = schema.MetadataT()
    entry.name, entry.buffer = ORDERS, len(buffers) - 1
    return entry


def _tensor(tensor: FlatTensor, buffers: list[Any]) -> Any:
    written = schema.TensorT()
    if tensor.dtype not in _TYPES:
        raise TrilobitError(f"LiteRT: {tensor.name} is {tensor.dtype}; files hold {', '.join(_TYPES)}")
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
