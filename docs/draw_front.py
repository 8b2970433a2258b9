"""Draws docs/front.svg, the picture in the README, from a result of `benchmarks/rulers.py --front RUN`:
`python docs/draw_front.py [RESULT.json]`.

It shows the exported networks of a front with the standard error of their accuracy, and beside them published
networks, those that were trained alone, and the reference: all timed in the same turns.
"""

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from ruler_points import RESULT, TrainedPoint, ruler_points, trained_points  # noqa: E402
from ruler_trained import ALONE, ORT_FRONT, REFERENCE, TVM_FRONT  # noqa: E402

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 880, 500, 64, 36, 24, 92
INK, GRID = "#1b2733", "#e6eaef"
LETTER, LINE = 7.2, 15  # pixels of a letter's width and of a line's height, at 12 pixels
GAP = 28  # of the legend: a mark, and what is between two entries
RULERS = "published"
FRONTS = (ORT_FRONT, TVM_FRONT)


@dataclass(frozen=True)
class Style:
    """How a group of networks is drawn: its colour, the shape of its marks, and its words in the legend."""

    colour: str
    shape: str
    words: str


STYLES: Mapping[str, Style] = {
    ORT_FRONT: Style("#1f5fa8", "circle", "found, ONNX Runtime"),
    TVM_FRONT: Style("#12917a", "circle", "found, own kernels"),
    ALONE: Style("#d9822b", "square", "ResNet-8 by the same recipe"),
    REFERENCE: Style("#1b2733", "square", "cifar-mbconv, largest"),
    RULERS: Style("#8b98a5", "diamond", "published"),
}
NOTES = (
    "Ours: test images of a JPEG copy of CIFAR-10, through the exported file; bars are standard errors.",
    "Published: accuracy on the original test set, by the papers and pytorch-cifar-models; our latency of "
    "the same architecture in int8.",
)


@dataclass(frozen=True)
class Mark:
    """A network in the picture: microseconds and percent; `error` is 0 where nothing is known of it, `label`
    empty where it has none.
    """

    group: str
    latency: float
    accuracy: float
    error: float = 0.0
    label: str = ""


@dataclass(frozen=True)
class Box:
    """A part of the page that is taken."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "Box") -> bool:
        """Whether the two overlap."""
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom


@dataclass(frozen=True)
class Axes:
    """Latency from `low` to `high` on a logarithmic scale, accuracy from `worst` to `best`."""

    low: float
    high: float
    worst: float
    best: float

    def across(self, latency: float) -> float:
        """Return where a latency is on the page."""
        return LEFT + math.log(latency / self.low) / math.log(self.high / self.low) * (WIDTH - LEFT - RIGHT)

    def down(self, accuracy: float) -> float:
        """Return where an accuracy is on the page."""
        share = (accuracy - self.worst) / (self.best - self.worst)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def marks_in(result: Path) -> list[Mark]:
    """Return the networks of a result, from the fastest."""
    marks = [_of_ours(point) for point in trained_points(result) if _is_drawn(point)]
    for ruler in ruler_points(result):
        latency_s = ruler.measured_latency_s
        latency = 1e6 * latency_s.get("int8", latency_s["fp32"])
        marks.append(Mark(RULERS, latency, 100 * ruler.published_accuracy, label=ruler.name))
    return sorted(marks, key=lambda mark: mark.latency)


def _is_drawn(point: TrainedPoint) -> bool:
    return point.group != ALONE or point.formats == "int8"


def _of_ours(point: TrainedPoint) -> Mark:
    label = "" if point.group in FRONTS else f"{point.name.replace('resnet8-', 'ResNet-8 ')}, {point.formats}"
    error = 100 * point.standard_error
    return Mark(point.group, 1e6 * point.latency_s, 100 * point.accuracy, error, label)


def axes_of(marks: Sequence[Mark]) -> Axes:
    """Return axes that hold all of them."""
    latencies = [mark.latency for mark in marks]
    ends = [mark.accuracy + sign * mark.error for mark in marks for sign in (-1, 1)]
    return Axes(min(latencies) / 1.15, max(latencies) * 1.4, math.floor(min(ends)) - 0.5, max(ends) + 0.8)


def draw(marks: Sequence[Mark]) -> str:
    """Return the picture."""
    axes = axes_of(marks)
    parts = [*_grid(axes), *_legend(marks)]
    for group in (group for group in FRONTS if any(mark.group == group for mark in marks)):
        corners = [(axes.across(m.latency), axes.down(m.accuracy)) for m in staircase(marks, group)]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
        parts.append(
            f'<polyline points="{line}" fill="none" stroke="{STYLES[group].colour}" stroke-width="2"/>'
        )
    parts += [_drawn(axes, mark) for mark in sorted(marks, key=lambda mark: mark.group == RULERS)]
    parts += labels(axes, marks)
    for i, note in enumerate(NOTES):
        parts.append(f'<text class="small" x="{LEFT}" y="{HEIGHT - 26 + 15 * i}">{note}</text>')
    style = f"<style>text{{font:12px system-ui,sans-serif;fill:{INK}}}.small{{font-size:11px}}</style>"
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {box}>{style}<rect width="100%" height="100%" fill="#fff"/>'
    )
    return head + "".join(parts) + "</svg>\n"


def staircase(marks: Sequence[Mark], group: str) -> list[Mark]:
    """Return those of a group that are more accurate than everything faster in it."""
    best: list[Mark] = []
    for mark in marks:
        if mark.group == group and (not best or mark.accuracy > best[-1].accuracy):
            best.append(mark)
    return best


def labels(axes: Axes, marks: Sequence[Mark]) -> Iterator[str]:
    """Yield the labels, each on the first side of its mark where it covers nothing."""
    taken = [_around(axes, mark, 6) for mark in marks] + [*_lines(axes, marks)]
    for mark in marks:
        if mark.label:
            boxes = list(_sides(axes, mark))
            free = (box for box in boxes if not any(box.meets(other) for other in taken))
            box = next(free, boxes[0])
            taken.append(box)
            colour = STYLES[mark.group].colour if mark.group != RULERS else "#5b6874"
            x, anchor = _anchored(box, axes.across(mark.latency))
            place = f'x="{x:.1f}" y="{box.bottom - 4:.1f}" text-anchor="{anchor}"'
            yield f'<text {place} style="fill:{colour}">{mark.label}</text>'


def _anchored(box: Box, mark: float) -> tuple[float, str]:
    """Return where the text of a box is held: by the side of its mark, since fonts differ in width."""
    if box.left > mark:
        return box.left, "start"
    return (box.right, "end") if box.right < mark else ((box.left + box.right) / 2, "middle")


def _around(axes: Axes, mark: Mark, margin: float) -> Box:
    x, y = axes.across(mark.latency), axes.down(mark.accuracy)
    return Box(x - margin, y - margin, x + margin, y + margin)


def _lines(axes: Axes, marks: Sequence[Mark]) -> Iterator[Box]:
    """Yield small boxes along the lines of the fronts."""
    for group in FRONTS:
        corners = [(axes.across(m.latency), axes.down(m.accuracy)) for m in staircase(marks, group)]
        for (x, y), (right, up) in pairwise(corners):
            for share in (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875):
                at, down = x + share * (right - x), y + share * (up - y)
                yield Box(at - 4, down - 4, at + 4, down + 4)


def _sides(axes: Axes, mark: Mark) -> Iterator[Box]:
    """Yield where a label can be, the best side first."""
    x, y, width = axes.across(mark.latency), axes.down(mark.accuracy), LETTER * len(mark.label)
    for left, top in (
        (x + 9, y - LINE / 2),
        (x - 9 - width, y - LINE / 2),
        (x - width / 2, y - 8 - LINE),
        (x - width / 2, y + 8),
        (x + 6, y - 6 - LINE),
        (x + 6, y + 6),
        (x - 6 - width, y - 6 - LINE),
        (x - 6 - width, y + 6),
        (x - width / 2, y - 24 - LINE),
        (x - width / 2, y + 24),
    ):
        if left > LEFT and left + width < WIDTH - 4:
            yield Box(left, top, left + width, top + LINE)


def _drawn(axes: Axes, mark: Mark) -> str:
    style, x, y = STYLES[mark.group], axes.across(mark.latency), axes.down(mark.accuracy)
    upper, lower = (axes.down(mark.accuracy + sign * mark.error) for sign in (1, -1))
    ends = f'x1="{x:.1f}" x2="{x:.1f}" y1="{upper:.1f}" y2="{lower:.1f}"'
    return (f'<line {ends} stroke="{style.colour}"/>' if mark.error else "") + _shape(style, x, y)


def _shape(style: Style, x: float, y: float) -> str:
    if style.shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{style.colour}"/>'
    turned = f' transform="rotate(45 {x:.1f} {y:.1f})"' if style.shape == "diamond" else ""
    fill = "#fff" if style.shape == "diamond" else style.colour
    corner = f'x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"'
    return f'<rect {corner} fill="{fill}" stroke="{style.colour}" stroke-width="1.5"{turned}/>'


def _legend(marks: Sequence[Mark]) -> Iterator[str]:
    groups = {mark.group for mark in marks}
    shown = [style for group, style in STYLES.items() if group in groups]
    words = sum(len(style.words) for style in shown)
    left = min(LEFT + 8.0, WIDTH - LETTER * words - GAP * len(shown))
    for style in shown:
        yield f'{_shape(style, left, 16)}<text x="{left + 10:.1f}" y="20">{style.words}</text>'
        left += GAP + LETTER * len(style.words)


def _grid(axes: Axes) -> Iterator[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    for latency in _ticks(axes):
        x = axes.across(latency)
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}" stroke="{GRID}"/>'
        yield f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{latency:,g}</text>'
    step = 2 if axes.best - axes.worst > 8 else 1
    for accuracy in range(math.ceil(axes.worst / step) * step, math.floor(axes.best) + 1, step):
        y = axes.down(accuracy)
        yield f'<line x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GRID}"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{accuracy}</text>'
    where = f'x="{(LEFT + right) / 2}" y="{bottom + 38}"'
    yield f'<text {where} text-anchor="middle">latency of one image in µs, measured, one thread</text>'
    middle = (TOP + bottom) / 2
    turned = f'x="18" y="{middle}" transform="rotate(-90 18 {middle})"'
    yield f'<text {turned} text-anchor="middle">test accuracy in %</text>'


def _ticks(axes: Axes) -> Iterator[float]:
    for power in range(math.floor(math.log10(axes.low)), math.ceil(math.log10(axes.high))):
        yield from (x for n in (1, 2, 5) if axes.low <= (x := n * 10.0**power) <= axes.high)


def main(result: Path, write: Callable[[str], object]) -> None:
    """Draw a result.

    Raises:
        SystemExit: there are no networks of ours in it.
    """
    marks = marks_in(result)
    if not any(mark.group in FRONTS for mark in marks):
        raise SystemExit(
            f"{result} has no front; write it with `benchmarks/rulers.py --front RUN --json FILE`"
        )
    write(draw(marks))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else RESULT, (Path(__file__).parent / "front.svg").write_text)
