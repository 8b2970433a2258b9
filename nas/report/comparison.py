"""A plot of two profiles, unit by unit, as a page or as a drawing: one file that needs no network."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from hw_profiles.files import write_atomic
from hw_profiles.graph.layer import FP32
from hw_profiles.profiles.compare import Comparison, Pair, number_format, op_kind
from nas.report import units
from nas.report.plots import FONT, GRID, INK, MUTED, OTHER, Plot, axis_title, figure, points, polyline

MARGIN = 1.25  # of the axes beyond the outermost units, as a factor

KIND_COLOURS: Mapping[str, str] = {
    "stem": "#8c6d46",
    "pointwise": "#1f5fa8",
    "depthwise": "#e07b1a",
    "conv": "#d1603d",
    "mbconv": "#7a68b3",
    "linear": "#12917a",
    "pool": "#8a9a2b",
    "add": "#c2578f",
    "quantize": "#5d6b7a",
    "dequantize": "#a3aeba",
}


def write_plot(comparison: Comparison, path: Path) -> None:
    """Write times on A against times on B, both axes logarithmic, in the kind that the suffix says.

    Raises:
        KeyError: no such kind; see `PLOTS`.
        OSError: it cannot be written.
    """
    write_atomic(path, PLOTS[path.suffix](comparison))


def title_of(comparison: Comparison) -> str:
    """Return what is compared."""
    return f"{comparison.b} (B) against {comparison.a} (A), unit by unit"


def caption_of(comparison: Comparison) -> str:
    """Return how to read the plot, and the figures in it."""
    return (
        f"{len(comparison.pairs)} units; on the dashed line A and B take the same time, above it B is "
        "slower. "
        f"Circles are fp32, diamonds lower formats. Median of B / A "
        f"{comparison.median_ratio:.3g}, Kendall τ {comparison.kendall:.2f}."
    )


def by_kind(comparison: Comparison) -> dict[str, list[Pair]]:
    """Group the pairs by kind of unit, in the order of `KIND_COLOURS`; kinds without any are left out."""
    kinds = sorted({op_kind(pair.layer) for pair in comparison.pairs}, key=_rank)
    return {kind: [pair for pair in comparison.pairs if op_kind(pair.layer) == kind] for kind in kinds}


def _rank(kind: str) -> tuple[int, str]:
    order = list(KIND_COLOURS)
    return (order.index(kind) if kind in order else len(order), kind)


def _colour(kind: str) -> str:
    return KIND_COLOURS.get(kind, INK)


def _limits_us(comparison: Comparison) -> tuple[float, float]:
    """Return where both axes begin and end, microseconds."""
    times_us = 1e6 * comparison.times_s
    return float(times_us.min()) / MARGIN, float(times_us.max()) * MARGIN


def _text(pair: Pair) -> str:
    times = f"A {units.text('latency', pair.a_s)}, B {units.text('latency', pair.b_s)}"
    return f"{pair.layer.key()}\n{times}: {pair.ratio:.3g}{units.TIMES}"


# -- as a page -------------------------------------------------------------------------------------


def unit_plot(comparison: Comparison) -> Plot:
    """Return plotly's scatter of the units, with the diagonal."""
    low, high = _limits_us(comparison)
    traces = [polyline([low, high], [low, high], color=MUTED, width=1.2, dash="dash")]
    for kind, pairs in by_kind(comparison).items():
        symbols = ["circle" if number_format(pair.layer) == FP32 else "diamond" for pair in pairs]
        traces.append(
            points(
                kind,
                [1e6 * pair.a_s for pair in pairs],
                [1e6 * pair.b_s for pair in pairs],
                [escape(_text(pair)).replace("\n", "<br>") for pair in pairs],
                color=_colour(kind),
                symbol=symbols,
                size=8,
                opacity=0.8,
            )
        )
    axis = {
        "type": "log",
        "range": [math.log10(low), math.log10(high)],
        "tickvals": list(ticks(low, high)),
        "ticktext": [_tick_text(tick) for tick in ticks(low, high)],
    }
    drawn = figure(
        traces,
        {**axis, "title": axis_title(f"A: {comparison.a}, µs")},
        {**axis, "title": axis_title(f"B: {comparison.b}, µs")},
    )
    return Plot("units", title_of(comparison), caption_of(comparison), drawn, 720)


def render_page(comparison: Comparison) -> str:
    """Render the page as HTML, plotly.js included."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    plot = unit_plot(comparison)
    return environment.get_template("comparison.html.j2").render(
        title=plot.title, plot=plot, plotly=Markup(get_plotlyjs())
    )


# -- as a drawing ----------------------------------------------------------------------------------


def ticks(low: float, high: float) -> tuple[float, ...]:
    """Return 1, 2 and 5 times powers of ten between two numbers above 0; only powers over more than three
    decades.

    >>> ticks(0.7, 12)
    (1.0, 2.0, 5.0, 10.0)
    """
    steps = (1, 2, 5) if high / low < 1e3 else (1,)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    marks = (float(f"{step}e{decade}") for decade in decades for step in steps)
    return tuple(tick for tick in marks if low <= tick <= high)


def _tick_text(tick: float) -> str:
    return f"{tick:,.10g}"


@dataclass(frozen=True)
class _Frame:
    """A square of paper in pixels, and the microseconds at its lower left and upper right corners."""

    low: float
    high: float
    left: float = 70.0
    top: float = 78.0
    side: float = 600.0

    def place(self, value: float) -> float:
        """Return where a value lies as a share of the side, 0..1."""
        return math.log(value / self.low) / math.log(self.high / self.low)

    def x(self, value: float) -> float:
        return self.left + self.side * self.place(value)

    def y(self, value: float) -> float:
        return self.top + self.side * (1 - self.place(value))


def render_drawing(comparison: Comparison) -> str:
    """Render the plot as SVG; every unit has its key as a tooltip."""
    frame = _Frame(*_limits_us(comparison))
    width, height = frame.left + frame.side + 150, frame.top + frame.side + 62
    kinds = by_kind(comparison)
    marks = [_mark(frame, pair, _colour(kind)) for kind, pairs in kinds.items() for pair in pairs]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
            f'height="{height:g}" font-family="{escape(FONT)}" font-size="13" fill="{INK}">',
            f'<rect width="{width:g}" height="{height:g}" fill="#ffffff"/>',
            _label(frame.left, 30, title_of(comparison), size=18, weight=600),
            _label(frame.left, 54, _figures(comparison), colour=MUTED),
            *_axes(frame, comparison),
            *marks,
            *_legend(frame, list(kinds)),
            "</svg>\n",
        ]
    )


def _figures(comparison: Comparison) -> str:
    return (
        f"{len(comparison.pairs)} units, median B / A {comparison.median_ratio:.3g}, "
        f"Kendall τ {comparison.kendall:.2f}; "
        "circles fp32, diamonds lower formats"
    )


def _axes(frame: _Frame, comparison: Comparison) -> list[str]:
    bottom, right = frame.top + frame.side, frame.left + frame.side
    out = []
    for tick in ticks(frame.low, frame.high):
        x, y, text = frame.x(tick), frame.y(tick), _tick_text(tick)
        out += [
            _line(x, frame.top, x, bottom, GRID),
            _line(frame.left, y, right, y, GRID),
            _label(x, bottom + 20, text, anchor="middle"),
            _label(frame.left - 8, y + 4, text, anchor="end"),
        ]
    middle = frame.top + frame.side / 2
    return [
        *out,
        _line(frame.left, bottom, right, bottom, OTHER),
        _line(frame.left, frame.top, frame.left, bottom, OTHER),
        _line(frame.left, bottom, right, frame.top, MUTED, dash="5 4"),
        _label(
            frame.left + frame.side / 2, bottom + 46, f"A: {comparison.a}, µs", anchor="middle", colour=MUTED
        ),
        f'<g transform="rotate(-90 18 {middle:.1f})">'
        f"{_label(18, middle, f'B: {comparison.b}, µs', anchor='middle', colour=MUTED)}</g>",
    ]


def _mark(frame: _Frame, pair: Pair, colour: str) -> str:
    x, y = frame.x(1e6 * pair.a_s), frame.y(1e6 * pair.b_s)
    style = f'fill="{colour}" fill-opacity="0.75" stroke="#ffffff" stroke-width="0.8"'
    tip = f"<title>{escape(_text(pair))}</title>"
    if number_format(pair.layer) == FP32:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" {style}>{tip}</circle>'
    corners = f"M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z"
    return f'<path d="{corners}" {style}>{tip}</path>'


def _legend(frame: _Frame, kinds: Sequence[str]) -> list[str]:
    left, out = frame.left + frame.side + 24, []
    for row, kind in enumerate(kinds):
        y = frame.top + 10 + 22 * row
        out.append(f'<circle cx="{left:g}" cy="{y:g}" r="5" fill="{_colour(kind)}"/>')
        out.append(_label(left + 12, y + 4, kind))
    return out


def _label(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    colour: str = INK,
    size: int = 13,
    weight: int = 400,
) -> str:
    look = f'text-anchor="{anchor}" fill="{colour}" font-size="{size}" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {look}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, *, dash: str = "none") -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{colour}" stroke-dasharray="{dash}"/>'


PLOTS: Mapping[str, Callable[[Comparison], str]] = {".html": render_page, ".svg": render_drawing}
