"""Gradient boosting. What holds for every predictor is in tests/contracts."""

import numpy as np

from predictors.accuracy.boosting import BoostingPredictor
from predictors.accuracy.ridge import RidgePredictor
from predictors.assessment.conformal import coverage
from predictors.assessment.quality import tau
from supernet.families.family import load_family

SPACE = load_family("digits-mbconv", in_channels=1, classes=10).space()
DEPTHS = [column for name, column in SPACE.columns.items() if name.endswith("depth")]


def test_sees_an_interaction_that_a_line_cannot() -> None:
    genomes = SPACE.sample(400, rng=np.random.default_rng(0))
    first, second = ((genomes[:, column] > 0).astype(float) for column in DEPTHS[:2])
    targets = np.where(first == second, 1.0, 0.0) + 1e-3 * genomes.sum(axis=1)
    learned, asked = slice(0, 300), slice(300, 400)
    models = [make(SPACE, seed=0) for make in (BoostingPredictor, RidgePredictor)]
    fitted = [model.fit(genomes[learned], targets[learned]) for model in models]
    boosted, line = (tau(one.predict(genomes[asked]).mean, targets[asked]) or 0.0 for one in fitted)
    assert boosted > line + 0.2


def test_intervals_hold_what_they_say() -> None:
    rng = np.random.default_rng(0)
    genomes = SPACE.sample(600, rng=rng)
    targets = genomes @ rng.uniform(-1, 2, genomes.shape[1]) + rng.normal(0, 2, 600)
    prediction = BoostingPredictor(SPACE, seed=0).fit(genomes[:200], targets[:200]).predict(genomes[200:])
    assert 0.84 < coverage(prediction.mean - targets[200:], prediction.std) < 0.97


def test_another_seed_gives_other_trees() -> None:
    rng = np.random.default_rng(0)
    genomes = SPACE.sample(60, rng=rng)
    targets = genomes @ rng.uniform(-1, 2, genomes.shape[1])
    one, other = (BoostingPredictor(SPACE, seed=s).fit(genomes, targets).predict(genomes) for s in (0, 1))
    assert not np.array_equal(one.mean, other.mean)
