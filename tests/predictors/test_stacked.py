"""The weighted mean of other predictors. What holds for every predictor is in tests/contracts."""

import itertools
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal

from predictors.accuracy.stacked import (
    EXPECTED,
    LEAST_WEIGHT,
    MEMBERS,
    StackedPredictor,
    affordable,
    best_weights,
    even_scale,
)
from predictors.assessment.conformal import coverage
from predictors.assessment.out_of_fold import FEW
from predictors.assessment.quality import tau
from predictors.design.surrogate import rank_normalised
from predictors.predictor import FEWEST, load_predictor
from supernet.families.family import load_family
from supernet.space.space import Genomes

SPACE = load_family("digits-mbconv", in_channels=1, classes=10).space()
QUICK = ("ridge", "boosting")  # members that take no time


def rows(n: int, noise: float = 0.0) -> tuple[Genomes, np.ndarray]:
    """Genomes (n, g), and a target (n,) that adds up but for one product."""
    rng = np.random.default_rng(0)
    weights = rng.uniform(-1, 2, len(SPACE.choices))
    genomes = SPACE.sample(n, rng=rng)
    product = 4.0 * (genomes[:, 0] > 0) * (genomes[:, 1] > 0)
    return genomes, genomes @ weights + product + noise * rng.normal(size=n)


def fitted(n: int = 60, **kwargs: object) -> StackedPredictor:
    predictor = StackedPredictor(SPACE, seed=0, members=QUICK)
    return replace(predictor, **kwargs).fit(*rows(n))  # type: ignore[arg-type]


# -- weights -------------------------------------------------------------------------------------------------


def penalised(weights: np.ndarray, errors: np.ndarray, odds: np.ndarray) -> float:
    """Squared error of the mean, and how far the weights are from those by odds and each member's error."""
    expected = odds * (errors**2).mean(axis=1) ** -4.0
    away = weights - expected / expected.sum()
    return float(((weights @ errors) ** 2).sum() + EXPECTED * away @ away)


def exhaustive_weights(errors: np.ndarray, odds: np.ndarray, steps: int = 50) -> float:
    """The least penalised error of a mean of three, among all weights in steps of 2 %."""
    grid = [(a, b, steps - a - b) for a, b in itertools.product(range(steps + 1), repeat=2) if a + b <= steps]
    return min(penalised(np.array(weights) / steps, errors, odds) for weights in grid)


@given(st.integers(0, 10**6))
@example(1807)  # one falls below the least weight only after another one was left out
def test_weights_err_no_more_than_any_on_a_grid(seed: int) -> None:
    rng = np.random.default_rng(seed)
    targets = rng.normal(size=80)
    unseen = targets + rng.normal(size=(3, 80)) * rng.uniform(0.2, 2, (3, 1)) + rng.normal(size=80) / 3
    odds = rng.uniform(1, 5, 3)
    weights = best_weights(unseen, targets, odds)
    assert (weights >= 0).all()
    assert weights.sum() == pytest.approx(1)
    assert ((weights == 0) | (weights >= LEAST_WEIGHT)).all()
    if (weights > 0).sum() == 3:  # nothing was left out for being too little
        scale = even_scale(targets)
        errors = scale(unseen) - scale(targets)
        assert penalised(weights, errors, odds) <= exhaustive_weights(errors, odds) * (1 + 1e-6)


def test_with_few_rows_members_that_err_alike_share() -> None:
    errors = np.random.default_rng(0).normal(size=12)
    weights = best_weights(np.stack([errors, 1.01 * errors]), np.zeros(12))
    assert weights.min() > 0.4  # the error alone would give all to the first


def test_independent_errors_are_averaged() -> None:
    rng = np.random.default_rng(0)
    targets = rng.normal(size=5000)
    weights = best_weights(targets + rng.normal(size=(2, 5000)) * [[1.0], [2.0]], targets)
    assert_allclose(weights, [0.8, 0.2], atol=0.03)  # in proportion to 1 / variance


def test_outliers_do_not_decide() -> None:
    """How bad the few networks are that learned nothing, only one member knows; it knows little else."""
    rng = np.random.default_rng(0)
    targets = np.concatenate([rng.normal(size=300), [-40.0, -50.0]])
    ranks_well, knows_the_worst = targets + rng.normal(0, [[0.1], [0.8]], (2, 302))
    ranks_well[-2:] = -15
    assert best_weights(np.stack([ranks_well, knows_the_worst]), targets)[0] > 0.5


def test_a_member_that_ranks_by_luck_does_not_stand_alone() -> None:
    """With few rows, tau of one member is often above that of a better one."""
    kept = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        targets = rng.normal(size=40)
        unseen = targets + rng.normal(0, [[0.5], [0.6]], (2, 40))
        kept.append(best_weights(unseen, targets, np.array([3.0, 1.0]))[0])
    assert min(kept) > 0.3


@given(arrays(np.float64, st.integers(2, 20), elements=st.integers(-5, 5)))
def test_the_even_scale_keeps_the_order_and_takes_targets_to_evened_ones(targets: np.ndarray) -> None:
    scale = even_scale(targets)
    assert_allclose(scale(targets), rank_normalised(targets), atol=1e-9)
    assert (np.diff(scale(np.linspace(-9, 9, 50))) >= -1e-12).all()


def test_equal_targets_are_no_trouble() -> None:
    weights = best_weights(np.full((3, 20), 0.5), np.full(20, 0.5))
    assert weights.sum() == pytest.approx(1)


# -- time ----------------------------------------------------------------------------------------------------


@given(st.integers(FEWEST, 5000), st.floats(0, 100), st.permutations(list(MEMBERS)))
def test_what_is_tried_keeps_to_the_limit(n: int, limit_s: float, names: list[str]) -> None:
    chosen = affordable(names, n, limit_s)
    assert chosen[0] == names[0]
    assert [name for name in names if name in chosen] == list(chosen)
    if len(chosen) > 1:
        assert sum(MEMBERS[name].seconds(n) for name in chosen) <= limit_s


def test_without_limit_all_are_tried_and_strangers_count_as_slow() -> None:
    assert affordable(list(MEMBERS), 400, np.inf) == tuple(MEMBERS)
    slow_s = max(time.seconds(400) for time in MEMBERS.values())
    ridge_s = MEMBERS["ridge"].seconds(400)
    assert affordable(["ridge", "stranger"], 400, ridge_s + 5 * slow_s) == ("ridge",)
    assert affordable(["ridge", "stranger"], 400, ridge_s + 6 * slow_s) == ("ridge", "stranger")


def test_members_go_from_the_quickest_to_the_slowest() -> None:
    for n in (50, 400, 1000):
        seconds = [time.seconds(n) for time in MEMBERS.values()]
        assert seconds == sorted(seconds)


# -- the predictor -------------------------------------------------------------------------------------------


def test_the_mean_is_that_of_its_members() -> None:
    stacked, (genomes, _) = fitted(), rows(200)
    assert stacked.fitted is not None
    members = stacked.fitted.members
    assert set(members) == set(stacked.fitted.taus) == set(QUICK)
    outputs = np.stack([members[name].predict(genomes).mean for name in members])
    assert_allclose(stacked.predict(genomes).mean, stacked.fitted.weights @ outputs, rtol=1e-9)


def test_members_are_fitted_as_they_are_alone() -> None:
    stacked, (genomes, targets) = fitted(), rows(60)
    assert stacked.fitted is not None
    for name, member in stacked.fitted.members.items():
        alone = load_predictor(name)(SPACE, seed=0).fit(genomes, targets)
        assert_array_equal(member.predict(genomes).mean, alone.predict(genomes).mean)


def test_a_single_member_answers_for_itself() -> None:
    stacked, (genomes, targets) = fitted(limit_s=0.0), rows(60)
    alone = load_predictor("ridge")(SPACE, seed=0).fit(genomes, targets).predict(genomes)
    found = stacked.predict(genomes)
    assert_array_equal(found.mean, alone.mean)
    assert_array_equal(found.std, alone.std)


def test_too_few_rows_to_leave_any_out() -> None:
    stacked = fitted(FEW - 1)
    assert stacked.fitted is not None
    assert list(stacked.fitted.members) == ["ridge"]
    known = fitted(FEW).fitted
    assert known is not None
    assert set(known.taus) == set(QUICK)


def test_better_than_its_members_and_intervals_hold_what_they_say() -> None:
    genomes, targets = rows(600, noise=1.0)
    stacked = StackedPredictor(SPACE, seed=0, members=QUICK).fit(genomes[:150], targets[:150])
    prediction = stacked.predict(genomes[150:])
    assert stacked.fitted is not None
    ranks = [
        tau(member.predict(genomes[150:]).mean, targets[150:]) for member in stacked.fitted.members.values()
    ]
    found = tau(prediction.mean, targets[150:])
    assert found is not None
    assert found >= max(cast("list[float]", ranks)) - 0.01
    assert 0.84 < coverage(prediction.mean - targets[150:], prediction.std) < 0.97


def test_less_certain_where_members_disagree() -> None:
    stacked, (genomes, _) = fitted(), rows(200)
    assert stacked.fitted is not None
    one, other = (member.predict(genomes).mean for member in stacked.fitted.members.values())
    assert tau(np.abs(one - other), stacked.predict(genomes).std) == pytest.approx(1)
