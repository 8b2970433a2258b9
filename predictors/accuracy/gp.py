"""A Gaussian process: the most accurate model of a few hundred candidates, with a spread of its own.

Its covariance is in `predictors.accuracy.gp_kernel`, its features are in `predictors.accuracy.gp_features`.
"""

from dataclasses import KW_ONLY, dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from predictors.accuracy.gp_features import Reader, reader
from predictors.accuracy.gp_kernel import (
    CONSTANT,
    Hyper,
    Kernel,
    bend,
    bends,
    grouped,
    learn,
    noise_of,
    unbend,
)
from predictors.assessment.conformal import calibrate
from predictors.assessment.out_of_fold import folds_of
from predictors.features import Features
from predictors.linalg import Floats, factorise
from predictors.predictor import Prediction, check_rows, not_fitted
from predictors.table import CostTable
from supernet.space.space import Genomes, SearchSpace

LEARNED_ON = 400  # rows that choose the hyper-parameters, about a second; all rows are then fitted with them
STEPS = 50  # of the optimiser: more changes nothing measurable
FOLD_LEARNED_ON = 250  # rows that choose the hyper-parameters once more without each fold of the rows,
FOLD_STEPS = 25  # in fewer steps: what is left out errs the same from 150 rows to 400
DIRECTIONS = 96  # in which rows are remembered to tell how far a candidate is from them
CHUNK = 1024  # rows predicted at once: their covariances stay inside the cache
FLOOR = 1e-3  # smallest std, in standard deviations of the targets


@dataclass(frozen=True, eq=False)
class Posterior:
    """What is known after n rows, in float32, of candidates with d features, a of them of the architecture.

    The line needs no rows any more, only d numbers; what is smooth needs the covariance with every row.

    Attributes:
        kernel: of the process.
        line: (d,) slope of the mean, and `level` its intercept.
        rows: (a, n) features of the rows, divided by length scales, and `norms` (n,) half their squares.
        policies: (d - a, n) features of the rows times their share of the drop.
        weights: (n, 1 + r) of the smooth part in the mean, and in r directions that are known.
        directions: (d, r) of the line in those, and `offsets` (r,) of the constant.
    """

    kernel: Kernel
    line: Features
    level: float
    rows: Features
    norms: Features
    policies: Features
    weights: Features
    directions: Features
    offsets: Features

    def __call__(self, x: Features) -> tuple[Floats, Floats]:
        """(m, d) features -> (m,) means and (m,) variances without noise."""
        a = len(self.rows)
        scaled = x[:, :a] * np.sqrt(self.kernel.lengths, dtype=np.float32)
        smooth = scaled @ self.rows
        smooth -= self.norms
        smooth -= 0.5 * np.einsum("ij,ij->i", scaled, scaled)[:, None]
        np.minimum(smooth, 0, out=smooth)
        np.exp(smooth, out=smooth)
        if len(self.policies):
            smooth *= x[:, a:] @ self.policies + np.float32(self.kernel.amplitude)
        else:
            smooth *= np.float32(self.kernel.amplitude)
        out = smooth @ self.weights
        known = out[:, 1:] + x @ self.directions + self.offsets
        variance = self._prior(x) - np.einsum("ij,ij->i", known, known)
        return np.asarray(self.level + x @ self.line + out[:, 0], np.float64), variance

    def _prior(self, x: Features) -> Floats:
        shares = self.kernel.slopes.copy()
        shares[len(self.rows) :] += self.kernel.drop
        return np.asarray(CONSTANT + self.kernel.amplitude + (x * x) @ shares)


def posterior(kernel: Kernel, x: Floats, weights: Floats, noise: float) -> Posterior:
    """Condition on rows with features (n, d); `weights` (n,) is their covariance's inverse times the targets.

    Variances are reduced only in the directions in which rows differ most, so they come out a little large.
    """
    values, vectors = np.linalg.eigh(kernel(x, x))
    most = slice(max(len(x) - DIRECTIONS, 0), None)
    known = vectors[:, most] / np.sqrt(np.maximum(values[most], 0) + noise)
    a, linear = len(kernel.lengths), kernel.slopes[:, None] * x.T
    scaled = x[:, :a] * np.sqrt(kernel.lengths)
    return Posterior(
        kernel,
        line=(linear @ weights).astype(np.float32),
        level=float(CONSTANT * weights.sum()),
        rows=np.ascontiguousarray(scaled.T, np.float32),
        norms=(0.5 * (scaled**2).sum(axis=1)).astype(np.float32),
        policies=np.ascontiguousarray((x[:, a:] * kernel.drop).T, np.float32),
        weights=np.column_stack([weights, known]).astype(np.float32),
        directions=(linear @ known).astype(np.float32),
        offsets=(CONSTANT * known.sum(axis=0)).astype(np.float32),
    )


@dataclass(frozen=True, eq=False)
class Fitted:
    """What `GpPredictor.fit` learns.

    Attributes:
        read: genomes as features.
        theta: the hyper-parameters, see `predictors.accuracy.gp_kernel.Hyper`.
        posterior: of the process.
        mean, scale: of the targets.
        low, high: between which bent targets are.
        left_out: (n,) standardised, what is said of each row without having learned from its architecture.
        widen: factor from the process's standard deviation to that of the error.
    """

    read: Reader
    theta: Floats
    posterior: Posterior
    mean: float
    scale: float
    low: float
    high: float
    left_out: Floats
    widen: float


@dataclass(frozen=True, eq=False)
class GpPredictor:
    """Posterior median and calibrated standard deviation, noise included.

    See `predictors.predictor.Predictor`. Without quantized candidates it predicts the same at every policy;
    `seed` draws the rows that choose hyper-parameters where there are more than `LEARNED_ON`.
    """

    space: SearchSpace
    _: KW_ONLY
    seed: int
    costs: CostTable | None = None
    fitted: Fitted | None = None

    def fit(self, genomes: Genomes, targets: NDArray[np.float64]) -> Self:
        check_rows(self.space, genomes, targets)
        with threadpool_limits(1):  # on matrices of a few hundred rows, two threads took three times as long
            return self._fit(genomes, targets)

    def _fit(self, genomes: Genomes, targets: NDArray[np.float64]) -> Self:
        read = reader(self.space, self.costs, genomes)
        x, hyper = read(genomes).astype(np.float64), grouped(read.labels, read.split)
        mean, scale = float(targets.mean()), float(targets.std()) or 1.0
        standard = (targets - mean) / scale
        some = np.random.default_rng(self.seed).permutation(len(x))[:LEARNED_ON]
        theta = learn(hyper, x[some], standard[some], steps=STEPS)
        theta[1] = np.clip(theta[1], *bends(standard))  # by all rows, not only those that chose it
        state = _condition(hyper, theta, x, standard)
        fold = folds_of(self.space, genomes, rng=np.random.default_rng(self.seed))
        errors = _cross_fitted(hyper, x, standard, fold, rng=np.random.default_rng(self.seed))
        limits, left_out = _limits(bend(standard, float(theta[1]))), standard + errors[0]
        fitted = Fitted(read, theta, state, mean, scale, *limits, left_out, calibrate(*errors))
        return replace(self, fitted=fitted)

    @property
    def left_out(self) -> Floats:
        """(n,) what it says of each row it was fitted on without having learned from its architecture."""
        if self.fitted is None:
            raise not_fitted(self)
        return self.fitted.mean + self.fitted.scale * self.fitted.left_out

    def predict(self, genomes: Genomes) -> Prediction:
        if self.fitted is None:
            raise not_fitted(self)
        fitted, mean, variance = self.fitted, np.empty(len(genomes)), np.empty(len(genomes))
        for start in range(0, len(genomes), CHUNK):
            chunk = slice(start, start + CHUNK)
            mean[chunk], variance[chunk] = fitted.posterior(fitted.read(genomes[chunk]))
        by, mean = float(fitted.theta[1]), np.clip(mean, fitted.low, fitted.high)
        std = fitted.widen * np.sqrt(np.maximum(variance, 0) + noise_of(fitted.theta))
        std *= np.exp(-by * mean)  # how steep `unbend` is there
        return Prediction(
            fitted.mean + fitted.scale * unbend(mean, by), fitted.scale * np.maximum(std, FLOOR)
        )


def _limits(bent: Floats) -> tuple[float, float]:
    """Return between which bent targets predictions stay, from those that were seen (n,): a line that goes
    on further is steep where it is unbent.
    """
    low, high = float(bent.min()), float(bent.max())
    return low - (high - low), high + (high - low)


def _condition(hyper: Hyper, theta: Floats, x: Floats, targets: Floats) -> Posterior:
    """Return the posterior of all rows."""
    kernel, noise = hyper.kernel(theta), noise_of(theta)
    weights = factorise(kernel(x, x), noise).inverse @ bend(targets, float(theta[1]))
    return posterior(kernel, x, weights, noise)


def _cross_fitted(
    hyper: Hyper, x: Floats, targets: Floats, fold: NDArray[np.int64], *, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Return (n,) errors and (n,) standard deviations of rows that had no part in the hyper-parameters
    either, nor had the others of their fold (n,).
    """
    errors, std = np.empty(len(x)), np.empty(len(x))
    for held in (fold == k for k in np.unique(fold)):
        seen = np.flatnonzero(~held)
        some = seen if len(seen) <= FOLD_LEARNED_ON else rng.permutation(seen)[:FOLD_LEARNED_ON]
        theta = learn(hyper, x[some], targets[some], steps=FOLD_STEPS)
        by = theta[1] = np.clip(theta[1], *bends(targets[seen]))
        mean, variance = _condition(hyper, theta, x[seen], targets[seen])(x[held].astype(np.float32))
        mean = np.clip(mean, *_limits(bend(targets[seen], by)))
        errors[held] = unbend(mean, by) - targets[held]
        std[held] = np.sqrt(np.maximum(variance, 0) + noise_of(theta)) * np.exp(-by * mean)
    return errors, std
