"""The ensemble: what transfer promises, and what it gains."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from scipy.stats import kendalltau

from predictors.accuracy import mlp
from predictors.accuracy.mlp import MlpPredictor
from predictors.assessment.conformal import NOMINAL, coverage
from supernet.families.family import load_family
from supernet.space.space import Genomes

SPACE = load_family("digits-mbconv", in_channels=1, classes=10).space()
FORMATS = [column for column, choice in enumerate(SPACE.choices) if choice.kind == "precision"]


def in_fp32(genomes: Genomes) -> Genomes:
    plain = genomes.copy()
    plain[:, FORMATS] = 0
    return plain


def candidates(n: int, *, fp32: int, seed: int = 0) -> Genomes:
    """(n, g) of which the first `fp32` are in fp32 throughout."""
    genomes = SPACE.sample(n, rng=np.random.default_rng(seed))
    genomes[:fp32] = in_fp32(genomes[:fp32])
    return genomes


def accuracy(genomes: Genomes) -> np.ndarray:
    """(n,) saturating in the architecture, and hurt by formats."""
    rng = np.random.default_rng(42)
    gain, loss = rng.uniform(0, 1, len(SPACE.choices)), rng.uniform(0, 1, len(SPACE.choices))
    architecture = np.delete(gain * genomes, FORMATS, axis=1).sum(axis=1)
    return 1 - np.exp(-architecture / 8) - 0.01 * (loss * genomes)[:, FORMATS].sum(axis=1)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Learning stops early, for what does not depend on how much is learned."""
    monkeypatch.setattr(mlp, "STEPS", 40)


@pytest.mark.usefixtures("hasty")
def test_untuned_transfer_equals_fp32_at_every_policy() -> None:
    genomes = candidates(60, fp32=60)
    predictor = MlpPredictor(SPACE, seed=0).fit(genomes, accuracy(genomes))
    quantized = candidates(50, fp32=0, seed=1)
    ours, plain = predictor.predict(quantized), predictor.predict(in_fp32(quantized))
    assert_array_equal(ours.mean, plain.mean)
    assert_array_equal(ours.std, plain.std)


@pytest.mark.slow
def test_fine_tuning_separates_policies() -> None:
    genomes = candidates(120, fp32=60)
    predictor = MlpPredictor(SPACE, seed=0).fit(genomes, accuracy(genomes))
    quantized = candidates(100, fp32=0, seed=1)
    assert predictor.predict(quantized).mean.mean() < predictor.predict(in_fp32(quantized)).mean.mean()


@pytest.mark.slow
def test_transfer_beats_learning_from_quantized_candidates_alone() -> None:
    genomes, test = candidates(130, fp32=100), candidates(300, fp32=0, seed=1)
    targets = accuracy(genomes)
    with_fp32 = MlpPredictor(SPACE, seed=0).fit(genomes, targets).predict(test)
    alone = MlpPredictor(SPACE, seed=0).fit(genomes[100:], targets[100:]).predict(test)
    gained = [kendalltau(p.mean, accuracy(test)).statistic for p in (with_fp32, alone)]
    assert gained[0] > gained[1] + 0.05


@pytest.mark.usefixtures("hasty")
def test_same_seed_same_prediction_whatever_torch_drew_before() -> None:
    genomes, test = candidates(40, fp32=20), candidates(30, fp32=10, seed=1)
    first = MlpPredictor(SPACE, seed=3).fit(genomes, accuracy(genomes)).predict(test)
    before = torch.get_rng_state()
    torch.rand(7)
    state = torch.get_rng_state()
    again = MlpPredictor(SPACE, seed=3).fit(genomes, accuracy(genomes)).predict(test)
    assert_array_equal(torch.get_rng_state(), state)
    torch.set_rng_state(before)
    assert_array_equal(first.mean, again.mean)
    other = MlpPredictor(SPACE, seed=4).fit(genomes, accuracy(genomes)).predict(test)
    assert (first.mean != other.mean).any()


@pytest.mark.slow
def test_learns_and_knows_its_error() -> None:
    noise = 0.01
    genomes, test = candidates(200, fp32=100), candidates(1000, fp32=500, seed=1)
    targets = accuracy(genomes) + np.random.default_rng(2).normal(0, noise, 200)
    prediction = MlpPredictor(SPACE, seed=0).fit(genomes, targets).predict(test)
    truth = accuracy(test) + np.random.default_rng(3).normal(0, noise, 1000)
    assert kendalltau(prediction.mean, truth).statistic > 0.8
    assert coverage(prediction.mean - truth, prediction.std) == pytest.approx(NOMINAL, abs=0.08)


@pytest.mark.usefixtures("hasty")
def test_rows_do_not_depend_on_the_chunk_they_fall_in(monkeypatch: pytest.MonkeyPatch) -> None:
    genomes = candidates(20, fp32=10)
    predictor = MlpPredictor(SPACE, seed=0).fit(genomes, accuracy(genomes))
    whole = predictor.predict(genomes)
    monkeypatch.setattr(mlp, "CHUNK", 7)
    np.testing.assert_allclose(
        predictor.predict(genomes).mean, whole.mean, rtol=1e-5
    )  # BLAS may sum in another order
