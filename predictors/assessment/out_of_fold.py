"""Out-of-fold predictions: of the rows a predictor was fitted on, as if it had not seen them. Stacking needs
them, and they make an uncertainty honest.
"""

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from predictors.assessment.quality import architecture_folds
from predictors.predictor import FEWEST, Predictor
from supernet.space.space import Genomes, SearchSpace, in_fp32, unique_rows

FOLDS = 5
FEW = 2 * FEWEST  # rows below which a fold would take too many of them away: each is then left out alone


@runtime_checkable
class KnowsOutOfFold(Protocol):
    """A predictor that makes them in its own fit."""

    @property
    def out_of_fold(self) -> NDArray[np.float64]:
        """(n,) what it says of each row it was fitted on without having learned from its architecture.

        Raises:
            TrilobitError: not fitted.
        """
        ...


def folds_of(
    space: SearchSpace, genomes: Genomes, *, folds: int = FOLDS, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return the fold (n,) of each genome: by architecture where there are several per fold, as in a quality
    report, otherwise by row; at most `folds`.
    """
    canonical = space.canonical(genomes)
    if len(unique_rows(in_fp32(space, canonical))) >= 2 * folds:
        return architecture_folds(space, canonical, folds, rng=rng)
    return np.asarray(rng.permutation(len(genomes)) % folds)


def fold_count(n: int) -> int:
    """Return into how many folds n rows are best split."""
    return n if n < FEW else FOLDS


def out_of_fold_predictions(
    fitted: Predictor, genomes: Genomes, targets: NDArray[np.float64], fold: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return out-of-fold predictions (n,) of the rows that `fitted` learned from, each without its
    architecture: its own where it has them, otherwise from one more fit per fold (n,).
    """
    if isinstance(fitted, KnowsOutOfFold):
        return fitted.out_of_fold
    mean = np.empty(len(targets))
    for held in (fold == k for k in np.unique(fold)):
        mean[held] = fitted.fit(genomes[~held], targets[~held]).predict(genomes[held]).mean
    return mean
