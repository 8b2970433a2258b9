"""What every predictor promises (`nas.Predictor`); a plug-in is what makes one, as it is registered."""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, cast

import numpy as np
from scipy.stats import kendalltau

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.counts import macs, params
from nas.testing.contract import Contract, expect, refuses
from predictors.predictor import FEWEST, MakePredictor, Predictor
from predictors.table import CostTable, compile_table
from supernet.families.family import load_family
from supernet.space.space import Genomes, SearchSpace

LEAST_TAU = 0.5  # on an additive function, after 120 networks
UNIT = 1e-6  # in which the same targets are given again


@dataclass(frozen=True, eq=False)
class Problem:
    """Networks of a space and an additive function of them.

    Attributes:
        costs: of the space's layers, known for free.
        genomes, targets: (420, g) and (420,); the last 300 are to be predicted.
    """

    space: SearchSpace
    costs: CostTable
    genomes: Genomes
    targets: np.ndarray


@cache
def problem() -> Problem:
    """Return the problem that every predictor is tried on."""
    family = load_family("digits-mbconv", in_channels=1, classes=10)
    space = family.space()
    genomes = space.sample(420, rng=np.random.default_rng(0))
    targets = genomes @ np.random.default_rng(1).uniform(-1, 2, genomes.shape[1])
    return Problem(space, compile_table(space, family.terms(), (macs, params)), genomes, targets)


def fitted(make: MakePredictor, n: int, *, with_costs: bool = False) -> Predictor:
    """Return the predictor fitted on the first n networks, once for all promises."""
    return _fitted(cast(Hashable, make), n, with_costs)


@cache
def _fitted(make: Any, n: int, with_costs: bool) -> Predictor:
    data = problem()
    predictor = make(data.space, seed=0, costs=data.costs if with_costs else None)
    made: Predictor = predictor.fit(data.genomes[:n], data.targets[:n])
    return made


def predicts_a_mean_and_a_spread_for_each(make: MakePredictor) -> None:
    """Predict a finite mean and a positive spread for every network, for none and one too."""
    for n in (0, 1, 30):
        prediction = fitted(make, 40).predict(problem().genomes[120 : 120 + n])
        for name, values in (("mean", prediction.mean), ("std", prediction.std)):
            expect(values.shape == (n,), f"{name} of {n} networks has the shape {values.shape}")
            expect(values.dtype == np.float64, f"{name} is float64, got {values.dtype}")
            expect(np.isfinite(values).all(), f"{name} is not finite")
        expect((prediction.std > 0).all(), "a std is not positive")


def ranks_an_additive_function(make: MakePredictor) -> None:
    """Rank an additive function after 120 networks, with costs known for free and without."""
    for with_costs in (False, True):
        means = fitted(make, 120, with_costs=with_costs).predict(problem().genomes[120:]).mean
        tau = kendalltau(means, problem().targets[120:]).statistic
        expect(tau > LEAST_TAU, f"Kendall's tau is {tau:.2f}, {'with' if with_costs else 'without'} costs")


def depends_on_its_seed_alone(make: MakePredictor) -> None:
    """Predict the same for the same seed and rows."""
    data, rows = problem(), slice(120, 140)
    again = make(data.space, seed=0).fit(data.genomes[:40], data.targets[:40])
    first, second = (predictor.predict(data.genomes[rows]) for predictor in (fitted(make, 40), again))
    expect(np.array_equal(first.mean, second.mean), "means differ")
    expect(np.array_equal(first.std, second.std), "spreads differ")


def predicts_the_same_for_equal_networks(make: MakePredictor) -> None:
    """Predict the same for genomes of the same network, canonical or not."""
    space = problem().space
    raw = np.random.default_rng(3).integers(0, space.cardinalities, (20, len(space.choices))).astype(np.int16)
    predictor = fitted(make, 120, with_costs=True)
    same = np.array_equal(predictor.predict(raw).mean, predictor.predict(space.canonical(raw)).mean)
    expect(same, "an inactive gene changes the prediction: use space.canonical")


def does_not_depend_on_units(make: MakePredictor) -> None:
    """Scale predictions with the unit and the offset of the targets."""
    data, new = problem(), problem().genomes[120:140]
    targets = data.targets[:40]
    plain = fitted(make, 40).predict(new)
    other = make(data.space, seed=0).fit(data.genomes[:40], UNIT * targets - 3e-5).predict(new)
    tolerance = 0.1 * UNIT * targets.std()  # rounding decides between equally good splits of a tree
    expect(np.allclose(other.mean, UNIT * plain.mean - 3e-5, rtol=1e-7, atol=tolerance), "means differ")
    expect(np.allclose(other.std, UNIT * plain.std, rtol=1e-7, atol=tolerance), "spreads differ")


def predicts_constant_targets_as_they_are(make: MakePredictor) -> None:
    """Predict constant targets as they are, with a positive spread."""
    genomes = problem().genomes[:20]
    prediction = make(problem().space, seed=0).fit(genomes, np.full(20, 0.25)).predict(genomes)
    expect(np.allclose(prediction.mean, 0.25, atol=0.05), f"0.25 is predicted as {prediction.mean[:3]}")
    expect((prediction.std > 0).all(), "a std is not positive")


def leaves_itself_unchanged_by_fit(make: MakePredictor) -> None:
    """Return a fitted predictor from `fit` and leave the one it is called on as it was: not fitted."""
    data = problem()
    predictor = make(data.space, seed=0)
    predictor.fit(data.genomes[:FEWEST], data.targets[:FEWEST])
    refuses(lambda: predictor.predict(data.genomes[:2]), TrilobitError, "is not fitted")


def refuses_rows_that_teach_nothing(make: MakePredictor) -> None:
    """Refuse too few rows and failed evaluations in words, rows of another shape as a bug."""
    data = problem()
    genomes, targets = data.genomes[:20], data.targets[:20].copy()
    make(data.space, seed=0).fit(genomes[:FEWEST], targets[:FEWEST]).predict(genomes[:3])
    for n in (0, 1, FEWEST - 1):
        few = partial(make(data.space, seed=0).fit, genomes[:n], targets[:n])
        refuses(few, TrilobitError, f"{n} evaluated candidates; a predictor needs {FEWEST} or more")
    refuses(partial(make(data.space, seed=0).fit, genomes[:, 1:], targets), ValueError, "wanted (n, ")
    targets[7] = np.nan
    failed = partial(make(data.space, seed=0).fit, genomes, targets)
    refuses(failed, TrilobitError, "target of row 7 is nan; wanted finite numbers")


check_predictor = Contract[MakePredictor](
    "predictor",
    (
        predicts_a_mean_and_a_spread_for_each,
        ranks_an_additive_function,
        depends_on_its_seed_alone,
        predicts_the_same_for_equal_networks,
        does_not_depend_on_units,
        predicts_constant_targets_as_they_are,
        leaves_itself_unchanged_by_fit,
        refuses_rows_that_teach_nothing,
    ),
)
