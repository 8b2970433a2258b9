"""Published data that the checkout does not hold: where tests find them, and which promises went without."""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("TRILOBIT_DATA", Path(__file__).parents[2] / "shared" / "data"))
ABSENT = "no published data: "
DataFile = Callable[[str], Path]  # the fixture `data_file`


def data_file(name: str) -> Path:
    """Return the path of a file below `$TRILOBIT_DATA` (by default `../shared/data`), or skip the test."""
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"{ABSENT}{name}")
    return path


def untested(reports: Iterable[pytest.TestReport]) -> Mapping[str, list[str]]:
    """Return the tests that were skipped for lack of data, by the file that they need."""
    tests: dict[str, list[str]] = {}
    for report in reports:
        _, separator, name = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else "").partition(
            ABSENT
        )
        if separator:
            tests.setdefault(name, []).append(report.nodeid)
    return tests


def summary(reports: Iterable[pytest.TestReport]) -> list[str]:
    """Return the lines of the terminal's summary: each absent file, and the promises that nothing tested."""
    lines = []
    for name, tests in sorted(untested(reports).items()):
        lines += [f"{name} (tests: {len(tests)})", *(f"    {test}" for test in sorted(tests))]
    return lines
