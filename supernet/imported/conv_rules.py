"""Sums and products with stored numbers go into the convolutions beside them."""

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from supernet.imported.rule import Array, Rule, numbers

_LEAST = 1e-3  # of a factor, next to its offset: what is divided by it must keep its precision


class _BesideConv(Rule):
    """An operation with a stored operand beside a convolution whose numbers are stored too."""

    def holds(self, **values: ir.Value) -> bool:
        """Return whether all of it is stored as float32, and the operand has one number per channel."""
        node = values["conv"].producer()
        if node is None or len(node.inputs) < 2:
            return False
        stored = [numbers(value) for value in (*node.inputs[1:], values["operand"]) if value is not None]
        if any(array is None or array.dtype != np.float32 for array in stored):
            return False
        return self.factors(node, values["operand"]) is not None

    def factors(self, conv: ir.Node, operand: ir.Value) -> Array | None:
        """Return one number for each channel that the operand meets; None where it is something else."""
        raise NotImplementedError

    def folded(self, weight: Array, bias: Array, factors: Array) -> tuple[Array, Array]:
        """Return weight and bias of the convolution that does it all."""
        raise NotImplementedError

    def rewrite(self, op: Any, x: ir.Value, operand: ir.Value, conv: ir.Value) -> Any:
        """Return the convolution with other numbers."""
        node = conv.producer()
        assert node is not None
        weight, factors = numbers(node.inputs[1]), self.factors(node, operand)
        assert weight is not None
        assert factors is not None
        bias = numbers(node.inputs[2]) if len(node.inputs) > 2 else None
        bias = np.zeros(len(weight), np.float32) if bias is None else bias
        arrays = map(np.ascontiguousarray, self.folded(weight, bias, factors))
        stored = [
            op.initializer(
                ir.tensor(array.astype(np.float32)), name=_name(node, place, f"{conv.name}_{what}")
            )
            for place, what, array in zip((1, 2), ("weight", "bias"), arrays, strict=True)
        ]
        return op.Conv(x, *stored, **node.attributes)


def _name(node: ir.Node, place: int, otherwise: str) -> str:
    """Return the name of a stored operand where only this node reads it, by which people know it again."""
    value = node.inputs[place] if place < len(node.inputs) else None
    return str(value.name) if value is not None and len(value.uses()) == 1 else otherwise


class _BehindConv(_BesideConv):
    op_type = ""

    def pattern(self, op: Any, x: ir.Value, operand: ir.Value) -> Any:
        """Match the convolution and its only reader."""
        conv = op.Conv(x, _allow_other_inputs=True, _allow_other_attributes=True, _outputs=["conv"])
        return getattr(op, self.op_type)(conv, operand)

    def factors(self, conv: ir.Node, operand: ir.Value) -> Array | None:
        """Return one number for each channel that the convolution gives."""
        weight = numbers(conv.inputs[1])
        return None if weight is None else per_channel(operand, len(weight), weight.ndim)


class SumBehindConv(_BehindConv):
    """`Conv(x) + b`."""

    op_type = "Add"

    def folded(self, weight: Array, bias: Array, factors: Array) -> tuple[Array, Array]:
        """Return the same weight, and the sum of biases."""
        return weight, bias + factors


class ProductBehindConv(_BehindConv):
    """`Conv(x) * s`."""

    op_type = "Mul"

    def folded(self, weight: Array, bias: Array, factors: Array) -> tuple[Array, Array]:
        """Return every filter and its bias scaled."""
        return weight * factors.reshape(-1, *(1,) * (weight.ndim - 1)), bias * factors


class _BeforeConv(_BesideConv):
    op_type = ""

    def pattern(self, op: Any, x: ir.Value, operand: ir.Value) -> Any:
        """Match the operation whose only reader is a convolution."""
        changed = getattr(op, self.op_type)(x, operand)
        return op.Conv(changed, _allow_other_inputs=True, _allow_other_attributes=True, _outputs=["conv"])

    def factors(self, conv: ir.Node, operand: ir.Value) -> Array | None:
        """Return one number for each (filter, channel that it reads)."""
        weight, group = numbers(conv.inputs[1]), conv.attributes.get_int("group", 1)
        if weight is None:
            return None
        factors = per_channel(operand, group * weight.shape[1], weight.ndim)
        if factors is None:
            return None
        return factors.reshape(group, weight.shape[1]).repeat(len(weight) // group, axis=0)


class ProductBeforeConv(_BeforeConv):
    """`Conv(x * s)`."""

    op_type = "Mul"

    def folded(self, weight: Array, bias: Array, factors: Array) -> tuple[Array, Array]:
        """Return every filter scaled channel by channel."""
        return weight * factors.reshape(*factors.shape, *(1,) * (weight.ndim - 2)), bias


class SumBeforeConv(_BeforeConv):
    """`Conv(x + b)`, where no window reaches over the edge."""

    op_type = "Add"

    def factors(self, conv: ir.Node, operand: ir.Value) -> Array | None:
        """Return one number for each (filter, channel that it reads); None where zeros are added around."""
        whole = conv.attributes.get_string("auto_pad", "NOTSET") in ("NOTSET", "VALID")
        if not whole or any(conv.attributes.get_ints("pads", ())):
            return None
        return super().factors(conv, operand)

    def folded(self, weight: Array, bias: Array, factors: Array) -> tuple[Array, Array]:
        """Return the same weight, and what it makes of the sum."""
        windows = weight.sum(axis=tuple(range(2, weight.ndim)))
        return weight, bias + (windows * factors).sum(axis=1)


class ProductLast(Rule):
    """`x * s + b` before a convolution with padding becomes `(x + b / s) * s`, whose product goes into it."""

    def pattern(self, op: Any, x: ir.Value, factor: ir.Value, offset: ir.Value) -> Any:
        """Match the three."""
        changed = op.Add(op.Mul(x, factor), offset)
        return op.Conv(changed, _allow_other_inputs=True, _allow_other_attributes=True, _outputs=["conv"])

    def holds(self, **values: ir.Value) -> bool:
        """Return whether both are stored numbers, of a size that keeps their precision."""
        factor, offset = numbers(values["factor"]), numbers(values["offset"])
        if factor is None or offset is None or factor.dtype != np.float32 or offset.dtype != np.float32:
            return False
        alone = factor.size == offset.size == 1 and max(factor.ndim, offset.ndim) <= 1
        return bool(alone and np.abs(factor).min() >= _LEAST * max(1.0, float(np.abs(offset).max())))

    def rewrite(self, op: Any, x: ir.Value, factor: ir.Value, offset: ir.Value, conv: ir.Value) -> Any:
        """Return the sum first."""
        node, scale, shift = conv.producer(), numbers(factor), numbers(offset)
        assert node is not None
        assert scale is not None
        assert shift is not None
        moved = op.initializer(ir.tensor((shift / scale).astype(np.float32)), name=f"{conv.name}_offset")
        return op.Conv(op.Mul(op.Add(x, moved), factor), *node.inputs[1:], **node.attributes)


def per_channel(operand: ir.Value, channels: int, rank: int) -> Array | None:
    """Return one number per channel of a map of `rank` dimensions; None where a tensor is something else."""
    array = numbers(operand)
    if array is None or array.ndim > rank:
        return None
    shape = (1,) * (rank - array.ndim) + array.shape
    if shape[1] not in (1, channels) or math.prod(shape) != shape[1]:
        return None
    return np.broadcast_to(array.reshape(-1), (channels,))


CONV_RULES = (
    SumBehindConv(),
    ProductBehindConv(),
    SumBeforeConv(),
    ProductBeforeConv(),
    ProductLast(),
)
