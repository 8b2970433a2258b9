"""Plots of a tuned model: quality against latency, or what else it costs first, beside the references, and
predictions against what was measured.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nas.report import units
from nas.report.plots import (
    INK,
    MEASURED,
    MUTED,
    OTHER,
    PREDICTED,
    Plot,
    Trace,
    axis_title,
    figure,
    guide,
    note,
    points,
    polyline,
)
from nas.report.tuned_words import metric_text
from nas.run.tuned_document import (
    LATENCY,
    PartQuality,
    Reference,
    TunedFront,
    TunedMetric,
    TunedNetwork,
    cost_of,
)

Entry = TunedNetwork | Reference
HOLLOW: Mapping[str, Any] = {"size": 9, "symbol": "circle-open"}
LOGARITHMIC: Mapping[str, Any] = {"type": "log", "dtick": 1, "exponentformat": "power"}
SEEN = 1e-6  # of the largest value: what is less is rounding, and has no place on a logarithmic scale
WIDEST = 50.0  # times the smallest value from which on a scale is logarithmic


@dataclass(frozen=True)
class Point:
    """A measured file in a plot.

    Attributes:
        name: as people call it.
        x, x_error: a cost, and of latency its interquartile range, in the plot's unit.
        y, y_error: a metric and its standard error, in the plot's unit.
        text: for the pointer.
    """

    name: str
    x: float
    x_error: float
    y: float
    y_error: float
    text: str


def quality_plot(front: TunedFront, metric: TunedMetric) -> Plot:
    """Plot a metric on unseen examples against the first cost, such as latency: the front and what it is
    compared with.
    """
    cost = front.costs[0].name
    scale = units.scale_for(cost, _costs(front, cost))
    factor, unit = _unit(metric)
    files = _points(front.candidates, metric, cost, scale, factor)
    off_front = [entry for entry in front.evaluated if entry.judging is None]
    others = _points(off_front, metric, cost, scale, factor, choosing=True)
    best = _best_line(files, metric)
    small = [point for point in files if point not in best]
    references = _points((front.original, *front.references), metric, cost, scale, factor)
    logarithmic = metric.unit != "fraction" and _spans_orders([*files, *references])
    if logarithmic:
        best, small, references = _on_scale(best, small, references)
    bounds = {o.name: o.bound for o in front.objectives if o.bound is not None}
    traces = [
        points("others, on what they were chosen by", *_columns(others), color=OTHER, size=6, opacity=0.7),
        polyline([p.x for p in best], [p.y for p in best], color=MEASURED, width=2),
        _with_errors(points("front", *_columns(best), color=MEASURED, size=10), best),
        _with_errors(points("also on the front", *_columns(small), color=MEASURED, **HOLLOW), small),
        _with_errors(
            points("references", *_columns(references), color=INK, size=11, symbol="diamond"), references
        ),
    ]
    better = "more" if metric.direction == "max" else "less"
    drawn = figure(
        [trace for trace in traces if trace["x"]],
        {"title": axis_title(f"{cost} in {scale.unit}, less is better")},
        {
            "title": axis_title(f"{metric.name}{f' in {unit}' if unit else ''}, {better} is better"),
            "ticksuffix": " ",
            **(LOGARITHMIC if logarithmic else {}),
        },
        shapes=[guide(x=scale(bounds[cost]), colour=MUTED)] if cost in bounds else [],
        annotations=_names(references, logarithmic=logarithmic),
    )
    caption = _caption(front, metric, cost, hidden=logarithmic)
    return Plot(f"quality-{metric.name}", f"{metric.name} against {cost}", caption, drawn, 460)


def _best_line(files: Sequence[Point], metric: TunedMetric) -> list[Point]:
    """Return the files that no faster one equals in this metric, the fastest first; all others are on the
    front for their size, or for another metric.
    """
    sign = -1.0 if metric.direction == "max" else 1.0
    line: list[Point] = []
    for point in files:
        if not line or sign * point.y < sign * line[-1].y:
            line.append(point)
    return line


def _spans_orders(made: Sequence[Point]) -> bool:
    """Return whether values differ so much that a linear scale would hide most of them."""
    values = [point.y for point in made if point.y > 0]
    return bool(values) and max(values) > WIDEST * min(values)


def _on_scale(*parts: list[Point]) -> list[list[Point]]:
    """Return the points that a logarithmic scale has a place for."""
    largest = max(point.y for part in parts for point in part)
    return [[point for point in part if point.y > SEEN * largest] for part in parts]


def _names(references: Sequence[Point], *, logarithmic: bool) -> list[Trace]:
    """Return the names of the references beside them."""
    return [
        note(
            point.name,
            INK,
            x=point.x,
            y=math.log10(point.y) if logarithmic else point.y,
            xanchor="left",
            yanchor=("bottom", "top")[position % 2],  # neighbours in turns: they are often close
            xshift=7,
        )
        for position, point in enumerate(references)
    ]


def _caption(front: TunedFront, metric: TunedMetric, cost: str, *, hidden: bool) -> str:
    meaning = metric.meaning or metric.name
    timed = "latency with its interquartile range, all files and references in the same turns"
    known = timed if cost == LATENCY else f"{cost} is counted"
    equal = " The original, of which it is 0, and what answers as it does have no place on this scale."
    return (
        f"{meaning[0].upper()}{meaning[1:]}: on {_judged(front)} examples that nothing saw before, with its "
        f"standard error; {known}. "
        f"Grey files were measured and are not on the front.{equal * hidden}"
    )


def prediction_plot(front: TunedFront) -> Plot | None:
    """Plot measured against predicted latency of all files that were predicted before; None without."""
    both = [
        (entry.predicted["latency"].value, entry.latency.median_s, entry.id)
        for entry in (*front.candidates, *front.evaluated)
        if entry.latency and "latency" in entry.predicted and entry.predicted["latency"].value is not None
    ]
    if len(both) < 2:
        return None
    predicted, measured = (np.array([row[i] for row in both], np.float64) for i in (0, 1))
    scale = units.scale_for("latency", measured.tolist())
    error = float(np.mean(np.abs(predicted / measured - 1)))
    texts = [f"<b>{name}</b><br>predicted {scale.text(p)}, measured {scale.text(m)}" for p, m, name in both]
    ends = [scale(0.97 * float(measured.min())), scale(1.03 * float(measured.max()))]
    drawn = figure(
        [
            polyline(ends, ends, color=OTHER, width=1, dash="dot"),
            points(
                "files",
                [scale(value) for value in predicted],
                [scale(value) for value in measured],
                texts,
                color=PREDICTED,
                size=8,
            ),
        ],
        {"title": axis_title(f"predicted latency in {scale.unit}")},
        {"title": axis_title(f"measured latency in {scale.unit}")},
    )
    caption = (
        f"Predicted before they were measured: {len(both)} files, off by {100 * error:.1f} % on average."
    )
    return Plot("latency-agreement", "Latency, predicted and measured", caption, drawn, 380)


def _costs(front: TunedFront, cost: str) -> list[float]:
    everyone: tuple[Entry, ...] = (*front.candidates, *front.evaluated, front.original, *front.references)
    return [value for entry in everyone if (value := cost_of(entry, cost)) is not None]


def _points(
    entries: Sequence[Entry],
    metric: TunedMetric,
    cost: str,
    scale: units.Scale,
    factor: float,
    *,
    choosing: bool = False,
) -> list[Point]:
    made = []
    for entry in entries:
        part = entry.choosing if choosing else entry.judging
        x = cost_of(entry, cost)
        if x is None or part is None or metric.name not in part.metrics:
            continue
        made.append(_point(entry, f"{cost} {scale.text(x)}", scale(x), part, metric, scale, factor))
    return sorted(made, key=lambda point: point.x)


def _point(
    entry: Entry,
    costs: str,
    x: float,
    part: PartQuality,
    metric: TunedMetric,
    scale: units.Scale,
    factor: float,
) -> Point:
    quality = part.metrics[metric.name]
    name = entry.id if isinstance(entry, TunedNetwork) else entry.title
    latency = entry.latency
    speed = f", {1 / latency.ratio:.2f} {units.TIMES} as fast as the original" if latency else ""
    text = (
        f"<b>{name}</b><br>{metric.name} {metric_text(metric, quality.value)} of {part.samples} examples"
        f"<br>{costs}{speed}"
    )
    return Point(
        name,
        x,
        scale(latency.iqr_s) / 2 if latency else 0.0,
        quality.value / factor,
        (quality.std or 0.0) / factor,
        text,
    )


def _columns(made: Sequence[Point]) -> tuple[list[float], list[float], list[str]]:
    return [p.x for p in made], [p.y for p in made], [p.text for p in made]


def _with_errors(trace: Trace, made: Sequence[Point]) -> Trace:
    style = {"thickness": 1, "width": 3, "color": MUTED}
    return {
        **trace,
        "error_x": {"array": [p.x_error for p in made], **style},
        "error_y": {"array": [p.y_error for p in made], **style},
    }


def _unit(metric: TunedMetric) -> tuple[float, str]:
    """Return what values are divided by, and the unit that they are then in."""
    return (0.01, "%") if metric.unit == "fraction" else (1.0, metric.unit)


def _judged(front: TunedFront) -> str:
    judged = next((entry.judging for entry in front.candidates if entry.judging), None)
    return f"{judged.samples:,}" if judged else "no"
