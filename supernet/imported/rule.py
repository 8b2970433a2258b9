"""What the rewrites of imported networks have in common."""

from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray
from onnxscript.rewriter import pattern

Array = NDArray[Any]


class Rule(pattern.RewriteRuleClassBase):
    """A rule that says in one condition where it holds."""

    def check(self, op: Any, *args: Any, **values: Any) -> pattern.MatchResult:
        """Return whether the rule may be applied."""
        result = pattern.MatchResult()
        return result if self.holds(**values) else result.fail("does not hold here")

    def holds(self, **values: ir.Value) -> bool:
        """Return whether both sides compute the same."""
        raise NotImplementedError


def numbers(value: ir.Value | None) -> Array | None:
    """Return the numbers of a stored tensor; None where it is computed, or fed."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def single(value: ir.Value | None) -> float | None:
    """Return the number of a stored tensor that has one; None where it has more, or is computed."""
    array = numbers(value)
    return float(array.reshape(())) if array is not None and array.size == 1 else None
