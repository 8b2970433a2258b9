"""Ridge regression: the quickest predictor, and the one to beat."""

from dataclasses import KW_ONLY, dataclass, replace
from typing import Self

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from predictors import features
from predictors.assessment.conformal import calibrate
from predictors.predictor import Prediction, check_rows, not_fitted
from predictors.table import CostTable
from supernet.space.space import Genomes, SearchSpace

PENALTIES = np.geomspace(1e-3, 1e3, 31)  # tried in turn
FLOOR = 1e-3  # smallest std, in standard deviations of the targets


@dataclass(frozen=True, eq=False)
class Line:
    """A ridge fit of standardised targets.

    Attributes:
        centre: (f,) mean of the features.
        slope: (f,) per feature.
        covariance: (f, f) of the slope, in units of the noise's variance.
        variance: of the intercept, in the same units.
        noise: standard deviation, from leave-one-out errors.
    """

    centre: NDArray[np.float64]
    slope: NDArray[np.float64]
    covariance: NDArray[np.float64]
    variance: float
    noise: float


def fit_line(x: features.Features, y: NDArray[np.float64]) -> Line:
    """Fit (n, f) features to (n,) targets of mean 0, with the penalty of the least leave-one-out error.

    Leave-one-out errors are exact and need one fit: Golub et al. 1979, doi:10.1080/00401706.1979.10489751.
    """
    centre = x.mean(axis=0, dtype=np.float64)
    # QR iterations: numpy's divide and conquer did not converge on an ordinary matrix of 265 networks
    u, s, vt = scipy.linalg.svd(x - centre, full_matrices=False, lapack_driver="gesvd")
    kept = s**2 / (s**2 + PENALTIES[:, None])  # (penalties, rank)
    leverage = kept @ (u**2).T + 1 / len(y)
    out_of_fold = (y - (kept * (u.T @ y)) @ u.T) / (1 - leverage)  # (penalties, n)
    best = int((out_of_fold**2).mean(axis=1).argmin())
    penalty = PENALTIES[best]
    covariance = np.linalg.inv((vt.T * s**2) @ vt + penalty * np.eye(len(centre)))
    noise = calibrate(out_of_fold[best], 1 / np.sqrt(1 - leverage[best]))
    return Line(centre, (vt.T * (s / (s**2 + penalty))) @ (u.T @ y), covariance, 1 / len(y), noise)


@dataclass(frozen=True, eq=False)
class Fitted:
    """What `RidgePredictor.fit` learns: how genes and costs are read, the line, mean and scale of targets."""

    encode: features.Encoding
    costs: features.LogCosts
    line: Line
    mean: float
    scale: float


@dataclass(frozen=True, eq=False)
class RidgePredictor:
    """Posterior mean and standard deviation, noise included; `seed` is not used.

    See `predictors.predictor.Predictor`.
    """

    space: SearchSpace
    _: KW_ONLY
    seed: int
    costs: CostTable | None = None
    fitted: Fitted | None = None

    def fit(self, genomes: Genomes, targets: NDArray[np.float64]) -> Self:
        check_rows(self.space, genomes, targets)
        # one-hot, since a line through levels is too stiff, with levels for what the options have in common
        encode = features.every(self.space, self.costs)
        costs = features.log_costs(self.costs, self.space, genomes)
        mean, scale = float(targets.mean()), float(targets.std()) or 1.0
        line = fit_line(np.hstack([encode(genomes), costs(self.space, genomes)]), (targets - mean) / scale)
        return replace(self, fitted=Fitted(encode, costs, line, mean, scale))

    def predict(self, genomes: Genomes) -> Prediction:
        if self.fitted is None:
            raise not_fitted(self)
        fitted, line = self.fitted, self.fitted.line
        x = np.hstack([fitted.encode(genomes), fitted.costs(self.space, genomes)]) - line.centre
        spread = np.sqrt(1 + line.variance + ((x @ line.covariance) * x).sum(axis=1))
        std = np.maximum(line.noise * spread, FLOOR)
        return Prediction(fitted.mean + fitted.scale * (x @ line.slope), fitted.scale * std)
