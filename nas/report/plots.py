"""What every plot of the report shares: palette, type, axes. A figure is plotly's JSON as a plain dict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Trace = dict[str, Any]

INK, MUTED, GRID = "#1c2733", "#5d6b7a", "#e6eaef"
MEASURED, PREDICTED, OTHER, LIMIT = "#1f5fa8", "#e07b1a", "#b9c2cd", "#b3304a"
FORMAT_COLOURS: Mapping[str, str] = {
    **{"fp32": "#7a68b3", "int8": "#12917a", "mixed": "#8c6d46", "int4": "#d1603d", "int2": "#b3304a"},
    **{"fp16": "#3d8fd1", "int8-dynamic": "#8a9a2b", "int8-g128": "#4fb3a1", "int4-g32": "#c98a1b"},
    **{"int4-g128": "#e0a458", "int2-g128": "#c2578f"},
}
_MORE_COLOURS = ("#3d8fd1", "#c2578f", "#8a9a2b", "#d1603d")

FONT = '"Inter", "Segoe UI", system-ui, -apple-system, Roboto, "Helvetica Neue", Arial, sans-serif'


@dataclass(frozen=True)
class Plot:
    """One plot with the words around it.

    Attributes:
        id: of the HTML element.
        title: what is drawn.
        caption: what to learn from it.
        figure: plotly JSON, `data` and `layout`.
        height_px: of the plot.
    """

    id: str
    title: str
    caption: str
    figure: Mapping[str, Any]
    height_px: int = 380


def format_colour(number_format: str) -> str:
    """Return the colour of a number format, the same in every plot and drawing."""
    if number_format in FORMAT_COLOURS:
        return FORMAT_COLOURS[number_format]
    return _MORE_COLOURS[sum(number_format.encode()) % len(_MORE_COLOURS)]


def figure(
    traces: Sequence[Trace], x: Mapping[str, Any], y: Mapping[str, Any], **layout: Any
) -> dict[str, Any]:
    """Return traces with the report's layout; `x` and `y` complete the axes."""
    axis = {
        "gridcolor": GRID,
        "linecolor": OTHER,
        "zeroline": False,
        "ticks": "outside",
        "tickcolor": OTHER,
        "ticklen": 4,
        "automargin": True,
    }
    return {
        "data": list(traces),
        "layout": {
            "font": {"family": FONT, "size": 13, "color": INK},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "margin": {"l": 12, "r": 16, "t": 12, "b": 12},
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "itemsizing": "constant"},
            "hoverlabel": {
                "bgcolor": "#ffffff",
                "bordercolor": OTHER,
                "font": {"color": INK, "size": 12},
                "align": "left",
            },
            "hovermode": "closest",
            "xaxis": {**axis, **x},
            "yaxis": {**axis, **y},
            **layout,
        },
    }


def axis_title(text: str) -> dict[str, Any]:
    """Return the title of an axis in the muted colour."""
    return {"text": text, "font": {"color": MUTED, "size": 12}}


def guide(
    *, x: float | None = None, y: float | None = None, colour: str, dash: str = "dash"
) -> dict[str, Any]:
    """Return a straight line over the whole plot at one `x` or one `y`."""
    along_x = {"x0": x, "x1": x, "y0": 0, "y1": 1, "xref": "x", "yref": "paper"}
    along_y = {"y0": y, "y1": y, "x0": 0, "x1": 1, "xref": "paper", "yref": "y"}
    line = {"color": colour, "width": 1.5, "dash": dash}
    return {"type": "line", "layer": "below", "line": line, **(along_x if x is not None else along_y)}


def note(text: str, colour: str, **place: Any) -> dict[str, Any]:
    """Return a short text in the plot, without an arrow."""
    return {"text": text, "showarrow": False, "font": {"color": colour, "size": 11}, **place}


def polyline(
    x: Sequence[float | None], y: Sequence[float | None], *, opacity: float = 1.0, **line: Any
) -> Trace:
    """Return a line without markers, hover or legend; broken where a coordinate is None."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": list(x),
        "y": list(y),
        "line": line,
        "opacity": opacity,
        "hoverinfo": "skip",
        "showlegend": False,
    }


def points(name: str, x: Sequence[float], y: Sequence[float], texts: Sequence[str], **marker: Any) -> Trace:
    """Return markers, each with a text for the pointer; `marker` is plotly's, and filled ones get a white
    rim.
    """
    hollow = str(marker.get("symbol", "")).endswith("open")
    rim = {"width": 1.8} if hollow else {"width": 1, "color": "#ffffff"}
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": list(x),
        "y": list(y),
        "text": list(texts),
        "marker": {"line": rim, **marker},
        "hovertemplate": "%{text}<extra></extra>",
    }
