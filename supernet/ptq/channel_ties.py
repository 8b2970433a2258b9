"""Tensors whose channels can be scaled together without a change of what the network computes.

If everything that gives a tensor divides its channels by positive numbers, and every product that reads it
multiplies its columns with them, the function stays what it is: through ReLU, sums and pools, which scale
with what they read. So the channels of a whole residual stream are scaled at once (Nagel et al. 2019 do so
for pairs of layers). Clips, other curves, and operations that nothing is known of here, keep what they touch
as it is.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray

from supernet.imported.model import ImportedModel
from supernet.ptq.products import attributes_of

Array = NDArray[np.float32]
Constants = Mapping[str, NDArray[np.generic]]
FIXED = ""  # the tensor that all those are tied to which cannot be scaled


@dataclass(frozen=True)
class Scaled:
    """Stored numbers that are scaled with the channels of a tensor.

    Attributes:
        constant: their name.
        axis: dimension of the channels.
        groups: of a convolution that reads the tensor: the channels of its inputs are dimension `axis` and,
            between groups, the outermost.
        multiplied: whether the numbers are multiplied, as those that read are, or divided.
        op: of the node that they belong to.
    """

    constant: str
    axis: int
    groups: int
    multiplied: bool
    op: str


@dataclass(frozen=True)
class ChannelTie:
    """Tensors with the same channels, and the stored numbers that give or read them.

    Attributes:
        tensors: in the order in which they arise.
        axis: dimension of their channels.
        channels: how many there are.
        scaled: stored numbers.
    """

    tensors: tuple[str, ...]
    axis: int
    channels: int
    scaled: tuple[Scaled, ...]

    @property
    def readers(self) -> tuple[Scaled, ...]:
        """The weights that read the channels."""
        return tuple(each for each in self.scaled if each.multiplied)

    @property
    def normed(self) -> bool:
        """Whether it is a norm, or a stored factor, that gives the channels."""
        return any(each.op in ("LayerNormalization", "Mul") for each in self.scaled)


def channel_ties(model: ImportedModel) -> tuple[ChannelTie, ...]:
    """Return all sets of tensors that can be scaled, with at least one that gives and one that reads them."""
    graph = onnx.load_from_string(model.content).graph
    ties = _Ties(model, _used_once(graph.node))
    for name in (*model.inputs, *model.outputs):
        ties.join(name, FIXED)
    for node in graph.node:
        known = node.domain in ("", "ai.onnx") and _RULES.get(node.op_type)
        if not known or not known(ties, node):
            ties.fix(node)
    return tuple(tie for tie in ties.made() if tie.readers and len(tie.readers) < len(tie.scaled))


def scaled_constants(constants: Constants, tie: ChannelTie, factors: Array) -> dict[str, NDArray[np.generic]]:
    """Return the stored numbers of a tie once its tensors are divided by factors (channels,)."""
    made: dict[str, NDArray[np.generic]] = {}
    for each in tie.scaled:
        stored = made.get(each.constant, constants[each.constant])
        array = stored.astype(np.float64)
        if each.multiplied and each.groups > 1:
            grouped = array.reshape(each.groups, len(array) // each.groups, *array.shape[1:])
            by_channel = factors.reshape(each.groups, 1, -1, *(1,) * (array.ndim - 2))
            scaled = (grouped * by_channel).reshape(array.shape)
        else:
            by_channel = factors.reshape([-1 if axis == each.axis else 1 for axis in range(array.ndim)])
            scaled = array * by_channel if each.multiplied else array / by_channel
        made[each.constant] = scaled.astype(stored.dtype)
    return made


def _used_once(nodes: Iterable[onnx.NodeProto]) -> frozenset[str]:
    """Return names that one node of the graph reads, and that once; bodies of control flow read many."""
    names = [name for node in nodes for name in (*node.input, *_of_bodies(node))]
    return frozenset(name for name in set(names) if names.count(name) == 1)


def _of_bodies(node: onnx.NodeProto) -> list[str]:
    bodies = [attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH]
    names = [name for body in bodies for inner in body.node for name in (*inner.input, *_of_bodies(inner))]
    return [name for name in names for _ in range(2)]


@dataclass(eq=False)
class _Ties:
    """Tensors as they are tied to each other, node by node."""

    model: ImportedModel
    once: frozenset[str]
    parents: dict[str, str] = field(default_factory=dict)
    scaled: dict[str, list[Scaled]] = field(default_factory=dict)
    axes: dict[str, set[int]] = field(default_factory=dict)

    def root(self, tensor: str) -> str:
        while (parent := self.parents.setdefault(tensor, tensor)) != tensor:
            tensor = parent
        return tensor

    def join(self, *tensors: str) -> bool:
        for tensor in tensors[1:]:
            self.parents[self.root(tensor)] = self.root(tensors[0])
        return True

    def fix(self, node: onnx.NodeProto) -> None:
        self.join(FIXED, *(name for name in (*node.input, *node.output) if name), *_of_bodies(node))

    def constant(self, name: str) -> NDArray[np.generic] | None:
        """Return stored numbers that nothing else reads."""
        return self.model.constants.get(name) if name in self.once else None

    def scale(self, tensor: str, each: Scaled, axis: int) -> None:
        """Let stored numbers be scaled with a tensor, whose channels are a dimension."""
        self.scaled.setdefault(tensor, []).append(each)
        self.axes.setdefault(tensor, set()).add(axis % max(self.rank(tensor), 1))

    def rank(self, tensor: str) -> int:
        return len(self.model.shapes[tensor])

    def made(self) -> Iterable[ChannelTie]:
        classes: dict[str, list[str]] = {}
        for tensor in self.model.shapes:
            if self.root(tensor) != self.root(FIXED):
                classes.setdefault(self.root(tensor), []).append(tensor)
        for tensors in classes.values():
            axes = {axis for tensor in tensors for axis in self.axes.get(tensor, ())}
            if len(axes) != 1:
                continue
            (axis,) = axes
            sizes = {self.model.shapes[tensor][axis : axis + 1] for tensor in tensors}
            scaled = [each for tensor in tensors for each in self.scaled.get(tensor, ())]
            if len(sizes) == 1 and (size := sizes.pop()) and self._fit(scaled, size[0]):
                yield ChannelTie(tuple(tensors), axis, size[0], tuple(scaled))

    def _fit(self, scaled: Sequence[Scaled], channels: int) -> bool:
        return all(
            self.model.constants[each.constant].shape[each.axis] * (each.groups if each.multiplied else 1)
            == channels
            for each in scaled
        )


_Rule = Callable[[_Ties, onnx.NodeProto], bool]  # whether the node leaves its tensors free to be scaled


def _passes(ties: _Ties, node: onnx.NodeProto) -> bool:
    return ties.join(node.input[0], node.output[0])


def _conv(ties: _Ties, node: onnx.NodeProto) -> bool:
    weight, groups = ties.constant(node.input[1]), int(attributes_of(node).get("group", 1))
    if weight is None:
        return False
    ties.scale(node.input[0], Scaled(node.input[1], 1, groups, True, node.op_type), 1)
    return _gives(ties, node, Scaled(node.input[1], 0, 1, False, node.op_type), node.input[2:], 1)


def _gives(ties: _Ties, node: onnx.NodeProto, weight: Scaled, bias: Sequence[str], axis: int) -> bool:
    """Let the output of a product be scaled, unless its bias cannot be."""
    tensor = node.output[0]
    if any(bias):
        numbers = ties.constant(bias[0])
        if numbers is None or not numbers.ndim or numbers.size != ties.model.shapes[tensor][axis]:
            ties.join(tensor, FIXED)
            return True
        ties.scale(tensor, Scaled(bias[0], numbers.ndim - 1, 1, False, node.op_type), axis)
    ties.scale(tensor, weight, axis)
    return True


def _gemm(ties: _Ties, node: onnx.NodeProto) -> bool:
    given, weight = attributes_of(node), ties.constant(node.input[1])
    if weight is None or given.get("transA", 0):
        return False
    transposed = int(given.get("transB", 0))
    ties.scale(node.input[0], Scaled(node.input[1], transposed, 1, True, node.op_type), -1)
    output = Scaled(node.input[1], 1 - transposed, 1, False, node.op_type)
    return _gives(ties, node, output, node.input[2:], -1)


def _matmul(ties: _Ties, node: onnx.NodeProto) -> bool:
    weight = ties.constant(node.input[1])
    if weight is None or weight.ndim != 2:
        return False
    ties.scale(node.input[0], Scaled(node.input[1], 0, 1, True, node.op_type), -1)
    return _gives(ties, node, Scaled(node.input[1], 1, 1, False, node.op_type), (), -1)


def _sum(ties: _Ties, node: onnx.NodeProto) -> bool:
    """Tie what is added; of a stored summand, let its numbers be scaled too."""
    tensors = [name for name in node.input if name in ties.model.shapes]
    if len(tensors) == len(node.input):
        shapes = {ties.model.shapes[name] for name in (*tensors, *node.output)}
        return len(shapes) == 1 and ties.join(*tensors, node.output[0])
    constant = next(name for name in node.input if name not in ties.model.shapes)
    vector = _vector(ties, constant, node.output[0])
    if vector is None or len(tensors) != 1:
        return False
    axis, own = vector
    ties.scale(node.output[0], Scaled(constant, own, 1, False, node.op_type), axis)
    return ties.join(tensors[0], node.output[0])


def _product(ties: _Ties, node: onnx.NodeProto) -> bool:
    """Let a stored factor of each channel give scaled ones; one number passes scales on, and so does a
    computed factor of each channel, which itself stays as it is."""
    tensors = [name for name in node.input if name in ties.model.shapes]
    output = node.output[0]
    if len(tensors) == 1:
        (constant,) = (name for name in node.input if name != tensors[0])
        if (numbers := ties.model.constants.get(constant)) is not None and numbers.size == 1:
            return ties.model.shapes[tensors[0]] == ties.model.shapes[output] and ties.join(
                tensors[0], output
            )
        vector = _vector(ties, constant, output) if node.op_type == "Mul" else None
        if vector is None:
            return False
        ties.join(tensors[0], FIXED)
        ties.scale(output, Scaled(constant, vector[1], 1, False, node.op_type), vector[0])
        return True
    whole = [name for name in tensors if ties.model.shapes[name] == ties.model.shapes[output]]
    if node.op_type != "Mul" or len(tensors) != 2 or len(whole) != 1:
        return False
    ties.join(FIXED, *(name for name in tensors if name not in whole))
    return ties.join(whole[0], output)


def _vector(ties: _Ties, constant: str, tensor: str) -> tuple[int, int] | None:
    """Return the dimension of a tensor that stored numbers are of, and their own; None if not of one."""
    numbers = ties.constant(constant)
    if numbers is None or numbers.size == 1 or numbers.ndim > ties.rank(tensor):
        return None
    own = [axis for axis, size in enumerate(numbers.shape) if size > 1]
    return (own[0] + ties.rank(tensor) - numbers.ndim, own[0]) if len(own) == 1 else None


def _norm(ties: _Ties, node: onnx.NodeProto) -> bool:
    """Let scale and bias of a layer norm over the last dimension give scaled channels."""
    given, rank = attributes_of(node), ties.rank(node.output[0])
    last = int(given.get("axis", -1)) % rank == rank - 1
    if not last or any(ties.constant(name) is None for name in node.input[1:] if name):
        return False
    ties.join(node.input[0], FIXED)
    for name in filter(None, node.input[1:]):
        ties.scale(node.output[0], Scaled(name, 0, 1, False, node.op_type), -1)
    return True


_RULES: Mapping[str, _Rule] = {
    **dict.fromkeys(("Relu", "LeakyRelu", "Identity", "Dropout", "MaxPool", "AveragePool"), _passes),
    "GlobalAveragePool": _passes,
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Add": _sum,
    "Mul": _product,
    "Div": _product,
    "LayerNormalization": _norm,
}
