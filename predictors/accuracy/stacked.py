"""`auto`: every model that the time allows, and of these the weighted mean that errs least on rows that none
of its parts had seen.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from predictors.assessment.conformal import calibrate
from predictors.assessment.out_of_fold import FEW, FOLDS, fold_count, folds_of, out_of_fold_predictions
from predictors.assessment.quality import tau
from predictors.design.surrogate import rank_normalised
from predictors.predictor import FEWEST, Prediction, Predictor, check_rows, load_predictor, not_fitted
from predictors.table import CostTable
from supernet.space.space import Genomes, SearchSpace

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class FitTime:
    """Seconds that fitting takes on one core: a constant, per row, and per million cubes of rows."""

    start_s: float
    row_s: float
    cubes_s: float = 0.0

    def seconds(self, n: int) -> float:
        """Return the seconds for n rows."""
        return self.start_s + self.row_s * n + self.cubes_s * n**3 / 1e6


# Measured once, for `benchmarks/predictor_quality.py` to check: what is chosen must not depend on what else a
# machine is doing.
MEMBERS: Mapping[str, FitTime] = {
    "ridge": FitTime(0.05, 2e-4),
    "boosting": FitTime(0.2, 5e-4),
    "gp": FitTime(0.25, 3.3e-3, 4e-4),  # its folds with it
    "trees": FitTime(1.0, 3e-3),  # its folds with it: it has nothing to say of rows that it learned from
}
LIMIT_S = 20.0
LEAST_WEIGHT = 0.05  # members of less are left out: they cost more time than they add
EXPECTED = 5.0  # how much weights by each member's own error count beside the rows: it matters for tens
ODDS: Mapping[str, float] = {"gp": 3.0}  # of being the best member, where the others' are 1: it mostly is
CHUNK = 4096  # rows predicted at once
FLOOR = 1e-3  # smallest std, in standard deviations of the targets


@dataclass(frozen=True, eq=False)
class Mixture:
    """A weighted mean of fitted predictors.

    Attributes:
        members: those that the mean is of, by name.
        weights: (m,) of them; they sum to 1.
        taus: rank correlation on left-out rows, of every model that was tried, by name.
        out_of_fold: (n,) what the mean says of each row that it was fitted on, by members that had not
            learned from its architecture; none where there were too few rows to leave any out.
        typical: the members' mean disagreement on left-out rows.
        std_scale: factor from disagreement to standard deviation of the error.
        floor: smallest standard deviation.
    """

    members: Mapping[str, Predictor]
    weights: Floats
    taus: Mapping[str, float]
    out_of_fold: Floats
    typical: float
    std_scale: float
    floor: float

    def predict(self, genomes: Genomes) -> Prediction:
        """Return the weighted mean of genomes (n, g), and its standard deviation; of a single member what it
        says itself, since its own standard deviation knows more than a disagreement of one.
        """
        members = list(self.members.values())
        if len(members) == 1:
            return members[0].predict(genomes)
        mean, std = np.empty((2, len(genomes)))
        for start in range(0, len(genomes), CHUNK):
            chunk = slice(start, start + CHUNK)
            outputs = np.stack([member.predict(genomes[chunk]).mean for member in members])
            mean[chunk], spread = _mixed(self.weights, outputs)
            std[chunk] = self.std_scale * np.hypot(spread, self.typical)
        return Prediction(mean, np.maximum(std, self.floor))


def alone(name: str, model: Predictor) -> Mixture:
    """Return the mixture of one model."""
    return Mixture({name: model}, np.ones(1), {}, np.empty(0), 0.0, 1.0, 0.0)


def mixture(models: Mapping[str, Predictor], unseen: Floats, targets: Floats, weights: Floats) -> Mixture:
    """Return the mean, by weights (m,), of models that said `unseen` (m, n) of rows with `targets` (n,)."""
    taus = {name: tau(output, targets) or 0.0 for name, output in zip(models, unseen, strict=True)}
    kept = weights > 0
    mean, spread = _mixed(weights, unseen)
    floor = FLOOR * (float(targets.std()) or 1.0)
    typical = float(spread.mean()) + floor
    std_scale = calibrate(mean - targets, np.hypot(spread, typical))
    members = {name: model for (name, model), keep in zip(models.items(), kept, strict=True) if keep}
    return Mixture(members, weights[kept], taus, mean, typical, std_scale, floor)


@dataclass(frozen=True, eq=False)
class StackedPredictor:
    """A weighted mean of other predictors; see `predictors.predictor.Predictor`.

    Stacking: Wolpert 1992, doi:10.1016/S0893-6080(05)80023-1; weights are not negative, as by Breiman 1996,
    doi:10.1007/BF00117832, and sum to 1. Each row's error is of members that did not learn from its
    architecture; the same errors calibrate the standard deviation.

    Args:
        members: names of the predictors to try, from the quickest.
        limit_s: seconds that fitting may take on one core, by `MEMBERS`: members are tried in order as long
            as they fit in, and at least the first.
    """

    space: SearchSpace
    _: KW_ONLY
    seed: int
    costs: CostTable | None = None
    members: tuple[str, ...] = tuple(MEMBERS)
    limit_s: float = LIMIT_S
    fitted: Mixture | None = None

    def fit(self, genomes: Genomes, targets: Floats) -> Self:
        check_rows(self.space, genomes, targets)
        enough = len(targets) >= FEW
        names = affordable(self.members, len(targets), self.limit_s) if enough else self.members[:1]
        models = {
            name: load_predictor(name)(self.space, seed=self.seed, costs=self.costs).fit(genomes, targets)
            for name in names
        }
        if len(targets) == FEWEST:  # none can be left out
            return replace(self, fitted=alone(*models.popitem()))
        folds = fold_count(len(targets))
        fold = folds_of(self.space, genomes, folds=folds, rng=np.random.default_rng(self.seed))
        unseen = np.stack(
            [out_of_fold_predictions(model, genomes, targets, fold) for model in models.values()]
        )
        weights = best_weights(unseen, targets, np.array([ODDS.get(name, 1.0) for name in models]))
        return replace(self, fitted=mixture(models, unseen, targets, weights))

    @property
    def out_of_fold(self) -> Floats:
        """(n,) what it says of each row it was fitted on without having learned from its architecture; none
        where there were only `FEWEST`.
        """
        if self.fitted is None:
            raise not_fitted(self)
        return self.fitted.out_of_fold

    def predict(self, genomes: Genomes) -> Prediction:
        if self.fitted is None:
            raise not_fitted(self)
        return self.fitted.predict(genomes)


def affordable(names: Sequence[str], n: int, limit_s: float) -> tuple[str, ...]:
    """Return the first of `names`, and those of the others, in order, that n rows can be fitted with in
    `limit_s` in all; a model that is not in `MEMBERS` is taken to be as slow as the slowest there, and fitted
    for every fold besides.
    """
    slowest, spent, affordable_names = max(time.seconds(n) for time in MEMBERS.values()), 0.0, list[str]()
    for name in names:
        takes_s = MEMBERS[name].seconds(n) if name in MEMBERS else (1 + FOLDS) * slowest
        if not affordable_names or spent + takes_s <= limit_s:
            affordable_names.append(name)
            spent += takes_s
    return tuple(affordable_names)


def best_weights(unseen: Floats, targets: Floats, odds: Floats | None = None) -> Floats:
    """Return (m,) weights, not negative and of sum 1, of members that said `unseen` (m, n) of rows with
    `targets` (n,): those of the least squared error, on a scale that a few outliers do not rule.

    Args:
        odds: (m,) how likely each was the best before it said anything; all alike without.
    """
    scale = even_scale(targets)
    errors = scale(unseen) - scale(targets)
    odds = np.ones(len(unseen)) if odds is None else odds
    weights = _least_error(errors, odds)
    while ((weights > 0) & (weights < LEAST_WEIGHT)).any():  # the others' weights can fall below it in turn
        kept = weights >= LEAST_WEIGHT
        weights = np.zeros(len(errors))
        weights[kept] = _least_error(errors[kept], odds[kept])
    return weights


def even_scale(targets: Floats) -> Callable[[Floats], Floats]:
    """Return the increasing map that takes targets (n,) to `rank_normalised` ones, of any numbers: between
    targets and beyond them it is linear.
    """
    ascending = np.sort(targets)
    values = rank_normalised(ascending)
    slope = np.ptp(values) / (np.ptp(ascending) or 1.0)

    def scale(numbers: Floats) -> Floats:
        beyond = np.minimum(numbers - ascending[0], 0) + np.maximum(numbers - ascending[-1], 0)
        return np.asarray(np.interp(numbers, ascending, values) + slope * beyond)

    return scale


def _least_error(errors: Floats, odds: Floats) -> Floats:
    """Return (m,) weights of sum 1 that make the mean of errors (m, n) smallest, by non-negative least
    squares with the sum as one more, heavy row.

    Few rows do not tell similar members apart. So they are drawn, as by a ridge penalty, to weights that go
    with the odds and fall with the fourth power of a member's mean squared error.
    """
    alone = (errors**2).mean(axis=1) + np.finfo(float).tiny
    expected = odds * (alone.min() / alone) ** 4
    expected /= expected.sum()
    heavy = 1e3 * np.sqrt((errors**2).sum() + 1)
    pull = np.sqrt(EXPECTED)
    system = np.vstack([errors.T, pull * np.eye(len(errors)), np.full(len(errors), heavy)])
    right_side = np.concatenate([np.zeros(errors.shape[1]), pull * expected, [heavy]])
    weights, _ = nnls(system, right_side)
    return np.asarray(weights / weights.sum())


def _mixed(weights: Floats, outputs: Floats) -> tuple[Floats, Floats]:
    """Return the weighted mean (n,) of outputs (m, n), and the weighted standard deviation around it (n,)."""
    mean = weights @ outputs
    return mean, np.sqrt(weights @ (outputs - mean) ** 2)
