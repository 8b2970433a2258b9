"""What was measured of policies, and what is believed of all others after it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.tune.evaluation.context import TuneContext
from nas.tune.evaluation.quality import PolicyQuality, divergence_of
from nas.tune.policies.size_model import fit_size
from nas.tune.search.limits import COSTS, Limits, divergence_within
from nas.tune.search.proposals import LATENCY, ROOT, SIZE, Beliefs
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

    @property
    def sizes(self) -> Floats:
        """(n,) bytes of the files."""
        return np.array([quality.size_bytes for quality in self.qualities])

    @property
    def errors(self) -> Floats | None:
        """(n, k) of the answers, as vectors; NaN where one is not known, None where none is."""
        vectors = [quality.error for quality in self.qualities]
        lengths = {len(vector) for vector in vectors if vector is not None}
        if len(lengths) != 1:
            return None
        unknown = np.full(lengths.pop(), np.nan)
        return np.array([unknown if vector is None else vector for vector in vectors], np.float64)

    @property
    def objectives(self) -> Floats:
        """(n, 3) what the search minimises; NaN where something is not known."""
        return np.stack([np.sqrt(self.divergences), self.seconds, self.sizes], axis=1)


def look_up(context: TuneContext, genomes: Genomes, times: PolicyTimes) -> Known:
    """Return what is known of policies (n, g) that were evaluated."""
    qualities = context.evaluate(genomes)
    return Known(genomes, tuple(qualities), context.divergences(qualities), seconds_of(times, genomes))


def learned_quality(context: TuneContext, known: Known, rows: NDArray[np.int64]) -> PolicyPredictor:
    """Return what predicts the logarithms of divergences, learned from some `rows` (n,) of what is known."""
    logs, errors = np.log(np.maximum(known.divergences[rows], FLOOR)), known.errors
    predictor = PolicyPredictor(context.space, tensors=context.tensors)
    return predictor.fit(known.genomes[rows], logs, None if errors is None else errors[rows])


def believe(context: TuneContext, known: Known, times: PolicyTimes, bounds: Floats) -> Beliefs:
    """Return what is believed of all policies.

    Args:
        known: policies whose quality was evaluated.
        times: of those that were timed.
        bounds: (3,) limits on what the search minimises.
    """
    rows = np.flatnonzero(np.isfinite(known.divergences))
    if 0 < len(rows) < FEWEST:  # all policies of a space of one or two units: each counts several times
        rows = np.tile(rows, -(-FEWEST // len(rows)))
    quality = learned_quality(context, known, rows)
    accuracy = context.clock.accuracy(times)
    error = USUAL_ERROR if accuracy is None else MEAN_TO_STD * accuracy.mape
    size = fit_size(context.space, known.genomes, known.sizes)
    return Beliefs(quality, context.clock.model(times).seconds, size, error, bounds)


def bounds_of(context: TuneContext, known: Known, limits: Limits) -> Floats:
    """Return (3,) limits on what the search minimises; of metrics that are not predicted, the divergence up
    to which they are likely kept.
    """
    bounds = np.full(3, np.inf)
    whole = np.isfinite(known.divergences)
    for limited in limits.objectives:
        assert limited.bound is not None
        if limited.name in COSTS:
            bounds[LATENCY if limited.name == "latency" else SIZE] = limited.bound
            continue
        values = np.array([q.metrics.get(limited.name, np.nan) for q in known.qualities])[whole]
        if limited.name == context.proxy.name:
            bound = float(divergence_of(context.proxy, np.array([limited.bound]))[0])
        else:
            bound = divergence_within(limited, values, known.divergences[whole])
        bounds[ROOT] = min(bounds[ROOT], np.sqrt(bound))
    return bounds
