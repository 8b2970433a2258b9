"""Puts plots, drawings and tables into one HTML file that needs no network."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hw_profiles.files import write_atomic
from hw_profiles.profiles.latency_model import groups
from hw_profiles.profiles.trust import trust
from nas.evaluation.micro import ARENA, FLASH
from nas.export.picks import knee
from nas.report import units
from nas.report.device_figures import calibration_plot, speedup_plot
from nas.report.drawing import Block, blocks, format_shares, short_arch, summary, widest_of
from nas.report.front_figures import best_line, cost_of, front_plot, having, measured, minimised, predicted
from nas.report.plots import Plot
from nas.report.quality_figures import coverage_plot, learning_plot, quality_rows
from nas.report.run_files import Export, Network, Run, Value, read_run
from nas.report.search_figures import agreement_plot, hypervolume_plot, timings_plot
from nas.report.template import rendered
from nas.report.tuned_page import is_tuned, read_tuned, render_tuned
from nas.run.front_document import LATENCY
from nas.run.paths import FolderPaths
from nas.search.objectives import objective
from supernet.tasks.metric import (
    ACCURACY,
    AGREEMENT,
    CALIBRATION,
    FLIPS,
    KL,
    METRICS,
    PERPLEXITY,
    WORST_CLASS,
)

MAX_DRAWN = 4
MICRO = (ARENA, FLASH)

Row = Mapping[str, str]


@dataclass(frozen=True)
class Drawing:
    """One network stage by stage, with the words above it."""

    id: str
    role: str
    summary: str
    blocks: tuple[Block, ...]


def write_report(run: Path) -> Path:
    """Write `report.html` into the run folder and give its path.

    Raises:
        TrilobitError: not a run folder, or a file in it is broken or of another schema.
    """
    target = FolderPaths(run).report_path
    page = render_tuned(read_tuned(run)) if is_tuned(run) else render(read_run(run))
    write_atomic(target, page)
    return target


def render(run: Run) -> str:
    """Render the whole page as HTML, plotly.js included."""
    plots = _plots(run)
    drawings = _drawings(run)
    return rendered(
        "report.html.j2",
        run=run,
        target=_target(run),
        headline=_headline(run),
        caveat=_caveat(run),
        micro=[name for name in MICRO if any(name in export.micro for export in run.exports)],
        facts=_facts(run),
        plots=plots,
        figures={plot.id: plot.figure for plot in plots.values()},
        exports=_export_rows(run.exports),
        qualities=_quality_columns(run),
        test_images=run.exports[0].images if run.exports else 0,
        front_columns=_front_columns(run),
        front=_front_rows(run.candidates, _front_columns(run)),
        drawings=drawings,
        drawn_formats=_drawn_formats(drawings),
        agreements=[name for name in plots if name.startswith("agreement-")],
        quality=quality_rows(run),
        calibration=_calibration_rows(run),
        trust=str(trust(run.profile)) if run.profile and run.profile.device.figures == "measured" else "",
        versions=", ".join(
            f"{name} {version}" for name, version in (run.env.versions.items() if run.env else ())
        ),
    )


def _plots(run: Run) -> dict[str, Plot]:
    """Return every plot that the files allow, by id."""
    made = [hypervolume_plot(run), timings_plot(run), learning_plot(run), coverage_plot(run)]
    if run.candidates:
        made += [front_plot(run), agreement_plot(run, cost_of(run)), agreement_plot(run, run.metric)]
    if run.profile:
        made += [speedup_plot(run.profile), calibration_plot(run.profile)]
    return {plot.id: plot for plot in made if plot}


# -- words -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """What one network reaches, by the best evidence there is."""

    id: str
    metric: str
    quality: float
    cost: str
    spent: float

    @property
    def loss(self) -> float:
        """The metric so that less is better."""
        return minimised(self.metric, self.quality)

    def __str__(self) -> str:
        share = objective(self.metric).unit == "fraction"
        quality = (
            units.percent(self.quality) if share else f"{self.metric} {units.text(self.metric, self.quality)}"
        )
        spent = units.text(self.cost, self.spent)
        return f"{quality} in {spent}" if self.cost == LATENCY else f"{quality} with {self.cost} {spent}"


def _results(run: Run) -> list[Result]:
    """Return the exported networks, or where there are none the front's; without those that another beats."""
    cost = cost_of(run) if run.timeless else LATENCY
    if run.exports:
        everyone = [Result(e.id, e.metric, e.accuracy, cost, e.cost(cost)) for e in run.exports]
    else:
        front = having(run.candidates, measured, run.metric, cost)
        everyone = [
            Result(n.id, run.metric, n.measured[run.metric].value, cost, n.measured[cost].value)
            for n in front
        ]
    return [
        result
        for result in everyone
        if not any(e.loss <= result.loss and e.spent < result.spent for e in everyone)
    ]


def _headline(run: Run) -> str:
    """Return which network to take first: the knee, or the most accurate where none lies below the line
    between the ends; and what the alternative is.
    """
    results = _results(run)
    if not results:
        return "No network of this run has been measured yet."
    best, fastest = min(results, key=lambda r: r.loss), min(results, key=lambda r: r.spent)
    recommended = results[knee(np.array([(r.loss, r.spent) for r in results]))]
    if recommended not in (best, fastest):
        role, word, other = "the knee of the front", "most accurate", best
    else:
        least = f"one of least {fastest.cost}" if run.timeless else "fastest"
        role, word, other = "the most accurate, as the front has no knee", least, fastest
        recommended = best
    split = "test" if run.exports else "validation"
    sentence = (
        f"Recommended: {recommended.id}, {role}: {recommended} on {split} {run.examples}"
        f"{_against(None if run.timeless else _reference_s(run), recommended.spent)}."
    )
    return f"{sentence} The {word}, {other.id}, has {other}." if other != recommended else sentence


def _reference_s(run: Run) -> float | None:
    """Return the latency of the largest network in fp32."""
    if run.exports:
        return next((export.reference_s for export in run.exports if export.reference_s), None)
    latency = run.reference and run.reference.measured.get("latency")
    return latency.value if latency else None


def _caveat(run: Run) -> str:
    """Return what was not measured; empty where all was."""
    origins = {
        "replayed": "looked up in a profile that was recorded elsewhere",
        "modelled": "computed by a model of the device",
        "published": "looked up in a published table",
        "reported": "looked up in a report of the board's owner",
    }
    if run.timeless:
        return (
            "Nothing says how long networks take on this device, and nothing was timed. Arena and flash were "
            "counted by TensorFlow Lite Micro on a machine of 64 bits; accuracies were measured through it."
        )
    if run.latencies not in origins:
        return ""
    return (
        f"Latencies are {run.latencies}: {origins[run.latencies]}. Nothing was timed on the device for this "
        "run; accuracies and sizes were measured."
    )


def _against(reference_s: float | None, latency_s: float) -> str:
    if not reference_s:
        return ""
    ratio, word = reference_s / latency_s, "faster"
    if ratio < 1:
        ratio, word = 1 / ratio, "slower"
    return f", {ratio:.1f} times {word} than the largest network in fp32"


def _target(run: Run) -> str:
    """Return what the networks are for: the processor and the engine, or the device's name."""
    device = run.profile.device if run.profile else None
    if device is None or not device.cpu:
        return run.device
    return f"{device.cpu}, {device.engine} {device.engine_version}".strip()


def _facts(run: Run) -> list[tuple[str, str]]:
    """Return labels and values for the header, those that are known."""
    device = run.profile.device if run.profile else None
    space = run.front.space if run.front else None
    engine = f"{device.engine} {device.engine_version}".strip() if device else ""
    threads = device.threads if device else None
    facts = {
        "Device": run.device,
        "Processor": device.cpu if device else None,
        "Board": device.board if device else None,
        "Engine": engine + (f", {threads} thread{'s' * (threads != 1)}" if threads else ""),
        "Space": space.name if space else run.config.get("space", {}).get("name"),
        "Size of the space": f"{_power_of_ten(space.size)} networks" if space else None,
        "Data": run.config.get("data", {}).get("source"),
        "Objectives": ", ".join(run.config.get("search", {}).get("objectives", ())),
        "Load while profiled": _load(run),
        "Heat while profiled": _heat(run),
        "Seed": run.env.seed if run.env else None,
        "Date": run.env.date[:16].replace("T", " ") if run.env else None,
    }
    return [(label, str(value)) for label, value in facts.items() if value not in (None, "")]


def _load(run: Run) -> str | None:
    """Return the median and the largest load of the machine while units were measured."""
    loads = [row.load for row in run.profile.table.values() if row.load is not None] if run.profile else []
    return f"{np.median(loads):.1f}, at most {max(loads):.1f}" if loads else None


def _heat(run: Run) -> str | None:
    """Return how hot a board became while units were measured, and how slow its core; None where it did not
    say.
    """
    rows = run.profile.table.values() if run.profile else ()
    celsius = [row.temperature_c for row in rows if row.temperature_c is not None]
    hz = [row.frequency_hz for row in rows if row.frequency_hz is not None]
    words = [f"at most {max(celsius):.0f} °C"] if celsius else []
    words += [f"at least {min(hz) / 1e9:.2f} GHz"] if hz else []
    return ", ".join(words) or None


_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def _power_of_ten(count: int) -> str:
    """Return an exact count as people read it.

    >>> _power_of_ten(5200)
    '5,200'
    """
    if count < 1_000_000:
        return f"{count:,}"
    exponent = int(math.log10(count))
    return f"{count / 10**exponent:.1f} {units.TIMES} 10{str(exponent).translate(_SUPERSCRIPT)}"


_HEADINGS = {
    FLIPS.name: "Negative flips",
    AGREEMENT.name: "Same as the reference",
    CALIBRATION.name: "Calibration error",
    WORST_CLASS.name: "Worst class",
    ACCURACY.name: "First choice right",
    PERPLEXITY.name: "Perplexity",
    KL.name: "Divergence",
}


# -- tables ----------------------------------------------------------------------------------------


def _export_rows(exports: Sequence[Export]) -> list[Row]:
    """Return the rows of a table whose times are in one unit, and whose sizes are."""
    scales = {
        "latency": units.column_scale("latency", [e.latency.value for e in exports if e.latency]),
        **{
            name: units.column_scale(name, [e.micro[name] for e in exports if name in e.micro])
            for name in MICRO
        },
        "size": units.column_scale("size", [export.size_bytes for export in exports]),
        "memory": units.column_scale("memory", [e.memory_bytes for e in exports if e.memory_bytes]),
    }
    return [_export_row(export, scales) for export in exports]


def _export_row(export: Export, scales: Mapping[str, units.Scale]) -> Row:
    return {
        "id": export.id,
        "accuracy": _with_error(export),
        **{name: units.text(name, share) for name, share in export.quality.items() if name in _HEADINGS},
        **(_times_of(export.latency, export.reference_s, scales["latency"]) if export.latency else {}),
        **{name: scales[name].text(value) for name, value in export.micro.items() if name in MICRO},
        "size": scales["size"].text(export.size_bytes),
        "memory": scales["memory"].text(export.memory_bytes) if export.memory_bytes else "",
        "path": export.path,
    }


def _times_of(latency: Value, reference_s: float | None, times: units.Scale) -> Row:
    """Return the cells of a latency."""
    spread = times.text(latency.spread) + _busy(latency.load) if latency.spread else ""
    speed_up = f"{reference_s / latency.value:.2f} {units.TIMES}" if reference_s else ""
    return {"latency": times.text(latency.value), "iqr": spread, "speed_up": speed_up}


def _with_error(export: Export) -> str:
    if objective(export.metric).unit == "fraction":
        return f"{100 * export.accuracy:.1f} ± {100 * export.error:.1f} %"
    return f"{export.accuracy:.3f} ± {export.error:.3f}"


def _quality_columns(run: Run) -> dict[str, str]:
    """Return the headings of the other metrics that exported networks have, by name."""
    known = {name for export in run.exports for name in export.quality}
    return {name: heading for name, heading in _HEADINGS.items() if name in known}


def _front_columns(run: Run) -> Mapping[str, tuple[str, ...]]:
    """Return what the table of the front shows: what every network was measured by, and every objective and
    limit of the search; counts are exact and stand among the predicted ones.
    """
    always = run.front.always_measured if run.front else ()
    metrics = tuple(metric.name for metric in METRICS)
    objectives = tuple(o.name for o in run.front.objectives) if run.front else ()
    measured = {name for network in run.candidates for name in network.measured}
    return {
        "measured": tuple(
            dict.fromkeys((*always, *(name for name in (*objectives, *metrics) if name in measured)))
        ),
        "predicted": tuple(
            dict.fromkeys((*always, "memory", *(name for name in objectives if name not in measured)))
        ),
    }


def _front_rows(networks: Sequence[Network], columns: Mapping[str, tuple[str, ...]]) -> list[Row]:
    """Return the rows of a table each column of which is in one unit."""
    rows: list[dict[str, str]] = [
        {"id": network.id, "formats": format_shares(network), "arch": short_arch(network)}
        for network in networks
    ]
    for word, names in columns.items():
        for name in names:
            values = [(n.measured if word == "measured" else n.predicted).get(name) for n in networks]
            scale = units.column_scale(name, [value.value for value in values if value])
            for row, value in zip(rows, values, strict=True):
                row[f"{word} {name}"] = _cell(word, name, value, scale) if value else ""
    return list(rows)


def _cell(word: str, name: str, value: Value, scale: units.Scale) -> str:
    """Return a value as text; of a measured latency also its interquartile range and the load."""
    text = scale.text(value.value)
    if (word, name) != ("measured", "latency") or value.spread is None:
        return text
    return f"{text}, IQR {scale.text(value.spread)}{_busy(value.load)}"


def _busy(load: float | None) -> str:
    return "" if load is None else f", load {load:.1f}"


def _calibration_rows(run: Run) -> list[Row]:
    calibration = run.profile.calibration if run.profile else None
    if calibration is None:
        return []
    errors = {
        name: calibration.held_out_error(precision)
        for name, precision in groups(calibration.networks).items()
    }
    return [
        {
            "format": name,
            "mape": units.percent(row["mape"]),
            "max_error": units.percent(row["max_error"]),
            "kendall_tau": "" if math.isnan(row["kendall_tau"]) else f"{row['kendall_tau']:.2f}",
            "n": str(row["n"]),
        }
        for name, row in errors.items()
        if row["n"]
    ]


# -- drawings --------------------------------------------------------------------------------------


def _drawings(run: Run) -> list[Drawing]:
    """Return the exported networks, or the ends and the knee of the front where nothing is exported."""
    drawn = _chosen(run)
    widest = widest_of([network for _, network in drawn])
    return [
        Drawing(network.id, role, summary(network), blocks(network, widest=widest)) for role, network in drawn
    ]


def _drawn_formats(drawings: Sequence[Drawing]) -> list[str]:
    return sorted({column.number_format for d in drawings for block in d.blocks for column in block.columns})


def _chosen(run: Run) -> list[tuple[str, Network]]:
    drawable = {network.id: network for network in run.candidates if network.layers}
    exported = [("exported", drawable[export.id]) for export in run.exports if export.id in drawable]
    if exported:
        return _spread_out(exported)
    cost, networks = cost_of(run), list(drawable.values())
    of = measured if having(networks, measured, cost, run.metric) else predicted
    line = best_line(having(networks, of, cost, run.metric), of, cost, run.metric)
    if len(line) < 3:
        return [("on the front", network) for network in line]
    points = np.array([(of(n)[cost].value, minimised(run.metric, of(n)[run.metric].value)) for n in line])
    middle = min(max(knee(points), 1), len(line) - 2)
    return [(f"lowest {cost}", line[0]), ("best balance", line[middle]), ("most accurate", line[-1])]


def _spread_out(networks: Sequence[tuple[str, Network]]) -> list[tuple[str, Network]]:
    """Return at most `MAX_DRAWN`, evenly spaced, first and last included."""
    if len(networks) <= MAX_DRAWN:
        return list(networks)
    step = (len(networks) - 1) / (MAX_DRAWN - 1)
    return [networks[round(i * step)] for i in range(MAX_DRAWN)]
