"""The predictor of SimQ-NAS (arXiv:2312.13301): ridge or support vectors, whichever cross-validates better.

For comparison with published searches; `auto` predicts better. As DyNAS-T has it, but that targets are
standardised, and errors compared as they are: a power of ten and relative errors, as there, would choose
another model in another unit.
"""

from dataclasses import KW_ONLY, dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, KFold, cross_val_predict
from sklearn.svm import SVR

from predictors.assessment.conformal import calibrate
from predictors.predictor import Prediction, check_rows, not_fitted
from predictors.table import CostTable
from supernet.space.space import Genomes, SearchSpace

ALPHAS = (0.1, 0.3, 1.0, 3.0, 10.0)
PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0)
FOLDS = 5
SCORE = "neg_mean_absolute_error"
DIGITS = 9  # kept of standardised targets: in no unit does rounding then choose between equally good models
FLOOR = 1e-3  # smallest std, in standard deviations of the targets


@dataclass(frozen=True, eq=False)
class Fitted:
    """What `RidgeOrSvrPredictor.fit` learns: which one-hot genes differ, a model of them and of standardised
    targets, the mean and scale of these, and the standard deviation of its error.
    """

    varied: NDArray[np.int64]
    model: Ridge | SVR
    mean: float
    scale: float
    std: float


@dataclass(frozen=True, eq=False)
class RidgeOrSvrPredictor:
    """Reads one-hot genes, all-zero where a layer is absent; see `predictors.predictor.Predictor`.

    The standard deviation is the same for every genome, from errors on folds; `costs` are not read.
    """

    space: SearchSpace
    _: KW_ONLY
    seed: int
    costs: CostTable | None = None
    fitted: Fitted | None = None

    def fit(self, genomes: Genomes, targets: NDArray[np.float64]) -> Self:
        check_rows(self.space, genomes, targets)
        hot = self.space.one_hot(genomes)
        varied = np.flatnonzero(hot.std(axis=0) > 0)
        hot = hot[:, varied]
        mean, scale = float(targets.mean()), float(targets.std()) or 1.0
        standard = np.round((targets - mean) / scale, DIGITS)
        folds = KFold(FOLDS, shuffle=True, random_state=self.seed)
        searches = [
            GridSearchCV(Ridge(), {"alpha": ALPHAS}, scoring=SCORE, cv=folds),
            GridSearchCV(SVR(gamma="auto", epsilon=0.0), {"C": PENALTIES}, scoring=SCORE, cv=folds),
        ]
        best = max((search.fit(hot, standard) for search in searches), key=lambda search: search.best_score_)
        model = best.best_estimator_
        errors = cross_val_predict(model, hot, standard, cv=folds) - standard
        std = max(calibrate(errors, np.ones(len(errors))), FLOOR)
        return replace(self, fitted=Fitted(varied, model, mean, scale, std))

    def predict(self, genomes: Genomes) -> Prediction:
        if self.fitted is None:
            raise not_fitted(self)
        if not len(genomes):
            return Prediction(np.empty(0), np.empty(0))
        mean = self.fitted.model.predict(self.space.one_hot(genomes)[:, self.fitted.varied]).astype(
            np.float64
        )
        std = np.full(len(genomes), self.fitted.scale * self.fitted.std)
        return Prediction(self.fitted.mean + self.fitted.scale * mean, std)
