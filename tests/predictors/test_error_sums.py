"""Sums of errors as vectors: what is learned of them is what they were made of, and more than lengths say."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.stats import kendalltau

from nas.tune.policies.first_policies import first_policies, varied_policies
from predictors.accuracy.error_sums import ErrorSum, _expected, _unlikeliness
from predictors.accuracy.policies import PolicyPredictor
from tests.predictors.test_policies import SPACE, UNITS, in_codes

DIRECTIONS = 60


class Network:
    """Answers that every part of a policy moves by a vector of its own; large errors grow less."""

    def __init__(self, seed: int, bend: float = 0.0) -> None:
        rng = np.random.default_rng(seed)
        sizes = np.exp(rng.normal(-4, 0.8, (UNITS, 3))) * [0, 1, 3]
        self.weights = sizes[..., None] * rng.standard_normal((UNITS, 3, DIRECTIONS))
        self.tensors = np.exp(rng.normal(-4, 0.8, (UNITS + 1, 1))) * rng.standard_normal(
            (UNITS + 1, DIRECTIONS)
        )
        self.bend = bend

    def errors(self, genomes: np.ndarray) -> np.ndarray:
        codes = in_codes(genomes)
        added = self.weights[np.arange(UNITS), genomes].sum(axis=1) + codes @ self.tensors
        return added / (1 + self.bend * np.linalg.norm(added, axis=1, keepdims=True))


def logs_of(errors: np.ndarray) -> np.ndarray:
    return np.log((errors**2).sum(axis=1) + 1e-9)


@pytest.mark.parametrize("bend", [0.0, 0.1])
def test_errors_say_more_than_their_lengths(bend: float) -> None:
    taus = []
    for seed in range(2):
        network, rng = Network(seed, bend), np.random.default_rng(seed)
        seen, unseen = first_policies(SPACE, 90, rng=rng), varied_policies(SPACE, 200, rng=rng)
        unseen = unseen[(unseen > 0).sum(axis=1) > 1]
        errors, truth = network.errors(seen), logs_of(network.errors(unseen))
        predictor = PolicyPredictor(SPACE, tensors=in_codes)
        with_errors = predictor.fit(seen, logs_of(errors), errors).predict(unseen)
        by_length = predictor.fit(seen, logs_of(errors)).predict(unseen)
        taus.append([kendalltau(each.mean, truth).statistic for each in (with_errors, by_length)])
        inside = np.abs(with_errors.mean - truth) < 1.645 * with_errors.std
        assert 0.75 < inside.mean() <= 1
    better, worse = np.mean(taus, axis=0)
    assert better > 0.9
    assert better > worse + 0.02


def test_errors_that_cancel_are_known_to() -> None:
    """Two units whose errors are each other's opposite: by lengths both together are the worse."""
    network, rng = Network(0), np.random.default_rng(0)
    network.weights[5] = -network.weights[11]
    network.weights[:, 1] *= 3
    seen = first_policies(SPACE, 100, rng=rng)
    errors = network.errors(seen)
    fitted = PolicyPredictor(SPACE, tensors=in_codes).fit(seen, logs_of(errors), errors)
    alone, both = np.zeros((2, UNITS), np.int16)
    alone[5], both[[5, 11]] = 1, 1
    alone_log, both_log = fitted.predict(np.stack([alone, both])).mean
    truth = logs_of(network.errors(np.stack([alone, both])))
    assert truth[1] < truth[0]
    assert both_log < alone_log + 0.3


def test_slopes_are_those_of_the_likelihood() -> None:
    rng = np.random.default_rng(0)
    rows = (rng.random((12, 7)) < 0.5).astype(float)
    rows[rows.sum(axis=1) == 0, 0] = 1
    errors, point = rng.standard_normal((12, 20)), rng.normal(0, 0.5, 8)
    products = errors @ errors.T
    scale = 1 / np.sqrt(np.diag(products))
    cosines = products * scale[:, None] * scale

    def value(at: np.ndarray) -> float:
        return _unlikeliness(rows, scale, cosines, np.exp(at[:7]), float(np.exp(at[7])))[0]

    _, slopes, slope = _unlikeliness(rows, scale, cosines, np.exp(point[:7]), float(np.exp(point[7])))
    assert np.append(slopes, slope) == pytest.approx(approx_fprime(point, value, 1e-6), rel=1e-3, abs=1e-4)


def made_of(rows: np.ndarray, errors: np.ndarray, lengths: np.ndarray, own: float) -> ErrorSum:
    products = errors @ errors.T
    scale = 1 / np.sqrt(np.diag(products))
    inverse = np.linalg.inv(_expected(rows, scale, lengths, own))
    return ErrorSum(rows, scale, lengths, own, products * scale[:, None] * scale, inverse, np.zeros(1))


def test_what_is_expected_is_a_conditional_mean_of_normal_vectors() -> None:
    """By least squares of the parts themselves, and what is left of each."""
    rng = np.random.default_rng(4)
    rows = (rng.random((6, 9)) < 0.6).astype(float)
    rows[:, 0] = 1
    lengths, own = np.exp(rng.normal(0, 1, 9)), 0.1
    parts = rng.standard_normal((9, 50)) * np.sqrt(lengths / 50)[:, None]
    errors = rows @ parts + 0.05 * rng.standard_normal((6, 50))
    new = np.array([[True, False, True, True, False, False, True, False, True]])
    noise = own * (rows @ lengths) + 1e-7
    precision = rows.T @ (rows / noise[:, None]) + np.diag(1 / lengths)
    mean = np.linalg.solve(precision, rows.T @ (errors / noise[:, None]))
    known = float(((new.astype(float) @ mean) ** 2).sum())
    left = float(np.linalg.inv(precision)[new[0]][:, new[0]].sum() + own * lengths[new[0]].sum() + 1e-7)
    model = made_of(rows, errors, lengths, own)
    assert model.logs(new)[0] == pytest.approx(np.log(known + left), rel=1e-6)


def test_policies_without_a_vector_do_not_count_and_few_are_not_enough() -> None:
    network, rng = Network(5), np.random.default_rng(5)
    seen, unseen = first_policies(SPACE, 60, rng=rng), varied_policies(SPACE, 20, rng=rng)
    errors, logs = network.errors(seen), logs_of(network.errors(seen))
    predictor = PolicyPredictor(SPACE, tensors=in_codes)
    known = np.arange(60) < 45
    some = np.where(known[:, None], errors, np.nan)
    fewer = predictor.fit(seen[known], logs[known], errors[known]).predict(unseen)
    assert predictor.fit(seen, logs, some).predict(unseen).mean == pytest.approx(fewer.mean)
    none = predictor.fit(seen, logs, np.where(np.arange(60)[:, None] < 5, errors, np.nan)).predict(unseen)
    assert none.mean == pytest.approx(predictor.fit(seen, logs).predict(unseen).mean)
