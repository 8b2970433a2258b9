"""Operations that are a straight line, clipped: on codes they change nothing but what codes mean, and clip.

y = clip(factor x + offset) of x = scale (code - zero point) has the same codes with scale x factor, and with
the zero point moved by offset / (factor x scale), which is rounded. Half of a hard swish is one, too: it is x
times y with a sixth as the factor and a half as the offset.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from hw_profiles.graph.formats import QuantParams
from supernet.imported.model import ImportedModel

GATED = "HardSwish"
_GATE = (1 / 6, 0.5)


@dataclass(frozen=True)
class Rescaling:
    """y = clip(factor x + offset, low, high), of a factor above 0."""

    factor: float = 1.0
    offset: float = 0.0
    low: float = -np.inf
    high: float = np.inf

    @property
    def begins(self) -> float | None:
        """The value of x from which on y is above 0; None where codes mean 0 by the same zero point."""
        return -self.offset / self.factor if self.offset else None

    def fits(self, source: QuantParams) -> bool:
        """Return whether some code of x means 0 as one of y."""
        return 0 <= self._zero_point(source) <= source.largest

    def params(self, source: QuantParams) -> QuantParams:
        """Return what codes of x mean as those of y.

        Raises:
            ValueError: no code means 0.
        """
        if not self.fits(source):
            raise ValueError(f"no code of scale {source.scale} means {self.begins}")
        return replace(source, scale=self._scale(source), zero_point=self._zero_point(source))

    def _scale(self, source: QuantParams) -> float:
        return float(np.float32(source.scale * self.factor))

    def _zero_point(self, source: QuantParams) -> int:
        zero = source.zero_point - round(self.offset / self._scale(source))
        return 0 if zero == -1 else zero  # a range that begins there: both were rounded

    def code_range(self, source: QuantParams) -> tuple[int, int]:
        """Return the codes that the clip ends at."""
        target = self.params(source)
        ends = (np.clip(self.low / target.scale, -1e9, 1e9), np.clip(self.high / target.scale, -1e9, 1e9))
        first, last = (int(np.clip(np.rint(end) + target.zero_point, 0, target.largest)) for end in ends)
        return first, last


@lru_cache(maxsize=8)
def rescalings(model: ImportedModel) -> Mapping[str, Rescaling]:
    """Return what each unit is that computes a straight line, by unit; of a hard swish, what it multiplies
    its input with.
    """
    proto = onnx.load_from_string(model.content)
    single = {t.name: t for t in proto.graph.initializer if np.prod(t.dims) == 1}
    names = {unit.name for unit in model.units if len(unit.nodes) == 1}
    lines = {}
    for node in proto.graph.node:
        if node.name in names and not node.domain:
            line = _line(
                node, {name: numpy_helper.to_array(single[name]) for name in node.input if name in single}
            )
            if line is not None:
                lines[node.name] = line
    return lines


def _line(node: onnx.NodeProto, stored: Mapping[str, NDArray[Any]]) -> Rescaling | None:
    given = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    match node.op_type:
        case "Relu":
            return Rescaling(low=0.0)
        case "Clip":
            return _clip(node, stored)
        case "HardSigmoid":
            factor, offset = float(given.get("alpha", 0.2)), float(given.get("beta", 0.5))
            return Rescaling(factor, offset, 0.0, 1.0) if factor > 0 and offset >= 0 else None
        case "HardSwish":
            return Rescaling(*_GATE, 0.0, 1.0)
        case "Mul" | "Div":
            return _scaled(node, stored)
    return None


def _clip(node: onnx.NodeProto, stored: Mapping[str, NDArray[Any]]) -> Rescaling | None:
    ends = [-np.inf, np.inf]
    for position, name in enumerate(node.input[1:]):
        if name and name not in stored:
            return None
        if name:
            ends[position] = float(stored[name].item())
    return Rescaling(low=ends[0], high=ends[1])


def _scaled(node: onnx.NodeProto, stored: Mapping[str, NDArray[Any]]) -> Rescaling | None:
    """Return a product with a stored number, or a quotient by one, where that is above 0."""
    names = [name for name in node.input if name in stored]
    if len(names) != 1 or (node.op_type == "Div" and node.input[1] != names[0]):
        return None
    number = float(stored[names[0]].item())
    if not np.isfinite(number) or number <= 0 or stored[names[0]].dtype != np.float32:
        return None
    return Rescaling(number if node.op_type == "Mul" else 1 / number)
