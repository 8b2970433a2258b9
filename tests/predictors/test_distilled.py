"""A quick imitation of a slow predictor."""

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.stats import kendalltau

from predictors.accuracy import distilled
from predictors.accuracy.distilled import Distilled, distil, offspring
from predictors.predictor import Prediction
from supernet.families.family import load_family
from supernet.space.space import Genomes

SPACE = load_family("digits-mbconv", in_channels=1, classes=10).space()
EFFECTS = np.random.default_rng(0).uniform(-1, 2, len(SPACE.choices))


@dataclass(frozen=True)
class Teacher:
    """Mostly a sum, with a product and a bend that no line has; less sure of large networks."""

    def fit(self, genomes: Genomes, targets: np.ndarray) -> "Teacher":
        return self

    def predict(self, genomes: Genomes) -> Prediction:
        canonical = SPACE.canonical(genomes)
        total = canonical @ EFFECTS + 2.0 * (canonical[:, 0] > 0) * (canonical[:, 1] > 0)
        mean = 90 + 5 * np.tanh(total / 20)
        return Prediction(mean, 0.5 + 0.01 * canonical.sum(axis=1))


@pytest.fixture(scope="module")
def imitation() -> Distilled:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DRAWN", "BRED", "REFINED", "STEPS"):
            patch.setattr(distilled, name, 500)
        return distil(SPACE, Teacher(), networks(50), rng=np.random.default_rng(0))


def networks(n: int, seed: int = 0) -> Genomes:
    return SPACE.sample(n, rng=np.random.default_rng(seed))


def test_says_nearly_the_same_and_how_nearly(imitation: Distilled) -> None:
    new = networks(2000, seed=1)
    own, found = Teacher().predict(new), imitation.predict(new)
    assert kendalltau(own.mean, found.mean).statistic > 0.9
    rmse = np.sqrt(np.mean((own.mean - found.mean) ** 2))
    assert imitation.rmse == pytest.approx(rmse, rel=0.5)
    assert imitation.share == pytest.approx(imitation.rmse / own.std.mean(), rel=0.2)
    assert f"differs by {imitation.share:.0%} of the predictor's own" in imitation.in_words()


def test_its_own_error_is_part_of_the_deviation(imitation: Distilled) -> None:
    new = networks(2000, seed=1)
    own, found = Teacher().predict(new), imitation.predict(new)
    np.testing.assert_allclose(found.std, np.hypot(own.std, imitation.rmse), rtol=0.1)


def test_equal_networks_get_equal_predictions(imitation: Distilled) -> None:
    raw = np.random.default_rng(3).integers(0, SPACE.cardinalities, (50, len(SPACE.choices))).astype(np.int16)
    assert_array_equal(imitation.predict(raw).mean, imitation.predict(SPACE.canonical(raw)).mean)
    assert imitation.predict(raw[:0]).mean.shape == (0,)


def test_stays_within_what_was_said(imitation: Distilled) -> None:
    found = imitation.predict(networks(5000, seed=4)).mean
    assert found.min() >= 85
    assert found.max() <= 95


def test_is_made_from_a_predictor_not_from_rows(imitation: Distilled) -> None:
    with pytest.raises(TypeError, match="is made by `distil"):
        imitation.fit(networks(9), np.zeros(9))


def test_offspring_are_networks_of_the_space_near_their_parents() -> None:
    parents = networks(2)
    children = offspring(SPACE, parents, 300, rng=np.random.default_rng(0))
    assert_array_equal(children, SPACE.canonical(children))
    inherited = (children[:, None] == parents).any(axis=1).mean()
    assert 0.7 < inherited < 1


def test_constant_predictions_are_imitated(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DRAWN", "BRED", "REFINED", "STEPS"):
        monkeypatch.setattr(distilled, name, 50)

    class Constant(Teacher):
        def predict(self, genomes: Genomes) -> Prediction:
            return Prediction(np.full(len(genomes), 0.7), np.full(len(genomes), 0.1))

    found = distil(SPACE, Constant(), networks(5), rng=np.random.default_rng(0)).predict(networks(9, seed=2))
    np.testing.assert_allclose(found.mean, 0.7, atol=1e-6)
    np.testing.assert_allclose(found.std, 0.1, rtol=1e-3)
