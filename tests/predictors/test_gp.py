"""The Gaussian process: its algebra against scikit-learn and plain refits, and what the drop promises."""

from collections import Counter

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import approx_fprime
from scipy.stats import kendalltau
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct

from hw_profiles.graph.counts import macs, params
from predictors.accuracy import gp
from predictors.accuracy.gp import GpPredictor, posterior
from predictors.accuracy.gp_features import reader
from predictors.accuracy.gp_kernel import (
    CONSTANT,
    Hyper,
    Kernel,
    cost,
    grouped,
    noise_of,
    unwarp,
    warp,
)
from predictors.assessment.conformal import NOMINAL, coverage
from predictors.linalg import factorise
from predictors.table import CostTable, compile_table
from supernet.families.family import load_family
from supernet.space.space import Genomes

FAMILY = load_family("digits-mbconv", in_channels=1, classes=10)
SPACE = FAMILY.space()
FORMATS = [column for column, choice in enumerate(SPACE.choices) if choice.kind == "precision"]
COSTS = compile_table(
    SPACE, FAMILY.terms(), (macs, params, lambda layer: macs(layer) * (layer.activation_format != "fp32"))
)  # the last is 0 in fp32
NOISE = 0.01


def in_fp32(genomes: Genomes) -> Genomes:
    plain = genomes.copy()
    plain[:, FORMATS] = 0
    return SPACE.canonical(plain)


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
    return np.asarray(1 - np.exp(-architecture / 8) - 0.01 * (loss * genomes)[:, FORMATS].sum(axis=1))


def features(n: int, *, seed: int = 0) -> tuple[np.ndarray, Hyper]:
    """(n, d) features of candidates, the first third in fp32, and their groups."""
    genomes = candidates(n, fp32=n // 3, seed=seed)
    read = reader(SPACE, COSTS, genomes)
    return read(genomes).astype(np.float64), grouped(read.labels, read.split)


def some_theta(hyper: Hyper) -> np.ndarray:
    theta = hyper.typical + np.random.default_rng(1).normal(0, 0.3, len(hyper.typical))
    theta[1] = 0.2
    return theta


def test_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    x, test, y = rng.normal(size=(30, 3)), rng.normal(size=(20, 3)), rng.normal(size=30)
    kernel = Kernel(np.ones(3), 0.7, np.array([1.0, 4.0, 0.25]), np.zeros(0))
    theirs = GaussianProcessRegressor(
        ConstantKernel(CONSTANT)
        + DotProduct(sigma_0=0, sigma_0_bounds="fixed")
        + ConstantKernel(0.7) * RBF([1.0, 0.5, 2.0]),
        alpha=0.1,
        optimizer=None,
    ).fit(x, y)
    mean, std = theirs.predict(test, return_std=True)
    weights = factorise(kernel(x, x), 0.1).solve(y)
    ours, variance = posterior(kernel, x, weights, 0.1)(test.astype(np.float32))
    assert_allclose(ours, mean, atol=1e-4)  # ours is in float32
    assert_allclose(np.sqrt(variance), std, atol=1e-3)


def test_likelihood_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(25, 2)), rng.normal(size=25)
    kernel = ConstantKernel(2.0) * RBF([1.0, 0.5])
    theirs = GaussianProcessRegressor(kernel, alpha=0.1, optimizer=None).fit(x, y)
    ours = Kernel(np.zeros(2), 2.0, np.array([1.0, 4.0]), np.zeros(0))(x, x) - CONSTANT
    factor = factorise(ours, 0.1)
    likelihood = -0.5 * (y @ factor.solve(y) + factor.log_determinant + 25 * np.log(2 * np.pi))
    assert likelihood == pytest.approx(theirs.log_marginal_likelihood_value_)


@pytest.mark.parametrize("by", [-0.3, 0.0, 0.4])
def test_gradient_of_the_likelihood(by: float) -> None:
    x, hyper = features(24)
    y, theta = np.random.default_rng(2).uniform(-1.5, 1.5, 24), some_theta(hyper)
    theta[1] = by
    numeric = approx_fprime(theta, lambda at: cost(at, hyper, x, y)[0], 1e-6)
    assert_allclose(cost(theta, hyper, x, y)[1], numeric, rtol=1e-3, atol=1e-3)


def test_covariances_are_symmetric_and_have_the_variance_on_their_diagonal() -> None:
    x, hyper = features(30)
    kernel = hyper.kernel(some_theta(hyper))
    assert_allclose(kernel(x, x), kernel(x, x).T)
    assert_allclose(np.diag(kernel(x, x)), kernel.variance(x))
    assert np.linalg.eigvalsh(kernel(x, x)).min() > -1e-9


@pytest.mark.parametrize("by", [-0.5, -1e-7, 0.0, 1e-7, 0.5])
def test_unbending_is_the_inverse(by: float) -> None:
    targets = np.linspace(-1.5, 1.5, 11)
    assert_allclose(unwarp(warp(targets, by), by), targets, atol=1e-12)
    assert (np.diff(warp(targets, by)) > 0).all()


@pytest.mark.parametrize("costs", [None, COSTS])
def test_features_of_the_policy_are_zero_in_fp32(costs: CostTable | None) -> None:
    genomes = candidates(40, fp32=0)
    read = reader(SPACE, costs, genomes)
    ours, plain = read(genomes), read(in_fp32(genomes))
    assert_array_equal(plain[:, read.split :], 0)
    assert_array_equal(plain[:, : read.split], ours[:, : read.split])
    assert (ours[:, read.split :] != 0).any(axis=1).all()


def test_roles_of_a_transformer_share_hyper_parameters_and_add_up_by_section() -> None:
    space = load_family("cifar-vit", in_channels=3, classes=10, formats=("fp32", "int8")).space()
    deepest = np.tile((space.cardinalities - 1).astype(np.int16), (3, 1))
    deepest[1, space.columns["s0.b0.heads"]] = deepest[2, space.columns["s0.b7.heads"]] = 0
    read = reader(space, None, deepest)
    labels, count = np.array(read.labels), Counter(read.labels)
    for role in ("heads", "percent", "qkv.format", "proj.format"):
        assert [count[f"{role}{scope}"] for scope in ("", " of section", " of network")] == [8, 2, 1]
    assert [count[role] for role in ("width", "depth", "resolution")] == [1, 1, 1]
    whole, no_first, no_last = read(deepest)[:, labels == "heads of section"]
    assert [(no_first != whole).tolist(), (no_last != whole).tolist()] == [[True, False], [False, True]]


def test_covariance_of_networks_in_fp32_knows_no_drop() -> None:
    x, hyper = features(30)
    theta = some_theta(hyper)
    other = theta.copy()
    other[3 + hyper.sizes[4] : 3 + hyper.sizes[3]] += 2  # slopes of the policy...
    other[-hyper.sizes[5] :] += 2  # ...and how they change with the architecture
    before, after = hyper.kernel(theta)(x, x), hyper.kernel(other)(x, x)
    assert_array_equal(before[:10], after[:10])
    assert (before[10:, 10:] != after[10:, 10:]).any()


def test_without_quantized_candidates_every_policy_is_as_good() -> None:
    genomes = candidates(60, fp32=60)
    predictor = GpPredictor(SPACE, seed=0, costs=COSTS).fit(genomes, accuracy(genomes))
    quantized = candidates(50, fp32=0, seed=1)
    ours, plain = predictor.predict(quantized), predictor.predict(in_fp32(quantized))
    assert_allclose(ours.mean, plain.mean, atol=1e-4)
    assert (ours.std > plain.std).all()  # but it knows that it does not know


def test_transfer_beats_learning_from_quantized_candidates_alone() -> None:
    genomes, test = candidates(140, fp32=110), candidates(300, fp32=0, seed=1)
    targets = accuracy(genomes)
    with_fp32 = GpPredictor(SPACE, seed=0).fit(genomes, targets).predict(test)
    alone = GpPredictor(SPACE, seed=0).fit(genomes[110:], targets[110:]).predict(test)
    gained = [kendalltau(p.mean, accuracy(test)).statistic for p in (with_fp32, alone)]
    assert gained[0] > gained[1] + 0.05


def test_learns_and_knows_its_error() -> None:
    genomes, test = candidates(150, fp32=75), candidates(1000, fp32=500, seed=1)
    targets = accuracy(genomes) + np.random.default_rng(2).normal(0, NOISE, 150)
    prediction = GpPredictor(SPACE, seed=0, costs=COSTS).fit(genomes, targets).predict(test)
    truth = accuracy(test) + np.random.default_rng(3).normal(0, NOISE, 1000)
    assert kendalltau(prediction.mean, truth).statistic > 0.85
    assert coverage(prediction.mean - truth, prediction.std) == pytest.approx(NOMINAL, abs=0.08)


def test_float32_is_as_good_as_float64() -> None:
    genomes, test = candidates(80, fp32=40), candidates(50, fp32=20, seed=1)
    predictor = GpPredictor(SPACE, seed=0, costs=COSTS).fit(genomes, accuracy(genomes))
    fitted = predictor.fitted
    assert fitted is not None
    hyper = grouped(fitted.read.labels, fitted.read.split)
    kernel, noise = hyper.kernel(fitted.theta), noise_of(fitted.theta)
    x, z = (fitted.read(rows).astype(np.float64) for rows in (genomes, test))
    warped = warp((accuracy(genomes) - fitted.mean) / fitted.scale, float(fitted.theta[1]))
    inverse = factorise(kernel(x, x), noise).inverse
    cross = kernel(z, x)
    mean, variance = fitted.posterior(fitted.read(test))
    assert_allclose(mean, cross @ inverse @ warped, atol=1e-3)
    assert_allclose(variance, kernel.variance(z) - ((cross @ inverse) * cross).sum(axis=1), atol=1e-3)


def test_rows_do_not_depend_on_the_chunk_they_fall_in(monkeypatch: pytest.MonkeyPatch) -> None:
    genomes = candidates(20, fp32=10)
    predictor = GpPredictor(SPACE, seed=0).fit(genomes, accuracy(genomes))
    whole = predictor.predict(genomes)
    monkeypatch.setattr(gp, "CHUNK", 7)
    assert_allclose(predictor.predict(genomes).mean, whole.mean, rtol=1e-5)  # BLAS may sum in another order


def test_no_prediction_is_far_beyond_all_that_was_seen() -> None:
    """Two outliers bend the scale; a network beyond all others was then hundreds of deviations off."""
    genomes = in_fp32(candidates(400, fp32=0))
    targets = -np.expm1(-accuracy(genomes))
    rank = np.argsort(targets)
    learned = rank[150:200]
    seen = targets[learned].copy()
    seen[:2] -= 30 * seen.std()
    found = GpPredictor(SPACE, seed=0).fit(genomes[learned], seen).predict(genomes).mean
    assert np.abs(found - seen.mean()).max() < 20 * seen.std()


def test_more_rows_than_learn_are_all_used(monkeypatch: pytest.MonkeyPatch) -> None:
    genomes, test = candidates(120, fp32=60), candidates(300, fp32=150, seed=1)
    monkeypatch.setattr(gp, "LEARNED_ON", 40)
    errors = [
        np.abs(
            GpPredictor(SPACE, seed=0).fit(rows, accuracy(rows)).predict(test).mean - accuracy(test)
        ).mean()
        for rows in (genomes[40:80], genomes)
    ]
    assert errors[1] < 0.8 * errors[0]
