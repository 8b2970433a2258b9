"""Reads the matrix products of a model's weighted units from its file."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from supernet.imported.model import ImportedModel, Unit
from supernet.ptq.product import Product, Window

Numbers = NDArray[np.generic]
Attributes = Mapping[str, Any]
_UNBOUNDED = (-np.inf, np.inf)


def read_nodes(model: ImportedModel) -> Mapping[str, onnx.NodeProto]:
    """Return the nodes of a model by name."""
    return {node.name: node for node in onnx.load_from_string(model.content).graph.node}


def read_products(model: ImportedModel) -> dict[str, Product]:
    """Return the products of weighted units, by unit.

    Units whose product is none of rows with one stored matrix are left out, such as transposed convolutions:
    they have no other format than what they are.
    """
    nodes = read_nodes(model)
    pairs = ((unit, _product(model, unit, nodes)) for unit in model.units if unit.weighted)
    return {unit.name: product for unit, product in pairs if product is not None}


def output_bounds(
    model: ImportedModel, unit: Unit, nodes: Mapping[str, onnx.NodeProto]
) -> tuple[float, float]:
    """Return least and largest value that a unit's last node lets through, where that is a ReLU or a clip."""
    return bounds_of(nodes[unit.nodes[-1]], model.constants)


def bounds_of(node: onnx.NodeProto, constants: Mapping[str, Numbers]) -> tuple[float, float]:
    """Return what a node lets through: infinite ends where it is neither ReLU nor clip."""
    if node.op_type == "Relu":
        return (0.0, np.inf)
    if node.op_type != "Clip":
        return _UNBOUNDED
    given = attributes_of(node)  # opset 6; later ones read them
    ends = [given.get("min", -np.inf), given.get("max", np.inf)]
    for position, name in enumerate(node.input[1:3]):
        if name and name not in constants:
            return _UNBOUNDED
        if name:
            ends[position] = float(constants[name])
    return (ends[0], ends[1])


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """Return the attributes that a node states."""
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def _product(model: ImportedModel, unit: Unit, nodes: Mapping[str, onnx.NodeProto]) -> Product | None:
    product_node = next((nodes[name] for name in unit.nodes if unit.weight in nodes[name].input), None)
    weight = model.constants.get(unit.weight)
    read = _READERS.get("" if product_node is None else product_node.op_type)
    if product_node is None or weight is None or read is None:
        return None
    if not np.issubdtype(weight.dtype, np.floating) or list(product_node.input).index(unit.weight) != 1:
        return None
    matrix = read(product_node, weight.astype(np.float32), model)
    if matrix is None:
        return None
    shape, groups, extra = matrix
    stored: NDArray[np.float32] = extra.pop("weight")
    bias, known = _bias(model, unit, shape[0], attributes_of(product_node))
    return Product(
        unit.name,
        product_node.input[0],
        np.ascontiguousarray(stored.reshape(groups, shape[0] // groups, -1)),
        bias,
        shape,
        correctable=known and (product_node.op_type != "MatMul" or bool(unit.bias)),
        bounds=_activation(model, unit, product_node, nodes),
        **extra,
    )


_Read = tuple[tuple[int, ...], int, dict[str, Any]]  # stored shape, groups, more of the product


def _conv(node: onnx.NodeProto, weight: NDArray[np.float32], model: ImportedModel) -> _Read | None:
    given = attributes_of(node)
    dims = weight.ndim - 2
    kernel, ones = weight.shape[2:], (1,) * dims
    strides = tuple(given.get("strides", ones))
    dilations = tuple(given.get("dilations", ones))
    sizes = model.shapes[node.input[0]][2:]
    before, after = _pads(given, sizes, kernel, strides, dilations)
    window = Window(kernel, strides, dilations, before, after)
    return weight.shape, int(given.get("group", 1)), {"weight": weight, "window": window}


def _pads(
    given: Attributes,
    sizes: Sequence[int],
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    dims, automatic = len(kernel), given.get("auto_pad", b"NOTSET").decode()
    if automatic in ("", "NOTSET"):
        pads = tuple(given.get("pads", (0,) * 2 * dims))
        return pads[:dims], pads[dims:]
    if automatic == "VALID":
        return (0,) * dims, (0,) * dims
    totals = [
        max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
        for size, k, s, d in zip(sizes, kernel, strides, dilations, strict=True)
    ]
    less, more = tuple(t // 2 for t in totals), tuple(t - t // 2 for t in totals)
    return (less, more) if automatic == "SAME_UPPER" else (more, less)


def _gemm(node: onnx.NodeProto, weight: NDArray[np.float32], model: ImportedModel) -> _Read | None:
    given = attributes_of(node)
    matrix = weight if given.get("transB", 0) else weight.T
    scaled = np.ascontiguousarray(matrix * np.float32(given.get("alpha", 1.0)))
    return scaled.shape, 1, {"weight": scaled, "transposed": bool(given.get("transA", 0))}


def _matmul(node: onnx.NodeProto, weight: NDArray[np.float32], model: ImportedModel) -> _Read | None:
    if weight.ndim != 2:
        return None
    return weight.T.shape, 1, {"weight": np.ascontiguousarray(weight.T)}


_READERS = {"Conv": _conv, "Gemm": _gemm, "MatMul": _matmul}


def _bias(
    model: ImportedModel, unit: Unit, outputs: int, given: Attributes
) -> tuple[NDArray[np.float32], bool]:
    """Return the bias (out,), and whether it is one of channels."""
    bias = model.constants.get(unit.bias)
    if bias is None:
        return np.zeros(outputs, np.float32), not unit.bias
    if bias.size not in (1, outputs) or bias.shape[-1:] not in ((), (1,), (outputs,)):
        return np.zeros(outputs, np.float32), False
    factor = np.float32(given.get("beta", 1.0))
    return np.broadcast_to(bias.astype(np.float32).reshape(-1) * factor, outputs).copy(), True


def _activation(
    model: ImportedModel, unit: Unit, product_node: onnx.NodeProto, nodes: Mapping[str, onnx.NodeProto]
) -> tuple[float, float]:
    """Return what the unit's activation lets through, where all that follows the product is its bias, and
    ReLUs and clips."""
    low, high = _UNBOUNDED
    for name in unit.nodes[unit.nodes.index(product_node.name) + 1 :]:
        node = nodes[name]
        if node.op_type == "Add" and unit.bias in node.input:
            continue
        if node.op_type not in ("Relu", "Clip"):
            return _UNBOUNDED
        least, most = bounds_of(node, model.constants)
        low, high = max(low, least), min(high, most)
    return low, high
