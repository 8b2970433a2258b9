"""Names of nodes after the modules that they come from, where torch's exporter notes those beside nodes."""

import re

import onnx_ir as ir

NOTE = "pkg.torch.onnx.name_scopes"  # a list of modules as Python writes it, the outermost first
NOWHERE = "_empty_nn_module_stack_from_metadata_hook"  # what torch notes of operations outside of modules
_QUOTED = re.compile(r"'([^']*)'")


def name_by_scope(model: ir.Model) -> None:
    """Call nodes `encoder.layer.0.query/MatMul` in place of `node_MatMul_84`, where that is known."""
    counts: dict[str, int] = {}
    taken = {node.name for node in model.graph}
    for node in model.graph:
        module = _module_of(node)
        if module:
            name = _numbered(f"{module}/{node.op_type}", counts)
            if name not in taken:
                node.name = name


def _module_of(node: ir.Node) -> str:
    """Return the module that called for an operation; the last entry is the call itself."""
    scopes = _QUOTED.findall(node.metadata_props.get(NOTE, ""))
    module = str(scopes[-2]) if len(scopes) > 1 else ""
    return "" if module == NOWHERE else module


def _numbered(name: str, counts: dict[str, int]) -> str:
    """Return a name, from the second time on with a number."""
    count = counts.get(name, 0)
    counts[name] = count + 1
    return f"{name}_{count}" if count else name
