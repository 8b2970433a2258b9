"""`nas tune`: from words to a tune, and its front as a table."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hw_profiles.errors import TrilobitError
from nas.cli.given import given_options
from nas.run.reporting import Reporter, Table
from nas.run.tuned_document import (
    LATENCY,
    MetricValue,
    Reference,
    TunedFront,
    TunedNetwork,
    TunedObjective,
    cost_of,
    shown_costs,
)
from nas.search.objectives import Objective
from nas.search.units import UNITS, show

RUNS = Path("runs")
LONGEST = 150  # letters of a reason
EXPORTED = frozenset(
    {"export.pick", "export.count", "export.sign"}
)  # options that a tuned model's files have


def tune(arguments: argparse.Namespace, reporter: Reporter) -> dict[str, Any]:
    """Tune a model, and print its front."""
    from nas.tune.pipeline import introduce, run_tune
    from nas.tune.session import NoDataError, tune_session

    folder = folder_of(arguments)
    options = given_options(arguments)
    if arguments.model is not None:
        options["model.source"] = str(arguments.model)
    how: dict[str, Any] = {"file": arguments.config, "reset": arguments.reset, "line": arguments.line}
    try:
        with tune_session(folder, options, reporter=reporter, **how) as context:
            introduce(context.tuning, reporter)
            run_tune(context, reporter)
            return print_front(context.tuning.front_path, reporter)
    except NoDataError:
        if arguments.model is not None:
            _show_needs(arguments.model, options, reporter)
        raise


def _show_needs(path: Path, options: Mapping[str, Any], reporter: Reporter) -> None:
    """Say what a model is, what would be tried and what that needs."""
    from nas.inspection.inspect import inspect_model
    from nas.inspection.page import show_inspection
    from nas.run.config import DeviceSection
    from nas.run.tune_config import ModelSection

    said = ModelSection(shape=tuple(options.get("model.shape", ())), fix=tuple(options.get("model.fix", ())))
    device = options.get("device.name", DeviceSection().name)
    show_inspection(inspect_model(path, said.shapes, device=device, fixed=said.fixed), reporter)


def folder_of(arguments: argparse.Namespace) -> Path:
    """Return the run folder: that of the model's name where nothing is said."""
    if arguments.output is not None:
        return Path(arguments.output)
    return RUNS / (arguments.model.stem if arguments.model is not None else "default")


def export_tuned(arguments: argparse.Namespace, reporter: Reporter) -> dict[str, Any]:
    """Export files of a front that was tuned before.

    Raises:
        TrilobitError: an option that only networks of a search have.
    """
    from nas.tune.export_stage import run_export
    from nas.tune.session import tune_session

    options = given_options(arguments)
    if others := sorted(options.keys() - EXPORTED):
        section, _, key = others[0].partition(".")
        raise TrilobitError(
            f"{key or section}: {arguments.output} holds a tuned model, of which `nas export` takes --pick, "
            "--count and --sign; all else is said to `nas tune`"
        )
    picks, key_file = options.get("export.pick", ()), options.get("export.sign")
    with tune_session(arguments.output, {}, line=arguments.line, reporter=reporter) as context:
        count = int(options.get("export.count", context.tuning.config.tune.count))
        paths = run_export(
            context, reporter, picks=picks, count=count, key=Path(key_file) if key_file else None
        )
    return {"stage": "export", "folder": str(arguments.output), "manifests": [str(path) for path in paths]}


def print_front(path: Path, reporter: Reporter) -> dict[str, Any]:
    """Print the files of a front and what they are compared with, and return them as data."""
    from hw_profiles.documents import read_document

    front = read_document(path, TunedFront)
    reporter.show(front_table(front))
    for line in _footnotes(front):
        reporter.say(line)
    reporter.say(f"files: {path.parent / 'export'}    report: {path.parent / 'report.html'}")
    return {
        "folder": str(path.parent),
        "front": [_row(front, network) for network in front.candidates],
        "references": [
            {"name": r.name, "error": r.error} if r.error else _row(front, r)
            for r in (front.original, *front.references)
        ],
    }


def front_table(front: TunedFront) -> Table:
    """Return the front as a table, the references below it."""
    shown = [m for m in front.metrics if m.name in (front.metric.name, "agreement", "accuracy")]
    costs = shown_costs(front)
    columns = ("file", *(m.name for m in shown), *_headings(costs), "low-bit")
    rows = [
        (n.id, *_cells(shown, costs, n), f"{len(n.policy)} of {len(front.units)}") for n in front.candidates
    ]
    rows += [
        (r.name, *_cells(shown, costs, r), "")
        if not r.error
        else (r.name, *[""] * (len(columns) - 2), "fails")
        for r in (front.original, *front.references)
    ]
    return Table(columns, rows, numbers=len(columns) - 1)


def _headings(costs: Sequence[TunedObjective]) -> list[str]:
    """Return the columns of costs; beside a time how it compares with the original's."""
    pairs = ([cost.name, "speed"] if cost.name == LATENCY else [cost.name] for cost in costs)
    return [heading for pair in pairs for heading in pair]


def _cells(shown: Any, costs: Sequence[TunedObjective], entry: TunedNetwork | Reference) -> list[str]:
    cells = [_figure(metric, _metrics(entry).get(metric.name)) for metric in shown]
    for cost in costs:
        value, latency = cost_of(entry, cost.name), entry.latency
        cells.append("-" if value is None else UNITS[cost.unit].text(value))
        if cost.name == LATENCY:
            cells.append(f"{1 / latency.ratio:.2f} x" if latency and latency.ratio else "-")
    return cells


def _metrics(entry: TunedNetwork | Reference) -> dict[str, MetricValue]:
    part = entry.judging or entry.choosing
    return dict(part.metrics) if part else {}


def _figure(metric: Any, figure: MetricValue | None) -> str:
    if figure is None:
        return "-"
    if metric.unit == "fraction":
        return show(Objective(metric.name, metric.unit, metric.direction), figure.value)
    return f"{figure.value:.3g}"


def _row(front: TunedFront, entry: TunedNetwork | Reference) -> dict[str, Any]:
    latency = entry.latency
    return {
        "id" if isinstance(entry, TunedNetwork) else "name": getattr(entry, "id", None)
        or getattr(entry, "name", ""),
        "latency_s": latency.median_s if latency else None,
        "latency_iqr_s": latency.iqr_s if latency else None,
        "ratio": latency.ratio if latency else None,
        "size_bytes": entry.size_bytes,
        **{f"{name}_bytes": value for name, value in entry.memory.items()},
        "metrics": {name: figure.value for name, figure in _metrics(entry).items()},
        "standard_errors": {name: figure.std for name, figure in _metrics(entry).items()},
    }


def _footnotes(front: TunedFront) -> list[str]:
    judged = front.original.judging
    count = f"on {judged.samples:,} examples that nothing saw before" if judged else ""
    load = front.original.latency.load if front.original.latency else None
    busy = "" if load is None else f", load {load:.1f}"
    return [
        *(
            f"{r.name} fails: {r.error.strip().partition(chr(10))[0][:LONGEST]}"
            for r in front.references
            if r.error
        ),
        f"{', '.join(m.name for m in front.metrics[:3])}: against the original, {count}",
        *(
            f"latency: medians, all files in the same turns on {front.instruction_set}{busy}; "
            "speed: the original's time over the file's, pass by pass"
            for _ in filter(None, [front.original.latency])
        ),
        *(
            "arena, flash: counted by TensorFlow Lite Micro on a machine of 64 bits"
            for _ in filter(None, [front.original.memory])
        ),
    ]
