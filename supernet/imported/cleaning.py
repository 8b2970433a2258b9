"""From somebody's graph to one that computes the same with less: constants folded, names unique."""

import math

import onnx_ir as ir
from onnx_ir.passes import common as passes
from onnxscript import rewriter, version_converter
from onnxscript.optimizer import fold_constants_ir

from hw_profiles.graph.ops import SUMS
from supernet.imported.onnx_file import ONNX_DOMAINS
from supernet.imported.open_dimensions import forget_sizes
from supernet.imported.rules import THEIRS, rules
from supernet.imported.scopes import name_by_scope

OPSET = 21  # the first with 4-bit integers
IR_VERSION = 10  # of files of that opset
_ROUNDS = 8
_LARGEST_FOLDED = 2**20  # numbers of a tensor that is stored in place of what computes it
_LARGEST_COMPUTED = 2**28  # numbers of a tensor that is computed at all, to see whether it may be stored
_KEPT = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")  # they say what is quantized


def clean(model: ir.Model) -> ir.Model:
    """Return a model that computes the same with fewer operations, all of which have names.

    The model that is given is used up.
    """
    name_by_scope(model)
    _convert(model)
    names = _Names(model)
    _say_defaults(model)
    _name_sums(model)
    for _ in range(_ROUNDS):
        before = _size(model)
        _fold(model)
        passes.ShapeInferencePass(data_prop=True)(model)  # so that targets of Reshape can be stored
        rewriter.rewrite(model, THEIRS)
        rewriter.rewrite(model, rules(model.opset_imports.get("", 0)))
        passes.IdentityEliminationPass()(model)
        passes.RemoveUnusedNodesPass()(model)
        if _size(model) == before:
            break
    names.restore(model)
    return finish(model)


def fold(model: ir.Model) -> ir.Model:
    """Return a model in which only constants are folded; the one that is given is used up."""
    _convert(model)
    _fold(model)
    return finish(model)


def finish(model: ir.Model) -> ir.Model:
    """Return a model with constants stored, nothing unused, and a unique name for every node and tensor."""
    _lift_constants(model)
    passes.LiftSubgraphInitializersToMainGraphPass()(model)
    passes.RemoveUnusedNodesPass()(model)
    passes.RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
    passes.RemoveUnusedOpsetsPass()(model)
    passes.OutputFixPass()(model)
    _give_own_values(model)
    passes.TopologicalSortPass()(model)
    _name_nodes(model)
    passes.NameFixPass()(model)
    passes.ClearMetadataAndDocStringPass()(model)
    _forget_types(model)
    model.ir_version = max(model.ir_version, IR_VERSION)
    return model


def _give_own_values(model: ir.Model) -> None:
    """Let graphs inside others give values of their own: one of outside must not be given on as it is."""
    for graph in model.graph.subgraphs():
        for position, value in enumerate(tuple(graph.outputs)):
            producer = value.producer()
            if producer is None or producer.graph is not graph:
                node = ir.node("Identity", [value])
                node.outputs[0].name = f"{value.name}.given"
                node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
                graph.append(node)
                graph.outputs[position] = node.outputs[0]


def _convert(model: ir.Model) -> None:
    """Bring a model to the opset of today, where that can be done."""
    passes.InlinePass()(model)
    _lift_constants(model)
    if model.opset_imports.get("", OPSET) < OPSET:
        version_converter.ConvertVersionPass(OPSET, fallback=True)(model)
        forget_sizes(model)  # what converters note of tensors inside hides what can be found out


def _fold(model: ir.Model) -> None:
    fold_constants_ir(
        model,
        onnx_shape_inference=True,
        input_size_limit=2**40,
        output_size_limit=_LARGEST_FOLDED,
        should_fold=_should_fold,
    )
    _lift_constants(model)


def _lift_constants(model: ir.Model) -> None:
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)


def _should_fold(node: ir.Node) -> bool:
    """Return whether an operation on constants is computed now."""
    sizes = [
        value.shape.numpy() for value in node.outputs if value.shape is not None and value.shape.is_static()
    ]
    return node.op_type not in _KEPT and max(map(math.prod, sizes), default=0) <= _LARGEST_COMPUTED


def _forget_types(model: ir.Model) -> None:
    """Drop what is said of tensors inside: runtimes infer it, but for what custom operations give."""
    given = set(model.graph.outputs)
    for node in model.graph:
        if node.domain in ONNX_DOMAINS:
            for value in node.outputs:
                if value not in given:
                    value.shape = value.type = None


def _say_defaults(model: ir.Model) -> None:
    """State that means keep their dimension, which patterns of normalisation ask for."""
    for node in model.graph:
        if node.op_type == "ReduceMean" and node.domain == "" and "keepdims" not in node.attributes:
            node.attributes["keepdims"] = ir.AttrInt64("keepdims", 1)


def _name_sums(model: ir.Model) -> None:
    """Call sums of one or two tensors, as our own files have them behind pools and before norms, as usual."""
    for node in model.graph.all_nodes():
        if node.op_type == "Sum" and not node.domain and len(node.inputs) in SUMS:
            node.op_type = SUMS[len(node.inputs)]


def _size(model: ir.Model) -> tuple[int, int]:
    return len(model.graph), len(model.graph.initializers)


class _Names:
    """What nodes were called before rewriting, by what they multiply with and by what they give."""

    def __init__(self, model: ir.Model) -> None:
        nodes = [node for node in model.graph if node.name]
        self._known = {node.name for node in nodes}
        self._by_weight = {_weight_name(node): node.name for node in nodes}
        self._by_output = {value.name: node.name for node in nodes for value in node.outputs}

    def restore(self, model: ir.Model) -> None:
        """Call nodes that rewriting made as people know them."""
        for node in model.graph:
            if node.name not in self._known:
                weight = _weight_name(node)
                known = self._by_weight.get(weight) if weight else None
                node.name = known or self._by_output.get(node.outputs[0].name) or node.name


def _weight_name(node: ir.Node) -> str:
    value = node.inputs[1] if len(node.inputs) > 1 else None
    return str(value.name) if value is not None and value.is_initializer() else ""


def _name_nodes(model: ir.Model) -> None:
    """Call nodes without a name, or with that of another, after their operation and place."""
    taken: set[str] = set()
    for number, node in enumerate(model.graph.all_nodes()):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{number}"
        taken.add(node.name)
