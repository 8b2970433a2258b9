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
    grouped,
    learn,
    noise_of,
    unwarp,
    warp,
    warp_bounds,
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

    With the kernel k(x, x') = C + x V x' + r(x, x'), of a constant, a line and a smooth part r, the rows'
    features X and K = k(X, X) + noise,

        mean       k(x, X) K^-1 y = C sum(w) + x (V X' w) + r(x, X) w,   w = K^-1 y
        variance   k(x, x) - |k(x, X) U|^2,   U U' = K^-1 in the r directions of largest eigenvalues
        k(x, X) U  = C sum(U) + x (V X' U) + r(x, X) U

    so that constant and line need no rows any more, only `level` and `line` for the mean, `offsets` and
    `directions` for the variance; r needs the covariance with every row.

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
        """Return (m,) means and (m,) variances, without noise, at features (m, d)."""
        smooth = self._smooth(x)
        products = smooth @ self.weights
        linear_mean, smooth_mean = self.level + x @ self.line, products[:, 0]
        explained = products[:, 1:] + x @ self.directions + self.offsets
        variance = self._prior(x) - np.einsum("ij,ij->i", explained, explained)
        return np.asarray(linear_mean + smooth_mean, np.float64), variance

    def _smooth(self, x: Features) -> Features:
        """Return the smooth part (m, n) of the covariance with every row, computed in place."""
        a = len(self.rows)
        scaled = x[:, :a] * np.sqrt(self.kernel.lengths, dtype=np.float32)
        rbf = scaled @ self.rows  # -|p - q|^2 / 2 = p q - q q / 2 - p p / 2
        rbf -= self.norms
        rbf -= 0.5 * np.einsum("ij,ij->i", scaled, scaled)[:, None]
        np.minimum(rbf, 0, out=rbf)
        np.exp(rbf, out=rbf)
        if len(self.policies):
            rbf *= x[:, a:] @ self.policies + np.float32(self.kernel.amplitude)
        else:
            rbf *= np.float32(self.kernel.amplitude)
        return rbf

    def _prior(self, x: Features) -> Floats:
        shares = self.kernel.slopes.copy()
        shares[len(self.rows) :] += self.kernel.drop
        return np.asarray(CONSTANT + self.kernel.amplitude + (x * x) @ shares)


def posterior(kernel: Kernel, x: Floats, weights: Floats, noise: float) -> Posterior:
    """Return the process conditioned on rows with features (n, d); `weights` (n,) is their covariance's
    inverse times the targets.

    Variances are reduced only in the directions in which rows differ most, so they come out a little large.
    """
    values, vectors = np.linalg.eigh(kernel(x, x))
    most = slice(max(len(x) - DIRECTIONS, 0), None)
    directions = vectors[:, most] / np.sqrt(np.maximum(values[most], 0) + noise)
    a, linear = len(kernel.lengths), kernel.slopes[:, None] * x.T
    scaled = x[:, :a] * np.sqrt(kernel.lengths)
    return Posterior(
        kernel,
        line=(linear @ weights).astype(np.float32),
        level=float(CONSTANT * weights.sum()),
        rows=np.ascontiguousarray(scaled.T, np.float32),
        norms=(0.5 * (scaled**2).sum(axis=1)).astype(np.float32),
        policies=np.ascontiguousarray((x[:, a:] * kernel.drop).T, np.float32),
        weights=np.column_stack([weights, directions]).astype(np.float32),
        directions=(linear @ directions).astype(np.float32),
        offsets=(CONSTANT * directions.sum(axis=0)).astype(np.float32),
    )


@dataclass(frozen=True, eq=False)
class Fitted:
    """What `GpPredictor.fit` learns.

    Attributes:
        read: genomes as features.
        theta: the hyper-parameters, see `predictors.accuracy.gp_kernel.Hyper`.
        posterior: of the process.
        mean, scale: of the targets.
        low, high: between which warped targets are.
        out_of_fold: (n,) standardised, what is said of each row without having learned from its architecture.
        std_scale: factor from the process's standard deviation to that of the error.
    """

    read: Reader
    theta: Floats
    posterior: Posterior
    mean: float
    scale: float
    low: float
    high: float
    out_of_fold: Floats
    std_scale: float


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
        theta[1] = np.clip(theta[1], *warp_bounds(standard))  # by all rows, not only those that chose it
        state = _condition(hyper, theta, x, standard)
        fold = folds_of(self.space, genomes, rng=np.random.default_rng(self.seed))
        errors = _cross_fitted(hyper, x, standard, fold, rng=np.random.default_rng(self.seed))
        limits, out_of_fold = _limits(warp(standard, float(theta[1]))), standard + errors[0]
        fitted = Fitted(read, theta, state, mean, scale, *limits, out_of_fold, calibrate(*errors))
        return replace(self, fitted=fitted)

    @property
    def out_of_fold(self) -> Floats:
        """(n,) what it says of each row it was fitted on without having learned from its architecture."""
        if self.fitted is None:
            raise not_fitted(self)
        return self.fitted.mean + self.fitted.scale * self.fitted.out_of_fold

    def predict(self, genomes: Genomes) -> Prediction:
        if self.fitted is None:
            raise not_fitted(self)
        fitted, mean, variance = self.fitted, np.empty(len(genomes)), np.empty(len(genomes))
        for start in range(0, len(genomes), CHUNK):
            chunk = slice(start, start + CHUNK)
            mean[chunk], variance[chunk] = fitted.posterior(fitted.read(genomes[chunk]))
        by, mean = float(fitted.theta[1]), np.clip(mean, fitted.low, fitted.high)
        std = fitted.std_scale * np.sqrt(np.maximum(variance, 0) + noise_of(fitted.theta))
        std *= np.exp(-by * mean)  # how steep `unwarp` is there
        return Prediction(
            fitted.mean + fitted.scale * unwarp(mean, by), fitted.scale * np.maximum(std, FLOOR)
        )


def _limits(warped: Floats) -> tuple[float, float]:
    """Return between which warped targets predictions stay, from those that were seen (n,): a line that goes
    on further is steep where its warping is undone.
    """
    low, high = float(warped.min()), float(warped.max())
    return low - (high - low), high + (high - low)


def _condition(hyper: Hyper, theta: Floats, x: Floats, targets: Floats) -> Posterior:
    """Return the posterior of all rows."""
    kernel, noise = hyper.kernel(theta), noise_of(theta)
    weights = factorise(kernel(x, x), noise).inverse @ warp(targets, float(theta[1]))
    return posterior(kernel, x, weights, noise)


def _cross_fitted(
    hyper: Hyper, x: Floats, targets: Floats, fold: NDArray[np.int64], *, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Return (n,) errors and (n,) standard deviations of rows that had no part in the hyper-parameters
    either, nor had the others of their fold (n,).
    """
    errors, std = np.empty(len(x)), np.empty(len(x))
    for held in (fold == k for k in np.unique(fold)):
        learned = np.flatnonzero(~held)
        some = learned if len(learned) <= FOLD_LEARNED_ON else rng.permutation(learned)[:FOLD_LEARNED_ON]
        theta = learn(hyper, x[some], targets[some], steps=FOLD_STEPS)
        by = theta[1] = np.clip(theta[1], *warp_bounds(targets[learned]))
        mean, variance = _condition(hyper, theta, x[learned], targets[learned])(x[held].astype(np.float32))
        mean = np.clip(mean, *_limits(warp(targets[learned], by)))
        errors[held] = unwarp(mean, by) - targets[held]
        std[held] = np.sqrt(np.maximum(variance, 0) + noise_of(theta)) * np.exp(-by * mean)
    return errors, std
