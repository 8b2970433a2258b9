"""Which tensors have one scale, because an operation between them only moves values or chooses among them."""

from collections.abc import Iterable, Mapping

from supernet.imported.model import ImportedModel, Unit

# ONNX's operations whose outputs are values that they read, and which of their inputs these are
MOVING: Mapping[str, slice] = dict.fromkeys(
    (
        "DepthToSpace",
        "Dropout",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "Identity",
        "MaxPool",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    ),
    slice(0, 1),
)


def shared_scales(model: ImportedModel, tensors: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Return the tensors in groups of one scale each, in the order in which they arise."""
    known = set(tensors)
    representative = {name: name for name in known}
    for unit in model.units:
        ends = [name for name in _ends(unit) if name in known]
        for other in ends[1:]:
            _join(representative, ends[0], other)
    groups: dict[str, list[str]] = {}
    for name in (*model.inputs, *(name for unit in model.units for name in unit.outputs)):
        if name in known:
            groups.setdefault(_root(representative, name), []).append(name)
    return tuple(map(tuple, groups.values()))


def _ends(unit: Unit) -> tuple[str, ...]:
    if unit.op not in MOVING or len(unit.nodes) > 1:
        return ()
    return (*unit.inputs[MOVING[unit.op]], *unit.outputs)


def _join(representative: dict[str, str], first: str, second: str) -> None:
    representative[_root(representative, second)] = _root(representative, first)


def _root(representative: Mapping[str, str], name: str) -> str:
    while representative[name] != name:
        name = representative[name]
    return name
