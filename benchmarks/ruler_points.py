"""A result of `rulers.py` as plots show it."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import SCHEMA
from ruler_trained import ACCURACY, IMAGES
from rulers import RULERS

RESULT = Path(__file__).parent / "results" / "rulers.json"


@dataclass(frozen=True)
class RulerPoint:
    """A ruler as a plot shows it.

    Attributes:
        name: of the network.
        published_accuracy: on the original CIFAR-10 test set, by `source`: not measured by us.
        measured_latency_s: by format, on one machine in one run: `fp32`, `int8`.
        source: of the accuracy.
    """

    name: str
    published_accuracy: float
    measured_latency_s: Mapping[str, float]
    source: str


@dataclass(frozen=True)
class TrainedPoint:
    """A network of ours as a plot shows it.

    Attributes:
        group: see `ruler_trained`.
        name, formats: in the group, and its number formats.
        accuracy: on `images` of the test part.
        latency_s: in the same run as the rulers.
    """

    group: str
    name: str
    formats: str
    accuracy: float
    images: int
    latency_s: float

    @property
    def standard_error(self) -> float:
        """Of the accuracy, the test images being a sample (binomial)."""
        return math.sqrt(self.accuracy * (1 - self.accuracy) / self.images)


def trained_points(result: Path = RESULT) -> tuple[TrainedPoint, ...]:
    """Return the networks of ours in a result of this benchmark, from the fastest.

    Raises:
        ValueError: another kind of file.
    """
    points = []
    for row in _rows_in(result):
        group, _, name = row["task"].partition(": ")
        if ACCURACY in row["peers"]:
            share, images = row["peers"][ACCURACY] / 100, int(row["peers"][IMAGES])
            formats = row["metric"].removeprefix("latency, ")
            points.append(TrainedPoint(group, name, formats, share, images, 1e-6 * row["ours"]))
    return tuple(sorted(points, key=lambda point: point.latency_s))


def ruler_points(result: Path = RESULT) -> tuple[RulerPoint, ...]:
    """Return the rulers that were measured in a result of this benchmark, from the fastest in fp32.

    Raises:
        ValueError: another kind of file.
    """
    latency_s: dict[str, dict[str, float]] = {}
    for row in _rows_in(result):
        fmt = row["metric"].removeprefix("latency, ")
        latency_s.setdefault(row["task"], {})[fmt] = 1e-6 * row["ours"]
    points = [
        RulerPoint(name, ruler.accuracy, latency_s[name], ruler.source)
        for name, ruler in RULERS.items()
        if name in latency_s
    ]
    return tuple(sorted(points, key=lambda point: point.measured_latency_s["fp32"]))


def _rows_in(result: Path) -> list[dict[str, Any]]:
    document = json.loads(result.read_text())
    if (document.get("schema"), document.get("benchmark")) != (SCHEMA, "rulers"):
        raise ValueError(f"{result} holds no rulers; write it with `benchmarks/rulers.py --json {result}`")
    return list(document["rows"])
