"""A tuned network as a strip of cells, one for each unit in the order in which they run, and why each unit is
in the format that it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hw_profiles.graph.formats import FP32
from nas.report import units
from nas.report.tuned_words import alone_text, error_text, known_metrics, metric_text
from nas.run.tuned_document import LATENCY, TunedFront, TunedNetwork, TunedUnit, UnitShare, cost_of

_SIGNS: Mapping[str, str] = {
    "Conv": "C",
    "Gemm": "M",
    "MatMul": "M",
    "Add": "+",
    "Mul": units.TIMES,
    "Concat": "|",
}
FOLLOWS = "it multiplies nothing stored: it follows its neighbours"
NOTICED = 1e-3  # of the original's time: less is no difference
LABELLED = 90  # units of a network that has room for signs


@dataclass(frozen=True)
class Cell:
    """One unit.

    Attributes:
        kind: `choice` where the search chose, `plain` where it could not.
        number_format: that it has.
        sign: what it does, in a letter; empty where there is no room.
        title: what the pointer shows.
    """

    kind: str
    number_format: str
    sign: str
    title: str


@dataclass(frozen=True)
class Strip:
    """One network.

    Attributes:
        id: of it.
        role: why it is drawn.
        summary: its figures in one line.
        cells: of its units.
    """

    id: str
    role: str
    summary: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class UnitRow:
    """One unit of one network in words.

    Attributes:
        number: place among all units, from 1.
        name, op: of the unit.
        number_format: that it has.
        saved: time that it saves, or of what else is traded off first, modelled; empty in fp32.
        cost: by how much more the answers differ, predicted; empty in fp32.
        why: what speaks for or against it.
    """

    number: int
    name: str
    op: str
    number_format: str
    saved: str
    cost: str
    why: str


def strip(front: TunedFront, network: TunedNetwork, role: str) -> Strip:
    """Return a network drawn."""
    labelled = len(front.units) <= LABELLED
    cells = tuple(
        _cell(front, network, number, unit, labelled=labelled) for number, unit in enumerate(front.units, 1)
    )
    return Strip(network.id, role, summary(front, network), cells)


def summary(front: TunedFront, network: TunedNetwork) -> str:
    """Return formats, speed and the best known metrics of a network in one line."""
    counts: dict[str, int] = {}
    for number_format in network.policy.values():
        counts[number_format] = counts.get(number_format, 0) + 1
    formats = ", ".join(f"{count} in {name}" for name, count in sorted(counts.items())) or "all in fp32"
    parts = [f"{formats} of {len(front.units)} units"]
    parts += [
        f"{cost.name} {units.text(cost.name, value)}"
        for cost in front.costs
        if cost.name in network.memory and (value := cost_of(network, cost.name)) is not None
    ]
    if network.latency:
        parts.append(f"{1 / network.latency.ratio:.2f} {units.TIMES} as fast as the original")
    judged = network.judging or network.choosing
    for metric in known_metrics(front):
        if metric.name in judged.metrics:
            parts.append(f"{metric.name} {metric_text(metric, judged.metrics[metric.name].value)}")
    return " · ".join(parts)


def _cell(front: TunedFront, network: TunedNetwork, number: int, unit: TunedUnit, *, labelled: bool) -> Cell:
    row = _unit_row(front, network, number, unit)
    figures = f", saves {row.saved}, costs {row.cost}" if row.saved else ""
    title = f"{number}: {unit.name} ({unit.op}): {row.number_format}{figures}. {row.why}"
    kind = "choice" if len(unit.options) > 1 else "plain"
    sign = _SIGNS.get(unit.op, unit.op[:1]) if labelled else ""
    return Cell(kind, row.number_format, sign, title)


def unit_rows(front: TunedFront, network: TunedNetwork) -> list[UnitRow]:
    """Return every unit of a network that had a choice, in the order in which they run."""
    return [
        _unit_row(front, network, number, unit)
        for number, unit in enumerate(front.units, 1)
        if len(unit.options) > 1
    ]


def _unit_row(front: TunedFront, network: TunedNetwork, number: int, unit: TunedUnit) -> UnitRow:
    """Return one unit of a network in words."""
    number_format = network.policy.get(unit.name, FP32)
    share = network.units.get(unit.name)
    scale = units.scale_for(front.costs[0].name, [abs(share.saved)] if share else ())
    return UnitRow(
        number,
        unit.name,
        unit.op,
        number_format,
        "" if share is None else scale.text(share.saved) if _noticed(front, share) else "0",
        error_text(front.predicted_metric, share.cost) if share else "",
        _why(front, network, unit),
    )


def _why(front: TunedFront, network: TunedNetwork, unit: TunedUnit) -> str:
    """Return what speaks for or against the format of a unit."""
    if len(unit.options) < 2:
        reasons = list(dict.fromkeys(unit.refused.values()))
        return f"No choice: {'; '.join(reasons)}." if reasons else f"No choice: {FOLLOWS}."
    measured = alone_text(front.predicted_metric, unit.alone)
    if unit.name not in network.policy:
        return f"{_stayed(front, unit, network.left.get(unit.name))} {measured}".strip()
    share = network.units.get(unit.name)
    slower = share is not None and (share.saved <= 0 or not _noticed(front, share))
    smaller = (
        _less(front, "It makes the file smaller, not faster.", "It makes the file smaller.") if slower else ""
    )
    return f"{smaller} {measured}".strip()


def _noticed(front: TunedFront, share: UnitShare) -> bool:
    """Return whether what a format saves or costs is a difference at all."""
    whole = cost_of(front.original, front.costs[0].name) or 0.0
    return abs(share.saved) > NOTICED * whole


def _less(front: TunedFront, of_time: str, of_others: str) -> str:
    """Return words where time is what is traded off first, else others."""
    return of_time if front.costs[0].name == LATENCY else of_others


def _stayed(front: TunedFront, unit: TunedUnit, left: UnitShare | None) -> str:
    """Return why a unit stayed in fp32.

    Args:
        left: what another format would do; None where that is not known.
    """
    if left is None:
        others = [name for name in unit.options if name != FP32]
        return f"Could be {' or '.join(others)}, which is not worth its cost here."
    cost = front.costs[0].name
    spent = units.scale_for(cost, [abs(left.saved)]).text(abs(left.saved))
    nothing = _less(front, "No format would be faster here", f"No format would save {cost} here")
    if not _noticed(front, left):
        return f"{nothing}."
    if left.saved < 0:
        return f"{nothing}: {left.format} would cost {spent}, conversions included."
    return f"{left.format} would save {spent} more and cost {error_text(front.predicted_metric, left.cost)}."


def refused_rows(front: TunedFront) -> list[tuple[str, str, int]]:
    """Return why units had no choice: the reason, their operations, and how many they are."""
    by_reason: dict[str, list[str]] = {}
    for unit in front.units:
        if len(unit.options) < 2:
            reason = next(iter(unit.refused.values()), FOLLOWS)
            by_reason.setdefault(reason, []).append(unit.op)
    rows = [(reason, _operations(ops), len(ops)) for reason, ops in by_reason.items()]
    return sorted(rows, key=lambda row: -row[2])


def _operations(operations: Sequence[str]) -> str:
    return ", ".join(sorted(set(operations)))
