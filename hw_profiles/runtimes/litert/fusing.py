"""What follows a node and is computed with it: a clip, and the rounding to codes."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hw_profiles.runtimes.litert.conversion import INT8, OFFSET, Codes, Conversion, Order, View
from hw_profiles.runtimes.litert.onnx_source import Node

# by the schema's words
NOWHERE = (np.nan, np.nan)  # ends of a clip that are computed
NONE, RELU, RELU6 = "NONE", "RELU", "RELU6"


@dataclass(frozen=True)
class Fused:
    """What a node gives once all that is computed with it is.

    Attributes:
        name: of that tensor.
        activation: of the operator.
        nodes: that are not written by themselves.
        codes: what its codes mean; None of real numbers.
    """

    name: str
    activation: str = NONE
    nodes: tuple[Node, ...] = ()
    codes: Codes | None = None

    def give(self, conversion: Conversion, order: Order) -> int:
        """Add the tensor, and note that the nodes are done."""
        conversion.finished.update(self.nodes)
        return conversion.give(self.name, order, self.codes)


def activation_of(conversion: Conversion, node: Node) -> str:
    """Return the word for a clip that operators have fused into them; empty for all else."""
    if node.op == "Relu":
        return RELU
    if node.op == "Clip":
        return {(0.0, 6.0): RELU6, (0.0, np.inf): RELU}.get(bounds(conversion, node) or NOWHERE, "")
    return ""


def bounds(conversion: Conversion, node: Node) -> tuple[float, float] | None:
    """Return the ends of a clip; None where they are computed."""
    if node.op == "Relu":
        return 0.0, np.inf
    ends = [node.number("min", -np.inf), node.number("max", np.inf)]  # of opsets before 11
    for position, name in enumerate(node.inputs[1:3]):
        if name:
            value = conversion.constant(name)
            if value is None:
                return None
            ends[position] = float(value.item())
    return ends[0], ends[1]


def real_output(conversion: Conversion, node: Node, name: str = "", nodes: tuple[Node, ...] = ()) -> Fused:
    """Return what an operator on real numbers gives, with the clip behind it.

    Args:
        name: of what comes before that clip; empty for what the node gives.
        nodes: that were fused already.
    """
    name = name or node.outputs[0]
    follower = conversion.source.only_reader(name)
    word = activation_of(conversion, follower) if follower is not None else ""
    if not word or follower is None:
        return Fused(name, NONE, nodes)
    return Fused(follower.outputs[0], word, (*nodes, follower))


def code_output(
    conversion: Conversion, node: Node, name: str = "", nodes: tuple[Node, ...] = ()
) -> Fused | None:
    """Return what an operator on codes gives: what is behind it up to where it becomes codes; None where
    somebody reads its real numbers. See `real_output`.
    """
    real = real_output(conversion, node, name, nodes)
    rounding = conversion.source.only_reader(real.name)
    if rounding is None or rounding.op != "QuantizeLinear":
        return None
    codes = codes_of(conversion, rounding)
    if codes is None:
        return None
    return Fused(rounding.outputs[0], real.activation, (*real.nodes, rounding), codes)


def codes_of(conversion: Conversion, node: Node) -> Codes | None:
    """Return what the codes mean that a node makes, or reads, by one scale; None where there are several."""
    scale = conversion.constant(node.input(1))
    if scale is None or not scale.size or np.ptp(scale) > 0 or node.integer("block_size", 0):
        return None
    zero = conversion.source.constants.get(node.input(2))
    if node.input(2) and (zero is None or len(np.unique(zero)) != 1):
        return None
    code = node.input(0) if node.op == "DequantizeLinear" else node.outputs[0]
    dtype = conversion.source.dtypes[code] if zero is None else str(zero.dtype)
    if dtype not in ("uint8", INT8):
        return None
    first = 0 if zero is None else int(zero.flat[0])
    return Codes(float(scale.flat[0]), first - OFFSET if dtype == "uint8" else first)


def views_of(conversion: Conversion, node: Node, count: int) -> list[View] | None:
    """Return the codes behind the first inputs of a node; None where one is of real numbers."""
    views = [conversion.views.get(node.input(position)) for position in range(count)]
    known = [view for view in views if view is not None]
    return known if len(known) == count else None


def chain(conversion: Conversion, name: str) -> Iterator[Node]:
    """Yield the nodes behind a tensor as long as each alone reads what the one before gives."""
    while (node := conversion.source.only_reader(name)) is not None:
        yield node
        name = node.outputs[0]
