"""Loaders of the published rows that benchmarks judge predictors on; skipped where the data are absent."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.published_data import DataFile

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data(data_file: DataFile) -> Path:
    """Return the folder of the published data, once the rows that are read here are in it."""
    names = ("ofa_mbv3_w10.npz", "ofa_r50_joint_quant.npz", "bert_sst2.npz")
    files = [data_file(f"subnets/{name}") for name in names]
    return files[0].parents[1]


@pytest.fixture(scope="module")
def loaders() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
        import published_rows
    return published_rows


def test_macs_of_mobilenets_are_the_published_ones(loaders: ModuleType, data: Path) -> None:
    rows, published = loaders.ofa_mobilenet(data), np.load(data / "subnets" / "ofa_mbv3_w10.npz")
    np.testing.assert_array_equal(rows.costs(rows.genomes)[:, 0], published["macs"])
    np.testing.assert_array_equal(rows.targets, published["top1"])
    decoded = rows.space.decode(rows.space.candidate(rows.genomes[0]))
    assert [decoded[f"s{s}.depth"] for s in range(5)] == published["d"][0].tolist()
    assert decoded["s0.b0.kernel"] == published["ks"][0, 0]


@pytest.fixture(scope="module")
def berts(loaders: ModuleType, data: Path) -> Any:
    return loaders.bert(data)


def test_macs_of_bert_are_the_published_ones_but_for_norms(berts: Any, data: Path) -> None:
    published = np.load(data / "subnets" / "bert_sst2.npz")
    norms = (2 * published["num_layers"].astype(float) + 1) * 128 * 768 + 128
    np.testing.assert_array_equal(berts.costs(berts.genomes)[:, 0] + norms, published["macs"])


@pytest.fixture(scope="module")
def resnets(loaders: ModuleType, data: Path) -> Any:
    return loaders.ofa_resnet(data, "top1")


def test_equal_resnets_measure_equally(resnets: Any) -> None:
    """Entries of missing layers are noise: rows that differ in nothing else are one network."""
    rows = resnets
    np.testing.assert_array_equal(rows.space.canonical(rows.genomes), rows.genomes)
    _, group = np.unique(rows.genomes, axis=0, return_inverse=True)
    spread = [np.ptp(rows.targets[group == k]) for k in np.flatnonzero(np.bincount(group.ravel()) > 1)]
    assert len(spread) >= 10
    assert max(spread) < 1e-9


@pytest.mark.parametrize("n", [50, 200])
def test_no_architecture_is_both_learned_and_asked(resnets: Any, n: int) -> None:
    rows = resnets
    learned, asked = rows.draw(n, rng=np.random.default_rng(0))
    assert len(set(learned.tolist())) == n
    columns = [c for c, choice in enumerate(rows.space.choices) if choice.kind != "precision"]
    one, other = (set(map(tuple, rows.genomes[part][:, columns].tolist())) for part in (learned, asked))
    assert one
    assert other
    assert not one & other
    again, _ = rows.draw(n, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(learned, again)


def test_more_rows_than_there_are_is_an_error(berts: Any) -> None:
    with pytest.raises(ValueError, match="1200 rows to learn from and others to test, of 1200"):
        berts.draw(1200, rng=np.random.default_rng(0))


def test_any_rows_are_all_rows(berts: Any) -> None:
    learned, asked = berts.draw(100, rng=np.random.default_rng(0), unseen=False)
    assert sorted([*learned, *asked]) == list(range(1200))
    assert len(learned) == 100
