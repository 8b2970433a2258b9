"""Draws docs/front.svg, the picture in the README: `python docs/draw_front.py runs/default`."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 760, 380, 64, 34, 20, 48
Place = Callable[[float, float], tuple[float, float]]

BLUE, ORANGE, GREY, INK = "#1f5fa8", "#d9822b", "#c9d1da", "#1b2733"


def main(folder: Path) -> None:
    """Measured networks of the front, its predictions, all others, and the reference."""
    front = json.loads((folder / "front.json").read_text())
    chosen, others, reference = front["candidates"], front["evaluated"], front["reference"]
    points = [_point(entry, "measured") for entry in (*chosen, *others, reference)]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    low, high, top = min(ys) - 0.5, max(ys) + 0.5, max(xs) * 1.04

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + x / top * (WIDTH - LEFT - RIGHT)
        return across, HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def dot(x: float, y: float, style: str, radius: float = 4) -> str:
        across, down = place(x, y)
        return f'<circle cx="{across:.1f}" cy="{down:.1f}" r="{radius}" {style}/>'

    parts = [_axes(place, low, high, top)]
    parts += [dot(*_point(entry, "measured"), f'fill="{GREY}"') for entry in others]
    ring = f'fill="none" stroke="{ORANGE}" stroke-width="1.5"'
    parts += [dot(*_point(entry, "predicted"), ring) for entry in chosen]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in _staircase(chosen)))
    parts.append(f'<polyline points="{line}" fill="none" stroke="{BLUE}" stroke-width="2"/>')
    parts += [dot(*_point(entry, "measured"), f'fill="{BLUE}"') for entry in chosen]
    parts.append(dot(*_point(reference, "measured"), f'fill="{INK}"', 6))
    legend = [(BLUE, "front, measured"), (ORANGE, "the same, predicted"), (GREY, "others")]
    legend.append((INK, "largest, fp32"))
    for i, (colour, text) in enumerate(legend):
        parts.append(f'<circle cx="{LEFT + 12 + 165 * i}" cy="16" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{LEFT + 22 + 165 * i}" y="20">{text}</text>')
    style = f"<style>text{{font:13px system-ui,sans-serif;fill:{INK}}}</style>"
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {box}>{style}<rect width="100%" height="100%" fill="#fff"/>'
    )
    (Path(__file__).parent / "front.svg").write_text(svg + "".join(parts) + "</svg>\n")


def _point(entry: dict, kind: str) -> tuple[float, float]:
    values = entry[kind]
    return values["latency"]["value"] * 1e6, values["accuracy"]["value"] * 100


def _staircase(entries: list[dict]) -> list[tuple[float, float]]:
    """The best of them in accuracy and latency alone."""
    best: list[tuple[float, float]] = []
    for x, y in sorted(_point(entry, "measured") for entry in entries):
        if not best or y > best[-1][1]:
            best.append((x, y))
    return best


def _axes(place: Place, low: float, high: float, top: float) -> str:
    out = []
    for x in range(0, int(top) + 1, 10):
        across, down = place(x, low)
        out.append(f'<text x="{across:.1f}" y="{down + 18:.1f}" text-anchor="middle">{x}</text>')
    step = 2 if high - low > 6 else 1
    for y in range(int(low) + 1, int(high) + 1, step):
        across, down = place(0, y)
        ends = f'x1="{across}" x2="{WIDTH - RIGHT}" y1="{down:.1f}" y2="{down:.1f}"'
        out.append(f'<line {ends} stroke="#e6eaef"/>')
        out.append(f'<text x="{across - 8}" y="{down + 4:.1f}" text-anchor="end">{y}</text>')
    out.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle">latency in µs, measured</text>')
    middle = HEIGHT / 2
    turned = f'x="16" y="{middle}" transform="rotate(-90 16 {middle})"'
    out.append(f'<text {turned} text-anchor="middle">accuracy in %</text>')
    return "".join(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
