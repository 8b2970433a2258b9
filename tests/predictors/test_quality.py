"""The yardsticks, against independent ones and on cases whose answer is known."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import kendalltau

from hw_profiles.errors import TrilobitError
from predictors.assessment.conformal import NOMINAL, calibrate, coverage
from predictors.assessment.quality import BANDS, architecture_folds, assess, judge, pairwise_accuracy, tau
from predictors.predictor import Prediction
from predictors.table import CostTable
from supernet.families.family import load_family
from supernet.space.space import Genomes, SearchSpace

SPACE = load_family("digits-mbconv", in_channels=1, classes=10).space()
FORMATS = [column for column, choice in enumerate(SPACE.choices) if choice.kind == "precision"]
NOISE = 0.5


@dataclass(frozen=True, eq=False)
class KnowsTheTruth:
    """Predicts `truth` exactly, and knows the noise on top of it."""

    std: float = NOISE

    def fit(self, genomes: Genomes, targets: np.ndarray) -> Self:
        return replace(self)

    def predict(self, genomes: Genomes) -> Prediction:
        return Prediction(truth(genomes), np.full(len(genomes), self.std))


def truth(genomes: Genomes) -> np.ndarray:
    return genomes.sum(axis=1).astype(float)


def knowing(space: SearchSpace, *, seed: int, costs: CostTable | None = None) -> KnowsTheTruth:
    return KnowsTheTruth()


def noisy(n: int, seed: int = 0) -> tuple[Genomes, np.ndarray]:
    rng = np.random.default_rng(seed)
    genomes = SPACE.sample(n, rng=rng)
    genomes[: n // 3, FORMATS] = 0
    return genomes, truth(genomes) + rng.normal(0, NOISE, n)


def test_coverage_and_rmse_of_a_known_gaussian() -> None:
    genomes, targets = noisy(4000)
    quality = assess(knowing, SPACE, genomes, targets, seed=0)
    assert quality.coverage == pytest.approx(NOMINAL, abs=0.015)  # 3 sd of a share of 4,000
    assert quality.rmse == pytest.approx(NOISE, rel=0.04)
    assert (quality.n_test, quality.n_train) == (4000, pytest.approx(3200, abs=10))


def test_fp32_and_quantized_rows_are_told_apart() -> None:
    genomes, targets = noisy(300)
    quality = assess(knowing, SPACE, genomes, targets, seed=0)
    plain = (genomes[:, FORMATS] == 0).all(axis=1)
    assert quality.kendall_tau == kendalltau(truth(genomes), targets).statistic
    assert quality.kendall_tau_fp32 == kendalltau(truth(genomes)[plain], targets[plain]).statistic
    assert quality.kendall_tau_quantized == kendalltau(truth(genomes)[~plain], targets[~plain]).statistic


def test_intervals_are_checked_at_every_level() -> None:
    genomes, targets = noisy(4000)
    for found in assess(knowing, SPACE, genomes, targets, seed=0).coverages:
        assert found.observed == pytest.approx(found.expected, abs=0.025)
    too_sure = judge(truth(genomes), targets, std=np.full(4000, NOISE / 2)).coverages
    assert all(found.observed < found.expected - 0.1 for found in too_sure)


def test_a_predictor_that_knows_the_cost_alone_is_worth_nothing_within_bands() -> None:
    rng = np.random.default_rng(0)
    cost = rng.permutation(2000).astype(float)
    targets = cost // 400 + rng.normal(0, 0.01, 2000)  # five levels of cost, noise within them
    quality = judge(cost, targets, bands_of=("macs", cost))
    assert quality.kendall_tau is not None
    assert quality.kendall_tau > 0.75
    assert quality.kendall_tau_bands == pytest.approx(0, abs=0.05)
    assert quality.band_cost == "macs"
    assert [(band.low, band.high, band.n) for band in quality.bands] == [
        (400 * i, 400 * i + 399, 400) for i in range(BANDS)
    ]


def test_few_candidates_have_fewer_bands_and_none_without_a_cost() -> None:
    cost, values = np.arange(25.0), np.random.default_rng(0).normal(size=25)
    assert [band.n for band in judge(values, values, bands_of=("macs", cost)).bands] == [13, 12]
    bare = judge(values, values)
    assert (bare.bands, bare.kendall_tau_bands, bare.coverage, bare.coverages) == ((), None, None, ())


def test_the_curve_ends_with_all_rows() -> None:
    genomes, targets = noisy(200)
    quality = assess(knowing, SPACE, genomes, targets, seed=0)
    assert [point.n for point in quality.curve] == [40, 80, 160]
    assert len({point.rmse for point in quality.curve}) == 1  # it knows the truth whatever it is shown
    assert not assess(knowing, SPACE, genomes[:12], targets[:12], seed=0).curve[1:]


def test_folds_never_split_an_architecture() -> None:
    architectures = SPACE.sample(30, rng=np.random.default_rng(0))
    genomes = architectures.repeat(4, axis=0)
    genomes[:, FORMATS] = SPACE.sample(len(genomes), rng=np.random.default_rng(1))[:, FORMATS]
    fold = architecture_folds(SPACE, SPACE.canonical(genomes), 5, rng=np.random.default_rng(2)).reshape(30, 4)
    assert (fold == fold[:, :1]).all()
    np.testing.assert_array_equal(np.bincount(fold[:, 0]), 6)


def test_too_few_architectures_are_refused() -> None:
    genomes = np.repeat(SPACE.sample(4, rng=np.random.default_rng(0)), 10, axis=0)
    with pytest.raises(TrilobitError, match=r"4 architectures; 5 folds need at least 5: run `nas sample`"):
        assess(knowing, SPACE, genomes, np.arange(40.0), seed=0)


@given(values=arrays(np.float64, st.tuples(st.just(2), st.integers(2, 12)), elements=st.integers(-3, 3)))
def test_ranks_agree_with_scipy_and_with_counting(values: np.ndarray) -> None:
    predicted, targets = values
    ours, accuracy = tau(predicted, targets), pairwise_accuracy(predicted, targets)
    if ours is None:
        assert np.ptp(predicted) == 0 or np.ptp(targets) == 0
    else:
        assert ours == pytest.approx(kendalltau(predicted, targets).statistic)
    pairs = [(i, j) for i in range(len(targets)) for j in range(i) if targets[i] != targets[j]]
    right = [0.5 + 0.5 * np.sign((predicted[i] - predicted[j]) * (targets[i] - targets[j])) for i, j in pairs]
    assert accuracy == (pytest.approx(np.mean(right)) if pairs else None)


@pytest.mark.parametrize("too_narrow", [0.1, 1.0, 7.0])
def test_calibration_mends_a_wrong_spread(too_narrow: float) -> None:
    errors = np.random.default_rng(0).normal(0, 1, 2000)
    spread = np.full(2000, 1 / too_narrow)
    std_scale = calibrate(errors[:1000], spread[:1000])
    assert std_scale == pytest.approx(too_narrow, rel=0.1)
    assert coverage(errors[1000:], std_scale * spread[1000:]) == pytest.approx(NOMINAL, abs=0.03)


@given(seed=st.integers(0, 10**6), n=st.integers(1, 120))
def test_a_new_error_is_inside_with_the_nominal_probability(seed: int, n: int) -> None:
    """Exact: each of n + 1 exchangeable scores is as likely to be the new one, so all are, in turn."""
    rng = np.random.default_rng(seed)
    errors, spread = rng.standard_t(2, n + 1), rng.uniform(0.5, 2, n + 1)
    inside = 0
    for i in range(n + 1):
        std_scale = calibrate(np.delete(errors, i), np.delete(spread, i))
        inside += coverage(errors[i : i + 1], std_scale * spread[i : i + 1] * (1 + 1e-12)) > 0
    fewest = min(n, np.ceil((n + 1) * NOMINAL - 1e-9))
    assert inside == fewest
    if n >= 9:
        assert NOMINAL - 1e-9 <= inside / (n + 1) < NOMINAL + 1 / (n + 1)
