"""An ONNX file as it is converted: every size known, what depends on stored numbers alone computed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from hw_profiles.errors import TrilobitError, one_line
from hw_profiles.graph.ops import SUMS
from hw_profiles.runtimes.onnx_file import sizes_of

Array = NDArray[Any]
ROUNDS = 12  # of inferring shapes and computing what they make known
DOMAINS = ("", "ai.onnx")
# what is stored as it is: codes, which are read with their scales, and numbers of 16 bits
_KEPT = frozenset(("DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger"))
LARGEST_FOLDED = 2**26  # elements of one tensor that is computed beforehand


@dataclass(frozen=True, eq=False)
class Node:
    """One operation.

    Attributes:
        op: its name in ONNX.
        name: of the node, or of what it gives.
        inputs, outputs: names of tensors; empty where one is left out.
        given: its attributes.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    given: Mapping[str, Any]

    def input(self, position: int) -> str:
        """Return the name of an input; empty where there is none."""
        return self.inputs[position] if position < len(self.inputs) else ""

    def integer(self, name: str, default: int) -> int:
        """Return an attribute that is a whole number."""
        return int(self.given.get(name, default))

    def number(self, name: str, default: float) -> float:
        """Return an attribute that is a number."""
        return float(self.given.get(name, default))

    def integers(self, name: str, default: Sequence[int]) -> tuple[int, ...]:
        """Return an attribute that is a list of whole numbers."""
        return tuple(int(value) for value in self.given.get(name, default))

    def text(self, name: str, default: str) -> str:
        """Return an attribute that is a word."""
        value = self.given.get(name, default)
        return value.decode() if isinstance(value, bytes) else str(value)


@dataclass(frozen=True, eq=False)
class Source:
    """A network of nodes between tensors.

    Attributes:
        nodes: in an order in which they can run.
        constants: stored tensors.
        shapes: of all tensors.
        dtypes: numpy's names of their element types.
        inputs, outputs: names of what it reads and gives.
    """

    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @cached_property
    def readers(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes that read each tensor."""
        readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(filter(None, node.inputs)):
                readers.setdefault(name, []).append(node)
        return {name: tuple(nodes) for name, nodes in readers.items()}

    @cached_property
    def producers(self) -> Mapping[str, Node]:
        """The node that gives each tensor."""
        return {name: node for node in self.nodes for name in node.outputs if name}

    def only_reader(self, name: str) -> Node | None:
        """Return the node that alone reads a tensor, which is no output of the network."""
        readers = self.readers.get(name, ())
        return readers[0] if len(readers) == 1 and name not in self.outputs else None


def open_inputs(model: onnx.ModelProto) -> dict[str, tuple[int | None, ...]]:
    """Return the sizes of what a file reads; None of those that are open."""
    stored = {tensor.name for tensor in model.graph.initializer}
    return {value.name: sizes_of(value) for value in model.graph.input if value.name not in stored}


def load_source(model: onnx.ModelProto, sizes: Mapping[str, Sequence[int]]) -> Source:
    """Return a file with the sizes of its inputs bound.

    Args:
        model: is changed.
        sizes: of each input.

    Raises:
        TrilobitError: an operation is of another domain, has graphs inside, or a size stays open.
    """
    _check_operations(model.graph)
    _bind(model, sizes)
    for _ in range(ROUNDS):
        inferred = _inferred(model)
        if not _folded(inferred):
            break
        model = inferred
    return _read(inferred)


def _check_operations(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        if node.domain not in DOMAINS:
            raise TrilobitError(
                f"LiteRT: no {node.domain}.{node.op_type}: it is none of ONNX's own operations"
            )
        if any(each.HasField("g") or each.graphs for each in node.attribute):
            raise TrilobitError(f"LiteRT: no {node.op_type}: what is decided while it runs is not written")


def _bind(model: onnx.ModelProto, sizes: Mapping[str, Sequence[int]]) -> None:
    """Write sizes of inputs, and forget what is said of all else."""
    for value in model.graph.input:
        if value.name in sizes:
            for dim, size in zip(value.type.tensor_type.shape.dim, sizes[value.name], strict=True):
                dim.dim_value = size
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:  # whatever a malformed file makes it stumble over
        raise TrilobitError(f"LiteRT: its sizes are not known: {one_line(error)}") from None


def _folded(model: onnx.ModelProto) -> bool:
    """Compute the nodes that read stored numbers, or sizes, alone; return whether there were any."""
    graph = model.graph
    known = {tensor.name: tensor for tensor in graph.initializer}
    shapes = _shapes(graph)
    outputs = {value.name for value in graph.output}
    kept, added = list[onnx.NodeProto](), False
    for node in graph.node:
        made = None if outputs & {*node.output} else _evaluated(node, known, shapes, model)
        if made is None:
            kept.append(node)
            continue
        added = True
        for name, array in made.items():
            tensor = numpy_helper.from_array(array, name)
            known[name] = tensor
            graph.initializer.append(tensor)
    if added:
        del graph.node[:]
        graph.node.extend(kept)
    return added


def _evaluated(
    node: onnx.NodeProto,
    known: Mapping[str, onnx.TensorProto],
    shapes: Mapping[str, tuple[int, ...]],
    model: onnx.ModelProto,
) -> dict[str, Array] | None:
    """Return what a node gives; None where that depends on what the network reads."""
    if node.op_type == "Shape" and node.input[0] in shapes:
        ends = {each.name: each.i for each in node.attribute}
        shape = shapes[node.input[0]][ends.get("start", 0) : ends.get("end")]
        return {node.output[0]: np.array(shape, np.int64)}
    names = [name for name in node.input if name]
    if node.op_type in _KEPT or any(name not in known for name in names) or _random(node):
        return None
    if _is_stored_code(node, known):
        return None
    if prod(shapes.get(node.output[0], ())) > LARGEST_FOLDED:
        return None
    values = {name: numpy_helper.to_array(known[name]) for name in names}
    graph = helper.make_graph(
        [node],
        "folded",
        [helper.make_tensor_value_info(name, known[name].data_type, None) for name in values],
        [helper.make_empty_tensor_value_info(name) for name in node.output if name],
    )
    part = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    try:
        given = ReferenceEvaluator(part).run(None, values)
    except Exception:  # what the reference does not know stays a node
        return None
    return dict(zip((name for name in node.output if name), map(np.asarray, given), strict=True))


def _random(node: onnx.NodeProto) -> bool:
    return node.op_type.startswith("Random") or node.op_type in ("Bernoulli", "Multinomial")


def _is_stored_code(node: onnx.NodeProto, known: Mapping[str, onnx.TensorProto]) -> bool:
    """Return whether a node makes real numbers of codes, or of numbers of 16 bits, as files store weights."""
    if node.op_type != "Cast":
        return False
    stored = known[node.input[0]]
    real = any(each.name == "to" and each.i == TensorProto.FLOAT for each in node.attribute)
    small = (TensorProto.INT8, TensorProto.UINT8, TensorProto.FLOAT16)
    return real and stored.data_type in small and prod(stored.dims) > 1


def _shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """Return the shapes of tensors whose sizes are all known."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        dims = kind.shape.dim
        if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            shapes[value.name] = tuple(dim.dim_value for dim in dims)
    return shapes


def _read(model: onnx.ModelProto) -> Source:
    graph = model.graph
    shapes = _shapes(graph)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    dtypes = {name: str(array.dtype) for name, array in constants.items()}
    for value in (*graph.input, *graph.value_info, *graph.output):
        if element := value.type.tensor_type.elem_type:
            dtypes[value.name] = str(np.dtype(helper.tensor_dtype_to_np_dtype(element)))
    nodes = tuple(map(_node, graph.node))
    for node in nodes:
        for name in filter(None, node.outputs):
            if name not in shapes or name not in dtypes:
                raise TrilobitError(f"LiteRT: the size of what {node.name} ({node.op}) gives is not known")
    inputs = tuple(value.name for value in graph.input if value.name not in constants)
    return Source(nodes, constants, shapes, dtypes, inputs, tuple(value.name for value in graph.output))


def _node(proto: onnx.NodeProto) -> Node:
    given = {each.name: helper.get_attribute_value(each) for each in proto.attribute}
    name = proto.name or next(filter(None, proto.output), "")
    op = SUMS.get(len(proto.input), "Sum") if proto.op_type == "Sum" else proto.op_type
    return Node(op, name, tuple(proto.input), tuple(proto.output), given)
