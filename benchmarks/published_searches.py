"""Searches as their authors describe them, on our genome matrices: what ours is compared with."""

from collections.abc import Callable

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVR

from nas.search.deduplication import row_hashes
from nas.search.pareto import Matrix
from nas.search.points import Points, constrained_rank, join
from nas.search.searcher import make_searcher
from supernet.space.space import Genomes, SearchSpace

Score = Callable[[Genomes], np.ndarray]  # (n, g) canonical -> (n,)

# once-for-all's released EvolutionFinder (Cai et al. 2020, arXiv:1908.09791)
OFA_POPULATION, OFA_PARENTS, OFA_ITERATIONS, OFA_REDRAWN = 100, 25, 500, 0.1
# LINAS of DyNAS-T and SimQ-NAS, arXiv:2312.13301
LINAS_POPULATION, LINAS_PREDICTED, LINAS_FOLDS = 50, 10_000, 3


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
        found = draw(0)
        while len(found) < n:
            tried = draw(4 * n)
            found = np.concatenate((found, tried[latency(space.canonical(tried)) <= limit]))
        return found[:n]

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
        found = accuracy(space.canonical(children))
        population, scores = np.concatenate((population, children)), np.concatenate((scores, found))
        best, evaluations = max(best, float(found.max())), evaluations + len(children)
    return best, evaluations


def linas(space: SearchSpace, evaluate: Callable[[Genomes], Matrix], *, budget: int, seed: int) -> Matrix:
    """(budget, m) objectives in the order of their evaluation.

    50 random networks; then, again and again: a predictor per objective is fitted to everything evaluated
    (the better of ridge and support vectors), NSGA-II searches on the predictors, and its last population is
    evaluated next; of those known already the best unknown ones take the place.
    """
    rng = np.random.default_rng(seed)
    known = space.sample(LINAS_POPULATION, rng=rng)
    values = evaluate(known)
    while len(known) < budget:
        predictors = [_best_regression(space.one_hot(known), column) for column in values.T]

        def predicted(genomes: Genomes, predictors: list[GridSearchCV] = predictors) -> Matrix:
            hot = space.one_hot(genomes)
            return np.column_stack([predictor.predict(hot) for predictor in predictors])

        wanted = min(LINAS_POPULATION, budget - len(known))
        batch = _predicted_best(space, predicted, known, wanted, seed=seed + len(known))
        known, values = np.concatenate((known, batch)), np.concatenate((values, evaluate(batch)))
    return values


def _best_regression(features: np.ndarray, targets: np.ndarray) -> GridSearchCV:
    score = "neg_mean_absolute_percentage_error"
    searches = [
        GridSearchCV(Ridge(), {"alpha": [0.1, 1.0, 10.0]}, scoring=score, cv=LINAS_FOLDS),
        GridSearchCV(SVR(epsilon=0.01), {"C": [1.0, 10.0, 100.0]}, scoring=score, cv=LINAS_FOLDS),
    ]
    fitted = [search.fit(features, targets) for search in searches]
    return max(fitted, key=lambda search: search.best_score_)


def _predicted_best(
    space: SearchSpace, predicted: Callable[[Genomes], Matrix], known: Genomes, n: int, *, seed: int
) -> Genomes:
    """The last population of NSGA-II that is not known yet."""
    searcher = make_searcher("nsga2", space, seed=seed)
    population = Points(known[:0], np.empty((0, 2)), np.empty(0))
    for _ in range(LINAS_PREDICTED // LINAS_POPULATION):
        genomes = searcher.ask(LINAS_POPULATION)
        objectives = predicted(genomes)
        searcher.tell(genomes, objectives, np.zeros(len(genomes)))
        population = join(population, Points(genomes, objectives, np.zeros(len(genomes))))
        order = np.argsort(constrained_rank(population), kind="stable")
        population = population[order[: 4 * LINAS_POPULATION]]
    fresh = population.genomes[~np.isin(row_hashes(population.genomes), row_hashes(known))]
    return fresh[:n]
