"""The algebra of Gaussian processes, against numpy's and against leaving rows out one by one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from predictors.linalg import factorise, leave_one_out, minimise


def covariance(n: int, seed: int) -> np.ndarray:
    """Return a covariance (n, n) of low rank: only noise makes it positive definite."""
    x = np.random.default_rng(seed).normal(size=(n, 2))
    return x @ x.T


@given(n=st.integers(1, 12), seed=st.integers(0, 99), wide=st.booleans())
def test_a_factor_solves_inverts_and_has_the_determinant(n: int, seed: int, wide: bool) -> None:
    rng, own = np.random.default_rng(seed), covariance(n, seed)
    noise, right = rng.uniform(0.1, 1.0, n), rng.normal(size=(n, 3) if wide else n)
    factor, total = factorise(own, noise), own + np.diag(noise)
    assert_allclose(factor.inverse @ total, np.eye(n), atol=1e-9)
    assert_allclose(factor.solve(right), np.linalg.solve(total, right), atol=1e-9)
    assert factor.log_determinant == pytest.approx(np.linalg.slogdet(total)[1])
    assert_allclose(factor.lower, np.linalg.cholesky(total))
    assert_allclose(own, covariance(n, seed))  # left as it was


@given(n=st.integers(2, 12), seed=st.integers(0, 99))
def test_rows_left_out_in_closed_form_are_those_of_leaving_them_out(n: int, seed: int) -> None:
    targets, total = np.random.default_rng(seed).normal(size=n), covariance(n, seed) + 0.3 * np.eye(n)
    factor = factorise(total)
    errors, std = leave_one_out(factor.inverse, factor.solve(targets))
    for row in range(n):
        rest = np.arange(n) != row
        across = total[row, rest] @ np.linalg.inv(total[np.ix_(rest, rest)])
        assert errors[row] == pytest.approx(targets[row] - across @ targets[rest], abs=1e-9)
        assert std[row] ** 2 == pytest.approx(total[row, row] - across @ total[rest, row])


def test_no_covariance_has_no_factor() -> None:
    with pytest.raises(np.linalg.LinAlgError, match="the covariance of 3 rows is not positive definite"):
        factorise(covariance(3, 0) - np.eye(3))


def test_the_least_value_in_the_bounds_is_found() -> None:
    centre = np.array([1.0, -2.0])
    theta, value = minimise(
        lambda at: (float(((at - centre) ** 2).sum()), 2 * (at - centre)), np.zeros(2), [(-9, 9), (-1, 9)], 50
    )
    assert_allclose(theta, [1.0, -1.0], atol=1e-6)
    assert value == pytest.approx(1.0)
