"""Recorded networks stand for evaluations in the comparison with SimQ-NAS."""

from pathlib import Path

import numpy as np
import pytest

from tests.published_data import DataFile

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_evaluations_are_the_published_ones(data_file: DataFile, monkeypatch: pytest.MonkeyPatch) -> None:
    path = data_file("subnets/bert_sst2.npz")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from simq import bert_rows, linas_in_order, searched

    known, published = bert_rows(path.parents[1]), np.load(path)
    assert len(known.genomes) == 936
    genomes = known.rows.genomes
    objectives, violation = known.evaluate(genomes)
    np.testing.assert_allclose(known.measure(genomes)[:, 0], -100 * published["acc"])
    norms = 2 * 128 * 768 * published["num_layers"].astype(float)  # which the table does not count
    plain = published["macs"] - norms
    np.testing.assert_allclose(objectives[:, 1], (plain - plain.min()) / np.ptp(plain), atol=1e-9)
    assert not violation.any()
    everything = searched(known, "random", budget=936, seed=0)
    shares = known.shares(everything[:30])
    assert (np.diff(shares) >= 0).all()
    assert shares[-1] < known.shares(everything)[-1] == pytest.approx(1)
    evaluated = linas_in_order(known, budget=60, seed=0)
    assert len(np.unique(evaluated, axis=0)) == len(evaluated) == 60
