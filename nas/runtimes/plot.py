"""A drawing of files on runtimes: a bar for each, the middle half of its passes marked."""

from html import escape

from nas.report.plots import FONT, GRID, INK, MEASURED, MUTED, OTHER, PREDICTED
from nas.runtimes.comparison import ComparedFile, RuntimeComparison
from nas.runtimes.front_plot import draw_fronts, time_text

LEFT, WIDTH, RIGHT, TOP, ROW, BAR = 300.0, 520.0, 150.0, 84.0, 34.0, 20.0
NAME = 8  # characters of a network's name


def draw(comparison: RuntimeComparison) -> str:
    """Return an SVG: of a front on several runtimes quality against time, a line for each runtime; else bars
    of the times, in which files in fp32 and mixes have colours of their own.
    """
    drawn = {file.file for file in comparison.files if file.latency is not None and file.quality is not None}
    if comparison.runtimes and len(drawn) > 1:
        return draw_fronts(_title(comparison), _caption(comparison), comparison)
    return _bars(comparison)


def _bars(comparison: RuntimeComparison) -> str:
    rows = [file for file in comparison.files if file.latency is not None]
    told_apart = len({(file.device, file.formats) for file in rows}) == len(rows)
    longest_s = max(_high_s(file) for file in rows)
    height = TOP + ROW * len(rows) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + RIGHT:g} {height:g}" '
        f'font-family="{escape(FONT)}" font-size="13" fill="{INK}">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="20" y="30" font-size="18" font-weight="600">{escape(_title(comparison))}</text>',
        f'<text x="20" y="54" fill="{MUTED}">{escape(_caption(comparison))}</text>',
        f'<line x1="{LEFT:g}" y1="{TOP - 8:g}" x2="{LEFT:g}" y2="{height - 20:g}" stroke="{GRID}"/>',
    ]
    for number, file in enumerate(rows):
        best = comparison.files.index(file) in comparison.fastest
        name = file.device if told_apart else f"{file.network[:NAME]} on {file.device}"
        parts.append(_row(file, name, TOP + ROW * number, WIDTH / longest_s, best=best))
    return "\n".join((*parts, "</svg>\n"))


def _title(comparison: RuntimeComparison) -> str:
    networks = dict.fromkeys(file.network for file in comparison.files)
    return f"{next(iter(networks))} on {len({file.device for file in comparison.files})} runtimes"


def _caption(comparison: RuntimeComparison) -> str:
    load = next(file.latency.load for file in comparison.files if file.latency is not None)
    busy = "" if load is None else f", load {load:.1f}"
    said = "time of one inference, median and middle half, in the same turns on"
    return f"{said} {comparison.place}{busy}"


def _high_s(file: ComparedFile) -> float:
    assert file.latency is not None
    return file.latency.median_s + file.latency.iqr_s / 2


def _row(file: ComparedFile, name: str, y: float, scale: float, *, best: bool) -> str:
    assert file.latency is not None
    length, half = scale * file.latency.median_s, scale * file.latency.iqr_s / 2
    colour = MEASURED if file.formats == "fp32" else PREDICTED
    text = f"{time_text(file.latency.median_s)}   {1 / file.latency.ratio:.2f} x"
    middle, weight, end = y + BAR / 2, 600 if best else 400, LEFT + length
    return "".join(
        (
            f"<g><title>{escape(f'{file.network}, {file.file}')}</title>",
            f'<text x="{LEFT - 10:g}" y="{middle + 4:g}" text-anchor="end" font-weight="{weight}">',
            f"{escape(f'{name}: {file.formats}')}</text>",
            f'<rect x="{LEFT:g}" y="{y:g}" width="{length:.1f}" height="{BAR:g}" fill="{colour}"/>',
            f'<line x1="{end - half:.1f}" y1="{middle:g}" x2="{end + half:.1f}" y2="{middle:g}" ',
            f'stroke="{OTHER}" stroke-width="3"/>',
            f'<text x="{end + half + 8:.1f}" y="{middle + 4:g}" font-weight="{weight}">',
            f"{escape(text)}</text></g>",
        )
    )
