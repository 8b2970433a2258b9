"""Predictors that start from what is known of another space, data set or training.

Another task's predictor is rarely right but often ranks well. So its ranks are taken first, an affine map
brings them into the new unit, and a predictor of the remaining error does the rest; or it is left alone where
that is better.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from hw_profiles.errors import TrilobitError
from hw_profiles.streams import Stream, open_stream
from predictors.learning_curve import Fit, Rows, learning_curve
from predictors.predictor import MakePredictor, Prediction, Predictor, check_rows, not_fitted
from predictors.surrogate import Groups, embed, learn_kernel, points_at, posterior_mean
from predictors.table import CostTable
from supernet.space import Choice, Genomes, SearchSpace

Floats = NDArray[np.float64]
Prior = Callable[[Genomes], Floats]  # (n, g) -> (n,) how good, in any unit

REFERENCE = 2_000  # random networks that the prior's ranks are told by
FOLDS, REPEATS = 5, 6
ENOUGH = 200  # rows to judge by, repeats counted
MAPPED = 0.5  # share of a space's choices that another one must have, to be a prior for it


@dataclass(frozen=True, eq=False)
class Scores:
    """A prior's opinion as a normal score: what share of random networks it finds worse."""

    prior: Prior
    ordered: Floats

    def __call__(self, genomes: Genomes) -> Floats:
        """(n, g) -> (n,)."""
        found = self.prior(genomes)
        below = np.searchsorted(self.ordered, found, "left") + np.searchsorted(self.ordered, found, "right")
        return np.asarray(norm.ppf((below / 2 + 0.5) / (len(self.ordered) + 1)), np.float64)


@dataclass(frozen=True, eq=False)
class Fitted:
    """What `WarmStart.fit` learns.

    Attributes:
        scores: the prior; None where the predictor is better left alone.
        slope, intercept: from scores to targets.
        residual: predictor of what is left of the targets.
    """

    scores: Scores | None
    slope: float
    intercept: float
    residual: Predictor


@dataclass(frozen=True, eq=False)
class WarmStart:
    """Any predictor, started from a prior; see `predictors.predictor.Predictor` and `warm`."""

    space: SearchSpace
    _: KW_ONLY
    seed: int
    make: MakePredictor
    prior: Prior
    costs: CostTable | None = None
    fitted: Fitted | None = None

    def fit(self, genomes: Genomes, targets: Floats) -> Self:
        check_rows(self.space, genomes, targets)
        reference = self.space.sample(REFERENCE, rng=np.random.default_rng(self.seed))
        scores = Scores(self.prior, np.sort(self.prior(reference)))
        found = scores(genomes)
        helps = self._helps(genomes, found, targets)
        slope, intercept = fit_line(found, targets) if helps else (0.0, 0.0)
        predictor = self.make(self.space, seed=self.seed, costs=self.costs)
        residual = predictor.fit(genomes, targets - (slope * found + intercept))
        return replace(self, fitted=Fitted(scores if helps else None, slope, intercept, residual))

    def predict(self, genomes: Genomes) -> Prediction:
        if self.fitted is None:
            raise not_fitted(self)
        fitted, left = self.fitted, self.fitted.residual.predict(genomes)
        if fitted.scores is None:
            return left
        return Prediction(fitted.slope * fitted.scores(genomes) + fitted.intercept + left.mean, left.std)

    def _helps(self, genomes: Genomes, scores: Floats, targets: Floats) -> bool:
        """Whether unseen rows are ranked better with the prior. A Gaussian process stands in for the
        predictor, which would take too long.
        """
        rng = open_stream(self.seed, Stream.PRIOR_JUDGED)
        points = embed(self.space, self.costs, rng=rng)(genomes)
        ways = [_stand_in(points, said, targets) for said in (scores, np.zeros(len(scores)))]
        gain = 0.0
        for _ in range(max(1, min(REPEATS, ENOUGH // len(targets)))):
            fold = rng.permutation(len(targets)) % FOLDS
            with_it, without = (learning_curve(way, targets, fold, (1.0,), rng=rng)[0] for way in ways)
            gain += with_it.kendall_tau - without.kendall_tau
        return gain >= 0


def warm(make: MakePredictor, prior: Prior) -> MakePredictor:
    """`make`, but what it makes starts from `prior`."""
    return partial(WarmStart, make=make, prior=prior)


def fit_line(scores: Floats, targets: Floats) -> tuple[float, float]:
    """Least squares slope, never below 0, and intercept from scores (n,) to targets (n,): a prior that ranks
    the other way round says nothing.
    """
    centred = scores - scores.mean()
    slope = max(0.0, float(centred @ targets / max(float(centred @ centred), 1e-12)))
    return slope, float(targets.mean() - slope * scores.mean())


def _stand_in(points: Groups, scores: Floats, targets: Floats) -> Fit:
    """Learns from some rows, with the kernel that fits what scores leave of all, and predicts others."""
    slope, intercept = fit_line(scores, targets)
    rng = np.random.default_rng(0)
    kernel = learn_kernel(points, targets - slope * scores - intercept, rng=rng)

    def fit(learned: Rows, asked: Rows) -> Floats:
        slope, intercept = fit_line(scores[learned], targets[learned])
        left = targets[learned] - (slope * scores[learned] + intercept)
        rest = posterior_mean(kernel, points_at(points, learned), left, points_at(points, asked))
        return slope * scores[asked] + intercept + rest

    return fit


# -- between spaces --------------------------------------------------------------------------------


def map_genomes(target: SearchSpace, source: SearchSpace) -> Callable[[Genomes], Genomes]:
    """How genomes of `target` (n, g) read in `source` (n, h): by choices of the same name, to the same option
    or else the one at the same place between the first and the last; choices that only `source` has take
    their middle option.

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
    tables = [_genes(target.choices[mine], source.choices[its]) for mine, its in places]

    def mapped(genomes: Genomes) -> Genomes:
        found = np.tile(middle, (len(genomes), 1))
        for (mine, its), table in zip(places, tables, strict=True):
            found[:, its] = table[genomes[:, mine]]
        return source.canonical(found)

    return mapped


def _genes(target: Choice, source: Choice) -> NDArray[np.int16]:
    """(options of `target`,) genes of `source`."""
    last, its_last = max(len(target.options) - 1, 1), len(source.options) - 1
    genes = [
        source.options.index(option) if option in source.options else round(i / last * its_last)
        for i, option in enumerate(target.options)
    ]
    return np.array(genes, np.int16)
