"""How good the predictions are: a table by objective, the learning curve, what intervals hold."""

from collections.abc import Sequence

from nas.report import units
from nas.report.plots import (
    MEASURED,
    MUTED,
    OTHER,
    PREDICTED,
    Plot,
    Trace,
    axis_title,
    figure,
    points,
    polyline,
)
from nas.report.run_files import Run
from nas.run.documents import QualityRow

SOURCES = {
    "cross-validation": "out-of-fold",
    "profile": "whole networks that the profile has not seen",
    "finalists": "finalists, predicted before measuring",
}


def quality_rows(run: Run) -> list[dict[str, str]]:
    """Return the table: a row per objective and origin of the networks."""
    return [_cells(row) for row in _rows(run)]


def _rows(run: Run) -> Sequence[QualityRow]:
    return run.quality.rows if run.quality else ()


def _cells(row: QualityRow) -> dict[str, str]:
    name, bands = row.objective, row.kendall_tau_bands
    return {
        "objective": name,
        "source": SOURCES.get(row.source, row.source),
        "kendall_tau": _two_decimals(row.kendall_tau),
        "bands": "" if bands is None else f"{bands:.2f} ({row.band_cost})",
        "rmse": _error(name, row.rmse),
        "noise": "" if row.noise is None else _error(name, row.noise),
        "coverage": "" if row.coverage is None else units.percent(row.coverage),
        "n_train": str(row.n_train or ""),
        "n_test": str(row.n_test),
    }


def _error(objective: str, value: float) -> str:
    return units.text(objective, value).replace("%", "points")


def _two_decimals(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def learning_plot(run: Run) -> Plot | None:
    """Plot rank correlation over the number of networks learned from; None if no curve was drawn."""
    traces: list[Trace] = []
    for row in _rows(run):
        if len(row.curve) > 1:
            n, taus = ([getattr(point, key) for point in row.curve] for key in ("n", "kendall_tau"))
            texts = [f"{row.objective}, {a} networks: {tau:.3f}" for a, tau in zip(n, taus, strict=True)]
            traces += [polyline(n, taus, color=MEASURED, width=2)]
            traces += [points(row.objective, n, taus, texts, color=MEASURED, size=8)]
    if not traces:
        return None
    drawn = figure(
        traces,
        {"title": axis_title("training networks"), "rangemode": "tozero"},
        {"title": axis_title("Kendall τ")},
        showlegend=False,
    )
    caption = "Still rising at the end: more evaluations would help the search. Flat: these are enough."
    predicted = run.metric.replace("_", " ").capitalize()
    return Plot("learning", f"{predicted} predictor: learning curve", caption, drawn, 280)


def coverage_plot(run: Run) -> Plot | None:
    """Plot the share of networks inside intervals against the share that should be; None without
    intervals.
    """
    colours = {run.metric: MEASURED, "latency": PREDICTED}
    traces: list[Trace] = [polyline([0.4, 1], [0.4, 1], color=OTHER, width=1.5, dash="dash")]
    for row in _rows(run):
        if row.coverages and row.source != "finalists":
            expected = [level.expected for level in row.coverages]
            observed = [level.observed for level in row.coverages]
            colour = colours.get(row.objective, MUTED)
            texts = [
                f"{row.objective}: {units.percent(share)} of networks in intervals of {units.percent(level)}"
                for share, level in zip(observed, expected, strict=True)
            ]
            traces += [polyline(expected, observed, color=colour, width=2)]
            traces += [points(row.objective, expected, observed, texts, color=colour, size=8)]
    if len(traces) == 1:
        return None
    drawn = figure(
        traces,
        {"title": axis_title("nominal coverage"), "tickformat": ".0%"},
        {"title": axis_title("observed coverage"), "tickformat": ".0%"},
    )
    caption = "On the dashed line the intervals are calibrated; below it they are too narrow."
    return Plot("coverage", "Calibration of prediction intervals", caption, drawn, 280)
