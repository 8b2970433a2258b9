"""Gradient boosting: small trees, each fitted to what those before it left over. They see thresholds and
interactions that smooth models miss, and so err differently.
"""

from dataclasses import KW_ONLY, dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import GradientBoostingRegressor

from predictors.accuracy.gp_features import Reader, reader
from predictors.assessment.conformal import calibrate
from predictors.assessment.out_of_fold import folds_of
from predictors.features import Features
from predictors.predictor import Prediction, check_rows, not_fitted
from predictors.table import CostTable
from supernet.space.space import Genomes, SearchSpace

TREES = 100
LEARNING_RATE = 0.1
DEPTH = 4
FEATURES = 0.15  # share that a split chooses from: few, so that trees differ
ROWS = 0.6  # share that a tree learns from: Friedman 2002, doi:10.1016/S0167-9473(01)00065-2
LEAF = 3  # fewest rows in one
DIGITS = 9  # kept of standardised targets: in no unit does rounding then choose between equally good splits
FLOOR = 1e-3  # smallest std, in standard deviations of the targets


@dataclass(frozen=True, eq=False)
class Fitted:
    """What `BoostingPredictor.fit` learns.

    Attributes:
        reader: of features.
        model: of all rows.
        mean, scale: of the targets.
        out_of_fold: (n,) standardised, what a model of the other folds says of each row.
        std: standardised, of the error.
    """

    reader: Reader
    model: GradientBoostingRegressor
    mean: float
    scale: float
    out_of_fold: NDArray[np.float64]
    std: float


@dataclass(frozen=True, eq=False)
class BoostingPredictor:
    """Boosted trees; see `predictors.predictor.Predictor`.

    The standard deviation is the same for every genome: that of errors on folds of the rows by models of the
    other folds.
    """

    space: SearchSpace
    _: KW_ONLY
    seed: int
    costs: CostTable | None = None
    fitted: Fitted | None = None

    def fit(self, genomes: Genomes, targets: NDArray[np.float64]) -> Self:
        check_rows(self.space, genomes, targets)
        read = reader(self.space, self.costs, genomes)
        mean, scale = float(targets.mean()), float(targets.std()) or 1.0
        x, standard = read(genomes), np.round((targets - mean) / scale, DIGITS)
        fold = folds_of(self.space, genomes, rng=np.random.default_rng(self.seed))
        out_of_fold = np.empty(len(fold))
        for k in np.unique(fold):
            out_of_fold[fold == k] = self._boosted(x[fold != k], standard[fold != k]).predict(x[fold == k])
        std = max(calibrate(out_of_fold - standard, np.ones(len(fold))), FLOOR)
        model = self._boosted(x, standard)
        return replace(self, fitted=Fitted(read, model, mean, scale, out_of_fold, std))

    def _boosted(self, x: Features, standard: NDArray[np.float64]) -> GradientBoostingRegressor:
        model = GradientBoostingRegressor(
            n_estimators=TREES,
            learning_rate=LEARNING_RATE,
            max_depth=DEPTH,
            max_features=FEATURES,
            subsample=ROWS,
            min_samples_leaf=LEAF,
            random_state=self.seed,
        )
        return model.fit(x, standard)

    def predict(self, genomes: Genomes) -> Prediction:
        fitted = self._known()
        mean = fitted.model.predict(fitted.reader(genomes)) if len(genomes) else np.empty(0)
        std = np.full(len(genomes), fitted.scale * fitted.std)
        return Prediction(fitted.mean + fitted.scale * mean, std)

    @property
    def out_of_fold(self) -> NDArray[np.float64]:
        """(n,) what it says of each row it was fitted on without having learned from its architecture."""
        fitted = self._known()
        return fitted.mean + fitted.scale * fitted.out_of_fold

    def _known(self) -> Fitted:
        if self.fitted is None:
            raise not_fitted(self)
        return self.fitted
