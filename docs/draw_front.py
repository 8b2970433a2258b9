"""Draws docs/front.svg, the picture in the README: `python docs/draw_front.py runs/default`.

It shows what the table of the run shows: the exported networks, their accuracy on the test images with its
standard error, and their latency as measured in turns when they were exported.
"""

import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 760, 380, 64, 34, 20, 48
BLUE, ORANGE, GREY, INK = "#1f5fa8", "#d9822b", "#8b98a5", "#1b2733"
Place = Callable[[float, float], tuple[float, float]]


@dataclass(frozen=True)
class Point:
    """One exported network: microseconds and percent."""

    latency: float
    accuracy: float
    error: float
    predicted: tuple[float, float]
    largest: float | None

    @classmethod
    def of(cls, manifest: dict) -> "Point":
        share, images = manifest["accuracy"]["test"], manifest["accuracy"]["n"]
        predicted, latency = manifest["predicted"], manifest["latency"]
        largest = latency["references_s"]["largest/fp32"]
        return cls(
            latency["median_s"] * 1e6,
            100 * share,
            100 * math.sqrt(share * (1 - share) / images),
            (predicted["latency"]["value"] * 1e6, 100 * predicted["accuracy"]["value"]),
            None if largest is None else largest * 1e6,
        )


def main(folder: Path) -> None:
    """Draw exported networks with error bars, their predictions, and the time of the largest network in
    fp32.
    """
    manifests = sorted(folder.glob("export/*/manifest.json"))
    points = sorted((Point.of(json.loads(p.read_text())) for p in manifests), key=lambda p: p.latency)
    ends = [y for p in points for y in (p.accuracy - p.error, p.accuracy + p.error, p.predicted[1])]
    low, high = min(ends) - 0.5, max(ends) + 0.5
    top = 1.04 * max(x for p in points for x in (p.latency, p.predicted[0], p.largest or 0))

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + x / top * (WIDTH - LEFT - RIGHT)
        return across, HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [_axes(place, low, high, top), _reference(place, points, low, high)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*corner) for corner in staircase(points)))
    parts.append(f'<polyline points="{line}" fill="none" stroke="{BLUE}" stroke-width="2"/>')
    parts += [_network(place, point) for point in points]
    parts.append(_legend())
    style = f"<style>text{{font:13px system-ui,sans-serif;fill:{INK}}}</style>"
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {box}>{style}'
    background = '<rect width="100%" height="100%" fill="#fff"/>'
    (Path(__file__).parent / "front.svg").write_text(head + background + "".join(parts) + "</svg>\n")


def staircase(points: Sequence[Point]) -> list[tuple[float, float]]:
    """Return the best of them in accuracy and latency alone."""
    best: list[tuple[float, float]] = []
    for point in points:
        if not best or point.accuracy > best[-1][1]:
            best.append((point.latency, point.accuracy))
    return best


def _network(place: Place, point: Point) -> str:
    across, down = place(point.latency, point.accuracy)
    (_, lower), (_, upper) = (place(point.latency, point.accuracy + sign * point.error) for sign in (-1, 1))
    x, y = place(*point.predicted)
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="none" stroke="{ORANGE}" stroke-width="1.5"/>'
        f'<line x1="{across:.1f}" x2="{across:.1f}" y1="{lower:.1f}" y2="{upper:.1f}" stroke="{BLUE}"/>'
        f'<circle cx="{across:.1f}" cy="{down:.1f}" r="4" fill="{BLUE}"/>'
    )


def _reference(place: Place, points: Sequence[Point], low: float, high: float) -> str:
    """Draw a vertical line at the time of the largest network in fp32, in the same run."""
    if points[0].largest is None:
        return ""
    (x, bottom), (_, top) = place(points[0].largest, low), place(points[0].largest, high)
    ends = f'x1="{x:.1f}" x2="{x:.1f}" y1="{bottom:.1f}" y2="{top:.1f}"'
    return f'<line {ends} stroke="{GREY}" stroke-dasharray="4 4"/>'


def _legend() -> str:
    entries = (
        (BLUE, "exported: test accuracy ± standard error"),
        (ORANGE, "predicted"),
        (GREY, "largest, fp32"),
    )
    parts, across = [], LEFT + 12
    for colour, text in entries:
        parts.append(f'<circle cx="{across}" cy="16" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{across + 10}" y="20">{text}</text>')
        across += 40 + 7 * len(text)
    return "".join(parts)


def _axes(place: Place, low: float, high: float, top: float) -> str:
    out = []
    step = 10 ** math.floor(math.log10(top / 4))
    for i in range(int(top / step) + 1):
        across, down = place(i * step, low)
        if i % (2 if top / step > 12 else 1) == 0:
            out.append(f'<text x="{across:.1f}" y="{down + 18:.1f}" text-anchor="middle">{i * step:g}</text>')
    for y in range(int(low) + 1, int(high) + 1, 2 if high - low > 6 else 1):
        across, down = place(0, y)
        ends = f'x1="{across}" x2="{WIDTH - RIGHT}" y1="{down:.1f}" y2="{down:.1f}"'
        out.append(f'<line {ends} stroke="#e6eaef"/>')
        out.append(f'<text x="{across - 8}" y="{down + 4:.1f}" text-anchor="end">{y}</text>')
    out.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle">latency in µs, measured</text>')
    middle = HEIGHT / 2
    turned = f'x="16" y="{middle}" transform="rotate(-90 16 {middle})"'
    out.append(f'<text {turned} text-anchor="middle">test accuracy in %</text>')
    return "".join(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
