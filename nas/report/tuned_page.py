"""One HTML page about a tuned model, made from the files of its folder alone."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hw_profiles.documents import read_document
from hw_profiles.files import read_json
from hw_profiles.graph.formats import FP32
from nas.export.manifests import read_any
from nas.export.seal import MANIFEST, MODEL_FILE
from nas.export.tuned_selection import compromise
from nas.export.written import written_networks
from nas.report import units
from nas.report.plots import Plot
from nas.report.template import rendered
from nas.report.tuned_drawing import refused_rows, strip, unit_rows
from nas.report.tuned_figures import prediction_plot, quality_plot
from nas.report.tuned_words import SPACE, figure_text, heading, known_metrics, short_name
from nas.run.documents import Environment, Timings, read_optional
from nas.run.paths import QUANTIZATION, FolderPaths
from nas.run.tuned_document import (
    LATENCY,
    PartQuality,
    Reference,
    TunedFront,
    TunedNetwork,
    cost_of,
    shown_costs,
)
from supernet.ptq.quantization import Compensation
from supernet.ptq.quantization_file import read_compensations

FELT = ("agreement", "flips", "calibration", "worst_class", "accuracy", "steps")  # what a user notices

Row = Mapping[str, str]


@dataclass(frozen=True)
class TunedFolder:
    """Everything the page is made of. A document is None where its stage has not run.

    Attributes:
        folder: of the tune.
        front: what was measured.
        env, timings: how it was run, and how long that took.
        exported: paths of files by id, relative to the folder.
        compensations: what each technique of quantization did.
    """

    folder: Path
    front: TunedFront
    env: Environment | None
    timings: Timings | None
    exported: Mapping[str, str]
    compensations: tuple[Compensation, ...]


def is_tuned(folder: Path) -> bool:
    """Return whether a folder holds the front of a tuned model."""
    path = FolderPaths(folder).front_path
    return path.is_file() and read_json(path, "front/1", TunedFront.SCHEMA)["schema"] == TunedFront.SCHEMA


def read_tuned(folder: Path) -> TunedFolder:
    """Read all there is in the folder of a tune.

    Raises:
        TrilobitError: there is no front yet, or a file is broken or of another schema.
    """
    paths, exported = FolderPaths(folder), {}
    for path in written_networks(paths.export_path, MANIFEST):
        exported[read_any(path).id] = (path / MODEL_FILE).relative_to(folder).as_posix()
    return TunedFolder(
        folder=folder,
        front=read_document(paths.front_path, TunedFront),
        env=read_optional(folder / "env.json", Environment),
        timings=read_optional(folder / "timings.json", Timings),
        exported=exported,
        compensations=read_compensations(folder / QUANTIZATION),
    )


def render_tuned(tuned: TunedFolder) -> str:
    """Return the whole page as HTML, plotly.js included."""
    front = tuned.front
    drawn, main = _drawn(front), compromise(front)
    plots, references = _plots(front), (front.original, *front.references)
    scales = _scales([*front.candidates, *references])
    return rendered(
        "tuned.html.j2",
        tuned=tuned,
        front=front,
        model=Path(front.model.source).name or "the model",
        headline=_headline(front, main),
        facts=_facts(tuned),
        plots=plots,
        figures={plot.id: plot.figure for plot in plots.values()},
        metrics=known_metrics(front),
        costs=[cost.name for cost in shown_costs(front)],
        traded=[cost.name for cost in front.costs],
        files=[_file_row(tuned, network, scales) for network in front.candidates],
        references=[_reference_row(front, reference, scales) for reference in references],
        felt=[metric for metric in front.metrics if metric.name in FELT],
        strips=[strip(front, network, role) for role, network in drawn],
        formats=_formats(drawn),
        main=main.id,
        short_name=short_name,
        heading=heading,
        units=[(role, network.id, unit_rows(front, network)) for role, network in drawn],
        refused=refused_rows(front),
        techniques=_techniques(tuned.compensations),
        timings=_timings(tuned),
        versions=", ".join(
            f"{name} {version}" for name, version in (tuned.env.versions.items() if tuned.env else ())
        ),
    )


def _plots(front: TunedFront) -> dict[str, Plot]:
    """Return every plot that the figures allow, by id."""
    made = [*(quality_plot(front, metric) for metric in known_metrics(front)), prediction_plot(front)]
    return {plot.id: plot for plot in made if plot is not None}


# -- words -----------------------------------------------------------------------------------------


def _headline(front: TunedFront, main: TunedNetwork) -> list[str]:
    """Return which file to take first, and what the alternatives are, a sentence each."""
    changed = [network for network in front.candidates if not _is_original(front, network)]
    if not changed:
        return ["Nothing measured is faster than the original and as good: it is best left as it is."]
    part = main.judging or main.choosing
    unseen = f"on {part.samples:,} examples that nothing saw before"
    shown = changed[0] if _is_original(front, main) else main
    size = f"{100 * shown.size_bytes / front.model.size_bytes:.0f}{SPACE}% of its size"
    figures = f"{_speed(shown)}{size}, {_quality(front, shown)} {unseen}."
    if shown is not main:
        return [
            "The best compromise is the model as it was given.",
            f"The {'fastest' if shown.latency else 'first'} of the other files, {shown.id}: {figures}",
        ]
    *others, last = (cost.name for cost in front.costs)
    costs = f"{', '.join(['answers', *others])} and {last}"
    sentences = [f"Recommended: {main.id}, the best compromise of {costs}: {figures}"]
    best = _best(front, changed)
    if best is not main:
        sentences.append(f"The best answers, {best.id}: {_briefly(front, best)}, {_quality(front, best)}.")
    references = [reference for reference in front.references if reference.latency]
    if references:
        rival = min(references, key=lambda each: each.latency.ratio if each.latency else 1.0)
        sentences.append(
            f"The fastest of what it is compared with, {rival.title}: {_briefly(front, rival)}, "
            f"{_quality(front, rival)}."
        )
    return sentences


def _is_original(front: TunedFront, network: TunedNetwork) -> bool:
    """Return whether a file is the original, not what is left of it in fp32 once it is prepared."""
    return not network.policy and network.size_bytes == front.model.size_bytes


def _speed(entry: TunedNetwork | Reference) -> str:
    return f"{1 / entry.latency.ratio:.2f} times as fast as the original, " if entry.latency else ""


def _briefly(front: TunedFront, entry: TunedNetwork | Reference) -> str:
    """Return how fast a file is, or what it takes of the first cost."""
    if entry.latency:
        return f"{1 / entry.latency.ratio:.2f} times"
    cost = front.costs[0].name
    value = cost_of(entry, cost)
    return "not timed" if value is None else f"{cost} {units.text(cost, value)}"


def _quality(front: TunedFront, entry: TunedNetwork | Reference) -> str:
    """Return the metrics that everybody knows, with their units."""
    part = entry.judging or entry.choosing
    units_of = {metric.name: "%" if metric.unit == "fraction" else metric.unit for metric in front.metrics}
    figures = {metric.name: _figure(front, part, metric.name) for metric in known_metrics(front)}
    return ", ".join(
        f"{name} {figure}{SPACE}{units_of[name]}".rstrip() for name, figure in figures.items() if figure
    )


def _facts(tuned: TunedFolder) -> list[tuple[str, str]]:
    front = tuned.front
    choices = [unit for unit in front.units if len(unit.options) > 1]
    load = front.original.latency.load if front.original.latency else None
    tau = front.quality_tau
    facts = {
        "Model": Path(front.model.source).name,
        "Size": units.text("size", front.model.size_bytes),
        "Units": f"{len(front.units)}, {len(choices)} of which could change",
        "Open sizes": ", ".join(f"{name} = {size}" for name, size in front.model.bound.items()),
        "Fixed inputs": ", ".join(f"{name} = {value}" for name, value in front.model.fixed.items()),
        "Device": front.device,
        "Instructions": front.instruction_set,
        "Load meanwhile": "" if load is None else f"{load:.1f}",
        "Policies evaluated": f"{front.evaluations:,}",
        "Quality predicted": "" if tau is None else f"rank correlation {tau:.2f} on unseen policies",
        "Seed": str(tuned.env.seed) if tuned.env else "",
        "Date": tuned.env.date[:16].replace("T", " ") if tuned.env else "",
    }
    return [(label, value) for label, value in facts.items() if value]


def _timings(tuned: TunedFolder) -> list[tuple[str, str]]:
    stages = tuned.timings.stages if tuned.timings else {}
    return [(stage, units.duration(seconds)) for stage, seconds in stages.items()]


# -- tables ----------------------------------------------------------------------------------------


def _scales(entries: Sequence[TunedNetwork | Reference]) -> Mapping[str, units.Scale]:
    """Return the units of a table's columns."""
    values = {
        name: [value for entry in entries if (value := cost_of(entry, name)) is not None]
        for name in (LATENCY, "size", "arena", "flash")
    }
    return {name: units.column_scale(name, known) for name, known in values.items()}


def _file_row(tuned: TunedFolder, network: TunedNetwork, scales: Mapping[str, units.Scale]) -> Row:
    front = tuned.front
    return {
        **_figures(front, network, scales),
        "name": network.id,
        "path": tuned.exported.get(network.id, ""),
        "formats": f"{len(network.policy)} of {len(front.units)}",
        "error": "",
    }


def _reference_row(front: TunedFront, reference: Reference, scales: Mapping[str, units.Scale]) -> Row:
    return {**_figures(front, reference, scales), "name": reference.title, "error": reference.error}


def _figures(
    front: TunedFront, entry: TunedNetwork | Reference, scales: Mapping[str, units.Scale]
) -> dict[str, str]:
    part, latency, size = entry.judging, entry.latency, entry.size_bytes
    cells = {metric.name: _figure(front, part, metric.name) for metric in front.metrics}
    return {
        **{f"metric {name}": text for name, text in cells.items()},
        "latency": "" if latency is None else scales["latency"].text(latency.median_s),
        "iqr": "" if latency is None else scales["latency"].text(latency.iqr_s),
        "speed": "" if latency is None else f"{1 / latency.ratio:.2f} {units.TIMES}",
        "size": "" if size is None else scales["size"].text(size),
        **{name: scales[name].text(value) for name, value in entry.memory.items() if name in scales},
    }


def _figure(front: TunedFront, part: PartQuality | None, name: str) -> str:
    """Return a metric with its standard error, without its unit; empty where it is not known."""
    metric = next(metric for metric in front.metrics if metric.name == name)
    return "" if part is None or name not in part.metrics else figure_text(metric, part.metrics[name])


def _techniques(compensations: Sequence[Compensation]) -> list[Row]:
    """Return what each technique did over all units: how often it was used, the error before and after."""
    rows = list[Row]()
    for technique in dict.fromkeys(c.technique for c in compensations):
        used = [c for c in compensations if c.technique == technique]
        before, after = (statistics.median(getattr(c, end) for c in used) for end in ("before", "after"))
        best = max(used, key=lambda c: c.before - c.after)
        ratios = [c.after / c.before for c in used if c.before > 0]
        rows.append(
            {
                "technique": technique,
                "count": f"{len(used):,}",
                "before": f"{before:.2e}",
                "after": f"{after:.2e}",
                "ratio": f"{statistics.median(ratios):.2f} {units.TIMES}" if ratios else "",
                "best": f"{short_name(best.where)}: {best.before:.1e} to {best.after:.1e}",
            }
        )
    return rows


# -- drawings --------------------------------------------------------------------------------------


def _drawn(front: TunedFront) -> list[tuple[str, TunedNetwork]]:
    """Return the fastest file, the best compromise and the best one, each once; the original is drawn only
    where there is nothing else.
    """
    timed = front.costs[0].name == LATENCY
    whole = [network for network in front.candidates if network.latency or not timed]
    changed = [network for network in whole if not _is_original(front, network)]
    if not changed:
        return [("on the front", front.candidates[0])]
    first = "fastest" if timed else f"least {front.costs[0].name}"
    roles = {changed[0].id: [first]}  # they are in this order
    middle = compromise(front)
    if not _is_original(front, middle):
        roles.setdefault(middle.id, []).append("best compromise")
    roles.setdefault(_best(front, changed).id, []).append(f"best {front.metric.name}")
    return [(", ".join(roles[network.id]), network) for network in changed if network.id in roles]


def _best(front: TunedFront, networks: Sequence[TunedNetwork]) -> TunedNetwork:
    """Return the network with the best value of the main metric."""
    sign = -1.0 if front.metric.direction == "max" else 1.0
    parts = [network.judging or network.choosing for network in networks]
    return networks[int(np.argmin([sign * part.metrics[front.metric.name].value for part in parts]))]


def _formats(drawn: Sequence[tuple[str, TunedNetwork]]) -> list[str]:
    """Return the number formats that are drawn."""
    used = sorted({number_format for _, network in drawn for number_format in network.policy.values()})
    return [FP32, *used]
