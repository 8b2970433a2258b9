"""A drawing of a front on several runtimes: quality against time, a line for each runtime."""

from collections.abc import Sequence
from html import escape
from math import log10

from nas.report.plots import FONT, GRID, INK, MUTED
from nas.runtimes.comparison import ComparedFile, RuntimeComparison

LEFT, TOP, WIDTH, HEIGHT, LEGEND, MARGIN = 90.0, 90.0, 620.0, 380.0, 220.0, 0.06
COLOURS = (
    "#4269d0",
    "#ff725c",
    "#3ca951",
    "#a463f2",
    "#9c6b4e",
    "#6cc5b0",
)  # of runtimes, again from the first
TICKS = 5
UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))


def draw_fronts(title: str, caption: str, comparison: RuntimeComparison) -> str:
    """Return an SVG of the files that were measured and whose quality is known; times are logarithmic.

    Args:
        title, caption: above it.
    """
    files = [file for file in comparison.files if file.latency is not None and file.quality is not None]
    x, y = _Scale.of(list(map(_log_s, files))), _Scale.of([_quality(file) for file in files])
    devices = [speed.device for speed in comparison.runtimes]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + LEGEND:g} '
        f'{TOP + HEIGHT + 60:g}" font-family="{escape(FONT)}" font-size="13" fill="{INK}">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="20" y="30" font-size="18" font-weight="600">{escape(title)}</text>',
        f'<text x="20" y="54" fill="{MUTED}">{escape(caption)}</text>',
        f'<text x="20" y="{TOP - 10:g}" fill="{MUTED}">{escape(files[0].metric)}</text>',
        *_axes(x, y),
    ]
    for number, device in enumerate(devices):
        own = sorted((file for file in files if file.device == device), key=_log_s)
        parts += _line(own, x, y, COLOURS[number % len(COLOURS)], TOP + 24 * number)
    return "\n".join((*parts, "</svg>\n"))


class _Scale:
    """From values to shares of an axis, some room left at both ends."""

    def __init__(self, low: float, high: float) -> None:
        room = MARGIN * (high - low) or 1.0
        self.low, self.high = low - room, high + room

    @staticmethod
    def of(values: Sequence[float]) -> "_Scale":
        return _Scale(min(values), max(values))

    def share(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        step = (self.high - self.low) / (TICKS + 1)
        return [self.low + step * (i + 1) for i in range(TICKS)]


def _axes(x: _Scale, y: _Scale) -> list[str]:
    parts = []
    for value in x.ticks():
        place = LEFT + WIDTH * x.share(value)
        parts.append(f'<path d="M{place:.1f},{TOP:g}V{TOP + HEIGHT:g}" stroke="{GRID}"/>')
        text = escape(time_text(10**value))
        parts.append(f'<text x="{place:.1f}" y="{TOP + HEIGHT + 20:g}" text-anchor="middle">{text}</text>')
    for value in y.ticks():
        place = TOP + HEIGHT * (1 - y.share(value))
        parts.append(f'<path d="M{LEFT:g},{place:.1f}H{LEFT + WIDTH:g}" stroke="{GRID}"/>')
        parts.append(f'<text x="{LEFT - 8:g}" y="{place + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    return parts


def _line(files: Sequence[ComparedFile], x: _Scale, y: _Scale, colour: str, legend_y: float) -> list[str]:
    """Return the files of one runtime, its name and its line."""
    places = [
        (LEFT + WIDTH * x.share(_log_s(file)), TOP + HEIGHT * (1 - y.share(_quality(file)))) for file in files
    ]
    points = " ".join(f"{left:.1f},{top:.1f}" for left, top in places)
    parts = [f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>']
    for file, (left, top) in zip(files, places, strict=True):
        said = f"{file.network}, {file.formats}: {time_text(10 ** _log_s(file))}, {_quality(file):.4g}"
        circle = f'<circle cx="{left:.1f}" cy="{top:.1f}" r="4.5" fill="{colour}">'
        parts.append(f"{circle}<title>{escape(said)}</title></circle>")
    name = escape(files[0].device) if files else ""
    at = LEFT + WIDTH + 20
    parts.append(f'<circle cx="{at:g}" cy="{legend_y:g}" r="5" fill="{colour}"/>')
    parts.append(f'<text x="{at + 12:g}" y="{legend_y + 4:g}">{name}</text>')
    return parts


def _log_s(file: ComparedFile) -> float:
    assert file.latency is not None
    return log10(file.latency.median_s)


def _quality(file: ComparedFile) -> float:
    assert file.quality is not None
    return file.quality


def time_text(seconds: float) -> str:
    """Return a time in the unit that leaves the fewest zeros.

    >>> time_text(0.000412)
    '412 µs'
    """
    size, unit = next(((size, unit) for size, unit in UNITS if seconds >= size), UNITS[-1])
    return f"{seconds / size:.3g} {unit}"
