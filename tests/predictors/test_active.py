"""The sampler's Gaussian process, and which rows it asks for."""

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF

from hw_profiles.graph.counts import macs, params
from predictors.design.active import alc_design
from predictors.design.surrogate import (
    JITTER,
    PRIOR,
    Groups,
    Kernel,
    embed,
    learn_kernel,
    points_at,
    posterior_covariance,
    posterior_mean,
    rank_normalised,
    squared_distances,
    stage_sums,
)
from predictors.table import compile_table
from supernet.families.family import load_family
from supernet.space.space import Choice, SearchSpace

FAMILY = load_family("digits-mbconv", in_channels=1, classes=10)
SPACE = FAMILY.space()
COSTS = compile_table(SPACE, FAMILY.terms(), [macs, params])
KERNEL = Kernel((1.0, 0.5, 2.0, 1.0), 1.7, 0.1)


def some_points(n: int, seed: int = 0) -> Groups:
    rng = np.random.default_rng(seed)
    return embed(SPACE, COSTS, rng=rng)(SPACE.sample(n, rng=rng))


def stacked(points: Groups) -> np.ndarray:
    return np.hstack([np.sqrt(w) * x for w, x in zip(KERNEL.weights, points, strict=True)])


def nothing(points: Groups) -> Groups:
    return points_at(points, np.zeros(0, np.int64))


def test_posterior_is_that_of_scikit_learn() -> None:
    points = some_points(60)
    known, asked = points_at(points, np.arange(40)), points_at(points, np.arange(40, 60))
    targets = np.random.default_rng(1).normal(5, 2, 40)
    peer = GaussianProcessRegressor(RBF(KERNEL.length), alpha=KERNEL.noise + JITTER, optimizer=None)
    peer.fit(stacked(known), targets - targets.mean())
    mean, covariance = peer.predict(stacked(asked), return_cov=True)
    np.testing.assert_allclose(
        posterior_mean(KERNEL, known, targets, asked), mean + targets.mean(), rtol=1e-7
    )
    np.testing.assert_allclose(posterior_covariance(KERNEL, known, asked), covariance, atol=1e-9)


def test_groups_are_equally_wide_and_equal_networks_are_one_point() -> None:
    rng = np.random.default_rng(0)
    embedding, genomes = embed(SPACE, COSTS, rng=rng), SPACE.sample(2000, rng=rng)
    points = embedding(genomes)
    for distances in squared_distances(points, points):
        assert distances.mean() == pytest.approx(2, rel=0.1)
    noise = rng.integers(0, SPACE.cardinalities, size=genomes.shape).astype(np.int16)
    dead = np.where(SPACE.active(genomes), genomes, noise)
    for one, other in zip(points, embedding(dead), strict=True):
        np.testing.assert_allclose(one, other)


def test_spaces_without_stages_numbers_formats_or_costs_can_be_embedded() -> None:
    space = SearchSpace("ops", tuple(Choice(f"e{i}", ("none", "conv", "skip")) for i in range(4)))
    assert stage_sums(space).shape == (12, 0)
    rng = np.random.default_rng(0)
    points = embed(space, None, rng=rng)(space.sample(30, rng=rng))
    assert [part.shape[1] for part in points] == [24, 0, 0, 1]
    assert len(set(alc_design(PRIOR, nothing(points), points, 20).tolist())) == 20


def test_the_kernel_with_the_right_noise_is_learned() -> None:
    points, rng = some_points(150), np.random.default_rng(2)
    smooth = np.linalg.cholesky(posterior_covariance(PRIOR, nothing(points), points) + 1e-6 * np.eye(150))
    signal = smooth @ rng.normal(size=150)
    assert learn_kernel(points, signal, rng=rng).noise <= 0.01
    assert learn_kernel(points, rng.normal(size=150), rng=rng).noise >= 0.3
    scaled = learn_kernel(points, 1e-3 * signal + 7, rng=np.random.default_rng(5))
    assert scaled == learn_kernel(points, signal, rng=np.random.default_rng(5))


def test_outliers_do_not_rule_and_no_order_is_lost() -> None:
    values = np.append(np.random.default_rng(0).normal(90, 1, 99), 10.0)
    even = rank_normalised(values)
    assert (np.argsort(even) == np.argsort(values)).all()
    assert even[:99].std() > 3 * ((values - values.mean()) / values.std())[:99].std()
    np.testing.assert_allclose(rank_normalised(3 * values + 7), even)
    assert (rank_normalised(np.ones(5)) == 0).all()


def test_each_row_chosen_takes_most_variance_off_all() -> None:
    points = some_points(40)
    pool, known = points_at(points, np.arange(30)), points_at(points, np.arange(30, 40))
    chosen = alc_design(KERNEL, known, pool, 4)
    for step in range(4):
        before = [*range(30, 40), *chosen[:step].tolist()]

        def left(row: int, before: list[int] = before) -> float:
            measured = points_at(points, np.array([*before, row]))
            return float(np.trace(posterior_covariance(KERNEL, measured, pool)))

        best = min((row for row in range(30) if row not in before), key=left)
        assert left(int(chosen[step])) == pytest.approx(left(best), rel=1e-5)


def test_an_order_is_a_prefix_of_a_longer_one_and_names_no_row_twice() -> None:
    pool = some_points(50)
    few, all_of_them = (alc_design(PRIOR, nothing(pool), pool, n) for n in (12, 80))
    np.testing.assert_array_equal(few, all_of_them[:12])
    np.testing.assert_array_equal(np.sort(all_of_them), np.arange(50))


def test_what_is_known_is_not_asked_again() -> None:
    pool = some_points(30)
    first = alc_design(PRIOR, nothing(pool), pool, 5)
    again = alc_design(PRIOR, points_at(pool, first), pool, 5)
    assert not set(first.tolist()) & set(again.tolist())
