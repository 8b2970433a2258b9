"""What was measured of policies, and what is believed of all others after it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.evaluation.micro import ARENA, TOO_LARGE
from nas.tune.evaluation.context import TuneContext
from nas.tune.evaluation.quality import PolicyQuality, divergence_of
from nas.tune.policies.arena_model import fit_arena
from nas.tune.policies.costs import LATENCY
from nas.tune.policies.size_model import fit_size
from nas.tune.search.limits import Limits, divergence_within
from nas.tune.search.proposals import ROOT, Beliefs, Costs
from nas.tune.setup.times import USUAL_ERROR, seconds_of
from nas.tune.timing.policy_times import PolicyTimes
from predictors.accuracy.policies import PolicyPredictor
from predictors.predictor import FEWEST
from supernet.space.space import Genomes

Floats = NDArray[np.float64]
FLOOR = 1e-7  # of divergences before their logarithm is taken
MEAN_TO_STD = 1.25  # a normal distribution's standard deviation over its mean absolute error


@dataclass(frozen=True, eq=False)
class Known:
    """What was measured of some policies.

    Attributes:
        genomes: (n, g) the policies.
        qualities: of each.
        divergences: (n,) from the original; NaN where a file fails.
        seconds: (n,) of an inference; NaN where it was not timed, infinite where a file fails.
    """

    genomes: Genomes
    qualities: tuple[PolicyQuality, ...]
    divergences: Floats
    seconds: Floats

    def cost(self, name: str) -> Floats:
        """Return (n,) a cost of the files; NaN where it is not known, infinite where one does not run."""
        if name == LATENCY:
            return self.seconds
        values = np.array([quality.costs.get(name, np.nan) for quality in self.qualities])
        return np.where(values < TOO_LARGE, values, np.where(np.isnan(values), np.nan, np.inf))

    @property
    def errors(self) -> Floats | None:
        """(n, k) of the answers, as vectors; NaN where one is not known, None where none is."""
        vectors = [quality.error for quality in self.qualities]
        lengths = {len(vector) for vector in vectors if vector is not None}
        if len(lengths) != 1:
            return None
        unknown = np.full(lengths.pop(), np.nan)
        return np.array([unknown if vector is None else vector for vector in vectors], np.float64)

    def objectives(self, costs: Sequence[str]) -> Floats:
        """Return (n, 1 + k) the error and some costs, which the search minimises; NaN where something is not
        known.
        """
        return np.column_stack([np.sqrt(self.divergences), *map(self.cost, costs)])


def look_up(context: TuneContext, genomes: Genomes, times: PolicyTimes | None) -> Known:
    """Return what is known of policies (n, g) that were evaluated.

    Args:
        times: of those that were timed; None where nothing is.
    """
    qualities = context.evaluate(genomes)
    seconds = np.full(len(genomes), np.nan) if times is None else seconds_of(times, genomes)
    return Known(genomes, tuple(qualities), context.divergences(qualities), seconds)


def learned_quality(context: TuneContext, known: Known, rows: NDArray[np.int64]) -> PolicyPredictor:
    """Return what predicts the logarithms of divergences, learned from some `rows` (n,) of what is known."""
    logs, errors = np.log(np.maximum(known.divergences[rows], FLOOR)), known.errors
    predictor = PolicyPredictor(context.space, tensors=context.tensors)
    return predictor.fit(known.genomes[rows], logs, None if errors is None else errors[rows])


def believe(context: TuneContext, known: Known, times: PolicyTimes | None, bounds: Floats) -> Beliefs:
    """Return what is believed of all policies.

    Args:
        known: policies whose quality was evaluated.
        times: of those that were timed; None where nothing is.
        bounds: (1 + k,) limits on the error and the costs.
    """
    rows = np.flatnonzero(np.isfinite(known.divergences))
    if 0 < len(rows) < FEWEST:  # all policies of a space of one or two units: each counts several times
        rows = np.tile(rows, -(-FEWEST // len(rows)))
    quality = learned_quality(context, known, rows)
    accuracy = None if times is None else context.clock.accuracy(times)
    error = USUAL_ERROR if accuracy is None else MEAN_TO_STD * accuracy.mape
    costs = {name: _cost_model(context, known, times, name) for name in context.costs.names}
    return Beliefs(quality, costs, error, bounds, len(context.costs.sought))


def _cost_model(context: TuneContext, known: Known, times: PolicyTimes | None, name: str) -> Costs:
    """Return what predicts a cost, learned from what is known of files that run."""
    if name == LATENCY:
        assert times is not None
        return context.clock.model(times).seconds
    values = known.cost(name)
    runs = np.isfinite(values)
    if name == ARENA:
        return fit_arena(context.files.terms, known.genomes[runs], values[runs])
    return fit_size(context.space, known.genomes[runs], values[runs])


def bounds_of(context: TuneContext, known: Known, limits: Limits) -> Floats:
    """Return (1 + k,) limits on the error and the costs; of metrics that are not predicted, the divergence up
    to which they are likely kept.
    """
    bounds, names = np.full(1 + len(context.costs.names), np.inf), context.costs.names
    whole = np.isfinite(known.divergences)
    for limited in limits.objectives:
        assert limited.bound is not None
        if limited.name in names:
            bounds[1 + names.index(limited.name)] = limited.bound
            continue
        values = np.array([q.metrics.get(limited.name, np.nan) for q in known.qualities])[whole]
        if limited.name == context.proxy.name:
            bound = float(divergence_of(context.proxy, np.array([limited.bound]))[0])
        else:
            bound = divergence_within(limited, values, known.divergences[whole])
        bounds[ROOT] = min(bounds[ROOT], np.sqrt(bound))
    return bounds
