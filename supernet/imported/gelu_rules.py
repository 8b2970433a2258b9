"""GELU as exporters spell it, through Erf or Tanh: recognised by its factors, whatever their order.

Hendrycks & Gimpel 2016, arXiv:1606.08415.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from supernet.imported.rule import Rule, single

_CLOSE = 1e-4  # relative, of constants that exporters round
_CUBIC = 0.044715  # of x^3 in the approximation through Tanh
_DEPTH = 6  # operations one behind the other that spell it at most


@dataclass(frozen=True)
class Product:
    """A number times tensors.

    Attributes:
        number: all stored factors, multiplied.
        tensors: the other factors, each as often as it is one.
    """

    number: float
    tensors: tuple[ir.Value, ...]

    def is_multiple(self, number: float, x: ir.Value, power: int) -> bool:
        """Return whether it is a number times a power of one tensor."""
        return _is_close(self.number, number) and self.tensors == (x,) * power


class Gelu(Rule):
    """`x (1 + curve(x)) / 2`, where the curve is Erf of `x / sqrt(2)`, or the Tanh that comes near it."""

    def __init__(self, last: str) -> None:
        super().__init__(f"Gelu{last}")
        self._last = last

    def pattern(self, op: Any, left: ir.Value, right: ir.Value) -> Any:
        """Match the last product, or quotient."""
        return getattr(op, self._last)(left, right, _outputs=["y"])

    def holds(self, **values: ir.Value) -> bool:
        """Return whether the factors are those of the function."""
        return _gelu(values["y"]) is not None

    def rewrite(self, op: Any, y: ir.Value, **values: ir.Value) -> Any:
        """Return the operation of opset 20."""
        match = _gelu(y)
        assert match is not None
        x, approximate = match
        return op.Gelu(x, approximate=approximate)


def _gelu(y: ir.Value) -> tuple[ir.Value, str] | None:
    """Return what a tensor is GELU of, and by which formula; None where it is something else."""
    for sum_ in product_of(y).tensors:
        curve = _one_plus(sum_)
        node = None if curve is None else curve.producer()
        if node is None or node.op_type not in _FORMULAS or node.inputs[0] is None:
            continue
        approximate, argument_of = _FORMULAS[node.op_type]
        for x in _inside(node.inputs[0]):
            product = product_of(y, x)
            whole = _is_close(product.number, 0.5) and set(product.tensors) == {x, sum_}
            if whole and len(product.tensors) == 2 and argument_of(node.inputs[0], x):
                return x, approximate
    return None


def _is_scaled(argument: ir.Value, x: ir.Value) -> bool:
    """Return whether a tensor is x / sqrt(2)."""
    return product_of(argument, x).is_multiple(math.sqrt(0.5), x, 1)


def _is_cubic(argument: ir.Value, x: ir.Value) -> bool:
    """Return whether a tensor is sqrt(2 / pi) (x + .044715 x^3), with x inside the sum or before it."""
    product = product_of(argument, x)
    if not _is_close(product.number, math.sqrt(2 / math.pi)):
        return False
    if len(product.tensors) == 1:
        return any(
            linear.is_multiple(1.0, x, 1) and cubic.is_multiple(_CUBIC, x, 3)
            for linear, cubic in _summands(product.tensors[0], x)
        )
    squares = [_one_plus(tensor) for tensor in product.tensors if tensor is not x]
    return len(product.tensors) == 2 and any(
        square is not None and product_of(square, x).is_multiple(_CUBIC, x, 2) for square in squares
    )


_FORMULAS = {"Erf": ("none", _is_scaled), "Tanh": ("tanh", _is_cubic)}


def product_of(value: ir.Value, leaf: ir.Value | None = None, depth: int = _DEPTH) -> Product:
    """Return a tensor as a product, through those that it is computed by.

    Args:
        value: the tensor.
        leaf: is not looked into.
        depth: how many operations are looked into, one behind the other.
    """
    number = single(value)
    if number is not None:
        return Product(number, ())
    node = value.producer()
    if node is None or node.op_type not in ("Mul", "Div", "Pow") or value is leaf or node.domain or not depth:
        return Product(1.0, (value,))
    left, right = (each for each in node.inputs if each is not None)
    other = single(right)
    if node.op_type == "Mul":
        first, second = product_of(left, leaf, depth - 1), product_of(right, leaf, depth - 1)
        return Product(first.number * second.number, first.tensors + second.tensors)
    inner = product_of(left, leaf, depth - 1)
    if node.op_type == "Div" and other:
        return Product(inner.number / other, inner.tensors)
    if node.op_type == "Pow" and other in (2.0, 3.0):
        return Product(inner.number ** int(other), inner.tensors * int(other))
    return Product(1.0, (value,))


def _inside(value: ir.Value, depth: int = _DEPTH) -> Sequence[ir.Value]:
    """Return the computed tensors that a tensor is sums and products of, itself first."""
    if single(value) is not None:
        return ()
    node = value.producer()
    if node is None or node.op_type not in ("Mul", "Div", "Pow", "Add") or node.domain or not depth:
        return (value,)
    deeper = [each for operand in node.inputs if operand is not None for each in _inside(operand, depth - 1)]
    return tuple(dict.fromkeys((value, *deeper)))


def _summands(value: ir.Value, leaf: ir.Value) -> Sequence[tuple[Product, Product]]:
    """Return the two summands of a tensor in both orders; nothing where it is no sum."""
    node = value.producer()
    if node is None or node.op_type != "Add" or node.domain:
        return ()
    left, right = (product_of(each, leaf) for each in node.inputs if each is not None)
    return (left, right), (right, left)


def _one_plus(value: ir.Value) -> ir.Value | None:
    """Return the tensor that 1 is added to; None where that is not so."""
    node = value.producer()
    if node is None or node.op_type != "Add" or node.domain:
        return None
    left, right = node.inputs
    for number, other in ((left, right), (right, left)):
        if number is not None and other is not None and _is_close(single(number), 1.0):
            return other
    return None


def _is_close(number: float | None, expected: float) -> bool:
    return number is not None and math.isclose(number, expected, rel_tol=_CLOSE)


GELU_RULES = (Gelu("Mul"), Gelu("Div"))
