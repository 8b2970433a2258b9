"""Matrix products: of stored numbers on real numbers, on codes, and on what each inference rounds."""

from dataclasses import dataclass

import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.litert.conversion import FIRST, Conversion, Stored, View
from hw_profiles.runtimes.litert.fusing import Fused, chain, code_output, real_output, views_of
from hw_profiles.runtimes.litert.onnx_source import Array, Node
from hw_profiles.runtimes.litert.weights import bias_of, store_codes_bias, stored_weight

KIND = "FullyConnectedOptions"


@dataclass(frozen=True, eq=False)
class _Product:
    """Rows times a stored matrix (out, in), plus a bias.

    Attributes:
        node: it is.
        matrix: by rows of outputs.
        bias: (out,) real numbers.
        origin: name of the tensor that the bias is.
        name: of what it gives with the bias.
        nodes: fused into it so far.
    """

    node: Node
    matrix: Array | Stored
    bias: Array
    origin: str = ""
    name: str = ""
    nodes: tuple[Node, ...] = ()


def gemm(conversion: Conversion, node: Node) -> None:
    """Write a product with a stored matrix and a bias."""
    if node.integer("transA", 0) or len(conversion.shape(node.input(0))) != 2:
        raise TrilobitError(f"LiteRT: no Gemm of a transposed input is written ({node.name})")
    matrix = stored_weight(conversion, node, 1)
    if not node.integer("transB", 0):
        matrix = _columns(matrix)
    outputs = conversion.shape(node.outputs[0])[-1]
    bias = np.broadcast_to(bias_of(conversion, node, 2, outputs), (outputs,)) * np.float32(
        node.number("beta", 1.0)
    )
    if (alpha := node.number("alpha", 1.0)) != 1.0:
        matrix = (matrix.real if isinstance(matrix, Stored) else matrix.astype(np.float32)) * np.float32(
            alpha
        )
    origin = node.input(2) if node.number("beta", 1.0) == 1.0 else ""
    _write(conversion, _Product(node, matrix, bias.astype(np.float32), origin))


def _columns(matrix: Array | Stored) -> Array | Stored:
    return matrix.transposed((1, 0)) if isinstance(matrix, Stored) else np.ascontiguousarray(matrix.T)


def matmul(conversion: Conversion, node: Node) -> None:
    """Write a product of two computed tensors, or with a stored matrix and a bias behind it."""
    if not conversion.is_stored(node.input(1)) or len(conversion.shape(node.input(1))) != 2:
        _product_of_two(conversion, node)
        return
    matrix = _columns(stored_weight(conversion, node, 1))
    outputs = conversion.shape(node.outputs[0])[-1]
    follower = conversion.source.only_reader(node.outputs[0])
    bias = _added(conversion, node, follower, outputs) if follower is not None else None
    if bias is None or follower is None:
        _write(conversion, _Product(node, matrix, np.zeros(outputs, np.float32)))
    else:
        _write(conversion, _Product(node, matrix, bias, name=follower.outputs[0], nodes=(follower,)))


def _added(conversion: Conversion, node: Node, follower: Node, outputs: int) -> Array | None:
    """Return the stored vector that is added to a product; None where something else is done with it."""
    if follower.op != "Add":
        return None
    other = next((name for name in follower.inputs if name != node.outputs[0]), "")
    value = conversion.constant(other)
    same = conversion.shape(follower.outputs[0]) == conversion.shape(node.outputs[0])
    if (
        value is None
        or not same
        or value.size not in (1, outputs)
        or value.shape[-1:] not in ((outputs,), (1,))
    ):
        return None
    return np.broadcast_to(value.astype(np.float32).ravel(), (outputs,))


def _write(conversion: Conversion, product: _Product) -> None:
    node, matrix = product.node, product.matrix
    views = views_of(conversion, node, 1)
    on_codes = code_output(conversion, node, product.name, product.nodes)
    if views and on_codes and isinstance(matrix, Stored) and not matrix.zero:
        _on_codes(conversion, product, views[0], matrix, on_codes)
        return
    source = conversion.read(node.input(0))
    filters = conversion.stored_reals(f"{node.name}.w", matrix)
    bias = conversion.store(f"{node.name}.b", product.bias)
    output = real_output(conversion, node, product.name, product.nodes)
    _connect(conversion, source, filters, bias, output)


def _on_codes(conversion: Conversion, product: _Product, view: View, matrix: Stored, output: Fused) -> None:
    source = conversion.read_codes(view, FIRST)
    filters = conversion.store(f"{product.node.name}.w", matrix.codes, **matrix.quantization())
    name = f"{product.node.name}.b"
    bias = store_codes_bias(conversion, name, product.bias, view.codes, matrix, product.origin)
    _connect(conversion, source, filters, bias, output)


def _connect(
    conversion: Conversion, source: int, filters: int, bias: int, output: Fused, *, rounds: bool = False
) -> None:
    place = output.give(conversion, FIRST)
    conversion.operate(
        "FULLY_CONNECTED",
        (source, filters, bias),
        place,
        KIND,
        fusedActivationFunction=output.activation,
        keepNumDims=len(conversion.model.tensors[place].shape) != 2,
        asymmetricQuantizeInputs=rounds,
    )


def _product_of_two(conversion: Conversion, node: Node) -> None:
    places = [conversion.read(name) for name in node.inputs]
    ranks = [len(conversion.model.tensors[place].shape) for place in places]
    if min(ranks) < 2:
        raise TrilobitError(f"LiteRT: no MatMul of a vector is written ({node.name})")
    for i, rank in enumerate(ranks):
        if rank < max(ranks):
            shape = (*(1,) * (max(ranks) - rank), *conversion.model.tensors[places[i]].shape)
            output = conversion.between(f"{node.name}.operand", places[i], shape)
            places[i] = conversion.reshape(places[i], output)
    conversion.operate("BATCH_MATMUL", places, conversion.give(node.outputs[0]), "BatchMatMulOptions")


@dataclass(frozen=True, eq=False)
class Dynamic:
    """A product whose operand each inference rounds, in ONNX's spelling.

    Attributes:
        source: name of what is rounded.
        matrix: of codes, (out, in).
        bias: (out,) real numbers.
        nodes: that spell it.
        output: name of what it gives.
    """

    source: str
    matrix: Stored
    bias: Array
    nodes: tuple[Node, ...]
    output: str


def dynamic_product(conversion: Conversion, node: Node) -> None:
    """Write a product that starts with DynamicQuantizeLinear: LiteRT rounds each row by a scale of its own.

    Raises:
        TrilobitError: it is spelled otherwise than Trilobit and ONNX Runtime do.
    """
    product = _spelled(conversion, node)
    if product is None:
        raise TrilobitError(f"LiteRT: no such use of {node.op} is written ({node.name})")
    quantization = product.matrix.quantization()
    filters = conversion.store(f"{product.output}.w", product.matrix.codes, **quantization)
    bias = conversion.store(f"{product.output}.b", product.bias)
    fused = Fused(product.output, nodes=product.nodes)
    _connect(conversion, conversion.read(product.source), filters, bias, fused, rounds=True)


def _spelled(conversion: Conversion, node: Node) -> Dynamic | None:
    """Return DynamicQuantizeLinear -> MatMulInteger -> Cast -> Mul (by both scales) [-> Add] as a product."""
    source = conversion.source
    total = source.only_reader(node.outputs[0])
    if total is None or total.op != "MatMulInteger":
        return None
    codes = source.constants.get(total.input(1))
    if codes is None or codes.ndim != 2 or codes.dtype != np.int8 or total.input(3):
        return None
    behind = list(chain(conversion, total.outputs[0]))[:3]
    if len(behind) < 2 or [each.op for each in behind[:2]] != ["Cast", "Mul"]:
        return None
    scaled = source.producers.get(next(n for n in behind[1].inputs if n != behind[0].outputs[0]))
    if scaled is None or scaled.op != "Mul" or node.outputs[1] not in scaled.inputs:
        return None
    scales = conversion.constant(next(n for n in scaled.inputs if n != node.outputs[1]))
    if scales is None:
        return None
    outputs, nodes = codes.shape[1], (node, total, *behind[:2], scaled)
    stored = Stored(np.ascontiguousarray(codes.T), np.broadcast_to(scales.ravel(), (outputs,)))
    name, bias = behind[1].outputs[0], None
    if len(behind) > 2:
        bias = _added(conversion, behind[1], behind[2], outputs)
    if bias is None:
        return Dynamic(node.input(0), stored, np.zeros(outputs, np.float32), nodes, name)
    return Dynamic(node.input(0), stored, bias, (*nodes, behind[2]), behind[2].outputs[0])
