"""How far a policy moves a network's answers, from a few policies that were run.

Errors of many roundings add up, nearly: independent ones add in their squares, so that divergences (means of
squares, to leading order) add; errors of one direction add in their roots. In between lies one exponent p,

    divergence(policy)^p = sum of the parts' theta_j over what the policy rounds,

whose parts are the weights of each unit in each format, and the tensors that are in codes: a tensor between
two quantized units is rounded once, not twice, which is why sums of units alone overrate neighbours. Theta
and p are the maximum of a posterior in logarithms, where a divergence of .001 counts as much as one of .1;
what is left over is a Gaussian process of few policies' worth.
"""

from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from predictors.assessment.conformal import calibrate
from predictors.linalg import Factor, factorise, leave_one_out
from predictors.predictor import Prediction, check_rows, not_fitted
from predictors.table import CostTable
from supernet.space.space import Genomes, SearchSpace

Floats = NDArray[np.float64]
EXPONENTS = (0.5, 0.7, 0.85, 1.0)  # from errors of one direction to independent ones
WIDTH = 2.0  # standard deviation of a part's logarithm around that of its kind, before anything is known
NOISE = 0.15  # of a logarithm that was measured on some tens of examples
STEPS = 200  # of the optimiser
FLOOR = 0.03  # smallest standard deviation of a predicted logarithm
LENGTHS = (0.3, 1.0, 3.0)  # of the process on what is left over, in root shares of the sum
AMPLITUDES = (0.03, 0.1, 0.3, 1.0)  # of the same: standard deviations of a logarithm
SMALLEST, LARGEST = 1e-300, 200.0  # of a sum, and of the logarithm of a part


@dataclass(frozen=True, eq=False)
class Fitted:
    """What was learned.

    Attributes:
        theta: (d,) logarithm of every part.
        exponent: with which they add up.
        shares: (n, d) root shares of the sum that each part of the rows has.
        weights: (n,) of the rows in what is left over.
        factor: of their covariance.
        length, amplitude: of that process.
        widen: what makes its spread agree with errors of rows that were left out.
        nothing: the value of a policy that rounds nothing.
    """

    theta: Floats
    exponent: float
    shares: Floats
    weights: Floats
    factor: Factor
    length: float
    amplitude: float
    widen: float
    nothing: float


@dataclass(frozen=True, eq=False)
class PolicyPredictor:
    """Logarithms of divergences of policies.

    See `predictors.predictor.Predictor`; `seed` and `costs` are not used.

    Attributes:
        tensors: (slots, t) which tensors each option of each choice has in codes.
    """

    space: SearchSpace
    _: KW_ONLY
    seed: int = 0
    costs: CostTable | None = None
    tensors: NDArray[np.bool_] | None = field(default=None)
    fitted: Fitted | None = None

    def fit(self, genomes: Genomes, targets: Floats) -> Self:
        """Fit to policies (n, g) and logarithms of their divergences (n,)."""
        check_rows(self.space, genomes, targets)
        parts = self._parts(genomes)
        rounding = parts.any(axis=1)
        nothing = float(targets[~rounding].mean()) if (~rounding).any() else float(targets.min()) - 5.0
        parts, targets = parts[rounding], targets[rounding]
        fits = [_fit_sum(parts, targets, exponent) for exponent in EXPONENTS]
        best = min(range(len(fits)), key=lambda index: fits[index][1])
        theta, exponent = fits[best][0], EXPONENTS[best]
        shares, total = _shares(parts, theta)
        return replace(self, fitted=_fit_rest(theta, exponent, shares, targets - total / exponent, nothing))

    def predict(self, genomes: Genomes) -> Prediction:
        """Return mean and standard deviation (n,) of the logarithms."""
        if self.fitted is None:
            raise not_fitted(self)
        fitted, parts = self.fitted, self._parts(genomes)
        rounding = parts.any(axis=1)
        shares, total = _shares(parts[rounding], fitted.theta)
        cross = _covariance(shares, fitted.shares, fitted.length, fitted.amplitude)
        explained = fitted.factor.solve(np.ascontiguousarray(cross.T)).T
        variance = fitted.amplitude**2 - np.einsum("ij,ij->i", cross, explained) + NOISE**2
        mean = np.full(len(genomes), fitted.nothing)
        std = np.full(len(genomes), FLOOR)
        mean[rounding] = total / fitted.exponent + cross @ fitted.weights
        std[rounding] = np.maximum(fitted.widen * np.sqrt(np.maximum(variance, 0.0)), FLOOR)
        return Prediction(mean, std)

    def _parts(self, genomes: Genomes) -> NDArray[np.bool_]:
        """Return (n, d) what each policy rounds: slots of options beside the first, then tensors."""
        slots = self.space.one_hot(genomes)
        first = np.concatenate([[True] + [False] * (len(c.options) - 1) for c in self.space.choices])
        weights = slots[:, ~first] > 0
        if self.tensors is None:
            return weights
        return np.hstack([weights, slots @ self.tensors.astype(np.float32) > 0])


def _shares(parts: NDArray[np.bool_], theta: Floats) -> tuple[Floats, Floats]:
    """Return (n, d) root shares of the sum that each part has, and (n,) the logarithm of the sum."""
    values = parts * np.exp(theta)
    total = np.maximum(values.sum(axis=1), SMALLEST)
    return np.sqrt(values / total[:, None]), np.log(total)


def _fit_sum(parts: NDArray[np.bool_], targets: Floats, exponent: float) -> tuple[Floats, float]:
    """Return (d,) the logarithms of the parts, and how badly they fit."""
    scaled = exponent * targets
    noise = exponent * NOISE
    each = scaled - np.log(np.maximum(parts.sum(axis=1), 1))  # if all parts of a policy were equal
    start = np.full(parts.shape[1], float(np.median(each)))
    width = exponent * WIDTH
    features = parts.astype(np.float64)

    def loss(theta: Floats) -> tuple[float, Floats]:
        weights = np.exp(np.clip(theta, -LARGEST, LARGEST))  # a step of the line search may be wild
        total = np.maximum(features @ weights, SMALLEST)
        error = (np.log(total) - scaled) / noise
        away = (theta - start) / width
        gradient = (features.T @ (error / noise / total)) * weights + away / width
        return 0.5 * float(error @ error + away @ away), gradient

    optimum = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": STEPS})
    error = (np.log(np.maximum(features @ np.exp(optimum.x), SMALLEST)) - scaled) / noise
    away = (optimum.x - start) / width
    return np.asarray(optimum.x), float(error @ error + away @ away)


def _covariance(first: Floats, second: Floats, length: float, amplitude: float) -> Floats:
    squares = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1) - 2 * first @ second.T
    return np.asarray(amplitude**2 * np.exp(-np.maximum(squares, 0) / (2 * length**2)))


def _fit_rest(theta: Floats, exponent: float, shares: Floats, rest: Floats, nothing: float) -> Fitted:
    """Return what was learned, with the process on what is `rest` (n,): the best of a few by evidence."""
    best: tuple[float, Fitted] | None = None
    for length in LENGTHS:
        for amplitude in AMPLITUDES:
            covariance = _covariance(shares, shares, length, amplitude)
            factor = factorise(covariance, NOISE**2)
            weights = factor.solve(rest)
            evidence = 0.5 * float(rest @ weights + factor.log_determinant)
            if best is None or evidence < best[0]:
                errors, spread = leave_one_out(factor.inverse, weights)
                widen = calibrate(errors, spread)
                best = (
                    evidence,
                    Fitted(theta, exponent, shares, weights, factor, length, amplitude, widen, nothing),
                )
    assert best is not None
    return best[1]
