"""Every operation as ONNX nodes, between the dequantization of what it reads and the quantization of what it
gives.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import compose, version_converter

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.consumer import Consumer
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.tensor_type import Dim
from nas.emit.emission import Emission as Emission
from nas.emit.emission import Emit
from nas.emit.transformer_operations import SINCE as SINCE
from nas.emit.transformer_operations import TRANSFORMER_NODES


def _conv(e: Emission) -> list[str]:
    a = e.layer.values
    kernel = a.integers("weight")[2:]
    return e.node("Conv", kernel_shape=kernel, group=a.integer("group"), **_windows(e.layer, len(kernel)))


def _max_pool(e: Emission) -> list[str]:
    kernel = e.layer.values.integers("kernel_shape")
    return e.node("MaxPool", kernel_shape=kernel, **_rounding(e.layer), **_windows(e.layer, len(kernel)))


def _average_pool(e: Emission) -> list[str]:
    a = e.layer.values
    kernel, attributes = a.integers("kernel_shape"), {**_rounding(e.layer)}
    windows = _windows(e.layer, len(kernel))
    if not any(windows["pads"]):
        del windows["pads"]
    if a.integer("count_include_pad"):
        attributes["count_include_pad"] = 1
    return e.node("AveragePool", kernel_shape=kernel, **attributes, **windows)


def _windows(layer: Layer, rank: int) -> dict[str, Any]:
    """Return strides and pads, and dilations where there are any."""
    a = layer.values
    dilations = a.integers("dilations", rank)
    windows: dict[str, Any] = {"strides": a.integers("strides", rank), "pads": a.integers("pads", 2 * rank)}
    return windows if set(dilations) == {1} else {**windows, "dilations": dilations}


def _rounding(layer: Layer) -> dict[str, Any]:
    return {"ceil_mode": 1} if layer.values.integer("ceil_mode") else {}


def _matmul(e: Emission) -> list[str]:
    operands, bias = [*e.inputs, *e.constants][:2], [*e.inputs, *e.constants][2:]
    if not bias:
        return [e.writer.node("MatMul", e.name, operands)]
    product = e.writer.node("MatMul", f"{e.name}.product", operands)
    return [e.writer.node("Add", e.name, [product, *bias])]


def _split(e: Emission) -> list[str]:
    sizes = e.writer.constant(f"{e.name}.sizes", np.array(e.layer.values.integers("split"), np.int64))
    names = [f"{e.name}.{i}" for i in range(len(e.layer.outputs))]
    axis = e.layer.values.integer("axis")
    e.writer.nodes.append(onnx.helper.make_node("Split", [*e.inputs, sizes], names, axis=axis))
    return names


def _reshape(e: Emission) -> list[str]:
    shape = [_kept(i, size, e.layer) for i, size in enumerate(e.layer.values.dims("shape"))]
    if shape.count(-1) > 1:
        raise TrilobitError(
            f"{e.name}: a file can leave one dimension of a reshape to {e.layer.values.dims('shape')} open; "
            "bind the others by a scenario"
        )
    target_shape = e.writer.constant(f"{e.name}.shape", np.array(shape, np.int64))
    return [e.writer.node("Reshape", e.name, [*e.inputs, target_shape])]


def _kept(position: int, size: Dim, layer: Layer) -> int:
    """Return a dimension as Reshape wants it: 0 where it stays what it is, -1 where the others leave it."""
    before = layer.inputs[0].shape
    if isinstance(size, int):
        return size
    return 0 if position < len(before) and before[position] == size else -1


def _layer_norm(e: Emission) -> list[str]:
    a = e.layer.values
    return e.node("LayerNormalization", axis=a.integer("axis"), epsilon=a.number("epsilon"))


def _clip(e: Emission) -> list[str]:
    a, ends = e.layer.values, []
    for end in ("min", "max"):
        value = np.array(a.number(end), np.float32) if end in a else None
        ends.append("" if value is None else e.writer.constant(f"{e.name}.{end}", value))
    while ends and not ends[-1]:
        ends.pop()
    return [e.writer.node("Clip", e.name, [*e.inputs, *ends])]


def _opaque(e: Emission) -> list[str]:
    """Write the nodes of the part under names of their own; what it reads and gives is this network's."""
    blob = e.layer.values.blob("model")
    if blob.data is None:
        raise TrilobitError(
            f"{e.name} is known by its profile only, without its bytes; import the model again"
        )
    part = _converted(onnx.load_from_string(blob.data), e.opset)
    for domain in part.opset_import:
        if domain.domain:
            e.writer.domains[domain.domain] = domain.version
    part = compose.add_prefix(part, f"{e.name}/")
    stored = {tensor.name for tensor in part.graph.initializer}
    own = [value.name for value in part.graph.input if value.name not in stored]
    outputs = [f"{e.name}.{i}" for i in range(len(part.graph.output))]
    names = dict(zip(own, e.inputs, strict=True))
    names.update(zip((value.name for value in part.graph.output), outputs, strict=True))
    for node in part.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        e.writer.nodes.append(node)
    e.writer.initialisers.extend(part.graph.initializer)
    return outputs


def _converted(part: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Return the part with the version of ONNX's operations that the file has."""
    versions = {domain.domain: domain.version for domain in part.opset_import}
    return part if versions.get("", opset) == opset else version_converter.convert_version(part, opset)


def _plain(op: str, *, integers: Sequence[str] = (), numbers: Sequence[str] = ()) -> Emit:
    """Return the emission of an operation that is one node with attributes of the same names."""

    def emit(e: Emission) -> list[str]:
        a = e.layer.values
        attributes: dict[str, Any] = {name: a.integer(name) for name in integers if name in a}
        attributes.update({name: a.number(name) for name in numbers if name in a})
        return e.node(op, **attributes)

    return emit


_NODES: Mapping[str, Emit] = {
    "Conv": _conv,
    "Gemm": lambda e: e.node("Gemm", transB=1),
    "MatMul": _matmul,
    "Add": _plain("Add"),
    "Sub": _plain("Sub"),
    "Mul": _plain("Mul"),
    "Div": _plain("Div"),
    "Concat": _plain("Concat", integers=("axis",)),
    "Split": _split,
    "Reshape": _reshape,
    "Transpose": lambda e: e.node("Transpose", perm=e.layer.values.integers("perm")),
    "Flatten": _plain("Flatten", integers=("axis",)),
    "Softmax": _plain("Softmax", integers=("axis",)),
    "LayerNormalization": _layer_norm,
    "Gelu": lambda e: e.node("Gelu", approximate=e.layer.values.text("approximate")),
    "Relu": _plain("Relu"),
    "Clip": _clip,
    "HardSwish": _plain("HardSwish"),
    "HardSigmoid": _plain("HardSigmoid", numbers=("alpha", "beta")),
    "Sigmoid": _plain("Sigmoid"),
    "Tanh": _plain("Tanh"),
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _plain("GlobalAveragePool"),
    "QuantizeLinear": lambda e: e.inputs,  # what is around every layer does it
    "DequantizeLinear": lambda e: e.inputs,
    "Opaque": _opaque,
    **TRANSFORMER_NODES,
}
NODES: Consumer[Emit] = Consumer(
    "ONNX files", _NODES, otherwise="it is written as the layers within it; lower the workload"
)
