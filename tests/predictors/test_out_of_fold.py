"""What predictors say of rows that they were fitted on, without having learned from their architectures."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from predictors.accuracy.boosting import BoostingPredictor
from predictors.accuracy.gp import GpPredictor
from predictors.accuracy.mlp import MlpPredictor
from predictors.accuracy.ridge import RidgePredictor
from predictors.assessment.out_of_fold import KnowsOutOfFold, folds_of, out_of_fold_predictions
from predictors.assessment.quality import tau
from predictors.predictor import MakePredictor
from supernet.families.family import load_family
from supernet.space.space import Genomes, row_keys

SPACE = load_family("digits-mbconv", in_channels=1, classes=10).space()
POLICY = [column for column, choice in enumerate(SPACE.choices) if choice.kind == "precision"]
KNOWING: dict[str, MakePredictor] = {"boosting": BoostingPredictor, "gp": GpPredictor, "mlp": MlpPredictor}


def rows(architectures: int, policies: int = 1) -> Genomes:
    """As many architectures, each at so many policies."""
    rng = np.random.default_rng(0)
    genomes = SPACE.sample(architectures, rng=rng).repeat(policies, axis=0)
    genomes[:, POLICY] = rng.integers(0, SPACE.cardinalities[POLICY], (len(genomes), len(POLICY)))
    return SPACE.canonical(genomes)


def noise(genomes: Genomes) -> np.ndarray:
    """(n,) random numbers, the same for equal architectures: only who saw an architecture knows its own."""
    plain = genomes.copy()
    plain[:, POLICY] = 0
    _, group = np.unique(row_keys(plain), return_inverse=True)
    return np.random.default_rng(1).normal(size=group.max() + 1)[group]


def test_folds_hold_whole_architectures() -> None:
    genomes = rows(30, 4)
    fold = folds_of(SPACE, genomes, rng=np.random.default_rng(0))
    assert np.bincount(fold).tolist() == [24] * 5
    assert all(len(set(fold[i : i + 4])) == 1 for i in range(0, len(fold), 4))


@pytest.mark.parametrize(("architectures", "policies"), [(1, 20), (4, 3), (8, 1)])
def test_few_architectures_are_split_by_row(architectures: int, policies: int) -> None:
    genomes = rows(architectures, policies)
    fold = folds_of(SPACE, genomes, rng=np.random.default_rng(0))
    counts = np.bincount(fold, minlength=5)
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("name", KNOWING)
def test_a_row_is_judged_by_what_has_not_seen_its_architecture(name: str) -> None:
    """Noise can be learned by heart and cannot be guessed."""
    genomes = rows(16, 3)
    targets = noise(genomes)
    fitted = KNOWING[name](SPACE, seed=0).fit(genomes, targets)
    assert isinstance(fitted, KnowsOutOfFold)
    known, guessed = tau(fitted.predict(genomes).mean, targets), tau(fitted.out_of_fold, targets)
    assert known is not None
    assert known > 0.6
    assert guessed is not None
    assert guessed < 0.25


def test_many_rows_do_not_give_each_other_away_either() -> None:
    """Beyond the rows that learn hyper-parameters, repeated networks told the process of each other."""
    genomes = rows(130, 2)
    targets = noise(genomes)
    found = tau(GpPredictor(SPACE, seed=0).fit(genomes, targets).out_of_fold, targets)
    assert found is not None
    assert found < 0.2


@pytest.mark.parametrize("name", KNOWING)
def test_left_out_is_in_the_order_and_the_unit_of_the_targets(name: str) -> None:
    genomes = rows(60)
    targets = 1e-3 * (genomes @ np.random.default_rng(1).uniform(-1, 2, genomes.shape[1])) + 5
    fitted = KNOWING[name](SPACE, seed=0).fit(genomes, targets)
    assert isinstance(fitted, KnowsOutOfFold)
    found = tau(fitted.out_of_fold, targets)
    assert found is not None
    assert found > 0.3
    assert abs(fitted.out_of_fold.mean() - targets.mean()) < targets.std()


def test_others_are_fitted_again_without_each_fold() -> None:
    genomes = rows(40)
    targets = genomes @ np.random.default_rng(1).uniform(-1, 2, genomes.shape[1])
    fold = folds_of(SPACE, genomes, rng=np.random.default_rng(0))
    ridge = RidgePredictor(SPACE, seed=0)
    found = out_of_fold_predictions(ridge.fit(genomes, targets), genomes, targets, fold)
    for k in range(5):
        again = ridge.fit(genomes[fold != k], targets[fold != k]).predict(genomes[fold == k])
        assert_array_equal(found[fold == k], again.mean)


def test_what_a_predictor_knows_itself_is_not_fitted_again() -> None:
    genomes = rows(20)
    targets = noise(genomes)
    fitted = BoostingPredictor(SPACE, seed=0).fit(genomes, targets)
    fit: Callable[..., object] = partial(pytest.fail, "was fitted again")
    watched = replace(fitted)
    object.__setattr__(watched, "fit", fit)
    assert_array_equal(
        out_of_fold_predictions(watched, genomes, targets, np.zeros(20, int)), fitted.out_of_fold
    )
