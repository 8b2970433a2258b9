"""How good a predictor is, on candidates it has not seen."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from hw_profiles.streams import Stream, open_stream
from predictors.assessment.conformal import coverage
from predictors.assessment.learning_curve import CurvePoint, Rows, curve_point, learning_curve
from predictors.features import ARCHITECTURE, policy
from predictors.predictor import FEWEST, MakePredictor
from predictors.table import CostTable
from supernet.space.space import Genomes, SearchSpace, row_keys

Floats = NDArray[np.float64]
Cost = tuple[str, Floats]  # by objective name, (n,)

BANDS = 5
FEWEST_IN_BAND = 10  # candidates: fewer say nothing of an order
LEVELS = (0.5, 0.8, 0.9, 0.95)  # at which intervals are checked
CURVE_SHARES = (0.25, 0.5)  # of the rows, before all of them
CURVE_FOLDS = 2  # folds that the curve is drawn from: fitting all five for every point takes too long


@dataclass(frozen=True)
class Coverage:
    """Share of targets inside the central interval that should hold `expected` of them.

    Attributes:
        expected, observed: shares.
    """

    expected: float
    observed: float


@dataclass(frozen=True)
class Band:
    """Kendall's tau among the n candidates whose cost is from `low` to `high`; None where all are equal.

    Attributes:
        low, high: costs in SI units.
        n: candidates.
        kendall_tau: tau-b.
    """

    low: float
    high: float
    n: int
    kendall_tau: float | None


@dataclass(frozen=True)
class Quality:
    """Figures of one predictor on candidates that it was not fitted on.

    Attributes:
        kendall_tau: tau-b between predictions and targets; None where all of either are equal.
        kendall_tau_fp32: the same among candidates in fp32 throughout.
        kendall_tau_quantized: the same among all others.
        kendall_tau_bands: the same within bands of nearly equal cost, on average: a search compares what
            costs the same, and networks that differ in cost are easy to tell apart.
        band_cost: which cost, by objective name; empty without one.
        bands: all of them, from the cheapest.
        pairwise_accuracy: share of pairs of unequal targets in the right order; None without such pairs.
        rmse: root mean square error, in the unit of the targets.
        noise: standard deviation of a target that was measured again; None where it is not known.
        coverage: share of targets inside the nominal 90 % interval; None without intervals.
        coverages: the same at several levels.
        curve: error after learning from fewer candidates, and from all; empty where nothing is learned.
        n_train: candidates fitted on, the fewest of all folds.
        n_test: candidates predicted.
    """

    kendall_tau: float | None
    pairwise_accuracy: float | None
    rmse: float
    n_train: int
    n_test: int
    kendall_tau_fp32: float | None = None
    kendall_tau_quantized: float | None = None
    kendall_tau_bands: float | None = None
    band_cost: str = ""
    bands: tuple[Band, ...] = ()
    noise: float | None = None
    coverage: float | None = None
    coverages: tuple[Coverage, ...] = ()
    curve: tuple[CurvePoint, ...] = ()


def assess(
    make: MakePredictor,
    space: SearchSpace,
    genomes: Genomes,
    targets: Floats,
    *,
    folds: int = 5,
    seed: int,
    costs: CostTable | None = None,
    bands_of: Cost | None = None,
) -> Quality:
    """Cross-validate on genomes (n, g) and targets (n,); no architecture is both fitted and predicted.

    Args:
        bands_of: the cost in whose bands tau is told.

    Raises:
        TrilobitError: fewer architectures than folds.
    """
    fold = architecture_folds(space, genomes, folds, rng=np.random.default_rng(seed))
    spread = np.empty(len(targets))

    def fit(learned: Rows, held: Rows) -> Floats:
        predictor = make(space, seed=seed, costs=costs).fit(genomes[learned], targets[learned])
        prediction = predictor.predict(genomes[held])
        spread[held] = prediction.std
        return prediction.mean

    few = [share for share in CURVE_SHARES if share * len(targets) * (1 - 1 / folds) >= FEWEST]
    rng, test_folds = open_stream(seed, Stream.LEARNING_CURVE), range(min(CURVE_FOLDS, folds))
    curve = learning_curve(fit, targets, fold, few, rng=rng, test_folds=test_folds) if few else ()
    mean = np.empty(len(targets))
    for k in range(folds):
        mean[fold == k] = fit(np.flatnonzero(fold != k), np.flatnonzero(fold == k))
    n_train = int(len(targets) - np.bincount(fold).max())
    last = curve_point(n_train, np.where(fold < CURVE_FOLDS, mean, np.nan), targets)
    plain = ~policy(space)(genomes).any(axis=1)
    return replace(
        judge(mean, targets, std=spread, bands_of=bands_of, n_train=n_train),
        kendall_tau_fp32=tau(mean[plain], targets[plain]),
        kendall_tau_quantized=tau(mean[~plain], targets[~plain]),
        curve=(*curve, last),
    )


def judge(
    mean: Floats,
    targets: Floats,
    *,
    std: Floats | None = None,
    bands_of: Cost | None = None,
    noise: float | None = None,
    n_train: int = 0,
) -> Quality:
    """Return the figures of predictions (n,), with standard deviations (n,) or none, against targets (n,)."""
    name, cost = bands_of or ("", None)
    bands = () if cost is None else cost_bands(mean, targets, cost)
    counts = np.array([band.n for band in bands if band.kendall_tau is not None])
    taus = np.array([band.kendall_tau for band in bands if band.kendall_tau is not None])
    error = mean - targets
    levels = () if std is None else tuple(Coverage(at, coverage(error, std, at)) for at in LEVELS)
    return Quality(
        kendall_tau=tau(mean, targets),
        pairwise_accuracy=pairwise_accuracy(mean, targets),
        rmse=float(np.sqrt(np.mean(error**2))),
        n_train=n_train,
        n_test=len(targets),
        kendall_tau_bands=float(taus @ counts / counts.sum()) if len(taus) else None,
        band_cost=name,
        bands=bands,
        noise=noise,
        coverage=None if std is None else coverage(error, std),
        coverages=levels,
    )


def cost_bands(mean: Floats, targets: Floats, cost: Floats) -> tuple[Band, ...]:
    """Return the figures of predictions (n,) against targets (n,) within bands of `cost` (n,) of nearly
    equally many candidates.
    """
    order, count = np.argsort(cost, kind="stable"), min(BANDS, max(1, len(cost) // FEWEST_IN_BAND))
    return tuple(
        Band(float(cost[rows[0]]), float(cost[rows[-1]]), len(rows), tau(mean[rows], targets[rows]))
        for rows in np.array_split(order, count)
    )


def architecture_folds(
    space: SearchSpace, genomes: Genomes, folds: int, *, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return the fold (n,) of each genome: random, of nearly equally many architectures, whatever their
    formats.

    Raises:
        TrilobitError: fewer architectures than folds.
    """
    columns = [column for column, choice in enumerate(space.choices) if choice.kind in ARCHITECTURE]
    distinct, group = np.unique(row_keys(space.canonical(genomes)[:, columns]), return_inverse=True)
    if len(distinct) < folds:
        raise TrilobitError(
            f"{len(distinct)} architectures; {folds} folds need at least {folds}: run `nas sample` for more"
        )
    return np.asarray(rng.permutation(len(distinct)) % folds)[group]


def tau(predicted: Floats, targets: Floats) -> float | None:
    """Return Kendall's tau-b of (n,) and (n,); None where all of either are equal."""
    from scipy.stats import kendalltau  # takes long to load, and every command knows what a quality is

    if len(targets) < 2 or np.ptp(predicted) == 0 or np.ptp(targets) == 0:
        return None
    return float(kendalltau(predicted, targets).statistic)


def pairwise_accuracy(predicted: Floats, targets: Floats) -> float | None:
    """Return the share of pairs of unequal `targets` (n,) in the right order; ties in `predicted` are half
    right.

    >>> pairwise_accuracy(np.array([1.0, 2.0, 2.0]), np.array([1.0, 1.0, 2.0]))
    0.75
    """
    order = np.sign(targets[:, None] - targets)
    pairs = np.triu(order != 0)
    if not pairs.any():
        return None
    agreement = order * np.sign(predicted[:, None] - predicted)
    return float((1 + agreement[pairs].mean()) / 2)
