"""What every registered predictor promises."""

from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.stats import kendalltau

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.counts import macs, params
from hw_profiles.registry import names
from predictors.accuracy import mlp
from predictors.predictor import FEWEST, PREDICTORS, MakePredictor, Predictor, load_predictor
from predictors.table import compile_table
from supernet.families.family import load_family
from supernet.space.space import Genomes

FAMILY = load_family("digits-mbconv", in_channels=1, classes=10)
SPACE = FAMILY.space()
COSTS = compile_table(SPACE, FAMILY.terms(), (macs, params))


@pytest.fixture(scope="module", autouse=True)
def _hasty() -> Iterator[None]:
    """Networks learn in fewer steps: no promise here is of how much."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlp, "STEPS", 100)
        yield


@pytest.fixture(params=sorted(names("trilobit.predictors", PREDICTORS)))
def make(request: pytest.FixtureRequest) -> MakePredictor:
    return load_predictor(request.param)


def rows(n: int, seed: int = 0) -> tuple[Genomes, np.ndarray]:
    """Genomes (n, g) and an additive target (n,)."""
    genomes = SPACE.sample(n, rng=np.random.default_rng(seed))
    return genomes, genomes @ np.random.default_rng(1).uniform(-1, 2, genomes.shape[1])


@cache
def fitted(make: MakePredictor, n: int, *, with_costs: bool = False) -> Predictor:
    """Return the predictor fitted on n rows, once for all tests."""
    return make(SPACE, seed=0, costs=COSTS if with_costs else None).fit(*rows(n))


def test_shapes_and_finite_values(make: MakePredictor) -> None:
    predictor = fitted(make, 40)
    for n in (0, 1, 30):
        prediction = predictor.predict(rows(n, seed=2)[0])
        assert prediction.mean.shape == prediction.std.shape == (n,)
        assert prediction.mean.dtype == prediction.std.dtype == np.float64
        assert np.isfinite(prediction.mean).all()
        assert (prediction.std > 0).all()
        assert np.isfinite(prediction.std).all()


@pytest.mark.parametrize("with_costs", [False, True])
def test_ranks_an_additive_function(make: MakePredictor, with_costs: bool) -> None:
    predictor = fitted(make, 120, with_costs=with_costs)
    genomes, targets = rows(300, seed=2)
    assert kendalltau(predictor.predict(genomes).mean, targets).statistic > 0.5


def test_same_seed_same_prediction(make: MakePredictor) -> None:
    genomes = rows(20, seed=2)[0]
    first = fitted(make, 40).predict(genomes)
    again = make(SPACE, seed=0).fit(*rows(40)).predict(genomes)
    assert_array_equal(first.mean, again.mean)
    assert_array_equal(first.std, again.std)


def test_equal_networks_get_equal_predictions(make: MakePredictor) -> None:
    predictor = fitted(make, 120, with_costs=True)
    raw = np.random.default_rng(3).integers(0, SPACE.cardinalities, (20, len(SPACE.choices))).astype(np.int16)
    assert_array_equal(predictor.predict(raw).mean, predictor.predict(SPACE.canonical(raw)).mean)


def test_units_and_offsets_of_targets_do_not_matter(make: MakePredictor) -> None:
    (genomes, targets), new = rows(40), rows(20, seed=2)[0]
    plain = fitted(make, 40).predict(new)
    other = make(SPACE, seed=0).fit(genomes, 1e-6 * targets - 3e-5).predict(new)
    tolerance = 0.1e-6 * targets.std()  # rounding decides between equally good splits of a tree
    np.testing.assert_allclose(other.mean, 1e-6 * plain.mean - 3e-5, atol=tolerance)
    np.testing.assert_allclose(other.std, 1e-6 * plain.std, atol=tolerance)


def test_constant_targets_are_predicted_as_they_are(make: MakePredictor) -> None:
    genomes, _ = rows(20)
    prediction = make(SPACE, seed=0).fit(genomes, np.full(20, 0.25)).predict(genomes)
    np.testing.assert_allclose(prediction.mean, 0.25, atol=0.05)
    assert (prediction.std > 0).all()


def test_fit_leaves_the_predictor_as_it_was(make: MakePredictor) -> None:
    predictor = make(SPACE, seed=0)
    predictor.fit(*rows(FEWEST))
    with pytest.raises(TrilobitError, match=r"is not fitted; use what `fit\(genomes, targets\)` gives back"):
        predictor.predict(rows(2)[0])


def test_the_fewest_rows_are_enough_and_one_less_is_refused(make: MakePredictor) -> None:
    make(SPACE, seed=0).fit(*rows(FEWEST)).predict(rows(3)[0])
    for n in (0, 1, FEWEST - 1):
        with pytest.raises(
            TrilobitError, match=rf"^{n} evaluated candidates; a predictor needs {FEWEST} or more"
        ):
            make(SPACE, seed=0).fit(*rows(n))


def test_failed_evaluations_are_refused(make: MakePredictor) -> None:
    genomes, targets = rows(20)
    targets[7] = np.nan
    with pytest.raises(TrilobitError, match="target of row 7 is nan; wanted finite numbers"):
        make(SPACE, seed=0).fit(genomes, targets)


def test_shapes_that_do_not_match_are_a_bug(make: MakePredictor) -> None:
    genomes, targets = rows(20)
    with pytest.raises(ValueError, match=rf"wanted \(n, {len(SPACE.choices)}\) and \(n,\)"):
        make(SPACE, seed=0).fit(genomes[:, 1:], targets)


def test_an_unknown_predictor_names_the_known_ones() -> None:
    with pytest.raises(TrilobitError, match="unknown predictor 'luck'; known: auto, boosting, "):
        load_predictor("luck")
