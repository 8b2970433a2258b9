"""From nodes to units: what a runtime computes as one kernel."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")  # with a stored second operand
WITH_CURVE = ("Conv", "Gemm", "MatMul", "Add")  # whose output is clipped on its way out


@dataclass
class Group:
    """Nodes of one unit.

    Attributes:
        nodes: in the order in which they run.
        weight: the stored tensor that is multiplied with.
        bias: the stored tensor that is added.
        curve: the last node where that is a fused Relu or Clip.
    """

    nodes: list[ir.Node]
    weight: ir.Value | None = None
    bias: ir.Value | None = None
    curve: ir.Node | None = field(default=None)

    @property
    def output(self) -> ir.Value:
        """What its last node gives first."""
        return self.nodes[-1].outputs[0]


def group_nodes(graph: ir.Graph) -> list[Group]:
    """Return the units of a graph, in the order in which they run; every node is in one of them."""
    groups: list[Group] = []
    taken: set[ir.Node] = set()
    for node in graph:
        if node in taken:
            continue
        group = _begin(node)
        for absorb in (_absorb_bias, _absorb_curve):
            absorb(group)
        taken.update(group.nodes)
        groups.append(group)
    return groups


def _begin(node: ir.Node) -> Group:
    if node.domain != "" or node.op_type not in PRODUCTS or not is_stored(node.inputs[1]):
        return Group([node])
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    return Group([node], weight=node.inputs[1], bias=bias if is_stored(bias) else None)


def _absorb_bias(group: Group) -> None:
    """Take in the sum with a stored vector that follows a matrix product."""
    reader = _only_reader(group.output)
    if group.nodes[0].op_type != "MatMul" or group.weight is None or reader is None:
        return
    others = [value for value in reader.inputs if value is not group.output]
    if (
        reader.op_type == "Add"
        and len(others) == 1
        and is_stored(others[0])
        and _fits(others[0], group.weight)
    ):
        group.nodes.append(reader)
        group.bias = others[0]


def _fits(bias: ir.Value | None, weight: ir.Value) -> bool:
    """Return whether a stored tensor has one number for each column of a weight."""
    shape, columns = _shape(bias), _shape(weight)[-1]
    return bool(shape) and shape[-1] == columns and all(size == 1 for size in shape[:-1])


def _absorb_curve(group: Group) -> None:
    """Take in the Relu, or the Clip at stored bounds, that is the only reader."""
    first = group.nodes[0]
    computed_sum = first.op_type == "Add" and not any(map(is_stored, first.inputs))
    reader = _only_reader(group.output)
    if first.domain != "" or reader is None or not (computed_sum or group.weight is not None):
        return
    if first.op_type in WITH_CURVE and is_curve(reader):
        group.nodes.append(reader)
        group.curve = reader


def is_curve(node: ir.Node) -> bool:
    """Return whether a node only clips: a Relu, or a Clip at stored bounds."""
    if node.domain != "":
        return False
    if node.op_type == "Clip":
        return len(node.inputs) == 1 or all(value is None or is_stored(value) for value in node.inputs[1:])
    return node.op_type == "Relu"


def _only_reader(value: ir.Value) -> ir.Node | None:
    """Return the one node that reads a tensor, in the same graph; None where others do too, or the caller."""
    readers = {node for node, _ in value.uses()}
    if value.is_graph_output() or len(readers) != 1:
        return None
    (reader,) = readers
    return reader if reader.graph is value.graph and reader.domain == "" else None


def is_stored(value: ir.Value | None) -> bool:
    """Return whether a tensor is in the file, not computed."""
    return value is not None and value.is_initializer() and value.const_value is not None


def _shape(value: ir.Value | None) -> tuple[int, ...]:
    tensor = None if value is None else value.const_value
    return () if tensor is None else tuple(int(size) for size in tensor.shape.numpy())


def reads_of(group: Group) -> tuple[str, ...]:
    """Return the computed tensors that a unit reads, operand by operand, then what graphs inside it read."""
    inside = {value for node in group.nodes for value in node.outputs}
    values = [
        value for node in group.nodes for value in (*node.inputs, *_captured(node)) if value is not None
    ]
    return tuple(str(value.name) for value in values if value not in inside and not is_stored(value))


def _captured(node: ir.Node) -> list[ir.Value]:
    """Return the tensors of the outer graph that the graphs inside a node read."""
    captured: dict[ir.Value, None] = {}
    for attribute in node.attributes.values():
        graphs: Sequence[ir.Graph] = ()
        if attribute.type == ir.AttributeType.GRAPH:
            graphs = (attribute.as_graph(),)
        elif attribute.type == ir.AttributeType.GRAPHS:
            graphs = attribute.as_graphs()
        for graph in graphs:
            for each in graph.all_nodes():
                captured |= dict.fromkeys(v for v in each.inputs if v is not None and v.graph is node.graph)
            captured |= dict.fromkeys(v for v in graph.outputs if v.graph is node.graph)
    return list(captured)
