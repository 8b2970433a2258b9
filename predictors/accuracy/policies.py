"""How far a policy moves a network's answers, from a few policies that were run.

Errors of many roundings add up, nearly: independent ones add in their squares, so that divergences (means of
squares, to leading order) add; errors of one direction add in their roots. In between lies one exponent p,

    divergence(policy)^p = sum of the parts' theta_j over what the policy rounds,

whose parts are the weights of each unit in each format, and the tensors that are in codes: a tensor between
two quantized units is rounded once, not twice, so sums of units alone overrate neighbours. Log theta and p
are the maximum of a posterior, in logarithms of divergences, where .001 counts as .1 does; how sure that is
follows from its curvature there (Laplace's approximation), widened until left-out policies agree.

Where the errors are known as vectors, and not their lengths alone, they are what is added up
(`predictors.accuracy.error_sums`): no exponent is needed where directions are known.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from predictors.accuracy.error_sums import ErrorSum, fit_errors
from predictors.assessment.conformal import calibrate
from predictors.predictor import FEWEST as FEWEST_ROWS
from predictors.predictor import Prediction, check_rows, not_fitted
from predictors.table import CostTable
from supernet.space.space import Genomes, SearchSpace

Floats = NDArray[np.float64]
Rounded = NDArray[np.bool_]  # (n, d) what each policy rounds
EXPONENTS = (0.5, 0.7, 0.85, 1.0)  # from errors of one direction to independent ones
# standard deviations of the logarithm of a part, before anything is known: of what weights and tensors have
# of their own, of what all parts of one format have in common, and of what all formats of one unit have
OWN, OF_TENSOR, OF_FORMAT, OF_UNIT = 0.8, 1.5, 4.0, 1.5
NOISE = 0.3  # of a logarithm, measured on some tens of examples, around the sum of its parts
STEPS, REFIT_STEPS = 200, 40  # of the optimiser
FLOOR = 0.03  # smallest standard deviation of a predicted logarithm
FOLDS, FEWEST = 4, 12  # of policies that are left out in turn, and how many must be left out in all
SHORTEST = 1e-30  # of an error
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
        parts: of divergences, or of errors.
        widen: what makes the spread agree with errors of policies that were left out.
        nothing: the logarithm for a policy that rounds nothing.
    """

    parts: Parts | ErrorSum
    widen: float
    nothing: float


@dataclass(frozen=True, eq=False)
class PolicyPredictor:
    """Logarithms of divergences of policies.

    See `predictors.predictor.Predictor`; `seed` and `costs` are not used.

    Attributes:
        tensors: (n, g) -> (n, t) which tensors policies have in codes; None where that does not matter.
    """

    space: SearchSpace
    _: KW_ONLY
    seed: int = 0
    costs: CostTable | None = None
    tensors: Callable[[Genomes], Rounded] | None = None
    fitted: Fitted | None = None

    def fit(self, genomes: Genomes, targets: Floats, errors: Floats | None = None) -> Self:
        """Fit to policies (n, g) and logarithms of their divergences (n,).

        Args:
            errors: (n, k) vectors whose squared lengths are about the divergences; rows of NaN where they are
                not known, None where none is.
        """
        check_rows(self.space, genomes, targets)
        rounded = self._rounded(genomes)
        rounding = rounded.any(axis=1)
        nothing = float(targets[~rounding].mean()) if (~rounding).any() else float(targets.min()) - 5.0
        vectors = np.full((len(genomes), 1), np.nan) if errors is None else errors
        known = rounding & np.isfinite(vectors).all(axis=1)
        parts: Parts | ErrorSum
        if known.sum() >= FEWEST_ROWS:
            parts, widen = self._fit_vectors(genomes[known], rounded[known], targets[known], vectors[known])
        else:
            parts, widen = self._fit_lengths(genomes[rounding], rounded[rounding], targets[rounding])
        return replace(self, fitted=Fitted(parts, widen, nothing))

    def _fit_vectors(
        self, genomes: Genomes, rounded: Rounded, targets: Floats, errors: Floats
    ) -> tuple[ErrorSum, float]:
        """Return the parts of errors, each as long as its divergence says, and what widens their spread."""
        lengths = np.linalg.norm(errors, axis=1)
        scaled = errors * (np.exp(targets / 2) / np.maximum(lengths, SHORTEST))[:, None]
        effects = self._effects(rounded.shape[1])
        whole = fit_errors(rounded, scaled, effects)

        def refit(rows: NDArray[np.int64]) -> ErrorSum:
            return fit_errors(rounded[rows], scaled[rows], effects, near=whole, steps=REFIT_STEPS)

        left, spread = _left_out(rounded, targets, _several(genomes), refit)
        if len(left) < FEWEST:
            return whole, 1.0
        offset = float(np.median(left))
        return replace(whole, offset=offset), max(1.0, calibrate(left - offset, spread))

    def _fit_lengths(self, genomes: Genomes, rounded: Rounded, targets: Floats) -> tuple[Parts, float]:
        """Return the parts of divergences, and what widens their spread."""
        effects = self._effects(rounded.shape[1])
        fits = [_fit_sum(rounded, targets, exponent, effects) for exponent in EXPONENTS]
        parts = min(fits, key=lambda fit: fit.misfit)

        def refit(rows: NDArray[np.int64]) -> Parts:
            return _fit_sum(rounded[rows], targets[rows], parts.exponent, effects)

        left, spread = _left_out(rounded, targets, _several(genomes), refit)
        return parts, calibrate(left, spread) if len(left) >= FEWEST else 1.0

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

    def _effects(self, parts: int) -> Floats:
        """Return (d, e) how independent unit normal effects add up to the logarithm of each part."""
        slots = [(unit, str(o)) for unit, c in enumerate(self.space.choices) for o in c.options[1:]]
        formats = np.array(
            [[name == other for other in dict.fromkeys(f for _, f in slots)] for _, name in slots]
        )
        units = np.array([[unit == other for other in range(len(self.space.choices))] for unit, _ in slots])
        of_slots = np.hstack([OF_FORMAT * formats, OF_UNIT * units])
        shared = np.zeros((parts, of_slots.shape[1] + 1))
        shared[: len(slots), :-1] = of_slots
        shared[len(slots) :, -1] = OF_FORMAT  # tensors are a kind of their own
        own = np.where(np.arange(parts) < len(slots), OWN, OF_TENSOR)
        return np.hstack([np.diag(own), shared])

    def _rounded(self, genomes: Genomes) -> Rounded:
        """Return (n, d) what each policy rounds: slots of options beside the first, then tensors."""
        slots = self.space.one_hot(genomes)
        first = np.concatenate([[True] + [False] * (len(c.options) - 1) for c in self.space.choices])
        weights = slots[:, ~first] > 0
        if self.tensors is None:
            return weights
        return np.hstack([weights, self.tensors(genomes)])


def _shares(rounded: Rounded, theta: Floats) -> tuple[Floats, Floats]:
    """Return (n, d) the share of the sum that each part has, and (n,) the logarithm of the sum."""
    values = rounded * np.exp(np.clip(theta, -LARGEST, LARGEST))  # a step of the line search may be wild
    total = np.maximum(values.sum(axis=1), SMALLEST)
    return values / total[:, None], np.log(total)


def _fit_sum(rounded: Rounded, targets: Floats, exponent: float, effects: Floats) -> Parts:
    """Return the likeliest parts: those of one size, before anything is known."""
    scaled, noise, effects = exponent * targets, exponent * NOISE, exponent * effects
    start = np.full(rounded.shape[1], float(np.median(scaled - np.log(rounded.sum(axis=1)))))

    def loss(size: Floats) -> tuple[float, Floats]:
        shares, total = _shares(rounded, start + effects @ size)
        error = (total - scaled) / noise
        return 0.5 * float(error @ error + size @ size), effects.T @ (shares.T @ (error / noise)) + size

    first = np.zeros(effects.shape[1])
    optimum = minimize(loss, first, jac=True, method="L-BFGS-B", options={"maxiter": STEPS})
    theta = np.asarray(start + effects @ optimum.x)
    slopes = _shares(rounded, theta)[0] @ effects / noise
    covariance = effects @ np.linalg.solve(slopes.T @ slopes + np.eye(len(first)), effects.T)
    return Parts(theta, exponent, 2 * float(optimum.fun), np.asarray(covariance, np.float64))


def _several(genomes: Genomes) -> NDArray[np.int64]:
    """Return the rows of policies of several changed units: left out, a single one is known nothing of."""
    return np.flatnonzero((genomes > 0).sum(axis=1) > 1)


def _left_out(
    rounded: Rounded,
    targets: Floats,
    held: NDArray[np.int64],
    refit: Callable[[NDArray[np.int64]], Parts | ErrorSum],
) -> tuple[Floats, Floats]:
    """Return errors and spreads of predictions of the rows `held`, left out in turn; none of too few.

    Args:
        refit: learns from some rows.
    """
    if len(held) < FEWEST:
        return np.empty(0), np.empty(0)
    errors, spreads = np.empty(len(targets)), np.empty(len(targets))
    for fold in range(FOLDS):
        rows = held[fold::FOLDS]
        parts = refit(np.setdiff1d(np.arange(len(targets)), rows))
        errors[rows] = targets[rows] - parts.logs(rounded[rows])
        spreads[rows] = parts.spread(rounded[rows])
    return errors[held], spreads[held]
