"""The fast Gaussian process of `predictors.surrogate` as what the expensive loop learns by."""

from collections.abc import Callable

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from nas.pareto import Matrix, rank
from predictors.surrogate import JITTER, covariance, embed, learn_kernel, squared_distances
from predictors.table import CostTable
from supernet.space import Genomes, SearchSpace

MOST = 800  # rows learned from: those nearest the front, where the search goes on
ELSEWHERE = 100  # and some others, so that the rest of the space is not forgotten
LEAST = 1e-6  # share of the signal's variance that is always uncertain

Column = Callable[[Genomes], tuple[np.ndarray, np.ndarray]]  # mean, standard deviation (n,)


class GaussianFit:
    """Learns one column of the objectives at a time."""

    def __init__(self, space: SearchSpace, costs: CostTable | None, *, seed: int) -> None:
        self._embedding = embed(space, costs, rng=np.random.default_rng([seed, 2]))
        self._seed = seed

    def __call__(self, genomes: Genomes, objectives: Matrix, column: int) -> Column:
        """From genomes (n, g) and objectives (n, m)."""
        rng = np.random.default_rng([self._seed, len(genomes)])
        rows = _rows(objectives, rng)
        known, targets = self._embedding(genomes[rows]), objectives[rows, column]
        kernel = learn_kernel(known, targets, rng=rng)
        own = covariance(kernel, squared_distances(known, known))
        own += (kernel.noise + JITTER) * np.eye(len(rows))
        factor, lower = cho_factor(own, lower=True)
        centred = targets - targets.mean()
        solved = cho_solve((factor, lower), centred)
        signal = float(centred @ solved) / len(rows)  # the scale under which the targets are likeliest
        whitening = solve_triangular(factor, np.eye(len(rows)), lower=True).astype(np.float32)

        def predict(wanted: Genomes) -> tuple[np.ndarray, np.ndarray]:
            across = covariance(kernel, squared_distances(self._embedding(wanted), known))
            explained = ((across.astype(np.float32) @ whitening.T) ** 2).sum(axis=1)
            std = np.sqrt(np.maximum(1 - explained, LEAST) * signal)
            return targets.mean() + across @ solved, std

        return predict


def _rows(objectives: Matrix, rng: np.random.Generator) -> np.ndarray:
    """Which rows to learn from, in order."""
    if len(objectives) <= MOST + ELSEWHERE:
        return np.arange(len(objectives))
    order = np.argsort(rank(objectives), kind="stable")
    return np.sort(np.concatenate((order[:MOST], rng.choice(order[MOST:], ELSEWHERE, replace=False))))
