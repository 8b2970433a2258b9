"""The front: quality against cost, measured and predicted apart."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nas.report import run_files, units
from nas.report.drawing import format_shares, read_by, short_arch
from nas.report.plots import (
    INK,
    LIMIT,
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
from nas.report.run_files import Network, Run, Value
from nas.search.objectives import objective

COSTS = ("latency", "energy", "size")
HOLLOW = "circle-open"
TIMED = ("latency", "energy")  # costs that come from the device

Values = Callable[[Network], Mapping[str, Value]]


def measured(network: Network) -> Mapping[str, Value]:
    """Return the measured values of a network, and counts, which are exact."""
    return {**network.counted, **network.measured}


def predicted(network: Network) -> Mapping[str, Value]:
    """Return the predicted values of a network."""
    return network.predicted


def having(networks: Sequence[Network], of: Values, *objectives: str) -> list[Network]:
    """Return the networks for which all these objectives are known."""
    return [network for network in networks if all(name in of(network) for name in objectives)]


def minimised(metric: str, value: float) -> float:
    """Return a value of a metric so that less is better."""
    return -value if objective(metric).direction == "max" else value


def best_line(networks: Sequence[Network], of: Values, cost: str, metric: str) -> list[Network]:
    """Return the networks that no cheaper one equals in quality, cheapest first."""
    line: list[Network] = []
    loss = {network.id: minimised(metric, of(network)[metric].value) for network in networks}
    for network in sorted(networks, key=lambda n: (of(n)[cost].value, loss[n.id])):
        if not line or loss[network.id] < loss[line[-1].id]:
            line.append(network)
    return line


def cost_of(run: Run) -> str:
    """Return the cost drawn against the main metric: latency where it is an objective, else the first that
    is.
    """
    objectives = run.front.objectives if run.front else ()
    costs = [stated.name for stated in objectives if stated.name != run.metric and stated.origin != "metric"]
    return next((cost for cost in (*COSTS, *costs) if cost in costs), "latency")


def front_plot(run: Run) -> Plot:
    """Plot the main metric against the first cost of the search."""
    axes = _axes(run)
    axis_names = (run.metric, axes.cost)
    word = run_files.MEASURED if axes.cost not in TIMED else run.latencies
    front, front_predicted = (having(run.candidates, of, *axis_names) for of in (measured, predicted))
    rest = having(run.evaluated, measured, *axis_names)
    unmeasured = [network for network in having(run.evaluated, predicted, *axis_names) if network not in rest]
    reference = having([run.reference], measured, *axis_names) if run.reference else []
    both = having(front, predicted, *axis_names)
    traces = [
        axes.markers(unmeasured, predicted, "others, predicted", OTHER, symbol=HOLLOW, opacity=0.5),
        axes.markers(rest, measured, f"others, {word}", OTHER, opacity=0.75),
        axes.links(both),
        axes.markers(front_predicted, predicted, "front, predicted", PREDICTED, symbol=HOLLOW, opacity=1),
        axes.line(best_line(front, measured, axes.cost, run.metric)),
        axes.markers(front, measured, f"front, {word}", MEASURED, opacity=1),
        axes.markers(reference, measured, f"reference, {word}", INK, symbol="diamond", opacity=1),
    ]
    shapes, notes = _limits(run, axes)
    drawn = figure(
        [trace for trace in traces if trace["x"]],
        {"title": axis_title(f"{axes.cost} in {axes.scale.unit}, less is better")},
        {
            "title": axis_title(f"{run.metric} in {axes.quality.unit}, validation {run.examples}"),
            "ticksuffix": " ",
        },
        shapes=shapes,
        annotations=notes,
    )
    return Plot(
        "front",
        f"{run.metric.capitalize()} against {axes.cost}",
        _caption(len(front), run.metric, axes.cost, word, foreseen(run)),
        drawn,
        520,
    )


def _caption(count: int, metric: str, cost: str, word: str, origin: str) -> str:
    if not count:
        return "Nothing has been measured yet: every point is a prediction, and should be read as one."
    how = (
        "measured"
        if word == run_files.MEASURED
        else f"whose {metric} was measured and whose {cost} was {word}"
    )
    return (
        f"The blue line joins the best of {count} networks {how}: none of those is as good at less "
        f"{cost}. A thin line leads to the prediction, {origin}. Marker size shows model size."
    )


def foreseen(run: Run) -> str:
    """Return from when the predicted accuracies are."""
    if run.front and run.front.foreseen:
        return "from before the network was measured"
    return "by a predictor that has learned from the network itself, which tells nothing about others"


@dataclass(frozen=True)
class _Axes:
    """The main metric up, one cost to the right, and model size, up to `largest` bytes, as marker area."""

    metric: str
    quality: units.Scale
    cost: str
    scale: units.Scale
    largest: float

    def x(self, values: Mapping[str, Value]) -> float:
        return self.scale(values[self.cost].value)

    def markers(
        self, networks: Sequence[Network], of: Values, name: str, colour: str, **marker: Any
    ) -> Trace:
        return points(
            name,
            [self.x(of(network)) for network in networks],
            [self.quality(of(network)[self.metric].value) for network in networks],
            [hover(network) for network in networks],
            size=[6 + 10 * (_size(network) / self.largest) ** 0.5 for network in networks],
            color=colour,
            **marker,
        )

    def line(self, networks: Sequence[Network]) -> Trace:
        x = [self.x(measured(network)) for network in networks]
        y = [self.quality(network.measured[self.metric].value) for network in networks]
        return polyline(x, y, color=MEASURED, width=2)

    def links(self, networks: Sequence[Network]) -> Trace:
        x: list[float | None] = []
        y: list[float | None] = []
        for network in networks:
            ends = (predicted(network), measured(network))
            x += [*map(self.x, ends), None]
            y += [*(self.quality(values[self.metric].value) for values in ends), None]
        return polyline(x, y, opacity=0.5, color=PREDICTED, width=1)


def _axes(run: Run) -> _Axes:
    cost = cost_of(run)
    everyone = (*run.candidates, *run.evaluated, *((run.reference,) if run.reference else ()))
    both = (measured, predicted)
    scales = [
        units.scale_for(
            name, [of(network)[name].value for of in both for network in having(everyone, of, name)]
        )
        for name in (run.metric, cost)
    ]
    return _Axes(run.metric, scales[0], cost, scales[1], max(map(_size, everyone)) or 1.0)


def _size(network: Network) -> float:
    for values in (network.measured, network.predicted):
        if "size" in values:
            return values["size"].value
    return 0.0


def hover(network: Network) -> str:
    """Describe a network in a few lines of HTML."""
    lines = [f"<b>{network.id}</b>"]
    for word, values in (("measured", network.measured), ("predicted", network.predicted)):
        if values:
            lines.append(f"{word}: " + ", ".join(_value_text(*value) for value in values.items()))
    read, stages = read_by(network), short_arch(network)
    lines.append((f"{read} · " if read else "") + format_shares(network))
    lines += stages.split(" | ")
    return "<br>".join(line for line in lines if line)


def _value_text(name: str, value: Value) -> str:
    scale = units.scale_for(name, [value.value])
    spread = f" ± {units.digits(scale(value.spread))}" if value.spread else ""
    return f"{name} {units.digits(scale(value.value))}{spread} {scale.unit}"


def _limits(run: Run, axes: "_Axes") -> tuple[list[Trace], list[Trace]]:
    """Return lines and notes for the limits and for the reference network's latency."""
    shapes, notes = [], []
    limits, cost, scale = run.limits, axes.cost, axes.scale
    if cost in limits:
        x, label = scale(limits[cost]), f" limit {scale.text(limits[cost])}"
        shapes.append(guide(x=x, colour=LIMIT))
        notes.append(note(label, LIMIT, x=x, y=0.01, yref="paper", xanchor="left", yanchor="bottom"))
    if axes.metric in limits:
        words = "at least" if objective(axes.metric).direction == "max" else "at most"
        y, label = axes.quality(limits[axes.metric]), f"{words} {axes.quality.text(limits[axes.metric])}"
        shapes.append(guide(y=y, colour=LIMIT))
        notes.append(note(label, LIMIT, x=1, xref="paper", y=y, xanchor="right", yanchor="bottom"))
    reference_s = next((export.reference_s for export in run.exports if export.reference_s), None)
    if cost == "latency" and reference_s and not run.reference:
        x, label = scale(reference_s), f"reference {scale.text(reference_s)} "
        shapes.append(guide(x=x, colour=MUTED, dash="dot"))
        notes.append(note(label, MUTED, x=x, y=0.99, yref="paper", xanchor="right", yanchor="top"))
    return shapes, notes
