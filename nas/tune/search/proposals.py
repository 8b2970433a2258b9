"""Which policies to measure next: search on what is believed of quality, latency and size, and choose what is
expected to add most to the measured front.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.search.algorithms.expensive import Posterior, Shortlist
from nas.search.loop import choose_finalists, search
from nas.search.points import Points
from nas.search.repair import TowardsAnchor
from nas.search.searcher import make_searcher
from nas.tune.policies.costs import LATENCY
from predictors.predictor import Predictor
from supernet.space.space import Genomes, SearchSpace, row_keys

Floats = NDArray[np.float64]
Costs = Callable[[Genomes], Floats]  # (n, g) -> (n,)

SEARCHER = "local-moves"
CANDIDATES, GENERATION = 12_000, 500  # predicted in a round, and between two generations
PATIENCE = 8  # generations without progress that end a round
ROOT, COST = 0, 1  # columns of what is minimised: the error, and the first cost


@dataclass(frozen=True, eq=False)
class Beliefs:
    """What is believed of policies before they are measured: the objectives of the search, all minimised.

    The first is the root of the divergence: the size of the error, which adds up where divergences of .001
    and of .1 would hide each other.

    Attributes:
        quality: of the logarithm of the divergence.
        costs: of a policy's file, by name, those that are traded off first.
        latency_error: relative standard deviation of times.
        bounds: (1 + k,) limits on the error and on each cost; infinite without.
        sought: how many costs are traded off; the others only have limits. None: all.
    """

    quality: Predictor
    costs: Mapping[str, Costs]
    latency_error: float
    bounds: Floats
    sought: int | None = None

    def __call__(self, genomes: Genomes) -> Posterior:
        """Return the posterior of policies (n, g): of the error and the costs that are traded off."""
        predicted = self.quality.predict(genomes)
        root, costs = np.exp(predicted.mean / 2), self._costs(genomes)
        mean = np.column_stack([root, costs])
        errors = [self.latency_error if name == LATENCY else 0.0 for name in self.costs]
        std = np.column_stack([root * predicted.std / 2, costs * errors])
        columns = slice(None if self.sought is None else 1 + self.sought)
        return Posterior(mean[:, columns], std[:, columns], missed(mean, self.bounds))

    def _costs(self, genomes: Genomes) -> Floats:
        return np.column_stack([cost(genomes) for cost in self.costs.values()])

    def excess(self, genomes: Genomes) -> Floats:
        """Return (n, k) by how much the limits on costs are exceeded, relative."""
        return self._costs(genomes) / self.bounds[1:] - 1

    @property
    def repairable(self) -> bool:
        """Whether there is a limit on a cost."""
        return bool(np.isfinite(self.bounds[1:]).any())


def missed(values: Floats, bounds: Floats) -> Floats:
    """Return (n,) how far objectives (n, m) are out of bounds (m,): relative excess, summed."""
    return np.asarray(np.maximum(values / bounds - 1, 0).sum(axis=1), np.float64)


def propose(
    space: SearchSpace,
    beliefs: Beliefs,
    measured: Points,
    reference: Floats,
    count: int,
    *,
    seed: int,
    start: Genomes,
    on_progress: Callable[[int], None] = lambda candidates: None,
) -> Genomes:
    """Return up to `count` policies (k, g) to measure, none of which was.

    Args:
        measured: policies with measured objectives.
        reference: (m,) hypervolume is counted from there.
        start: (n, g) policies that the search begins with, beside those that were measured.
        on_progress: told how many candidates were predicted.
    """
    initial = np.concatenate([measured.genomes, start])
    repair = TowardsAnchor(space, beliefs.excess, initial) if beliefs.repairable else None
    shortlist = Shortlist(beliefs)
    result = search(
        make_searcher(SEARCHER, space, seed=seed, initial=initial, repair=repair),
        shortlist.evaluate,
        budget=CANDIDATES,
        batch=GENERATION,
        reference=reference.tolist(),
        patience=PATIENCE,
        on_progress=lambda progress: on_progress(progress.evaluations),
    )
    front = measured.objectives[measured.violation <= 0]
    selected = shortlist.choose(measured.genomes, front, reference, count)
    taken = row_keys(np.concatenate([measured.genomes, selected]))
    pool = result if len(result.genomes) else result.nearest
    fresh = np.flatnonzero(~np.isin(row_keys(pool.genomes), taken))
    others = fresh[choose_finalists(pool.objectives[fresh], count - len(selected))]
    return np.concatenate([selected, pool.genomes[others]])
