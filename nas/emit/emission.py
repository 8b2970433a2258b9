"""`Emission`: one layer on its way into an ONNX file."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from hw_profiles.graph.layer import Layer


class Writer(Protocol):
    """A graph under construction."""

    nodes: list[onnx.NodeProto]
    initialisers: list[onnx.TensorProto]
    domains: dict[str, int]

    def node(self, op: str, name: str, inputs: list[str], **attributes: Any) -> str: ...

    def constant(self, name: str, array: NDArray[Any]) -> str: ...


@dataclass(frozen=True)
class Emission:
    """One layer on its way into a file.

    Attributes:
        writer: where its nodes go.
        name: of the layer.
        layer: what is written.
        inputs: names of the real tensors that it reads.
        constants: names of its weight and its bias, where it has them.
        opset: of the file.
        portable: whether operations of young opsets are spelled out.
    """

    writer: Writer
    name: str
    layer: Layer
    inputs: list[str]
    constants: list[str]
    opset: int
    portable: bool = False

    def node(self, op: str, **attributes: Any) -> list[str]:
        """Write the one node that reads all of it."""
        return [self.writer.node(op, self.name, [*self.inputs, *self.constants], **attributes)]

    def step(self, op: str, step: str, inputs: list[str], **attributes: Any) -> str:
        """Write one node of several, named after the layer and what it does; return what it gives."""
        return self.writer.node(op, f"{self.name}.{step}", inputs, **attributes)

    def number(self, name: str, *values: int) -> str:
        """Store whole numbers as the layer's own; return their name."""
        return self.writer.constant(f"{self.name}.{name}", np.array(values, np.int64))


Emit = Callable[[Emission], list[str]]  # -> names of the real tensors that it gives
