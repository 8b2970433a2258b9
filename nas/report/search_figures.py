"""Plots of how the search went: predictions against measurements, hypervolume, time per stage."""

from collections.abc import Mapping, Sequence

from scipy.stats import kendalltau

from nas.report import run_files, units
from nas.report.front_figures import TIMED, foreseen, having, hover, predicted
from nas.report.plots import MEASURED, MUTED, OTHER, Plot, Trace, axis_title, figure, points, polyline
from nas.report.run_files import Run
from nas.search.objectives import OBJECTIVES


def agreement_plot(run: Run, objective: str) -> Plot | None:
    """Plot predicted against measured values of one objective; None if fewer than two networks have both, or
    if none was measured.
    """
    everyone = having((*run.candidates, *run.evaluated), predicted, objective)
    networks = [network for network in everyone if objective in network.measured]  # counts are exact anyway
    if len(networks) < 2 or (objective in TIMED and run.latencies != run_files.MEASURED):
        return None  # what is looked up or modelled is its own prediction
    truth = [network.measured[objective].value for network in networks]
    guess = [network.predicted[objective].value for network in networks]
    scale = units.scale_for(objective, truth)
    front = {network.id for network in run.candidates}
    traces = [identity([scale(min(truth + guess)), scale(max(truth + guess))])]
    for name, colour, inside in (("others", OTHER, False), ("front", MEASURED, True)):
        rows = [i for i, network in enumerate(networks) if (network.id in front) == inside]
        x, y = ([scale(values[i]) for i in rows] for values in (truth, guess))
        traces.append(points(name, x, y, [hover(networks[i]) for i in rows], color=colour, size=8))
    drawn = figure(
        [trace for trace in traces if trace["x"]],
        {"title": axis_title(f"measured {objective}, {scale.unit}")},
        {"title": axis_title(f"predicted {objective}, {scale.unit}")},
    )
    error, rank = _error_text(objective, truth, guess), _tau_text(truth, guess)
    title = f"Predicted against measured {objective}: {error}, Kendall τ {rank}"
    caption = "On the dashed line predictions are exact, above it too high. τ: rank correlation."
    if objective == run.metric:
        caption += f" Predicted {foreseen(run)}."
    return Plot(f"agreement-{objective}", title, caption, drawn)


def identity(ends: Sequence[float]) -> Trace:
    """Return the line on which a prediction is exact."""
    return polyline(ends, ends, color=MUTED, width=1.2, dash="dash")


def _error_text(objective: str, truth: Sequence[float], guess: Sequence[float]) -> str:
    pairs = list(zip(truth, guess, strict=True))
    if objective in OBJECTIVES and OBJECTIVES[objective].unit == "fraction":
        return f"mean error {units.digits(100 * sum(abs(t - g) for t, g in pairs) / len(pairs))} points"
    return f"MAPE {units.percent(sum(abs(g / t - 1) for t, g in pairs) / len(pairs))}"


def _tau_text(truth: Sequence[float], guess: Sequence[float]) -> str:
    """Return Kendall's rank correlation as text; `undefined` where all values are equal."""
    tau = float(kendalltau(truth, guess).statistic)
    return "undefined" if tau != tau else f"{tau:.2f}"


def hypervolume_plot(run: Run) -> Plot | None:
    """Plot hypervolume over evaluations; None if no round was recorded."""
    rounds = run.front.rounds if run.front else ()
    if not rounds:
        return None
    evaluations = [summary.evaluations for summary in rounds]
    volumes = [summary.hypervolume for summary in rounds]
    texts = [f"round {summary.round}: {summary.hypervolume:.4g}" for summary in rounds]
    drawn = figure(
        [
            polyline(evaluations, volumes, color=MEASURED, width=2),
            points("rounds", evaluations, volumes, texts, color=MEASURED, size=8),
        ],
        {"title": axis_title("networks evaluated"), "rangemode": "tozero"},
        {"title": axis_title("hypervolume, more is better")},
        showlegend=False,
    )
    caption = "Still rising at the end: a longer search would find better networks. Flat: it has converged."
    return Plot("hypervolume", "Hypervolume per round", caption, drawn, 320)


def timings_plot(run: Run) -> Plot | None:
    """Plot the wall-clock time of each stage; None if none was recorded."""
    stages: Mapping[str, float] = run.timings.stages if run.timings else {}
    if not stages:
        return None
    names = list(stages)[::-1]
    seconds = [stages[name] for name in names]
    units_s = ((3600, "hours"), (60, "minutes"), (1, "seconds"))
    divisor, unit = next((pair for pair in units_s if max(seconds) >= 2 * pair[0]), units_s[-1])
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": [value / divisor for value in seconds],
        "y": names,
        "text": [units.duration(value) for value in seconds],
        "textposition": "auto",
        "cliponaxis": False,
        "marker": {"color": MEASURED},
        "hovertemplate": "%{y}: %{text}<extra></extra>",
    }
    drawn = figure([trace], {"title": axis_title(unit)}, {"ticks": "", "ticksuffix": " "}, bargap=0.35)
    caption = f"{units.duration(sum(seconds))} in all. Later searches can reuse the profile and the supernet."
    return Plot("timings", "Time per stage", caption, drawn, 320)
