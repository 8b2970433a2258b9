"""Searches as their authors describe them, on our genome matrices: what ours is compared with."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVR

from nas.search.algorithms.evolution import in_order
from nas.search.deduplication import row_hashes
from nas.search.pareto import Matrix
from nas.search.points import Points, constrained_rank, join
from nas.search.searcher import make_searcher
from supernet.space.space import Genomes, SearchSpace

Score = Callable[[Genomes], np.ndarray]  # (n, g) canonical -> (n,)

# once-for-all's released EvolutionFinder (Cai et al. 2020, arXiv:1908.09791)
OFA_POPULATION, OFA_PARENTS, OFA_ITERATIONS, OFA_REDRAWN = 100, 25, 500, 0.1
# LINAS of DyNAS-T and SimQ-NAS, arXiv:2312.13301
LINAS_POPULATION, LINAS_PREDICTED = 50, 10_000
LINAS_ALPHAS, LINAS_PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0), (1.0, 3.0, 10.0, 30.0, 100.0)  # there 100 of each


def ofa_evolution(
    space: SearchSpace, accuracy: Score, latency: Score, limit: float, *, seed: int, iterations: int
) -> tuple[float, int]:
    """The most accurate network found within the limit, and how many accuracies were predicted.

    The best quarter stays; half of the children are mutants of a random parent, each gene drawn again with
    a probability of 0.1, and half are uniform crossovers of two; children beyond the limit are drawn again
    until they are within it.
    """
    rng = np.random.default_rng(seed)
    sizes, half = space.cardinalities, OFA_POPULATION // 2

    def feasible(n: int, draw: Callable[[int], Genomes]) -> Genomes:
        genomes = draw(0)
        while len(genomes) < n:
            tried = draw(4 * n)
            genomes = np.concatenate((genomes, tried[latency(space.canonical(tried)) <= limit]))
        return genomes[:n]

    def random(n: int) -> Genomes:
        return rng.integers(0, sizes, (n, len(sizes))).astype(np.int16)

    population = feasible(OFA_POPULATION, random)
    scores = accuracy(space.canonical(population))
    best, evaluations = float(scores.max()), len(population)
    for _ in range(iterations):
        parents = np.argsort(-scores, kind="stable")[:OFA_PARENTS]
        population, scores = population[parents], scores[parents]

        def parent(n: int, known: Genomes = population) -> Genomes:
            return known[rng.integers(0, len(known), n)]

        def mutant(n: int, parent: Callable[[int], Genomes] = parent) -> Genomes:
            return np.where(rng.random((n, len(sizes))) < OFA_REDRAWN, random(n), parent(n))

        def crossed(n: int, parent: Callable[[int], Genomes] = parent) -> Genomes:
            return np.where(rng.random((n, len(sizes))) < 0.5, parent(n), parent(n))

        children = np.concatenate((feasible(half, mutant), feasible(half, crossed)))
        child_scores = accuracy(space.canonical(children))
        population, scores = np.concatenate((population, children)), np.concatenate((scores, child_scores))
        best, evaluations = max(best, float(child_scores.max())), evaluations + len(children)
    return best, evaluations


def linas(
    space: SearchSpace,
    evaluate: Callable[[Genomes], Matrix],
    *,
    budget: int,
    seed: int,
    pool: Genomes | None = None,
) -> Matrix:
    """(budget, m) objectives in the order of their evaluation.

    50 random networks; then, again and again: a predictor per objective is fitted to everything evaluated
    (the better of ridge and support vectors), NSGA-II searches on the predictors, and its last population is
    evaluated next; of those known already the best unknown ones take the place. Where only a `pool` (p, g) of
    different genomes can be evaluated, all of it is predicted: NSGA-II could find no others.
    """
    rng = np.random.default_rng(seed)
    drawn = space.sample(LINAS_POPULATION, rng=rng) if pool is None else rng.permutation(pool)
    known = drawn[: min(LINAS_POPULATION, budget)]
    values = evaluate(known)
    while len(known) < budget:
        predictors = [_best_regression(space.one_hot(known), column) for column in values.T]

        def predicted(genomes: Genomes, predictors: list[Regression] = predictors) -> Matrix:
            hot = space.one_hot(genomes)
            return np.column_stack([predictor(hot) for predictor in predictors])

        batch_size = min(LINAS_POPULATION, budget - len(known))
        if pool is None:
            population = _population(space, predicted, seed=seed + len(known))
        else:
            population = _best_first(Points(pool, predicted(pool), np.zeros(len(pool)))).genomes
        batch = population[~np.isin(row_hashes(population), row_hashes(known))][:batch_size]
        known, values = np.concatenate((known, batch)), np.concatenate((values, evaluate(batch)))
    return values


@dataclass(frozen=True, eq=False)
class Regression:
    """Predicts labels that were divided by `unit` from the one-hot genes that `varied`."""

    model: GridSearchCV
    varied: np.ndarray
    unit: float

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """(n,) of one-hot genes (n, d)."""
        return np.asarray(self.model.predict(features[:, self.varied]) * self.unit)


def _best_regression(features: np.ndarray, targets: np.ndarray) -> Regression:
    """Ridge or support vectors, whichever has the smaller relative error on 5 folds; of labels divided by the
    power of ten that leaves the largest from 10 to 100.
    """
    varied = np.flatnonzero(features.var(axis=0) > 0)
    unit = 10.0 ** (np.floor(np.log10(np.abs(targets).max() or 1.0)) - 1)
    score = "neg_mean_absolute_percentage_error"
    searches = [
        GridSearchCV(Ridge(), {"alpha": LINAS_ALPHAS}, scoring=score),
        GridSearchCV(SVR(gamma="auto", epsilon=0.0), {"C": LINAS_PENALTIES}, scoring=score),
    ]
    fitted = [search.fit(features[:, varied], targets / unit) for search in searches]
    return Regression(max(fitted, key=lambda search: search.best_score_), varied, unit)


def _population(space: SearchSpace, predicted: Callable[[Genomes], Matrix], *, seed: int) -> Genomes:
    """The last population of NSGA-II and those that just missed it, the best first."""
    searcher = make_searcher("nsga2", space, seed=seed)
    population = Points(np.empty((0, len(space.choices)), np.int16), np.empty((0, 2)), np.empty(0))
    for _ in range(LINAS_PREDICTED // LINAS_POPULATION):
        genomes = searcher.ask(LINAS_POPULATION)
        objectives = predicted(genomes)
        searcher.tell(genomes, objectives, np.zeros(len(genomes)))
        population = join(population, Points(genomes, objectives, np.zeros(len(genomes))))
        population = _best_first(population)[: 4 * LINAS_POPULATION]
    return population.genomes


def _best_first(points: Points) -> Points:
    """As NSGA-II has them: lower fronts first, within a front the least crowded first."""
    return in_order(points, constrained_rank(points))
