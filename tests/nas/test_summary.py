"""The table that a run ends with: standard errors, and why a row is there that another one beats."""

import math
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from nas.api.exported import ExportedNetwork, exported_network
from nas.cli.console import ConsoleReporter
from nas.cli.summary import BY_CHANCE, FOR_SIZE, notes, table
from tests.nas.exported import latency, manifest

FOLDER = Path("export/a")
SMALL = ExportedNetwork(FOLDER, "a", 0.92, 100, 1e-5, 1e-7, 0.1, 20_000, 0, 12)
MANIFEST = manifest(
    id="a",
    accuracy={"test": 0.92, "n": 100, "validation": 0.99},
    latency=latency(1e-5, iqr_s=1e-7, ratios={"largest/fp32": None}),
    files={"model.onnx": {"sha256": "0" * 64, "bytes": 20_000}},
    policy={"stem": "fp32", "head": "int8", "tail": "int4/int6"},
)


def test_figures_are_the_manifests_and_the_accuracy_is_that_of_test() -> None:
    network = exported_network(FOLDER, MANIFEST)
    assert network == replace(SMALL, of_largest=None, low_bit=2, layers=3)
    assert network.standard_error == pytest.approx(math.sqrt(0.92 * 0.08 / 100))


def test_a_beaten_network_says_why_it_is_there() -> None:
    better = replace(SMALL, id="b", test_value=0.95, latency_s=0.9e-5)
    assert notes([SMALL, replace(better, size_bytes=40_000)]) == [FOR_SIZE, ""]
    assert notes([SMALL, replace(better, size_bytes=10_000)]) == [BY_CHANCE, ""]
    assert notes([SMALL, replace(better, latency_s=2e-5)]) == ["", ""]
    assert notes([]) == []


def test_the_table_fits_into_eighty_columns() -> None:
    large = ExportedNetwork(
        FOLDER, "0123456789ab", 0.98765, 10_000, 1.234e-4, 1.234e-6, 10.01, 123_456, 123, 133
    )
    beaten = replace(large, test_value=0.9, latency_s=2e-4, size_bytes=1)
    out = StringIO()
    ConsoleReporter(Console(file=out, width=80)).show(table([large, beaten]))
    lines = [line.rstrip() for line in out.getvalue().splitlines() if line.strip()]
    assert len(lines) == 4
    assert lines[2].split()[:3] == ["0123456789ab", "98.77", "±"]
    assert lines[3].endswith(FOR_SIZE)


def test_a_column_of_times_has_one_unit() -> None:
    fast, slow = replace(SMALL, latency_s=9e-5, iqr_s=2e-6), replace(SMALL, latency_s=1.5e-3, iqr_s=1.1e-3)
    rows = table([fast, replace(fast, latency_s=1e-4), slow]).rows
    assert [row[2:4] for row in rows] == [("90 us", "2 us"), ("100 us", "2 us"), ("1,500 us", "1,100 us")]


def test_the_load_stands_with_the_latencies() -> None:
    busy = replace(MANIFEST, latency=replace(MANIFEST.latency, load=12.3))
    assert (exported_network(FOLDER, MANIFEST).load, exported_network(FOLDER, busy).load) == (None, 12.3)
