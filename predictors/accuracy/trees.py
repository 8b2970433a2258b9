"""Extremely randomised trees: no tuning, no assumption that effects add up."""

from dataclasses import KW_ONLY, dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesRegressor

from predictors import features
from predictors.assessment.conformal import calibrate
from predictors.predictor import Prediction, check_rows, not_fitted
from predictors.table import CostTable
from supernet.space.space import Genomes, SearchSpace

TREES = 200
FLOOR = 1e-3  # smallest std, in standard deviations of the targets


@dataclass(frozen=True, eq=False)
class Fitted:
    """What `TreesPredictor.fit` learns.

    Attributes:
        costs: the cost features of the training rows.
        model: the trees.
        mean, scale: of the targets.
        typical: the trees' mean disagreement on the training rows, standardised.
        std_scale: factor from disagreement to standard deviation of the error.
    """

    costs: features.LogCosts
    model: ExtraTreesRegressor
    mean: float
    scale: float
    typical: float
    std_scale: float


@dataclass(frozen=True, eq=False)
class TreesPredictor:
    """Mean and calibrated disagreement of the trees; see `predictors.predictor.Predictor`.

    Geurts et al. 2006, "Extremely randomized trees"; on bootstrap samples: rows out of bag calibrate.
    """

    space: SearchSpace
    _: KW_ONLY
    seed: int
    costs: CostTable | None = None
    fitted: Fitted | None = None

    def fit(self, genomes: Genomes, targets: NDArray[np.float64]) -> Self:
        check_rows(self.space, genomes, targets)
        costs = features.log_costs(self.costs, self.space, genomes)
        mean, scale = float(targets.mean()), float(targets.std()) or 1.0
        x, standard = _features(self.space, costs, genomes), (targets - mean) / scale
        model = ExtraTreesRegressor(
            TREES, max_features=0.5, bootstrap=True, oob_score=True, random_state=self.seed
        ).fit(x, standard)
        disagreement = _outputs(model, x).std(axis=0)
        typical = float(disagreement.mean()) + FLOOR
        std_scale = calibrate(model.oob_prediction_ - standard, np.hypot(disagreement, typical))
        return replace(self, fitted=Fitted(costs, model, mean, scale, typical, std_scale))

    def predict(self, genomes: Genomes) -> Prediction:
        if self.fitted is None:
            raise not_fitted(self)
        fitted = self.fitted
        outputs = _outputs(fitted.model, _features(self.space, fitted.costs, genomes))
        std = np.maximum(fitted.std_scale * np.hypot(outputs.std(axis=0), fitted.typical), FLOOR)
        return Prediction(fitted.mean + fitted.scale * outputs.mean(axis=0), fitted.scale * std)


def _features(space: SearchSpace, costs: features.LogCosts, genomes: Genomes) -> features.Features:
    parts = [features.architecture(space)(genomes), features.policy(space)(genomes), costs(space, genomes)]
    return np.hstack(parts)


def _outputs(model: ExtraTreesRegressor, x: features.Features) -> NDArray[np.float64]:
    """Return (t, n) what each tree says of each row."""
    return np.stack([tree.tree_.predict(x)[:, 0] for tree in model.estimators_])
