"""The `Predictor` protocol, what it answers, and the registry of predictors."""

from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from hw_profiles.registry import load
from predictors.registry import DEFAULT as DEFAULT
from predictors.registry import PREDICTORS as PREDICTORS
from predictors.table import CostTable
from supernet.space.space import Genomes, SearchSpace

FEWEST = 8  # rows to fit on: fewer cannot be split to measure the error


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a predictor believes, in the unit of the targets it was fitted on.

    Attributes:
        mean: (n,) expected value.
        std: (n,) standard deviation of the error, positive; mean +- 1.645 std should hold 90 % of targets.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]


class Predictor(Protocol):
    """Generalises from evaluated genomes. Immutable, and deterministic for its seed.

    `fit` gives a new, fitted predictor and leaves the old one as it was. It starts afresh every time.
    Genomes need not be canonical: equal networks get equal predictions.
    """

    def fit(self, genomes: Genomes, targets: NDArray[np.float64]) -> Self:
        """Fit to genomes (n, g) and targets (n,).

        Raises:
            TrilobitError: fewer than `FEWEST` rows, or a target is not a finite number.
        """
        ...

    def predict(self, genomes: Genomes) -> Prediction:
        """Return the mean and standard deviation (n,) of genomes (n, g).

        Raises:
            TrilobitError: not fitted.
        """
        ...


class MakePredictor(Protocol):
    """How every registered predictor is made; `costs` are features known for free, such as multiply-adds."""

    def __call__(self, space: SearchSpace, *, seed: int, costs: CostTable | None = None) -> Predictor: ...


def load_predictor(name: str = DEFAULT) -> MakePredictor:
    """Return the predictor registered as `name`.

    Raises:
        TrilobitError: no such predictor.
    """
    make: MakePredictor = load("trilobit.predictors", PREDICTORS, name)
    return make


def check_rows(space: SearchSpace, genomes: Genomes, targets: NDArray[np.float64]) -> None:
    """Refuse rows that nothing can be learned from.

    Raises:
        TrilobitError: fewer than `FEWEST` rows, or a target is not a finite number.
        ValueError: the shapes are not (n, g) and (n,).
    """
    if genomes.shape != (len(targets), len(space.choices)) or targets.ndim != 1:
        g = len(space.choices)
        raise ValueError(f"genomes {genomes.shape} and targets {targets.shape}; wanted (n, {g}) and (n,)")
    if len(targets) < FEWEST:
        raise TrilobitError(
            f"{len(targets)} evaluated candidates; a predictor needs {FEWEST} or more: run `nas sample`"
        )
    if not np.isfinite(targets).all():
        row = int(np.flatnonzero(~np.isfinite(targets))[0])
        raise TrilobitError(
            f"target of row {row} is {targets[row]}; wanted finite numbers: leave failed evaluations out"
        )


def not_fitted(predictor: Predictor) -> TrilobitError:
    """Return the error of a predictor that is asked before it has learned."""
    name = type(predictor).__name__
    return TrilobitError(f"{name} is not fitted; use what `fit(genomes, targets)` gives back")
