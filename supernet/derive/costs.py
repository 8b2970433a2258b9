"""What a traced network costs, as a sum of parts that few choices decide each."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any, Protocol, TypeVar

from hw_profiles.graph.conversions import converted
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.tensor_type import TensorType
from supernet.derive.trace import Guard, Shape, Trace, every
from supernet.space.varying import Varying, constant, lift

Layers = tuple[Layer, ...]


@dataclass(frozen=True)
class CostTerm:
    """One additive part of a network's cost, and the few choices that decide it.

    Attributes:
        columns: of the genome matrix, those that it depends on.
        layers: tables of layers whose costs add up, each on some of the columns; empty where absent.
    """

    columns: tuple[int, ...]
    layers: tuple[Varying[Layers], ...]

    def at(self, genes: Sequence[int]) -> Layers:
        """Return the layers of a network by all of its genes."""
        tables = (t.values[t.index[tuple(genes[column] for column in t.columns)]] for t in self.layers)
        return tuple(layer for layers in tables for layer in layers)


@dataclass(frozen=True)
class Reading:
    """One layer that reads a tensor.

    Attributes:
        position: of the layer in the trace.
        slot: which of its inputs it is.
        when: it is there, and the tensor is what it reads.
        wanted: the number format that it reads.
    """

    position: int
    slot: int
    when: Guard
    wanted: Any


def readings(trace: Trace) -> dict[int, list[Reading]]:
    """Return who reads the tensor of each layer, in order; that of the network's input is under `INPUT`."""
    read: dict[int, list[Reading]] = {}
    for position, layer in enumerate(trace.layers):
        for slot, x in enumerate(layer.inputs):
            target_format = lift(lambda spec, slot=slot: spec.inputs[slot].format, layer.spec)
            for producer, guard in x.producers:
                when = every(layer.there, guard)
                if when is not False:
                    read.setdefault(producer, []).append(Reading(position, slot, when, target_format))
    return read


def together(readers: Sequence[Reading]) -> list[list[Reading]]:
    """Return readers of one tensor in groups, of which no network has two of different groups."""
    groups: list[list[Reading]] = []
    for reader in readers:
        met = [g for g in groups if any(every(reader.when, other.when) is not False for other in g)]
        groups = [g for g in groups if all(g is not merged for merged in met)]
        groups.append([*(other for g in met for other in g), reader])
    return groups


def cost_terms(trace: Trace) -> tuple[CostTerm, ...]:
    """Return parts whose layers, over all of them, are exactly those of any one network."""
    parts = [
        lift(lambda present, spec: (spec,) if present else (), layer.there, layer.spec)
        for layer in trace.layers
    ]
    for producer, readers in readings(trace).items():
        shape, source_format = trace.shapes[producer], trace.formats[producer]
        parts += [_converted(shape, source_format, group) for group in together(readers)]
    return tuple(CostTerm(*group) for group in grouped([constant(part) for part in parts if part != ()]))


def _converted(shape: Any, source_format: Any, readers: Sequence[Reading]) -> Any:
    """Return the format conversions between a tensor and those who read it."""
    n = len(readers)

    def boundary(shape: Shape, source_format: str, *rest: Any) -> Layers:
        return _boundary(
            TensorType(shape, source_format),
            tuple(fmt for present, fmt in zip(rest[:n], rest[n:], strict=True) if present),
        )

    return lift(boundary, shape, source_format, *(r.when for r in readers), *(r.wanted for r in readers))


_boundary = cache(converted)


class Tabulated(Protocol):
    """A table on some columns."""

    @property
    def columns(self) -> tuple[int, ...]: ...

    @property
    def shape(self) -> tuple[int, ...]: ...


Part = TypeVar("Part", bound=Tabulated)


def grouped(tables: Sequence[Part]) -> list[tuple[tuple[int, ...], tuple[Part, ...]]]:
    """Return tables in groups whose columns together have no more combinations of options than the tables
    had: a search looks up one entry for each group.
    """
    sizes = {c: n for t in tables for c, n in zip(t.columns, t.shape, strict=True)}
    groups: list[tuple[frozenset[int], int, list[Part]]] = []
    for t in sorted(tables, key=lambda t: -prod(t.shape)):
        own = frozenset(t.columns)
        for i, (columns, entries, members) in enumerate(groups):
            joint = columns | own
            size = entries if joint == columns else prod(sizes[c] for c in joint)
            if size <= entries + prod(t.shape):
                groups[i] = (joint, size, [*members, t])
                break
        else:
            groups.append((own, prod(t.shape), [t]))
    return [(tuple(sorted(columns)), tuple(members)) for columns, _, members in groups]
