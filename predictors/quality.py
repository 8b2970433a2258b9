"""How good a predictor is, on candidates it has not seen."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from hw_profiles.errors import TrilobitError
from predictors.calibration import coverage
from predictors.features import ARCHITECTURE, policy
from predictors.predictor import MakePredictor
from predictors.table import CostTable
from supernet.space import Genomes, SearchSpace, row_keys


@dataclass(frozen=True)
class Quality:
    """Held-out figures of one predictor.

    Attributes:
        kendall_tau: tau-b between predictions and targets; None where all of either are equal.
        kendall_tau_fp32: the same among candidates in fp32 throughout.
        kendall_tau_quantized: the same among all others.
        pairwise_accuracy: share of pairs of unequal targets in the right order; None without such pairs.
        rmse: root mean square error, in the unit of the targets.
        coverage: share of targets inside the nominal 90 % interval.
        n_train: candidates fitted on, the fewest of all folds.
        n_test: candidates predicted.
    """

    kendall_tau: float | None
    kendall_tau_fp32: float | None
    kendall_tau_quantized: float | None
    pairwise_accuracy: float | None
    rmse: float
    coverage: float
    n_train: int
    n_test: int


def assess(
    make: MakePredictor,
    space: SearchSpace,
    genomes: Genomes,
    targets: NDArray[np.float64],
    *,
    folds: int = 5,
    seed: int,
    costs: CostTable | None = None,
) -> Quality:
    """Cross-validate on genomes (n, g) and targets (n,); no architecture is both fitted and predicted.

    Raises:
        TrilobitError: fewer architectures than folds.
    """
    fold = architecture_folds(space, genomes, folds, rng=np.random.default_rng(seed))
    mean, std = np.empty(len(targets)), np.empty(len(targets))
    for held in (fold == k for k in range(folds)):
        predictor = make(space, seed=seed, costs=costs).fit(genomes[~held], targets[~held])
        prediction = predictor.predict(genomes[held])
        mean[held], std[held] = prediction.mean, prediction.std
    plain = ~policy(space)(genomes).any(axis=1)
    return Quality(
        kendall_tau=tau(mean, targets),
        kendall_tau_fp32=tau(mean[plain], targets[plain]),
        kendall_tau_quantized=tau(mean[~plain], targets[~plain]),
        pairwise_accuracy=pairwise_accuracy(mean, targets),
        rmse=float(np.sqrt(np.mean((mean - targets) ** 2))),
        coverage=coverage(mean - targets, std),
        n_train=int(len(targets) - np.bincount(fold).max()),
        n_test=len(targets),
    )


def architecture_folds(
    space: SearchSpace, genomes: Genomes, folds: int, *, rng: np.random.Generator
) -> NDArray[np.int64]:
    """(n,) fold of each genome: random, of nearly equally many architectures, whatever their formats.

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


def tau(predicted: NDArray[np.float64], targets: NDArray[np.float64]) -> float | None:
    """Kendall's tau-b of (n,) and (n,); None where all of either are equal."""
    if len(targets) < 2 or np.ptp(predicted) == 0 or np.ptp(targets) == 0:
        return None
    return float(kendalltau(predicted, targets).statistic)


def pairwise_accuracy(predicted: NDArray[np.float64], targets: NDArray[np.float64]) -> float | None:
    """Share of pairs of unequal `targets` (n,) in the right order; ties in `predicted` are half right.

    >>> pairwise_accuracy(np.array([1.0, 2.0, 2.0]), np.array([1.0, 1.0, 2.0]))
    0.75
    """
    order = np.sign(targets[:, None] - targets)
    pairs = np.triu(order != 0)
    if not pairs.any():
        return None
    agreement = order * np.sign(predicted[:, None] - predicted)
    return float((1 + agreement[pairs].mean()) / 2)
