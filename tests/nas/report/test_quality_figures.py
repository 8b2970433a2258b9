"""What the report says of the predictions, from made-up rows."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hw_profiles.errors import TrilobitError
from nas.report.page import render
from nas.report.quality_figures import coverage_plot, learning_plot, quality_rows
from nas.report.run_files import read_run


def test_every_objective_has_a_row_that_says_what_was_tested(run_folder: Path) -> None:
    rows = quality_rows(read_run(run_folder))
    assert [(row["objective"], row["source"]) for row in rows] == [
        ("accuracy", "out-of-fold"),
        ("latency", "whole networks that the profile has not seen"),
        ("size", "finalists, predicted before measuring"),
    ]
    assert rows[0]["noise"] == "0.200 points"
    assert rows[0]["bands"].endswith("(latency)")
    assert (rows[2]["kendall_tau"], rows[2]["coverage"], rows[2]["n_train"]) == ("1.00", "", "")


def test_curves_hold_the_points_of_the_file(run_folder: Path) -> None:
    run = read_run(run_folder)
    learning, coverage = learning_plot(run), coverage_plot(run)
    assert learning is not None
    assert coverage is not None
    [drawn] = [trace for trace in learning.figure["data"] if trace["mode"] == "markers"]
    assert (drawn["x"], drawn["y"][0]) == ([50, 100, 200], pytest.approx(0.9 - 50**-0.5))
    names = [trace["name"] for trace in coverage.figure["data"] if trace["mode"] == "markers"]
    assert names == ["accuracy", "latency"]
    json.dumps([learning.figure, coverage.figure])


def test_nothing_is_drawn_of_nothing(run_folder: Path) -> None:
    run = replace(read_run(run_folder), quality=None)
    assert (learning_plot(run), coverage_plot(run), quality_rows(run)) == (None, None, [])
    assert "<code>nas fit</code> produces it" in render(run)


def test_a_file_of_an_older_version_is_refused_by_name(own_run: Path) -> None:
    (own_run / "quality.json").write_text('{"schema": "quality/1", "objectives": {}}')
    with pytest.raises(TrilobitError, match=r"quality\.json.*quality/2"):
        read_run(own_run)
