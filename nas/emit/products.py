"""How a unit with a weight is written in another number format, one function for each way."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from hw_profiles.errors import TrilobitError
from nas.emit.instructions import Product
from nas.emit.ir_writer import GraphWriter, replace_reads
from supernet.formats.loading import load_format
from supernet.graph.quantized_graph import Parameters, bias_codes

Nodes = Sequence[ir.Node]


@dataclass(frozen=True, eq=False)
class _Place:
    """A product where it stands in a graph.

    Attributes:
        writer: of the graph.
        product: what is to be written there.
        parameters: its stored numbers.
        node: what multiplies.
        total: the sum with the bias behind a MatMul; None where it is not one of the unit's nodes.
        others: the nodes behind the first, `total` among them.
    """

    writer: GraphWriter
    product: Product
    parameters: Parameters
    node: ir.Node
    total: ir.Node | None
    others: tuple[ir.Node, ...]

    @property
    def name(self) -> str:
        """Of the unit."""
        return self.product.unit.name

    @property
    def behind_total(self) -> list[ir.Node]:
        """The nodes behind the product with its bias, such as a clip."""
        return [node for node in self.others if node is not self.total]


def write_product(writer: GraphWriter, product: Product, nodes: Nodes) -> list[ir.Node]:
    """Replace the stored numbers of a unit, or its product as a whole.

    Returns:
        The nodes that the unit has now.

    Raises:
        TrilobitError: the format cannot write a product of this kind.
    """
    node, *others = nodes
    if product.parameters is None:
        return _cast(writer, product, nodes)
    total = next((other for other in others if product.unit.bias in _names(other)), None)
    place = _Place(writer, product, product.parameters, node, total, tuple(others))
    match product.written:
        case "integers":
            return _on_integers(place)
        case "reals":
            return _on_reals(place)
    return _whole(place)


def _names(node: ir.Node) -> set[str]:
    return {str(value.name) for value in node.inputs if value is not None}


def _on_integers(place: _Place) -> list[ir.Node]:
    writer, parameters, node, total = place.writer, place.parameters, place.node, place.total
    others = list(place.others)
    if place.product.rank == 2 and total is not None and node.op_type == "MatMul":
        # ONNX Runtime makes a Gemm of both itself, but one of real numbers unless its output is quantized
        node.op_type = "Gemm"
        others = place.behind_total
        _merge(writer, total, node.outputs[0])
    columns = node.op_type == "MatMul"
    # without zero points ONNX Runtime has no integer kernel for matrix products
    weight = load_format(place.product.weight_format).weight.lower_integers(
        writer, place.name, parameters.weight, zeros=node.op_type != "Conv", transposed=columns
    )
    bias = ""
    if len(parameters.bias) and node.op_type == "ConvTranspose":  # stored by input channels: no scale fits
        bias = writer.typed(f"{place.name}.b", parameters.bias, "FLOAT")
    elif len(parameters.bias) and not columns:
        codes, scale = bias_codes(parameters, place.product.scale)
        stored = [
            writer.typed(f"{place.name}.bc", codes, "INT32"),
            writer.typed(f"{place.name}.bs", scale, "FLOAT"),
        ]
        bias = writer.node("DequantizeLinear", f"{place.name}.b", stored, axis=0)
    _set_constants(writer, node, weight, bias)
    return [node, *(_with_sum(place) if columns else others)]


def _on_reals(place: _Place) -> list[ir.Node]:
    """Write the weight as what the runtime makes real numbers of when it loads the file."""
    writer, parameters, node, name = place.writer, place.parameters, place.node, place.name
    weight_format = load_format(place.product.weight_format).weight
    weight = weight_format.lower(writer, name, parameters.weight, "FLOAT")
    if node.op_type == "MatMul":
        _set_constants(writer, node, writer.node("Transpose", f"{name}.wt", [weight], perm=[1, 0]), "")
        return [node, *_with_sum(place)]
    bias = writer.typed(f"{name}.b", parameters.bias, "FLOAT") if len(parameters.bias) else ""
    _set_constants(writer, node, weight, bias)
    return [node, *place.others]


def _whole(place: _Place) -> list[ir.Node]:
    """Let the format write the product with its bias, in place of what computes both."""
    writer, parameters, node, total = place.writer, place.parameters, place.node, place.total
    transposed = "transA" in node.attributes and node.attributes["transA"].as_int()
    added = [value for value in node.inputs[2:] if value is not None]
    computed = bool(added) and not place.product.unit.bias
    if node.op_type not in ("Gemm", "MatMul") or transposed or computed:
        raise TrilobitError(
            f"{place.product.weight_format} is for rows times a stored matrix, {place.name} is more"
        )
    weight_format, x = load_format(place.product.weight_format).weight, _source(node)
    writer.free_name(node)
    value = weight_format.lower_linear(writer, place.name, x, parameters.weight, parameters.bias)
    written = writer.before(node)
    last = node if total is None else total
    _merge(writer, last, writer.values[str(value)])
    if total is not None:
        writer.graph.remove(node, safe=True)
    return [*written, *place.behind_total]


def _source(node: ir.Node) -> str:
    """Return the name of what a product reads first."""
    value = node.inputs[0]
    return "" if value is None else str(value.name)


def _cast(writer: GraphWriter, product: Product, nodes: Nodes) -> list[ir.Node]:
    """Store the weight as it is in a shorter type."""
    name, old = product.unit.name, writer.values[product.unit.weight]
    assert old.const_value is not None
    weight = load_format(product.weight_format).weight
    codes = weight.encode(old.const_value.numpy()).codes
    value = writer.node(
        "Cast", f"{name}.w", [writer.typed(f"{name}.wc", codes, weight.stored_as)], to="FLOAT"
    )
    writer.before(nodes[0])
    for node in nodes:
        replace_reads(node, old, writer.values[value])
    return list(nodes)


def _merge(writer: GraphWriter, old: ir.Node, new: ir.Value) -> None:
    """Let a tensor be what a node gave, which is removed."""
    writer.take_over(old.outputs[0], new)
    writer.graph.remove(old, safe=True)


def _set_constants(writer: GraphWriter, node: ir.Node, weight: str, bias: str) -> None:
    """Let a product read other constants, a matrix of Gemm by output channels; put what makes them before."""
    writer.before(node)
    node.replace_input_with(1, writer.values[weight])
    if bias:
        node.resize_inputs(3)
        node.replace_input_with(2, writer.values[bias])
    if node.op_type == "Gemm":
        kept = ("transA",) if bias else ("transA", "beta")  # factors are in what was rounded
        given = {key: node.attributes[key] for key in kept if key in node.attributes}
        node.attributes.clear()
        node.attributes.update({**given, "transB": ir.AttrInt64("transB", 1)})


def _with_sum(place: _Place) -> list[ir.Node]:
    """Return what follows a MatMul, the sum with its bias among it, written so that it stays a sum."""
    writer, product, bias = place.writer, place.product, place.parameters.bias
    if place.total is None and not bias.any():
        return list(place.others)
    # with a vector ONNX Runtime makes a Gemm of both, on real numbers; with a row it does not
    shape = (*(1,) * (product.rank - 1), -1)
    row = bias.reshape(shape) if len(bias) else np.zeros((*shape[:-1], 1), np.float32)
    stored = writer.values[writer.typed(f"{place.name}.b", row, "FLOAT")]
    if place.total is not None:
        names = [str(value.name) for value in place.total.inputs if value is not None]
        place.total.replace_input_with(names.index(product.unit.bias), stored)
        return list(place.others)
    return [_added(writer, place.node, stored), *place.others]


def _added(writer: GraphWriter, node: ir.Node, bias: ir.Value) -> ir.Node:
    """Return a sum with a bias that reads a product, and gives what that gave."""
    (product,) = node.outputs
    result = writer.node("Add", f"{node.name}.sum", [str(product.name), str(bias.name)])
    (total,) = writer.after(node)
    writer.take_over(product, writer.values[result])
    total.replace_input_with(0, product)
    return total
