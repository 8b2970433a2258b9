"""What the benchmark of analytical devices says of published tables."""

from pathlib import Path

import numpy as np
import pytest

from hw_profiles.profiles.published_tables import read_table
from tests.published_data import DataFile

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_a_size_left_out_is_found_again_from_its_neighbours(
    data_file: DataFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from accelerator_model import interpolation_errors

    errors = interpolation_errors(read_table(data_file("ofa/note10_latency_lut.json")))
    assert len(errors) == 242
    assert np.median(errors) < 0.015
    assert errors.max() < 0.05
