"""The loop around real evaluations: search on predictions, evaluate what is worth most, learn from it.

Predictions cost next to nothing and evaluations a lot, so every batch is chosen from thousands of predicted
networks by what it is expected to add to the front (`nas.search.acquisition`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hw_profiles.streams import Stream, open_stream
from nas.search.acquisition import choose_batch
from nas.search.algorithms.evolution import tilted_sample
from nas.search.deduplication import row_hashes
from nas.search.loop import Evaluate, search
from nas.search.pareto import Matrix, finite_rows, non_dominated
from nas.search.points import Points, constrained_rank, join
from nas.search.searcher import make_searcher
from supernet.space.space import Genomes, SearchSpace


@dataclass(frozen=True, eq=False)
class Posterior:
    """What is predicted of n networks.

    Attributes:
        mean: (n, m) objectives, less is better.
        std: (n, m) standard deviations of their errors; 0 where they are known exactly.
        violation: (n,) of the limits, 0 inside.
    """

    mean: Matrix
    std: Matrix
    violation: NDArray[np.float64]

    def __getitem__(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> "Posterior":
        return Posterior(self.mean[rows], self.std[rows], self.violation[rows])


Predict = Callable[[Genomes], Posterior]
Fit = Callable[[Points], Predict]  # from what was evaluated and did not fail

KEPT = 1000  # predicted networks that a batch is chosen from


@dataclass(frozen=True)
class Plan:
    """How networks to evaluate are proposed.

    Attributes:
        batch: evaluations between two fits, at first; fewer learn more from each, and take longer.
        first: networks evaluated before anything can be predicted.
        spread: whether these are spread from the smallest to the largest, or else drawn uniformly.
        searcher: what searches on predictions.
        predicted, generation: networks predicted before each batch, and between two of their generations.
        exploration: how much the predictors' standard deviations count: 1 takes them as they are, both to
            rate networks so much better than predicted while searching and to choose a batch; with 0 nothing
            but the means counts.
        growth: share of what is known that is evaluated at least before the next fit.
    """

    batch: int = 20
    first: int = 30
    spread: bool = True
    searcher: str = "evolution"
    predicted: int = 6_000
    generation: int = 500
    exploration: float = 1.0
    growth: float = 0.05


DEFAULT = Plan()
# LINAS, the search of DyNAS-T and SimQ-NAS: arXiv:2312.13301
LINAS = Plan(
    batch=50,
    first=50,
    spread=False,
    searcher="nsga2",
    predicted=10_000,
    generation=50,
    exploration=0.0,
    growth=0.0,
)


class Shortlist:
    """The best of all networks that a search on predictions came across, and how uncertain they are.

    Args:
        predict: what is predicted of networks.
        exploration: see `Plan`.
    """

    def __init__(self, predict: Predict, exploration: float = DEFAULT.exploration) -> None:
        self._predict = predict
        self._exploration = exploration
        self._optimistic: Points | None = None
        self._posterior = Posterior(np.empty((0, 0)), np.empty((0, 0)), np.empty(0))

    def evaluate(self, genomes: Genomes) -> tuple[Matrix, NDArray[np.float64]]:
        """Return the optimistic objectives (n, m), `exploration` deviations better than predicted, and
        violation (n,): what the search goes by.
        """
        predicted = self._predict(genomes)
        posterior = replace(predicted, std=self._exploration * predicted.std)
        optimistic = Points(genomes, posterior.mean - posterior.std, posterior.violation)
        inside = np.flatnonzero(posterior.violation <= 0)
        self._keep(optimistic[inside], posterior[inside])
        return optimistic.objectives, optimistic.violation

    def _keep(self, points: Points, posterior: Posterior) -> None:
        if self._optimistic is not None:
            points = join(self._optimistic, points)
            posterior = Posterior(
                np.concatenate((self._posterior.mean, posterior.mean)),
                np.concatenate((self._posterior.std, posterior.std)),
                points.violation,
            )
        best = np.argsort(constrained_rank(points), kind="stable")[:KEPT]
        self._optimistic, self._posterior = points[best], posterior[best]

    def choose(self, evaluated: Genomes, front: Matrix, reference: NDArray[np.float64], k: int) -> Genomes:
        """Return up to `k` networks to evaluate, in order of what they are expected to add.

        Args:
            evaluated: (n, g) networks that are evaluated already.
            front: (f, m) objectives of those of them that meet the limits.
            reference: (m,) hypervolume is counted from there.
            k: how many.
        """
        if self._optimistic is None:
            return evaluated[:0]
        new = ~np.isin(row_hashes(self._optimistic.genomes), row_hashes(evaluated))
        posterior = self._posterior[new]
        rows = choose_batch(posterior.mean, posterior.std, front, reference, k)
        return self._optimistic.genomes[new][rows]

    def best(self, evaluated: Genomes, k: int) -> Genomes:
        """Return up to `k` networks that are not evaluated, those of the first predicted fronts."""
        if self._optimistic is None:
            return evaluated[:0]
        genomes = self._optimistic.genomes
        return genomes[~np.isin(row_hashes(genomes), row_hashes(evaluated))][:k]


def search_expensive(
    space: SearchSpace,
    fit: Fit,
    evaluate: Evaluate,
    *,
    budget: int,
    reference: Sequence[float],
    seed: int,
    plan: Plan = DEFAULT,
    pool: Genomes | None = None,
) -> Points:
    """Search: return up to `budget` evaluated networks, in the order of their evaluation.

    After the first networks a batch at a time is chosen, and later a share of those known: networks that are
    expected to add most to the front, then those that are predicted best.
    Deterministic for its seed where `fit` and `evaluate` are, so that a killed search is resumed by running
    it again with an `evaluate` that remembers.

    Args:
        space: what is searched.
        fit: learns to predict the objectives from all evaluations that did not fail.
        evaluate: gives real objectives (n, m), less is better, and violation (n,) of limits.
        budget: evaluations.
        reference: (m,) hypervolume is counted from there.
        seed: of everything random.
        plan: how networks are proposed.
        pool: (p, g) different canonical genomes, where no other networks can be evaluated.

    Raises:
        ValueError: the budget, or the plan's batch, is below 1.
    """
    if min(budget, plan.batch) < 1:
        raise ValueError(f"budget and batch are at least 1, not {budget}, {plan.batch}")
    first = _first(space, pool, plan, budget, rng=open_stream(seed, Stream.FIRST_EVALUATED))
    evaluated = Points(first, *evaluate(first))
    while len(evaluated) < budget:
        valid = evaluated[finite_rows(evaluated.objectives)]
        shortlist = Shortlist(fit(valid), plan.exploration)
        best = valid[valid.violation <= 0]
        best = best[non_dominated(best.objectives)]
        searcher_seed = seed + 7919 * len(evaluated)
        initial = best.genomes if pool is None else pool
        search(
            make_searcher(plan.searcher, space, seed=searcher_seed, initial=initial),
            shortlist.evaluate,
            budget=plan.predicted if pool is None else len(pool),
            batch=plan.generation,
            reference=reference,
        )
        k = min(max(plan.batch, int(plan.growth * len(evaluated))), budget - len(evaluated))
        selected = shortlist.choose(evaluated.genomes, best.objectives, np.array(reference), k)
        known = np.concatenate((evaluated.genomes, selected))
        selected = np.concatenate((selected, shortlist.best(known, k - len(selected))))
        if not len(selected):
            break
        evaluated = join(evaluated, Points(selected, *evaluate(selected)))
    return evaluated


def _first(
    space: SearchSpace, pool: Genomes | None, plan: Plan, budget: int, *, rng: np.random.Generator
) -> Genomes:
    """Return the different networks that are evaluated first; of a pool, any."""
    if pool is not None:
        drawn = rng.permutation(pool)
    elif plan.spread:
        drawn = tilted_sample(space, 4 * plan.first, rng=rng)
    else:
        drawn = space.sample(4 * plan.first, rng=rng)
    distinct = np.sort(np.unique(row_hashes(drawn), return_index=True)[1])
    return drawn[distinct][: min(plan.first, budget)]
