"""How error falls with the number of rows learned from, and what the next ones would gain."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
Fit = Callable[[Rows, Rows], Floats]  # rows learned from, rows (m,) asked for -> (m,) predictions

ALWAYS = -1  # fold of rows that are always learned from
EXPONENTS = np.linspace(0.2, 1.5, 27)  # of power laws; real ones lie between: Hestness 2017, arXiv:1712.00409


@dataclass(frozen=True)
class CurvePoint:
    """Held-out error after learning from `n` rows, those that are always there left out of the count.

    `kendall_tau` is 0 where all predictions or targets are equal; `rmse` is in the unit of the targets.

    Attributes:
        n: rows learned from.
        kendall_tau: out-of-fold.
        rmse: out-of-fold.
    """

    n: int
    kendall_tau: float
    rmse: float


@dataclass(frozen=True)
class PowerLaw:
    """error(n) = floor + factor * n^-exponent."""

    floor: float
    factor: float
    exponent: float

    def __call__(self, n: float) -> float:
        """Return the expected error after n rows."""
        return float(self.floor + self.factor * n**-self.exponent)


def learning_curve(
    fit: Fit,
    targets: Floats,
    fold: Rows,
    shares: Sequence[float],
    *,
    rng: np.random.Generator,
    test_folds: Sequence[int] | None = None,
) -> tuple[CurvePoint, ...]:
    """Cross-validated error after learning from growing shares of the rows, a point per share.

    Args:
        fit: learns from some rows and predicts others.
        targets: (n,).
        fold: (n,) of each row; `ALWAYS` is learned from in every share and never predicted.
        shares: in (0, 1], of the rows outside the fold that is held out.
        rng: which rows make up a share.
        test_folds: folds that are held out in turn; None holds out all of them.
    """
    order = rng.permutation(len(targets))
    common = np.flatnonzero(fold == ALWAYS)
    folds = range(int(fold.max()) + 1) if test_folds is None else test_folds
    points = []
    for share in shares:
        predicted, counts = np.full(len(targets), np.nan), []
        for k in folds:
            others = order[(fold[order] != k) & (fold[order] != ALWAYS)]
            some = others[: max(1, round(share * len(others)))]
            held = np.flatnonzero(fold == k)
            predicted[held] = fit(np.concatenate([common, some]), held)
            counts.append(len(some))
        points.append(curve_point(round(float(np.mean(counts))), predicted, targets))
    return tuple(points)


def curve_point(n: int, predicted: Floats, targets: Floats) -> CurvePoint:
    """Return the point of n rows, from predictions (m,), NaN where none was made, and targets (m,)."""
    from scipy.stats import kendalltau  # takes long to load, and every command knows what a point is

    valid = np.isfinite(predicted)
    error = predicted[valid] - targets[valid]
    flat = valid.sum() < 2 or np.ptp(predicted[valid]) == 0 or np.ptp(targets[valid]) == 0
    tau = 0.0 if flat else float(kendalltau(predicted[valid], targets[valid]).statistic)
    return CurvePoint(n, tau, float(np.sqrt(np.mean(error**2))))


def fit_power_law(n: Sequence[float], errors: Sequence[float]) -> PowerLaw:
    """Fit a power law by least squares over the points, neither floor nor factor below 0.

    >>> law = fit_power_law([10, 20, 40, 80], [0.1 + n**-0.5 for n in (10, 20, 40, 80)])
    >>> round(law.floor, 3), round(law.factor, 3), round(law.exponent, 3)
    (0.1, 1.0, 0.5)

    Raises:
        ValueError: fewer than three points, or an `n` below 1.
    """
    from scipy.optimize import nnls

    if len(n) < 3 or min(n) < 1:
        raise ValueError(f"a power law needs three points or more, each of one row or more: {list(n)}")
    laws = []
    for exponent in EXPONENTS:
        design = np.column_stack([np.ones(len(n)), np.asarray(n, np.float64) ** -exponent])
        (floor, factor), missed = nnls(design, np.asarray(errors, np.float64))
        laws.append((missed, PowerLaw(float(floor), float(factor), float(exponent))))
    return min(laws, key=lambda law: law[0])[1]
