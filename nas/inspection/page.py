"""An inspection for people: one page, or a line for every unit."""

from collections import Counter
from collections.abc import Iterator, Mapping

from hw_profiles.graph.formats import FP32
from hw_profiles.runtimes.plugin import HOST
from nas.checks.model_task import TensorFacts
from nas.inspection.inspection import FOLLOWS, InspectedUnit, Inspection
from nas.run.progress import duration
from nas.run.reporting import Reporter, Table
from nas.search.units import UNITS
from supernet.imported.fixed_value import fixed_text

LONGEST = 30  # letters of a size that is shown: some exporters name it after what computes it


def show_inspection(inspection: Inspection, reporter: Reporter, *, every_unit: bool = False) -> None:
    """Print what a model is; with a line for every unit where asked for."""
    reporter.say(f"{inspection.model}: {_origin(inspection)}")
    reporter.show(Table(("", "name", "shape", "type"), [*_tensors(inspection)]))
    reporter.say(f"operations: {_counted(inspection.operations)}")
    if inspection.units:
        _show_units(inspection, reporter, every_unit)
        _show_time(inspection, reporter)
    for note in inspection.notes:
        reporter.say(f"note: {note}")
    for need in inspection.needs:
        reporter.say(f"needs: {need}")
    if any(len(unit.formats) > 1 for unit in inspection.units):
        reporter.say(f"then: {_next(inspection)}")


def _next(inspection: Inspection) -> str:
    """Return the command that tunes the model, with data as it may be called."""
    given = [f"--fix {fixed_text(name, value)}" for name, value in inspection.fixed.items()]
    device = [] if inspection.device == HOST else [f"--device {inspection.device}"]
    images = any("a folder or archive of images" in need for need in inspection.needs)
    data = "photos/" if images else "examples.npz"
    return " ".join(["nas tune", inspection.model, "--data", data, *given, *device])


def _origin(inspection: Inspection) -> str:
    size = UNITS["bytes"].text(inspection.size_bytes)
    by = f" by {inspection.producer}" if inspection.producer else ""
    counts = (
        f", {UNITS['MACs'].text(inspection.parameters)} parameters, "
        f"{UNITS['MACs'].text(inspection.macs)} multiply-adds"
        if inspection.units
        else ""
    )
    return f"opset {inspection.opset}{by}, {size}{counts}"


def _tensors(inspection: Inspection) -> Iterator[tuple[str, str, str, str]]:
    yield from (_tensor("reads", tensor) for tensor in inspection.inputs)
    yield from (_tensor("gives", tensor) for tensor in inspection.outputs)


def _tensor(what: str, tensor: TensorFacts) -> tuple[str, str, str, str]:
    dims = (dim if 0 < len(dim) <= LONGEST else "?" for dim in tensor.shape)
    return what, tensor.name, " x ".join(dims) or "a number", tensor.dtype


def _counted(operations: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {op}" for op, count in operations.items())


def _show_units(inspection: Inspection, reporter: Reporter, every_unit: bool) -> None:
    reporter.say(f"prepared, {len(inspection.units)} units: {_counted(inspection.prepared)}")
    reporter.show(_unit_table(inspection) if every_unit else _group_table(inspection))
    for line in _refusals(inspection.units):
        reporter.say(line)


def _group_table(inspection: Inspection) -> Table:
    """Return a row for each kind of unit that multiplies, the most work first; what only follows, and what
    stays, take one row each.
    """
    groups: dict[tuple[str, str], list[InspectedUnit]] = {}
    others: dict[str, list[InspectedUnit]] = {}
    for unit in inspection.units:
        if unit.macs or len(unit.formats) > 1:
            groups.setdefault((unit.kind, _formats(unit)), []).append(unit)
        else:
            others.setdefault(_formats(unit), []).append(unit)
    rows = [
        (kind, str(len(units)), _share(units, inspection.macs), formats)
        for (kind, formats), units in sorted(groups.items(), key=lambda group: -_macs(group[1]))
    ]
    rows += [("others", str(len(units)), "-", formats) for formats, units in others.items()]
    return Table(("units", "number", "multiply-adds", f"formats on {inspection.device}"), rows)


def _unit_table(inspection: Inspection) -> Table:
    rows = [
        (
            unit.name,
            unit.kind,
            "x".join(map(str, unit.shape)),
            UNITS["MACs"].text(unit.macs),
            _formats(unit),
        )
        for unit in inspection.units
    ]
    columns = ("unit", "kind", "gives", "multiply-adds", f"formats on {inspection.device}")
    return Table(columns, rows)


def _formats(unit: InspectedUnit) -> str:
    return f"{FP32}, or as its {FOLLOWS}" if unit.follows else " ".join(unit.formats)


def _macs(units: list[InspectedUnit]) -> int:
    return sum(unit.macs for unit in units)


def _share(units: list[InspectedUnit], total: int) -> str:
    return f"{_macs(units) / total:.1%}" if _macs(units) else "-"


def _refusals(units: tuple[InspectedUnit, ...]) -> Iterator[str]:
    """Yield a line for each reason for which units cannot take formats, with how many of which kind."""
    reasons: dict[str, list[tuple[InspectedUnit, str]]] = {}
    for unit in units:
        for name, reason in unit.refused.items():
            same = reason if unit.macs else reason.replace(f" {unit.kind} on ", " it on ")
            reasons.setdefault(same, []).append((unit, name))
    for reason, refused in reasons.items():
        formats = dict.fromkeys(name for _, name in refused)
        kinds = Counter(unit.kind for unit in {unit.name: unit for unit, _ in refused}.values())
        yield f"no {', '.join(formats)} for {_counted(kinds)}: {reason}"


def _show_time(inspection: Inspection, reporter: Reporter) -> None:
    if inspection.latency_s is not None:
        latency = UNITS["s"].text(inspection.latency_s)
        reporter.say(f"one inference takes about {latency} in fp32 on {inspection.device}, prepared")
    if inspection.tune_s:
        stages = ", ".join(f"{stage} {duration(s)}" for stage, s in inspection.tune_s.items() if s >= 1)
        reporter.say(f"a tune takes about {duration(sum(inspection.tune_s.values()))}: {stages}")
