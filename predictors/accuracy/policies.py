"""How far a policy moves a network's answers, from a few policies that were run.

Errors of many roundings add up, nearly: independent ones add in their squares, so that divergences (means of
squares, to leading order) add; errors of one direction add in their roots. In between lies one exponent p,

    divergence(policy)^p = sum of the parts' theta_j over what the policy rounds,

whose parts are the weights of each unit in each format, and the tensors that are in codes: a tensor between
two quantized units is rounded once, not twice, so sums of units alone overrate neighbours. Log theta and p
are the maximum of a posterior, in logarithms of divergences, where .001 counts as .1 does; how sure that is
follows from its curvature there (Laplace's approximation), widened until left-out policies agree.
"""

from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from predictors.assessment.conformal import calibrate
from predictors.predictor import Prediction, check_rows, not_fitted
from predictors.table import CostTable
from supernet.space.space import Genomes, SearchSpace

Floats = NDArray[np.float64]
Rounded = NDArray[np.bool_]  # (n, d) what each policy rounds
EXPONENTS = (0.5, 0.7, 0.85, 1.0)  # from errors of one direction to independent ones
WIDTH = 3.0  # standard deviation of a part's logarithm around that of its kind, before anything is known
NOISE = 0.1  # of a logarithm that was measured on some tens of examples
STEPS = 200  # of the optimiser
FLOOR = 0.03  # smallest standard deviation of a predicted logarithm
FOLDS, FEWEST = 4, 12  # of policies that are left out in turn, and how many must be left out in all
SMALLEST, LARGEST = 1e-300, 200.0  # of a sum, and of the logarithm of a part


@dataclass(frozen=True, eq=False)
class Parts:
    """What parts of a divergence are, and how sure that is.

    Attributes:
        theta: (d,) logarithm of every part.
        exponent: with which they add up.
        misfit: how badly they fit what they were learned from, and what is expected of parts.
        covariance: (d, d) of the logarithms.
    """

    theta: Floats
    exponent: float
    misfit: float
    covariance: Floats

    def logs(self, rounded: Rounded) -> Floats:
        """Return (n,) logarithms of divergences."""
        return _shares(rounded, self.theta)[1] / self.exponent

    def spread(self, rounded: Rounded) -> Floats:
        """Return (n,) their standard deviations, noise of a measurement included."""
        shares = _shares(rounded, self.theta)[0]
        variance = ((shares @ self.covariance) * shares).sum(axis=1) / self.exponent**2
        return np.asarray(np.sqrt(np.maximum(variance, 0.0) + NOISE**2), np.float64)


@dataclass(frozen=True, eq=False)
class Fitted:
    """What was learned.

    Attributes:
        parts: of divergences.
        widen: what makes the spread agree with errors of policies that were left out.
        nothing: the logarithm for a policy that rounds nothing.
    """

    parts: Parts
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
        rounded = self._rounded(genomes)
        rounding = rounded.any(axis=1)
        nothing = float(targets[~rounding].mean()) if (~rounding).any() else float(targets.min()) - 5.0
        rounded, targets = rounded[rounding], targets[rounding]
        fits = [_fit_sum(rounded, targets, exponent) for exponent in EXPONENTS]
        parts = min(fits, key=lambda fit: fit.misfit)
        several = np.flatnonzero((genomes[rounding] > 0).sum(axis=1) > 1)
        return replace(self, fitted=Fitted(parts, _widening(rounded, targets, several, parts), nothing))

    def predict(self, genomes: Genomes) -> Prediction:
        """Return mean and standard deviation (n,) of the logarithms."""
        if self.fitted is None:
            raise not_fitted(self)
        fitted, rounded = self.fitted, self._rounded(genomes)
        rounding = rounded.any(axis=1)
        mean, std = np.full(len(genomes), fitted.nothing), np.full(len(genomes), FLOOR)
        mean[rounding] = fitted.parts.logs(rounded[rounding])
        std[rounding] = np.maximum(fitted.widen * fitted.parts.spread(rounded[rounding]), FLOOR)
        return Prediction(mean, std)

    def _rounded(self, genomes: Genomes) -> Rounded:
        """Return (n, d) what each policy rounds: slots of options beside the first, then tensors."""
        slots = self.space.one_hot(genomes)
        first = np.concatenate([[True] + [False] * (len(c.options) - 1) for c in self.space.choices])
        weights = slots[:, ~first] > 0
        if self.tensors is None:
            return weights
        return np.hstack([weights, slots @ self.tensors.astype(np.float32) > 0])


def _shares(rounded: Rounded, theta: Floats) -> tuple[Floats, Floats]:
    """Return (n, d) the share of the sum that each part has, and (n,) the logarithm of the sum."""
    values = rounded * np.exp(np.clip(theta, -LARGEST, LARGEST))  # a step of the line search may be wild
    total = np.maximum(values.sum(axis=1), SMALLEST)
    return values / total[:, None], np.log(total)


def _fit_sum(rounded: Rounded, targets: Floats, exponent: float) -> Parts:
    """Return the likeliest parts: those of one size, before anything is known."""
    scaled, noise, width = exponent * targets, exponent * NOISE, exponent * WIDTH
    start = np.full(rounded.shape[1], float(np.median(scaled - np.log(rounded.sum(axis=1)))))

    def loss(theta: Floats) -> tuple[float, Floats]:
        shares, total = _shares(rounded, theta)
        error, away = (total - scaled) / noise, (theta - start) / width
        return 0.5 * float(error @ error + away @ away), shares.T @ (error / noise) + away / width

    optimum = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": STEPS})
    shares = _shares(rounded, optimum.x)[0]
    curvature = shares.T @ shares / noise**2 + np.eye(len(start)) / width**2
    return Parts(
        np.asarray(optimum.x),
        exponent,
        2 * float(optimum.fun),
        np.asarray(np.linalg.inv(curvature), np.float64),
    )


def _widening(rounded: Rounded, targets: Floats, several: NDArray[np.int64], parts: Parts) -> float:
    """Return by what the spread is widened, from policies of several changed units that are left out in
    turn: of a single one, nothing would be known then.
    """
    if len(several) < FEWEST:
        return 1.0
    errors, spreads = [], []
    for fold in range(FOLDS):
        held = several[fold::FOLDS]
        learned = np.setdiff1d(np.arange(len(targets)), held)
        fit = _fit_sum(rounded[learned], targets[learned], parts.exponent)
        errors.append(targets[held] - fit.logs(rounded[held]))
        spreads.append(fit.spread(rounded[held]))
    return calibrate(np.concatenate(errors), np.concatenate(spreads))
