"""From numbers of 16 bits to numbers of 32: processors without kernels for the first convert at every step,
and number formats are chosen for the second.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

HALF, SINGLE = ir.DataType.FLOAT16, ir.DataType.FLOAT
_TYPES = ("to", "dtype")  # attributes that name an element type


def computes_in_halves(model: ir.Model) -> bool:
    """Return whether a network has stored numbers of 16 bits, or is fed such."""
    graphs = tuple(_graphs(model.graph))
    values = (*model.graph.inputs, *(value for graph in graphs for value in graph.initializers.values()))
    constants = (node.attributes.get("value") for graph in graphs for node in graph)
    return any(value.dtype == HALF for value in values) or any(map(_is_half, constants))


def widen(model: ir.Model) -> ir.Model:
    """Return the network with all numbers in 32 bits but what it reads and gives; the one that is given is
    used up.
    """
    halves = [value.dtype == HALF for value in model.graph.outputs]
    for graph in _graphs(model.graph):
        for value in graph.initializers.values():
            _widen_stored(value)
        for node in graph:
            for attribute in list(node.attributes.values()):
                _widen_attribute(node, attribute)
            for value in node.outputs:
                _widen_type(value)
        if graph is not model.graph:
            for value in (*graph.inputs, *graph.outputs):
                _widen_type(value)
    _convert_inputs(model.graph)
    _convert_outputs(model.graph, halves)
    return model


def _graphs(graph: ir.Graph) -> Iterator[ir.Graph]:
    """Yield a graph and those inside it."""
    yield graph
    for node in graph:
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                yield from _graphs(attribute.as_graph())
            elif attribute.type == ir.AttributeType.GRAPHS:
                for inner in attribute.as_graphs():
                    yield from _graphs(inner)


def _is_half(attribute: ir.Attr | None) -> bool:
    is_tensor = attribute is not None and attribute.type == ir.AttributeType.TENSOR
    return attribute is not None and is_tensor and attribute.as_tensor().dtype == HALF


def _widened(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return ir.Tensor(tensor.numpy().astype(np.float32), name=tensor.name)


def _widen_stored(value: ir.Value) -> None:
    if value.const_value is not None and value.const_value.dtype == HALF:
        value.const_value = _widened(value.const_value)
        value.type = ir.TensorType(SINGLE)


def _widen_type(value: ir.Value) -> None:
    if value.dtype == HALF:
        value.type = ir.TensorType(SINGLE)


def _widen_attribute(node: ir.Node, attribute: ir.Attr) -> None:
    if _is_half(attribute):
        node.attributes[attribute.name] = ir.AttrTensor(attribute.name, _widened(attribute.as_tensor()))
    elif attribute.type == ir.AttributeType.INT and attribute.name in _TYPES and attribute.as_int() == HALF:
        node.attributes[attribute.name] = ir.AttrInt64(attribute.name, int(SINGLE))


def _cast(value: ir.Value, to: ir.DataType, name: str) -> ir.Node:
    node = ir.node("Cast", [value], {"to": int(to)}, name=name)
    node.outputs[0].shape, node.outputs[0].type = value.shape, ir.TensorType(to)
    return node


def _convert_inputs(graph: ir.Graph) -> None:
    """Convert what the network reads before anything else reads it."""
    for value in graph.inputs:
        if value.dtype == HALF and value.uses():
            node = _cast(value, SINGLE, f"{value.name}.widened")
            node.outputs[0].name = f"{value.name}.wide"
            ir.convenience.replace_all_uses_with(value, node.outputs[0], replace_graph_outputs=False)
            node.replace_input_with(0, value)
            first = next(iter(graph), None)
            graph.append(node) if first is None else graph.insert_before(first, node)


def _convert_outputs(graph: ir.Graph, halves: Sequence[bool]) -> None:
    """Give what the network gave, under the name that it has."""
    for position, (value, half) in enumerate(zip(tuple(graph.outputs), halves, strict=True)):
        if half:
            name = value.name
            value.name = f"{name}.wide"
            node = _cast(value, HALF, f"{name}.narrowed")
            node.outputs[0].name = name
            graph.append(node)
            graph.outputs[position] = node.outputs[0]
