"""A published table as a device."""

from pathlib import Path

import numpy as np
import pytest

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import INPUT, map_layer
from hw_profiles.graph.workload import Workload, single
from hw_profiles.measure.in_context import alone
from hw_profiles.measure.measurement import MeasurePlan
from hw_profiles.runtimes.analytical.table import TableDevice
from hw_profiles.runtimes.runtime import Job

FIRST = map_layer("conv", (8, 4, 4), 16, weight_format="int4", activation_format="int6")
SECOND = map_layer("conv", (16, 4, 4), 16, 3, 1, 16, "relu6", "int4", "int6")
SMALL, LARGE, BETWEEN = (
    map_layer("conv", (8, size, size), 8, weight_format="int8", activation_format="int8")
    for size in (2, 6, 4)
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    rows = [
        [8, 16, 4, 1, 1, 0, 1, 4, 6, 0.25, 0.5],
        [16, 16, 4, 3, 1, 1, 16, 4, 6, 0.75, 1.5],
        [8, 8, 2, 1, 1, 0, 1, 8, 8, 1.0, 2.0],
        [8, 8, 6, 1, 1, 0, 1, 8, 8, 9.0, 18.0],
    ]
    np.savez(tmp_path / "made-up.npz", rows=np.array(rows))
    return tmp_path / "made-up.npz"


def refuse() -> bytes:
    raise AssertionError("a table never asks for ONNX")


def test_a_network_is_the_sum_of_its_units(path: Path) -> None:
    work = Workload(("a", "b"), (FIRST, SECOND), ((INPUT,), (0,)), "int6")
    [measured] = TableDevice(path=path).measure([Job(work, refuse)], MeasurePlan())
    assert measured.samples_s == (pytest.approx(1e-3),)
    assert measured.energy_j == pytest.approx(2e-3)


def test_a_unit_between_two_sizes_is_interpolated(path: Path) -> None:
    backend = TableDevice(path=path)
    assert backend.supports(BETWEEN)
    [measured] = backend.measure([Job(single(BETWEEN), refuse)], MeasurePlan())
    assert measured.median_s == pytest.approx((1 + 8 * (16 - 4) / (36 - 4)) * 1e-3)


def test_what_is_not_covered_is_refused_with_what_is(path: Path) -> None:
    backend = TableDevice(path=path)
    works = [single(SMALL), single(map_layer("conv", (8, 4, 4), 16)), single(LARGE)]
    measured = backend.measure([Job(work, refuse) for work in works], MeasurePlan())
    assert [one.error for one in measured] == [
        None,
        "made-up does not cover 'conv 8x4x4>16 k1s1g1 none w=fp32 a=fp32': "
        "no such unit in the table, which has 3 conv",
        None,
    ]
    assert not backend.supports(works[1].layers[0])


def test_a_table_without_joules_gives_none(tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    path.write_text('{"32": {"Conv-input:32x32x3-output:16x16x8": {"mean": 1.5, "std": 0, "count": 3}}}')
    backend = TableDevice(path=path, resolution=32)
    stem = map_layer("stem", (3, 32, 32), 8, 3, 2, activation="hswish")
    [measured] = backend.measure([Job(single(stem), refuse)], MeasurePlan())
    assert (measured.samples_s, measured.energy_j) == ((1.5e-3,), None)
    assert backend.describe().energy == "not published"


def test_describes_itself(path: Path) -> None:
    backend = TableDevice(path=path)
    assert backend.describe() == backend.describe()
    assert backend.describe().name == "made-up"
    assert backend.describe().engine == "published table"
    assert backend.describe().energy.startswith("published: APQ's table")
    assert backend.probe(FIRST) == alone(FIRST)
    assert backend.measure([], MeasurePlan()) == []


def test_a_missing_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrilobitError, match="cannot be read"):
        TableDevice(path=tmp_path / "nowhere.json")
