"""What the benchmark of supernets is told, and what it says of each network."""

from pathlib import Path

import numpy as np
import pytest

from nas.export.representatives import Representative
from supernet.families.family import load_family

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_each_network_has_its_size_its_accuracy_and_what_formats_cost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import supernet_accuracy as benchmark

    aims = benchmark.targets(["largest=0.925", "about 26=0.9"])
    assert aims == {"largest": 0.925, "about 26": 0.9}
    candidate = load_family("digits-mbconv", in_channels=1, classes=10).extreme("largest")
    shown = [Representative("largest", candidate, 26_500_000), Representative("random 0", candidate, 12)]
    found = np.array([[0.92, 0.8], [0.91, 0.81]])
    rows = benchmark._rows_of_each(shown, found, ("fp32", "int8"), "by calibration", aims)
    told = [(row.task, row.metric, round(row.ours, 6), row.target) for row in rows]
    assert told == [
        ("largest", "multiply-adds", 26.5, None),
        ("largest, fp32", "test accuracy", 0.92, 0.925),
        ("largest, int8 by calibration", "accuracy lost", 1.0, 0.3),
        ("random 0", "multiply-adds", 1.2e-05, None),
        ("random 0, fp32", "test accuracy", 0.8, None),
    ]
