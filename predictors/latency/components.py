"""A Gaussian process whose covariance is a sum of given ones, each as large as the targets make likely.

With the parts given as matrices, learning is a smooth problem of a few variances, which tens of rows can
decide (Rasmussen & Williams 2006, chapter 5).
"""

from dataclasses import dataclass

import numpy as np

from predictors.linalg import Floats, factorise, leave_one_out, minimise

CONSTANT = 10.0  # variance of the targets' mean, in those of standardised targets: all but free
BELIEF = 2.0  # standard deviation of the logarithm of a variance: a factor of 7 either way
BOUNDS = (-9.0, 6.0)  # of the same logarithm, around what is expected: keeps the matrices invertible
STEPS = 40  # of the optimiser
OUTLIER = 2.0  # standard deviations beyond which a row counts for less
ROUNDS = 3  # in which such rows are found: the first has them hide each other
LEARNED_ON = 200  # rows that choose the variances; all rows are then conditioned on


@dataclass(frozen=True, eq=False)
class Variances:
    """How large each part of the covariance is.

    Attributes:
        parts: (m,) factor of every given covariance.
        noise: variance of the noise of a row of weight 1.
    """

    parts: Floats
    noise: float


@dataclass(frozen=True, eq=False)
class Process:
    """What targets (n,) say.

    Attributes:
        variances: of its parts.
        weights: (n,) variance of the rows' noise, in units of `variances.noise`.
        precision: (n, n) inverse of the targets' covariance.
        alpha: (n,) precision times targets.
        negative_log_evidence: negative log density of the targets, less a constant.
    """

    variances: Variances
    weights: Floats
    precision: Floats
    alpha: Floats
    negative_log_evidence: float

    def fitted(self, targets: Floats) -> Floats:
        """Return targets (n,) without their noise."""
        return targets - self.variances.noise * self.weights * self.alpha

    def leave_one_out(self) -> tuple[Floats, Floats]:
        """Return errors (n,) of rows predicted from all others, and their standard deviations (n,)."""
        return leave_one_out(self.precision, self.alpha)


def fit_process(grams: Floats, targets: Floats, expected: Variances, weights: Floats) -> Process:
    """Fit the variances, and condition on all rows.

    Args:
        grams: (m, n, n) the parts between rows.
        targets: (n,) standardised, in random order.
        expected: what the variances are where the targets do not say.
        weights: (n,) variance of the rows' noise, relative to each other.
    """
    some = slice(min(LEARNED_ON, len(targets)))
    variances = learn(grams[:, some, some], targets[some], expected, weights[some])
    return condition(grams, targets, variances, weights)


def distrust_outliers(process: Process, grams: Floats, targets: Floats, expected: Variances) -> Process:
    """Return a process in which rows far off all others count for less; others as in `fit_process`."""
    usual = process.weights
    for _ in range(ROUNDS):
        errors, spread = process.leave_one_out()
        # as if the row were trusted: once it counts for little, the others tell how far off it really is
        extra = process.variances.noise * (process.weights - usual)
        distrust = np.maximum(np.abs(errors) / np.sqrt(spread**2 - extra) / OUTLIER, 1) ** 2
        if (usual * distrust <= process.weights).all():
            break
        process = fit_process(grams, targets, expected, usual * distrust)
    return process


def condition(grams: Floats, targets: Floats, variances: Variances, weights: Floats) -> Process:
    """Return the process given its variances; arguments as in `fit_process`."""
    factor = factorise(_covariance(grams, variances), variances.noise * weights)
    alpha = factor.inverse @ targets
    loss = float(targets @ alpha + factor.log_determinant) / 2
    return Process(variances, weights, factor.inverse, alpha, loss)


def learn(grams: Floats, targets: Floats, expected: Variances, weights: Floats) -> Variances:
    """Return the most probable variances; arguments as in `fit_process`."""
    centre = np.log(np.append(expected.parts, expected.noise))
    flat = grams.reshape(len(grams), -1)

    def negative_log_posterior(logs: Floats) -> tuple[float, Floats]:
        sizes = np.exp(logs)
        variances = Variances(sizes[:-1], sizes[-1])
        factor = factorise(_covariance(grams, variances), variances.noise * weights)
        alpha = factor.inverse @ targets
        slack = factor.inverse - np.outer(alpha, alpha)
        slopes = np.append(flat @ slack.ravel(), np.diag(slack) @ weights)
        off = (logs - centre) / BELIEF
        value = float(targets @ alpha + factor.log_determinant + off @ off) / 2
        return value, sizes * slopes / 2 + off / BELIEF

    bounds = [(log_variance + BOUNDS[0], log_variance + BOUNDS[1]) for log_variance in centre]
    logs, _ = minimise(negative_log_posterior, centre, bounds, STEPS)
    sizes = np.exp(logs)
    return Variances(sizes[:-1], float(sizes[-1]))


def _covariance(grams: Floats, variances: Variances) -> Floats:
    """Return the covariance (n, n) of what rows have without their noise."""
    _, n, _ = grams.shape
    return np.asarray((variances.parts @ grams.reshape(len(grams), -1)).reshape(n, n) + CONSTANT)
