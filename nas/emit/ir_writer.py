"""Puts nodes and constants into an ONNX graph that exists already."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import TensorProto, helper

from hw_profiles.graph.formats import QuantParams
from supernet.formats.onnx_weights import OnnxType

ABOVE_ONE = float(np.nextafter(np.float32(1), np.float32(2)))


class GraphWriter:
    """What `supernet.formats.onnx_weights.OnnxWriter` is, for a graph of onnx_ir.

    Names that the graph has already get an underscore; each scale and each zero point is stored once.
    """

    def __init__(self, model: ir.Model) -> None:
        self.graph = model.graph
        self.opsets = model.opset_imports
        self.values: dict[str, ir.Value] = {
            str(value.name): value for value in _values(model.graph) if value.name
        }
        self._names = {str(node.name) for node in model.graph.all_nodes()}
        self._stored: dict[tuple[float, OnnxType, int], str] = {}
        self._new: list[ir.Node] = []

    def typed(self, name: str, values: NDArray[Any], onnx_type: OnnxType) -> str:
        """Add a constant whose values are stored in an ONNX type, and return its name."""
        kind = TensorProto.DataType.Value(onnx_type)
        array = np.asarray(values).astype(helper.tensor_dtype_to_np_dtype(kind))
        name = self._unused(name, self.values)
        tensor = ir.Tensor(array, ir.DataType(kind), name=name)
        value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=tensor.shape)
        self.graph.register_initializer(value)
        self.values[name] = value
        return name

    def node(
        self, op: str, name: str, inputs: Sequence[str], *, more: Sequence[str] = (), **attributes: Any
    ) -> str:
        """Add what `supernet.formats.onnx_weights.OnnxWriter` says."""
        domain = attributes.pop("domain", "")
        if isinstance(attributes.get("to"), str):
            attributes["to"] = TensorProto.DataType.Value(attributes["to"])
        node = ir.Node(
            domain,
            op,
            [self.values[value] if value else None for value in inputs],
            ir.convenience.convert_attributes(attributes),
            name=self._unused(name, self._names),
            num_outputs=1 + len(more),
        )
        if domain:
            self.opsets.setdefault(domain, 1)
        self._new.append(node)
        self._names.add(str(node.name))
        for output, output_name in zip(node.outputs, (name, *more), strict=True):
            output.name = self._unused(output_name, self.values)
            self.values[output.name] = output
        return str(node.outputs[0].name)

    def stored(self, params: QuantParams, channels: int = 0, *, real: bool = False) -> list[str]:
        """Return scale and zero point of a tensor, repeated for so many channels where there are any.

        A scale of 1 is written as the next number: OpenVINO leaves a product with 1 out before it looks for
        codes behind a transposition, and a network that reads raw pixels begins with real numbers then.

        Args:
            real: whether the zero point is a real number as well.
        """
        scale = ABOVE_ONE if params.scale == 1.0 else params.scale
        kinds = ("FLOAT", "FLOAT" if real else "UINT8")
        return [
            self._repeated(value, kind, channels)
            for value, kind in zip((scale, params.zero_point), kinds, strict=True)
        ]

    def rename(self, value: ir.Value, name: str) -> None:
        """Give a tensor another name, so that its own is free."""
        del self.values[str(value.name)]
        value.name = self._unused(name, self.values)
        self.values[value.name] = value

    def take_over(self, old: ir.Value, new: ir.Value) -> None:
        """Let a tensor be read, and given by the network, in place of another, whose name it takes."""
        name = str(old.name)
        self.rename(old, f"{name}.before")
        del self.values[str(new.name)]
        new.name, new.shape, new.type = name, old.shape, old.type
        self.values[name] = new
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)

    def free_name(self, node: ir.Node) -> None:
        """Let another node have the name of one that is about to be removed."""
        self._names.discard(str(node.name))
        node.name = None

    def before(self, node: ir.Node | None) -> list[ir.Node]:
        """Put what was written before a node of the graph, with None at its end, and return it."""
        new, self._new = self._new, []
        if node is None:
            self.graph.extend(new)
        else:
            self.graph.insert_before(node, new)
        return new

    def after(self, node: ir.Node | None) -> list[ir.Node]:
        """Put what was written after a node of the graph, with None at its beginning, and return it."""
        if node is None:
            return self.before(self.graph[0])
        new, self._new = self._new, []
        self.graph.insert_after(node, new)
        return new

    def _repeated(self, value: float, onnx_type: OnnxType, channels: int) -> str:
        key = (value, onnx_type, channels)
        if key not in self._stored:
            array = np.full(channels, value) if channels else np.array(value)
            self._stored[key] = self.typed(f"shared.{len(self._stored)}", array, onnx_type)
        return self._stored[key]

    @staticmethod
    def _unused(name: str, used: Any) -> str:
        while name in used:
            name += "_"
        return name


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    """Yield every tensor of a graph and of those inside its nodes."""
    for each in (graph, *graph.subgraphs()):
        yield from each.inputs
        yield from each.initializers.values()
    for node in graph.all_nodes():
        yield from node.outputs


def replace_reads(node: ir.Node, old: ir.Value, new: ir.Value) -> None:
    """Let a node, and the graphs inside it, read another tensor."""
    for inner in (node, *_inner_nodes(node)):
        for position, value in enumerate(inner.inputs):
            if value is old:
                inner.replace_input_with(position, new)
    for graph in _inner_graphs(node):
        for position, value in enumerate(graph.outputs):
            if value is old:
                graph.outputs[position] = new


def _inner_graphs(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield from (attribute.as_graph(), *attribute.as_graph().subgraphs())
        elif attribute.type == ir.AttributeType.GRAPHS:
            for graph in attribute.as_graphs():
                yield from (graph, *graph.subgraphs())


def _inner_nodes(node: ir.Node) -> Iterator[ir.Node]:
    for graph in _inner_graphs(node):
        yield from graph
