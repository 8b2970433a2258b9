"""The units that APQ's table has no rows for: what its constants stand for, and what its sums leave out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hw_profiles.graph.layer import Layer, changed, map_layer
from hw_profiles.graph.workload import Workload, single
from hw_profiles.measure.measurement import MeasurePlan
from hw_profiles.profiles.apq_parts import CONSTANTS, UNCOUNTED
from hw_profiles.profiles.published_tables import PublishedTable, read_table
from hw_profiles.runtimes.analytical.systolic import SystolicDevice
from hw_profiles.runtimes.analytical.table import TableDevice
from hw_profiles.runtimes.runtime import Job
from tests.published_data import DataFile

ROW = [8, 16, 7, 3, 2, 1, 1, 4, 6, 0.25, 0.5]
ADD = map_layer("add", (24, 56, 56), 24, activation_format="int6")


def written(folder: Path, *, tail: bool = True) -> PublishedTable:
    path, rows, head = folder / "table.npz", np.array([ROW]), np.array([1.0, 2.0])
    if tail:
        np.savez(path, rows=rows, head=head, tail=np.array([3.0, 4.0]))
    else:
        np.savez(path, rows=rows, head=head)
    return read_table(path)


@pytest.fixture
def table(tmp_path: Path) -> PublishedTable:
    return written(tmp_path)


def test_constants_are_the_figures_of_the_units_that_they_stand_for(table: PublishedTable) -> None:
    stem, head = (replace(CONSTANTS[name], activation="relu6") for name in ("head", "tail"))
    assert (table.find(stem).how, table.find(stem).latency_s, table.find(stem).energy_j) == (
        "measured",
        1e-3,
        2e-3,
    )
    assert (table.find(head).latency_s, table.find(head).energy_j) == (3e-3, 4e-3)
    assert table.find(changed(stem, in_shape=(1, 224, 224))).how == "missing"
    assert table.find(replace(stem, weight_format="int4")).how == "missing"


def test_what_the_sums_leave_out_counts_nothing_and_is_said(table: PublishedTable) -> None:
    left_out = [*UNCOUNTED, ADD, changed(ADD, kind="quantize"), map_layer("pool", (1280, 7, 7), 1280)]
    left_out[-1] = changed(left_out[-1], activation_format="int8")
    for layer in left_out:
        found = table.find(layer)
        assert (found.how, found.latency_s, found.energy_j) == ("uncounted", 0.0, 0.0)
    covered = table.coverage([*left_out, CONSTANTS["head"], map_layer("conv", (8, 7, 7), 8)])
    assert covered.uncounted == tuple(left_out)
    assert (len(covered.covered), len(covered.missing)) == (1, 1)
    assert "1 of 7 units in the table, 0 interpolated, 1 missing, 5 that its authors do not count" in str(
        covered
    )


def test_nothing_in_fp32_is_left_out(table: PublishedTable) -> None:
    for op in ("add", "pool"):
        assert table.find(map_layer(op, (24, 56, 56), 24)).how == "missing"
    assert table.find(map_layer("linear", (1280, 1, 1), 10)).how == "missing"


def test_a_table_without_the_constants_leaves_nothing_out(tmp_path: Path) -> None:
    table = written(tmp_path, tail=False)
    assert table.find(CONSTANTS["head"]).how == "measured"
    assert table.find(ADD).how == "missing"


def test_a_network_s_time_and_energy_are_the_sums_of_its_units(tmp_path: Path) -> None:
    written(tmp_path)
    backend = TableDevice(path=tmp_path / "table.npz")
    row = map_layer("conv", (8, 7, 7), 16, 3, 2, 1, "relu6", "int4", "int6")
    layers = (CONSTANTS["head"], UNCOUNTED[0], ADD, row, CONSTANTS["tail"])
    jobs = [Job(single(layer), bytes) for layer in layers]
    measured = backend.measure(jobs, MeasurePlan())
    assert sum(one.median_s for one in measured) == pytest.approx(4.25e-3)
    assert sum(one.energy_j or 0.0 for one in measured) == pytest.approx(6.5e-3)


def test_the_model_of_the_array_says_which_units_the_published_constants_are(data_file: DataFile) -> None:
    published = read_table(data_file("ofa/apq_bitfusion_b1_lut.npz")).constants
    model = SystolicDevice(accelerator="bitfusion")

    def modelled_s(*layers: Layer) -> float:
        works: list[Workload] = [single(layer) for layer in layers]
        return sum(one.median_s for one in model.measure([Job(w, bytes) for w in works], MeasurePlan()))

    assert modelled_s(CONSTANTS["tail"]) == pytest.approx(published["tail"].latency_s, rel=1e-9)
    assert modelled_s(CONSTANTS["head"]) == pytest.approx(published["head"].latency_s, rel=0.05)
    assert modelled_s(*UNCOUNTED) > 3 * published["head"].latency_s  # so it is not in there
