"""Which tensors have one scale, because an operation between them only moves values or chooses among them."""

from collections.abc import Iterable, Mapping

from supernet.imported.following import keeps_scale, operands
from supernet.imported.model import ImportedModel


def shared_scales(model: ImportedModel, tensors: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Return the tensors in groups of one scale each, in the order in which they arise."""
    known = set(tensors)
    representative = {name: name for name in known}
    for unit in filter(keeps_scale, model.units):
        first, *others = [name for name in (*operands(unit), *unit.outputs) if name in known] or [""]
        for other in others:
            representative[_root(representative, other)] = _root(representative, first)
    groups: dict[str, list[str]] = {}
    for name in (*model.inputs, *(name for unit in model.units for name in unit.outputs)):
        if name in known:
            groups.setdefault(_root(representative, name), []).append(name)
    return tuple(map(tuple, groups.values()))


def _root(representative: Mapping[str, str], name: str) -> str:
    while representative[name] != name:
        name = representative[name]
    return name
