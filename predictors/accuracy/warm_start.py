"""Predictors that start from what is known of another space, data set or training.

Another task's predictor is rarely right, but often right in another unit. So an affine map brings it into the
new one, and a predictor of what that leaves does the rest. How far each is believed, errors on rows that
neither had learned from decide: where nothing can be learned beyond the prior, its affine map stands alone;
where the prior says nothing, the predictor does.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from typing import Self

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from predictors.accuracy.stacked import Mixture, alone, best_weights, mixture
from predictors.assessment.conformal import calibrate
from predictors.assessment.out_of_fold import fold_count, folds_of, out_of_fold_predictions
from predictors.predictor import FEWEST, MakePredictor, Prediction, Predictor, check_rows, not_fitted
from predictors.table import CostTable
from supernet.space.space import Choice, Genomes, SearchSpace

Floats = NDArray[np.float64]
Prior = Callable[[Genomes], Floats]  # (n, g) -> (n,) how good, in any unit

MAPPED = 0.5  # share of a space's choices that another one must have, to be a prior for it
FLOOR = 1e-3  # smallest std, in standard deviations of the targets
TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Line:
    """What `AffinePrior.fit` learns.

    Attributes:
        slope, intercept: from the prior's values to targets.
        out_of_fold: (n,) what a line through the others says of each row.
        std: of a new row's error.
    """

    slope: float
    intercept: float
    out_of_fold: Floats
    std: float


@dataclass(frozen=True, eq=False)
class AffinePrior:
    """A prior in the unit of the targets, and nothing else; see `predictors.predictor.Predictor`."""

    prior: Prior
    fitted: Line | None = None

    def fit(self, genomes: Genomes, targets: Floats) -> Self:
        values = self.prior(genomes)
        slope, intercept = fit_line(values, targets)
        others = line_leave_one_out(values, targets)
        std = max(calibrate(others - targets, np.ones(len(targets))), FLOOR * (float(targets.std()) or 1.0))
        return replace(self, fitted=Line(slope, intercept, others, std))

    def predict(self, genomes: Genomes) -> Prediction:
        line = self.line
        mean = line.slope * self.prior(genomes) + line.intercept
        return Prediction(np.asarray(mean, np.float64), np.full(len(genomes), line.std))

    @property
    def out_of_fold(self) -> Floats:
        """(n,) what it says of each row it was fitted on without having learned from it."""
        return self.line.out_of_fold

    @property
    def line(self) -> Line:
        """What it learned.

        Raises:
            TrilobitError: not fitted.
        """
        if self.fitted is None:
            raise not_fitted(self)
        return self.fitted


@dataclass(frozen=True, eq=False)
class PriorAndRest:
    """A fitted affine prior, and a predictor fitted to what it leaves of the targets."""

    prior: AffinePrior
    rest: Predictor

    def fit(self, genomes: Genomes, targets: Floats) -> Self:
        prior = self.prior.fit(genomes, targets)
        rest = self.rest.fit(genomes, targets - prior.predict(genomes).mean)
        return replace(self, prior=prior, rest=rest)

    def predict(self, genomes: Genomes) -> Prediction:
        rest = self.rest.predict(genomes)
        return Prediction(self.prior.predict(genomes).mean + rest.mean, rest.std)


@dataclass(frozen=True, eq=False)
class WarmStart:
    """Any predictor, started from a prior; see `predictors.predictor.Predictor` and `warm`."""

    space: SearchSpace
    _: KW_ONLY
    seed: int
    make: MakePredictor
    prior: Prior
    costs: CostTable | None = None
    fitted: Mixture | None = None

    def fit(self, genomes: Genomes, targets: Floats) -> Self:
        check_rows(self.space, genomes, targets)
        prior = AffinePrior(self.prior).fit(genomes, targets)
        plain = self.make(self.space, seed=self.seed, costs=self.costs)
        if not prior.line.slope:
            return replace(self, fitted=alone("predictor", plain.fit(genomes, targets)))
        if len(targets) == FEWEST:  # none can be left out, to learn more than a line
            return replace(self, fitted=alone("prior", prior))
        return replace(self, fitted=self._mixed(prior, plain, genomes, targets))

    def _mixed(self, prior: AffinePrior, plain: Predictor, genomes: Genomes, targets: Floats) -> Mixture:
        """Return the mean, of the least error on rows left out, of the prior with and without the predictor
        of what it leaves, and the predictor without a prior.
        """
        folds = fold_count(len(targets))
        fold = folds_of(self.space, genomes, folds=folds, rng=np.random.default_rng(self.seed))
        prior_mean = prior.predict(genomes).mean
        rest, own = plain.fit(genomes, targets - prior_mean), plain.fit(genomes, targets)
        models: dict[str, Predictor] = {
            "prior": prior,
            "prior and rest": PriorAndRest(prior, rest),
            "predictor": own,
        }
        unseen = np.stack(
            [
                prior.out_of_fold,
                prior.out_of_fold + out_of_fold_predictions(rest, genomes, targets - prior_mean, fold),
                out_of_fold_predictions(own, genomes, targets, fold),
            ]
        )
        return mixture(models, unseen, targets, best_weights(unseen, targets))

    def predict(self, genomes: Genomes) -> Prediction:
        if self.fitted is None:
            raise not_fitted(self)
        return self.fitted.predict(genomes)


def warm(make: MakePredictor, prior: Prior) -> MakePredictor:
    """Return `make`, but of predictors that start from `prior`."""
    return partial(WarmStart, make=make, prior=prior)


def fit_line(values: Floats, targets: Floats) -> tuple[float, float]:
    """Return the least squares slope, never below 0, and intercept from values (n,) to targets (n,): a prior
    that ranks the other way round says nothing.
    """
    centred = values - values.mean()
    spread, least = float(centred @ centred), TINY * float(values @ values)  # rounding is no spread
    slope = max(0.0, float(centred @ targets) / spread) if spread > least else 0.0
    return slope, float(targets.mean() - slope * values.mean())


def line_leave_one_out(values: Floats, targets: Floats) -> Floats:
    """Return what `fit_line` of all others says of each row (n,)."""
    rows = np.arange(len(targets))
    lines = [fit_line(values[rows != row], targets[rows != row]) for row in rows]
    return np.array([slope * value + level for (slope, level), value in zip(lines, values, strict=True)])


# -- between spaces --------------------------------------------------------------------------------


def map_genomes(target: SearchSpace, source: SearchSpace) -> Callable[[Genomes], Genomes]:
    """Return genomes of `target` (n, g) as ones of `source` (n, h): by choices of the same name, to the same
    option or else the one at the same place between the first and the last; choices that only `source` has
    take their middle option.

    Raises:
        TrilobitError: too few of the choices of `target` are choices of `source`.
    """
    open_choices = [choice for choice in target.choices if len(choice.options) > 1]
    shared = [choice for choice in open_choices if choice.name in source.columns]
    if len(shared) < MAPPED * len(open_choices):
        raise TrilobitError(
            f"{source.family} is no prior for {target.family}: {len(shared)} of {len(open_choices)} "
            f"choices are in both, at least {MAPPED:.0%} are needed; take a run of a space of the same build"
        )
    middle = np.array([(len(choice.options) - 1) // 2 for choice in source.choices], np.int16)
    places = [(target.columns[c.name], source.columns[c.name]) for c in shared]
    tables = [
        _genes(target.choices[target_column], source.choices[source_column])
        for target_column, source_column in places
    ]

    def mapped(genomes: Genomes) -> Genomes:
        translated = np.tile(middle, (len(genomes), 1))
        for (target_column, source_column), table in zip(places, tables, strict=True):
            translated[:, source_column] = table[genomes[:, target_column]]
        return source.canonical(translated)

    return mapped


def _genes(target: Choice, source: Choice) -> NDArray[np.int16]:
    """Return (options of `target`,) genes of `source`."""
    last, its_last = max(len(target.options) - 1, 1), len(source.options) - 1
    genes = [
        source.options.index(option) if option in source.options else round(i / last * its_last)
        for i, option in enumerate(target.options)
    ]
    return np.array(genes, np.int16)
