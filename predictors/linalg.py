"""The linear algebra that the four Gaussian processes of this package share.

A process that saw targets y (n,) under a covariance K (n, n), noise included, says of a network x

    mean        k(x) K^-1 y                                   (Rasmussen & Williams 2006, eq. 2.25)
    variance    k(x, x) - k(x) K^-1 k(x)'                                                (eq. 2.26)

and of itself

    -log p(y)   (y' K^-1 y + log |K| + n log 2 pi) / 2                                   (eq. 2.30)
    row i from all others: error [K^-1 y]_i / [K^-1]_ii, variance 1 / [K^-1]_ii          (eq. 5.12)

They are four because their covariances have nothing in common, and neither has what they are for.
`accuracy.gp` learns tens of length scales of a smooth function of the architecture, and of a drop per format,
from hundreds of networks. `latency.networks` weighs given matrices of effects that add up, from tens.
`latency.kernels` prices single layers, each with a noise of its own, by scikit-learn's composite kernels.
`design.surrogate` picks one of some hundred fixed kernels in milliseconds, since sampling asks it often, and
what it chooses must not depend on the run's predictor. One class for them would be four behind one name.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack
from scipy.optimize import minimize

Floats = NDArray[np.float64]
Objective = Callable[[Floats], tuple[float, Floats]]  # (h,) -> value and gradient (h,)


@dataclass(frozen=True, eq=False)
class Factor:
    """The lower Cholesky factor (n, n) of a covariance."""

    lower: Floats

    @property
    def log_determinant(self) -> float:
        """Of the covariance."""
        return 2 * float(np.log(np.diag(self.lower)).sum())

    @cached_property
    def inverse(self) -> Floats:
        """(n, n) inverse of the covariance."""
        lower, _ = lapack.dpotri(self.lower, lower=1)
        lower = np.tril(lower)
        return np.asarray(lower + np.tril(lower, -1).T)

    def solve(self, right: Floats) -> Floats:
        """Return the inverse of the covariance times (n,) or (n, m)."""
        solution, _ = lapack.dpotrs(self.lower, right, lower=1)
        return np.asarray(solution).reshape(right.shape)


def factorise(covariance: Floats, noise: Floats | float = 0.0) -> Factor:
    """Return the factor of a covariance (n, n), with a noise variance (n,) or a jitter added to its diagonal.

    Raises:
        numpy.linalg.LinAlgError: it is not positive definite.
    """
    total = covariance.copy()
    total[np.diag_indices(len(total))] += noise
    lower, failed = lapack.dpotrf(total, lower=1, clean=1)
    if failed:
        raise np.linalg.LinAlgError(f"the covariance of {len(total)} rows is not positive definite")
    return Factor(np.asarray(lower))


def leave_one_out(precision: Floats, alpha: Floats) -> tuple[Floats, Floats]:
    """Return (n,) errors of rows predicted from all others, and (n,) standard deviations of these errors.

    In closed form: Rasmussen & Williams 2006, eq. 5.12.

    Args:
        precision: (n, n) inverse of the covariance.
        alpha: (n,) precision times the targets.
    """
    own = np.diag(precision)
    return np.asarray(alpha / own), np.asarray(1 / np.sqrt(own))


def minimise(
    objective: Objective, start: Floats, bounds: Sequence[tuple[float, float]] | Floats, steps: int
) -> tuple[Floats, float]:
    """Return the hyper-parameters (h,) of the least negative log evidence that L-BFGS-B finds in so many
    steps from the start (h,), and its value.
    """
    optimum = minimize(
        objective, start, jac=True, bounds=bounds, method="L-BFGS-B", options={"maxiter": steps}
    )
    return np.asarray(optimum.x), float(optimum.fun)
