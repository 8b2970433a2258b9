"""The picture of the front: every network is in it, and no label covers another."""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def picture(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "docs"))
    import draw_front

    return draw_front


def marks(picture: Any) -> Iterator[Any]:
    front = [(36, 80.5), (75, 87.5), (160, 91.2), (240, 91.0), (480, 93.0)]
    yield from (picture.Mark(picture.ORT_FRONT, x, y, 0.3) for x, y in front)
    published = [("ResNet-20", 325, 92.6), ("MobileNetV2 x0.5", 437, 92.88), ("RepVGG-A0", 2433, 94.39)]
    yield from (picture.Mark(picture.RULERS, x, y, label=name) for name, x, y in published)
    yield picture.Mark(picture.ALONE, 330, 92.5, 0.3, "ResNet-8 x1, int8")


def box_of(picture: Any, text: ElementTree.Element) -> Any:
    x, y, width = float(text.get("x", "")), float(text.get("y", "")), picture.LETTER * len(text.text or "")
    left = x - {"start": 0, "middle": 0.5, "end": 1}[text.get("text-anchor", "")] * width
    return picture.Box(left, y - picture.LINE + 4, left + width, y + 4)


def test_labels_cover_neither_each_other_nor_marks(picture: Any) -> None:
    found = list(marks(picture))
    axes = picture.axes_of(found)
    texts = [ElementTree.fromstring(text) for text in picture.labels(axes, found)]
    assert {text.text for text in texts} == {mark.label for mark in found if mark.label}
    boxes = [box_of(picture, text) for text in texts]
    assert not any(first.meets(second) for first, second in combinations(boxes, 2))
    points = [picture.Box(*(2 * (axes.across(m.latency), axes.down(m.accuracy)))) for m in found]
    assert not any(box.meets(point) for box in boxes for point in points)
    assert all(box.right <= picture.WIDTH for box in boxes)


def test_the_line_is_of_the_best_and_every_network_is_there(picture: Any) -> None:
    sheet = ElementTree.fromstring(picture.draw(list(marks(picture))))
    lines = [line.get("points", "").split() for line in sheet.iter(f"{SVG}polyline")]
    assert [len(line) for line in lines] == [4]
    dots = [dot for dot in sheet.iter(f"{SVG}circle")]
    assert len(dots) == 5 + 1  # and the legend's
