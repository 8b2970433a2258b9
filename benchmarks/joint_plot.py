"""Draws docs/joint_vs_sequential.svg, one panel per result file, from what `joint_vs_sequential.py` wrote:
`python benchmarks/joint_plot.py benchmarks/results/joint_vs_sequential*.json`.
"""

import json
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor
from pathlib import Path

PANEL, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 440, 380, 64, 62, 14, 48
INK, GRID = "#1b2733", "#e6eaef"
COLOURS = {
    "joint": "#1f5fa8",
    "sequential": "#d9822b",
    "fixed network, int8": "#12917a",
    "plain network of the space, int8": "#12917a",
}
TITLES = {"joint_vs_sequential": "ONNX Runtime", "joint_vs_sequential_tvm": "own kernels on TVM"}
STEPS_US = (5, 10, 20, 25, 50, 100, 200, 500)
MOST_TICKS = 8
OUT = Path(__file__).parents[1] / "docs" / "joint_vs_sequential.svg"

Points = list[tuple[float, float]]  # latency in microseconds, test accuracy in %


@dataclass(frozen=True)
class Panel:
    """One engine's networks by method, and the corner of the panel on the page."""

    title: str
    networks: Mapping[str, Points]
    left: float

    def place(self, x: float, y: float, ends: tuple[float, float]) -> tuple[float, float]:
        """Of latency and accuracy, on the page; `ends` of all accuracies."""
        across = LEFT + x / self.most * (PANEL - LEFT - RIGHT)
        down = (y - ends[0]) / (ends[1] - ends[0]) * (HEIGHT - TOP - BOTTOM)
        return self.left + across, HEIGHT - BOTTOM - down

    @property
    def most(self) -> float:
        """The right end, in microseconds."""
        return 1.05 * max(x for points in self.networks.values() for x, _ in points)


def read_panel(path: Path, left: float) -> Panel:
    """From a file of results."""
    document = json.loads(path.read_text())
    networks: dict[str, Points] = {method: [] for method in COLOURS}
    for row in document["rows"]:
        name, _, method = row["task"].partition(": ")
        if name.startswith("network "):
            networks[method].append((row["ours"], row["peers"]["test accuracy, %"]))
    title = TITLES.get(document["benchmark"], document["benchmark"])
    return Panel(title, {method: sorted(points) for method, points in networks.items() if points}, left)


def draw(panels: Sequence[Panel]) -> str:
    """The picture."""
    accuracies = [y for panel in panels for points in panel.networks.values() for _, y in points]
    ends = floor(2 * min(accuracies) - 0.4) / 2, ceil(2 * max(accuracies) + 0.4) / 2
    parts = [part for panel in panels for part in _panel(panel, ends)]
    methods = dict.fromkeys(method for panel in panels for method in panel.networks)
    for i, method in enumerate(methods):
        x = LEFT + 12 + 190 * i
        parts.append(f'<circle cx="{x}" cy="16" r="4" fill="{COLOURS[method]}"/>')
        parts.append(f'<text x="{x + 10}" y="20">{method}</text>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    turned = f'x="16" y="{middle}" transform="rotate(-90 16 {middle})"'
    parts.append(f'<text {turned} text-anchor="middle">test accuracy in %</text>')
    style = f"<style>text{{font:13px system-ui,sans-serif;fill:{INK}}}</style>"
    width = max(PANEL * len(panels), LEFT + 200 * len(methods))
    box = f'viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}"'
    sheet = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {box}>{style}<rect width="100%" height="100%" fill="#fff"/>'
    )
    return sheet + "".join(parts) + "</svg>\n"


def _panel(panel: Panel, ends: tuple[float, float]) -> Iterator[str]:
    yield from _axes(panel, ends)
    for method, points in panel.networks.items():
        colour, placed = COLOURS[method], [panel.place(x, y, ends) for x, y in points]
        best = [p for p, point in zip(placed, points, strict=True) if point in _front(points)]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in best)
        yield f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>'
        for x, y in placed:
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}" stroke="#fff" stroke-width="1"/>'


def _front(points: Points) -> Points:
    """Those that are more accurate than everything faster; `points` by latency."""
    best: Points = []
    for point in points:
        if not best or point[1] > best[-1][1]:
            best.append(point)
    return best


def _axes(panel: Panel, ends: tuple[float, float]) -> Iterator[str]:
    right = panel.left + PANEL - RIGHT
    for y in range(ceil(ends[0]), floor(ends[1]) + 1):
        across, down = panel.place(0, y, ends)
        yield f'<line x1="{across:.1f}" x2="{right:.1f}" y1="{down:.1f}" y2="{down:.1f}" stroke="{GRID}"/>'
        yield f'<text x="{across - 8:.1f}" y="{down + 4:.1f}" text-anchor="end">{y}</text>'
    step = next((s for s in STEPS_US if panel.most / s <= MOST_TICKS), STEPS_US[-1])
    for x in range(0, int(panel.most) + 1, step):
        across, down = panel.place(x, ends[0], ends)
        yield f'<text x="{across:.1f}" y="{down + 18:.1f}" text-anchor="middle">{x}</text>'
    middle = (panel.left + LEFT + right) / 2
    yield f'<text x="{middle:.1f}" y="{HEIGHT - 8}" text-anchor="middle">latency in µs, measured</text>'
    yield f'<text x="{middle:.1f}" y="{TOP - 14}" text-anchor="middle" font-weight="600">{panel.title}</text>'


def main() -> None:
    """Write the picture."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+", metavar="JSON", help="one panel each")
    paths: Sequence[Path] = parser.parse_args().results
    OUT.write_text(draw([read_panel(path, i * PANEL) for i, path in enumerate(paths)]))


if __name__ == "__main__":
    main()
