"""A network without the operations that only move numbers: kernels of our own keep maps in one layout, so
transposes and reshapes are folded into how tensors are read.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import isfinite

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.builder import WorkloadBuilder
from hw_profiles.graph.layer import INPUT, Layer
from hw_profiles.graph.tensor_type import Dim, TensorType, times
from hw_profiles.graph.workload import Feed, Workload
from supernet.imported.layers import clip_bounds
from supernet.imported.model import ImportedModel, Unit

Array = NDArray[np.generic]
MOVES = ("Transpose", "Reshape", "Flatten")
CURVES = ("Relu", "Clip", "HardSwish", "HardSigmoid", "Sigmoid", "Tanh", "Gelu")  # of each number by itself
CLIPPED = ".clip"  # name of the layer that a fused curve is where a layer cannot name it, behind its unit's


@dataclass(frozen=True)
class View:
    """How a tensor of the file lies in one of the folded network.

    Attributes:
        tensor: of the folded workload.
        order: its dimensions as the file has them.
        shape: of the file's tensor: that of the ordered one, or what it is reshaped to.
    """

    tensor: int
    order: tuple[int, ...]
    shape: tuple[Dim, ...]

    def of(self, tensor: Array) -> Array:
        """Return the file's tensor of one example from the folded network's."""
        sizes = [1 if isinstance(size, str) else size for size in self.shape]
        return tensor.transpose(self.order).reshape(sizes)


@dataclass(frozen=True, eq=False)
class Folded:
    """A network whose maps are all (batch, channels, height, width), and how the file's tensors lie in it.

    Attributes:
        workload: in fp32; a layer has the name of its unit. A unit that cannot be folded is missing, and what
            it gives is fed.
        moved: units that only move numbers: no layer of the workload.
        refusals: why units cannot be folded.
        names: of the file's tensors that are one tensor of the workload, by that.
        columns: by unit, for matrix products that read maps: the order of the dimensions that the rows of the
            weight count.
        entry: what moves the file's input to the network's, step by step.
        outputs: of the network, as the file has them.
    """

    workload: Workload
    moved: frozenset[str]
    refusals: Mapping[str, str]
    names: Mapping[int, tuple[str, ...]]
    columns: Mapping[str, tuple[int, ...]]
    entry: tuple[Layer, ...]
    outputs: tuple[View, ...]

    def entered(self, example: Array) -> Array:
        """Return what the network reads, from what the file reads (1, ...)."""
        for layer in self.entry:
            if layer.op == "Transpose":
                example = example.transpose(layer.values.integers("perm"))
            else:
                sizes = layer.outputs[0].shape
                example = example.reshape([1 if isinstance(size, str) else size for size in sizes])
        return example


@lru_cache(8)
def fold(model: ImportedModel) -> Folded:
    """Return a model without the operations that only move numbers."""
    return _Folding(model).folded()


@dataclass
class _Folding:
    model: ImportedModel
    views: dict[str, View] = field(default_factory=dict)
    moved: set[str] = field(default_factory=set)
    refusals: dict[str, str] = field(default_factory=dict)
    columns: dict[str, tuple[int, ...]] = field(default_factory=dict)
    entry: list[Layer] = field(default_factory=list)
    entered: list[str] = field(default_factory=list)
    feeds: list[Feed] = field(default_factory=list)
    steps: list[tuple[str, Layer, tuple[int, ...]]] = field(default_factory=list)
    types: list[TensorType] = field(default_factory=list)

    def folded(self) -> Folded:
        for feed in self.model.workload.feeds:
            self._feed(feed)
        curves = _curves(self.model)
        for unit in self.model.units:
            if unit.name in self.moved:
                continue
            try:
                self._unit(unit, curves.get(unit.name))
            except TrilobitError as error:
                self.refusals[unit.name] = str(error)
                for tensor, x in zip(unit.outputs, unit.layer.outputs, strict=True):
                    self.feeds.append(Feed(tensor, x))
                    self.views[tensor] = _plain(-len(self.feeds), x)
        return self._result()

    def _feed(self, feed: Feed) -> None:
        """Add an input, moved as its only readers move it."""
        name, x = feed
        while len(readers := self.model.readers.get(name, ())) == 1 and readers[0].layer.op in MOVES:
            if name in self.model.outputs or len(self.model.inputs) > 1:
                break
            (unit,) = readers
            self.entry.append(unit.layer)
            self.moved.add(unit.name)
            name, x = unit.outputs[0], unit.layer.outputs[0]
            self.entered.append(name)
        self.feeds.append(Feed(feed.name, x))
        self.views[name] = _plain(-len(self.feeds), x)

    def _result(self) -> Folded:
        builder = WorkloadBuilder(feeds=self.feeds)
        for name, layer, sources in self.steps:
            builder.add(name, layer, *sources)
        outputs = tuple(self.views[name] for name in self.model.outputs if name in self.views)
        names: dict[int, tuple[str, ...]] = {}
        entered = [
            *self.model.inputs,
            *(unit.outputs[0] for unit in self.model.units if unit.name in self.moved),
        ]
        for name, view in self.views.items():
            names[view.tensor] = (*names.get(view.tensor, ()), name)
        if self.entry:
            names[INPUT] = (*names.get(INPUT, ()), *entered)
        return Folded(
            builder.build(*(view.tensor for view in outputs)) if self.steps else self.model.workload,
            frozenset(self.moved),
            self.refusals,
            names,
            self.columns,
            tuple(self.entry),
            outputs,
        )

    # -- one unit ------------------------------------------------------------------------------------

    def type(self, view: View) -> TensorType:
        return self.types[view.tensor] if view.tensor >= 0 else self.feeds[-1 - view.tensor].type

    def _unit(self, unit: Unit, bounds: tuple[float, float] | None) -> None:
        read = [self.views[name] for name in unit.inputs[: len(unit.layer.inputs)]]
        special = _SPECIAL.get(unit.op, _Folding._as_it_is)
        views = special(self, unit, read)
        if bounds is not None and len(views) == 1:
            views = [self._clipped(unit, views[0], bounds)]
        self.views |= zip(unit.outputs, views, strict=True)

    def _clipped(self, unit: Unit, view: View, bounds: tuple[float, float]) -> View:
        low, high = (bound if isfinite(bound) else None for bound in bounds)
        layer = Layer.of("Clip", self.type(view), min=low, max=high)
        return replace(view, tensor=self._append(f"{unit.name}{CLIPPED}", layer, view))

    def _append(self, name: str, layer: Layer, *read: View) -> int:
        self.steps.append((name, layer, tuple(view.tensor for view in read)))
        self.types += layer.outputs
        return len(self.types) - len(layer.outputs)

    def _as_it_is(self, unit: Unit, read: Sequence[View]) -> list[View]:
        """Keep a layer, which reads tensors as the file has them."""
        for view, x in zip(read, unit.layer.inputs, strict=True):
            if not self._is_plain(view):
                raise TrilobitError(f"{unit.op} reads a tensor of {x} that was moved, for which no kernel is")
        first = self._append(unit.name, unit.layer, *read)
        return [_plain(first + i, x) for i, x in enumerate(unit.layer.outputs)]

    def _is_plain(self, view: View) -> bool:
        shape = self.type(view).shape
        moved = [dim for dim in view.order if shape[dim] != 1]
        return view.shape == shape and moved == sorted(moved)

    def _transpose(self, unit: Unit, read: Sequence[View]) -> list[View]:
        view, layer = read[0], unit.layer
        if layer.op != "Transpose":
            return self._as_it_is(unit, read)
        perm = layer.values.integers("perm")
        if view.shape != _ordered(self.type(view), view.order):
            raise TrilobitError("a transpose of what was reshaped is not folded")
        if perm[:1] != (0,):
            raise TrilobitError("a transpose of the batch is not folded")
        self.moved.add(unit.name)
        return [View(view.tensor, tuple(view.order[i] for i in perm), unit.layer.outputs[0].shape)]

    def _reshape(self, unit: Unit, read: Sequence[View]) -> list[View]:
        if unit.layer.op not in MOVES:
            return self._as_it_is(unit, read)
        shape = unit.layer.outputs[0].shape
        if not shape or shape[:1] != self.type(read[0]).shape[:1]:
            raise TrilobitError("a reshape of the batch is not folded")
        self.moved.add(unit.name)
        return [replace(read[0], shape=shape)]

    def _curve(self, unit: Unit, read: Sequence[View]) -> list[View]:
        view = read[0]
        if unit.layer.op not in CURVES:
            return self._as_it_is(unit, read)
        return [replace(view, tensor=self._append(unit.name, self._on(unit.layer, view), view))]

    def _sum(self, unit: Unit, read: Sequence[View]) -> list[View]:
        first = read[0]
        if (
            len(read) != 2
            or unit.layer.op != "Add"
            or any((view.order, view.shape) != (first.order, first.shape) for view in read)
        ):
            return self._as_it_is(unit, read)
        return [replace(first, tensor=self._append(unit.name, self._on(unit.layer, *read), *read))]

    def _on(self, layer: Layer, *read: View) -> Layer:
        return replace(layer, inputs=tuple(map(self.type, read)))

    def _product(self, unit: Unit, read: Sequence[View]) -> list[View]:
        """Fold what flattens maps into a linear layer that reads them."""
        view, layer = read[0], unit.layer
        if not unit.weighted or layer.op not in ("Gemm", "MatMul") or len(view.shape) != 2:
            return self._as_it_is(unit, read)
        x = self.type(view)
        if times(x.shape[1:]) != view.shape[1]:
            return self._as_it_is(unit, read)
        weight = layer.values.integers("weight")
        weight = weight[::-1] if layer.op == "MatMul" else weight
        bias = layer.values.integer("bias")
        linear = Layer.of("Gemm", x, activation=layer.activation, weight=weight, bias=bias)
        self.columns[unit.name] = view.order
        return [_plain(self._append(unit.name, linear, view), linear.outputs[0])]

    def _average(self, unit: Unit, read: Sequence[View]) -> list[View]:
        """Call a mean over windows that are the whole map what it is."""
        layer, x = unit.layer, unit.layer.inputs[0]
        whole = layer.op == "AveragePool" and layer.values.integers("kernel_shape") == x.shape[2:]
        if (
            whole
            and len(x.shape) == 4
            and layer.outputs[0].shape[2:] == (1, 1)
            and not any(layer.values.integers("pads", 4))
        ):
            return self._as_it_is(replace(unit, layer=Layer.of("GlobalAveragePool", x)), read)
        return self._as_it_is(unit, read)

    def _mean(self, unit: Unit, read: Sequence[View]) -> list[View]:
        """Call a mean over height and width global average pooling."""
        view = read[0]
        x = self.type(view)
        axes = _axes(self.model, unit) if view.shape else ()
        over = {view.order[axis] for axis in axes} if view.shape == _ordered(x, view.order) else set()
        if len(x.shape) != 4 or over != {2, 3}:
            return self._as_it_is(unit, read)
        tensor = self._append(unit.name, Layer.of("GlobalAveragePool", x), view)
        return [View(tensor, view.order, unit.layer.outputs[0].shape)]

    def _softmax(self, unit: Unit, read: Sequence[View]) -> list[View]:
        view, layer = read[0], unit.layer
        x = self.type(view)
        if layer.op != "Softmax" or len(view.shape) < 2:
            return self._as_it_is(unit, read)
        axis = layer.values.integer("axis") % len(view.shape)
        features = len(view.shape) == 2 and axis == 1 and times(x.shape[1:]) == x.shape[1]
        if not features and (view.shape != _ordered(x, view.order) or view.order[axis] != 1):
            return self._as_it_is(unit, read)
        return [replace(view, tensor=self._append(unit.name, Layer.of("Softmax", x, axis=1), view))]


_SPECIAL: Mapping[str, Callable[[_Folding, Unit, Sequence[View]], list[View]]] = {
    "Transpose": _Folding._transpose,
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _Folding._reshape),
    **dict.fromkeys(CURVES, _Folding._curve),
    "Add": _Folding._sum,
    **dict.fromkeys(("Gemm", "MatMul"), _Folding._product),
    "AveragePool": _Folding._average,
    "ReduceMean": _Folding._mean,
    "Softmax": _Folding._softmax,
}


def _plain(tensor: int, x: TensorType) -> View:
    return View(tensor, tuple(range(len(x.shape))), x.shape)


def _ordered(x: TensorType, order: Sequence[int]) -> tuple[Dim, ...]:
    return tuple(x.shape[dim] for dim in order)


def _nodes(model: ImportedModel) -> dict[str, ir.Node]:
    graph = ir.serde.deserialize_model(onnx.ModelProto.FromString(model.content)).graph
    return {str(node.name): node for node in graph}


def _curves(model: ImportedModel) -> dict[str, tuple[float, float]]:
    """Return by unit what is let through by a fused curve that its layer cannot name."""
    nodes = _nodes(model)
    last = {unit.name: nodes[unit.nodes[-1]] for unit in model.units if len(unit.nodes) > 1}
    unnamed = [unit for unit in model.units if unit.name in last and unit.layer.activation == "none"]
    return {unit.name: clip_bounds(last[unit.name]) for unit in unnamed if last[unit.name].op_type == "Clip"}


def _axes(model: ImportedModel, unit: Unit) -> tuple[int, ...]:
    """Return the dimensions that a ReduceMean is over, counted from the first."""
    node = _nodes(model)[unit.nodes[0]]
    stated = node.attributes.get_ints("axes", None)
    if stated is None and len(node.inputs) > 1 and node.inputs[1] is not None:
        value = node.inputs[1].const_value
        stated = None if value is None else [int(axis) for axis in value.numpy()]
    rank = len(unit.layer.inputs[0].shape)
    return tuple(axis % rank for axis in stated or ())
