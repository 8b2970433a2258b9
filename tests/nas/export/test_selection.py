"""Which networks of a front are exported."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.errors import TrilobitError
from nas.export.picks import knee
from nas.export.selection import pick
from nas.run.front_document import Entry, Front, Measured, SpaceReference, StatedObjective

NETWORKS = {"aa01": (0.90, 1e-4), "aa02": (0.95, 2e-4), "bb03": (0.96, 8e-4)}


def entry(name: str, accuracy: float, latency_s: float) -> Entry:
    values = {"accuracy": accuracy, "latency": latency_s, "size": 1000.0}
    return Entry(name, (), {}, {objective: Measured(value) for objective, value in values.items()})


FRONT = Front(
    SpaceReference("made up", "0", 3),
    "no device",
    (StatedObjective("accuracy"), StatedObjective("latency"), StatedObjective("macs")),
    (),
    tuple(entry(name, *values) for name, values in NETWORKS.items()),
    (),
    entry("largest", 0.97, 1e-3),
)


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        (["knee"], ["aa02"]),
        (["fastest>=0.91"], ["aa02"]),
        (["fastest >= 96%"], ["bb03"]),
        (["best<=0.15ms"], ["aa01"]),
        (["best<=80%"], ["bb03"]),
        (["all"], ["aa01", "aa02", "bb03"]),
        (["bb"], ["bb03"]),
        (["bb03", "knee", "aa01", "aa02"], ["aa01", "aa02", "bb03"]),
        ([], ["aa01", "bb03"]),
    ],
)
def test_networks_are_picked(wanted: list[str], ids: list[str]) -> None:
    assert [one.id for one in pick(FRONT, wanted, 2)] == ids


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("fastest>=99%", "nearest has 96"),
        ("best<=1us", "latency <= 1us; the nearest has 100 us"),
        ("best<=5", "write a number and one of"),
        ("aa", "several networks begin so; on the front are aa01, aa02, bb03"),
        ("zz", "write knee, fastest>=ACCURACY"),
        ("", "write knee"),
        ("fastest", "write knee"),
    ],
)
def test_what_cannot_be_picked_is_said(wanted: str, said: str) -> None:
    with pytest.raises(TrilobitError, match=said):
        pick(FRONT, [wanted], 2)


@given(st.lists(st.floats(0.01, 0.99), min_size=1, max_size=20, unique=True))
def test_the_knee_of_a_curve_is_where_it_is_steepest_against_its_ends(x: list[float]) -> None:
    """On x + y^2 = ... the point of least x + y, whatever the units of either."""
    points = np.array([[0.0, 1.0], [1.0, 0.0], *([v, (1 - v) ** 3] for v in x)])
    best = points.sum(axis=1).argmin()
    assert knee(points) == knee(points * [1e-3, 1e6] + [5.0, -2.0]) == best
