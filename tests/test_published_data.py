"""Tests that find no published data are skipped, and the summary says which promises nothing tested."""

from pathlib import Path

import pytest

from tests import published_data
from tests.published_data import data_file, summary


def skipped(test: str, reason: str) -> pytest.TestReport:
    return pytest.TestReport(test, ("", 1, ""), {}, "skipped", ("file.py", 1, f"Skipped: {reason}"), "setup")


def test_a_file_that_is_there_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.npz").touch()
    monkeypatch.setattr(published_data, "FOLDER", tmp_path)
    assert data_file("rows.npz") == tmp_path / "rows.npz"


def test_the_summary_names_what_was_not_tested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published_data, "FOLDER", tmp_path)
    with pytest.raises(pytest.skip.Exception) as skip:
        data_file("ofa/rows.npz")
    tests = ("tests/test_b.py::test_sums", "tests/test_a.py::test_ranks")
    reports = [
        *(skipped(test, str(skip.value)) for test in tests),
        skipped("tests/c.py::d", "needs a browser"),
    ]
    assert summary(reports) == [
        "ofa/rows.npz (tests: 2)",
        "    tests/test_a.py::test_ranks",
        "    tests/test_b.py::test_sums",
    ]
