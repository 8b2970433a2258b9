"""Rewrites that leave the function as it is, beside onnxscript's own: what exporters spell out, said in one
operation.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript import rewriter
from onnxscript.rewriter import pattern
from onnxscript.rewriter.rules.common import _no_op, fuse_hardswish_rules
from onnxscript.rewriter.rules.fusion import _layer_norm, _rms_normalization

from supernet.imported.conv_rules import CONV_RULES
from supernet.imported.gelu_rules import GELU_RULES
from supernet.imported.rule import Rule, numbers, single


class ReshapeByPlace(Rule):
    """A target of Reshape that is computed from sizes becomes stored: 0 keeps a size, -1 is the rest."""

    def pattern(self, op: Any, x: ir.Value, target: ir.Value) -> Any:
        """Match any Reshape."""
        return op.Reshape(x, target, _outputs=["y"])

    def holds(self, **values: ir.Value) -> bool:
        """Return whether the target is computed, but known."""
        return values["target"].const_value is None and self._sizes(values["x"], values["y"]) is not None

    def rewrite(self, op: Any, x: ir.Value, target: ir.Value, y: ir.Value) -> Any:
        """Return the Reshape to what is stored."""
        sizes = np.array(self._sizes(x, y), np.int64)
        return op.Reshape(x, op.Constant(value=ir.tensor(sizes)))

    @staticmethod
    def _sizes(x: ir.Value, y: ir.Value) -> list[int] | None:
        if x.shape is None or y.shape is None:
            return None
        sizes = []
        for axis, dim in enumerate(y.shape):
            same = axis < len(x.shape) and _symbol(dim) is not None and _symbol(x.shape[axis]) == _symbol(dim)
            sizes.append(dim if isinstance(dim, int) else 0 if same else -1)
        spelled = all(dim != 0 for dim in y.shape)  # a size of 0 cannot be written where 0 keeps
        return sizes if spelled and sizes.count(-1) <= 1 else None


class OpenSizeKept(Rule):
    """A target of Reshape leaves open what is the one open size of the input, in the same place: it is kept.

    The size keeps its name, by which other rules know it again.
    """

    def pattern(self, op: Any, x: ir.Value, target: ir.Value) -> Any:
        """Match any Reshape."""
        return op.Reshape(x, target, _outputs=["y"])

    def holds(self, **values: ir.Value) -> bool:
        """Return whether all other sizes multiply to the same."""
        shape, target = values["x"].shape, numbers(values["target"])
        if shape is None or target is None or target.ndim != 1 or 0 in target or -1 not in target:
            return False
        place = target.tolist().index(-1)
        rest = [dim for axis, dim in enumerate(shape) if axis != place]
        if (
            place >= len(shape)
            or isinstance(shape[place], int)
            or not all(isinstance(dim, int) for dim in rest)
        ):
            return False
        return bool(math.prod(int(str(dim)) for dim in rest) == -math.prod(target.tolist()))

    def rewrite(self, op: Any, x: ir.Value, target: ir.Value, y: ir.Value) -> Any:
        """Return the Reshape that keeps it."""
        array = numbers(target)
        assert array is not None
        kept = np.where(array == -1, 0, array).astype(np.int64)
        return op.Reshape(x, op.Constant(value=ir.tensor(kept)))


class SizeKnown(Rule):
    """A size that is read off a tensor, and the same whatever the network reads, is stored."""

    def pattern(self, op: Any, x: ir.Value, index: ir.Value) -> Any:
        """Match a choice among sizes."""
        return op.Gather(
            op.Shape(x, _outputs=["sizes"]), index, _allow_other_attributes=True, _outputs=["chosen"]
        )

    def holds(self, **values: ir.Value) -> bool:
        """Return whether all chosen sizes are known; `Shape` of a part is folded elsewhere."""
        shape, index = values["x"].shape, numbers(values["index"])
        producer = values["sizes"].producer()
        if shape is None or index is None or producer is None or producer.attributes:
            return False
        inside = all(-len(shape) <= place < len(shape) for place in index.reshape(-1))
        return inside and all(isinstance(shape[int(place)], int) for place in index.reshape(-1))

    def rewrite(self, op: Any, x: ir.Value, index: ir.Value, **values: ir.Value) -> Any:
        """Return the stored sizes."""
        places = numbers(index)
        assert places is not None
        assert x.shape is not None
        sizes = np.array([x.shape[int(place)] for place in places.reshape(-1)], np.int64)
        return op.Constant(value=ir.tensor(sizes.reshape(places.shape)))


class SizesKnown(Rule):
    """Sizes cut out of those of a tensor that are the same whatever the network reads are stored."""

    def pattern(self, op: Any, x: ir.Value) -> Any:
        """Match a part of all sizes."""
        sizes = op.Shape(x, _allow_other_attributes=True, _outputs=["sizes"])
        return op.Slice(sizes, _allow_other_inputs=True, _outputs=["chosen"])

    def holds(self, **values: ir.Value) -> bool:
        """Return whether all of them are known."""
        return self._sizes(**values) is not None

    def rewrite(self, op: Any, **values: ir.Value) -> Any:
        """Return the stored sizes."""
        return op.Constant(value=ir.tensor(np.array(self._sizes(**values), np.int64)))

    @staticmethod
    def _sizes(x: ir.Value, sizes: ir.Value, chosen: ir.Value) -> list[int] | None:
        shape, cut = sizes.producer(), chosen.producer()
        if x.shape is None or shape is None or cut is None:
            return None
        operands = (*cut.inputs, *(None,) * 5)
        start, end, step = (single(operands[place]) for place in (1, 2, 4))
        if start is None or end is None or (operands[4] is not None and (step is None or step < 1)):
            return None
        first, last = shape.attributes.get_int("start", 0), shape.attributes.get_int("end", len(x.shape))
        part = list(x.shape)[first:last][int(start) : int(end) : int(step or 1)]
        known = [dim for dim in part if isinstance(dim, int)]
        return known if len(known) == len(part) else None


class SameShape(Rule):
    """A Reshape to the shape that its input has."""

    def pattern(self, op: Any, x: ir.Value, target: ir.Value) -> Any:
        """Match any Reshape."""
        return op.Reshape(x, target, _outputs=["y"])

    def holds(self, **values: ir.Value) -> bool:
        """Return whether all sizes are known to be equal."""
        before, after = values["x"].shape, values["y"].shape
        return before is not None and after is not None and _equal(before, after)

    def rewrite(self, op: Any, x: ir.Value, **values: ir.Value) -> Any:
        """Return what is not changed."""
        return op.Identity(x)


def _symbol(dim: int | ir.SymbolicDim) -> str | None:
    return None if isinstance(dim, int) else dim.value


class SoftmaxAlongLast(Rule):
    """Softmax between a Flatten to rows and a Reshape back, as opset 13 spells that of opset 12."""

    def pattern(self, op: Any, x: ir.Value, target: ir.Value) -> Any:
        """Match the three."""
        flat = op.Flatten(x, _allow_other_attributes=True, _outputs=["rows"])
        return op.Reshape(op.Softmax(flat, axis=-1), target, _outputs=["y"])

    def holds(self, **values: ir.Value) -> bool:
        """Return whether rows are the last dimension, and the shape is the one from before."""
        x, y, flatten = values["x"], values["y"], values["rows"].producer()
        if x.shape is None or flatten is None:
            return False
        back = _is_shape_of(values["target"], x) or (y.shape is not None and _equal(x.shape, y.shape))
        return back and flatten.attributes.get_int("axis", 1) in (len(x.shape) - 1, -1)

    def rewrite(self, op: Any, x: ir.Value, **values: ir.Value) -> Any:
        """Return the Softmax alone."""
        return op.Softmax(x, axis=-1)


def _is_shape_of(value: ir.Value, x: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and producer.op_type == "Shape" and producer.inputs[0] is x


def _equal(left: ir.Shape, right: ir.Shape) -> bool:
    pairs = list(zip(left, right, strict=False))
    return len(left) == len(right) and all(
        a == b and (isinstance(a, int) or a.value is not None) for a, b in pairs
    )


class NeutralOperand(Rule):
    """A sum with zeros or a product with ones."""

    def __init__(self, op_type: str, number: float) -> None:
        super().__init__(f"{op_type} {number:g}")
        self._op_type, self._number = op_type, number

    def pattern(self, op: Any, x: ir.Value, operand: ir.Value) -> Any:
        """Match the operation."""
        return getattr(op, self._op_type)(x, operand)

    def holds(self, **values: ir.Value) -> bool:
        """Return whether nothing changes, neither numbers nor shape."""
        x, array = values["x"], numbers(values["operand"])
        if array is None or x.shape is None or array.ndim > len(x.shape):
            return False
        return array.size == 1 and bool((array == self._number).all())

    def rewrite(self, op: Any, x: ir.Value, **values: ir.Value) -> Any:
        """Return what is not changed."""
        return op.Identity(x)


# onnxscript's own, but for those that take a number near 0, such as a norm's epsilon of 1e-12, for nothing
_INEXACT = {id(rule) for rule in _no_op.rules}
THEIRS = (
    *(rule for rule in rewriter._DEFAULT_REWRITE_RULES if id(rule) not in _INEXACT),
    _no_op.dropout_zero_rule,
    _no_op.dropout_inference_rule,
)
NEUTRAL = tuple(
    NeutralOperand(op, number) for op, number in (("Mul", 1.0), ("Div", 1.0), ("Add", 0.0), ("Sub", 0.0))
)


def rules(opset: int) -> Sequence[pattern.RewriteRule]:
    """Return the rewrites for files of an opset."""
    own = (
        SizeKnown(),
        SizesKnown(),
        ReshapeByPlace(),
        OpenSizeKept(),
        SameShape(),
        SoftmaxAlongLast(),
        *NEUTRAL,
        *CONV_RULES,
    )
    rewrites = [variant for rule in own for variant in _variants(rule)]
    if opset >= 14:
        rewrites += fuse_hardswish_rules().rules
    if opset >= 17:
        rewrites += _layer_norm.layer_normalization_rules
    if opset >= 20:
        rewrites += map(_as_it_stands, GELU_RULES)
    if opset >= 23:
        rewrites += _rms_normalization.rms_normalization_rules
    return rewrites


def _as_it_stands(rule: Rule) -> pattern.RewriteRule:
    """Return a rule that looks at all operands itself."""
    return pattern.RewriteRule(rule.pattern, rule.rewrite, rule.check, name=rule.name)


def _variants(rule: Rule) -> Sequence[pattern.RewriteRule]:
    """Return a rule for every order of the operands of sums and products."""
    return pattern.RewriteRule(rule.pattern, rule.rewrite, rule.check, name=rule.name).commute()
