"""The fast Gaussian process of `predictors.design.surrogate` as what the expensive loop learns by."""

from collections.abc import Callable

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from nas.search.pareto import Matrix, rank
from predictors.design.surrogate import JITTER, Kernel, embed, learn_kernel
from predictors.table import CostTable
from supernet.space.space import Genomes, SearchSpace

MOST = 800  # rows learned from: those nearest the front, where the search goes on
ELSEWHERE = 100  # and some others, so that the rest of the space is not forgotten
LEAST = 1e-6  # share of the signal's variance that is always uncertain

Column = Callable[[Genomes], tuple[np.ndarray, np.ndarray]]  # mean, standard deviation (n,)


class GaussianFit:
    """Learns one column of the objectives at a time."""

    def __init__(self, space: SearchSpace, costs: CostTable | None, *, seed: int) -> None:
        self._embedding = embed(space, costs, rng=np.random.default_rng([seed, 2]))
        self._seed = seed
        self._kernels: dict[int, tuple[int, Kernel]] = {}  # column -> rows it was learned from, and it

    def __call__(self, genomes: Genomes, objectives: Matrix, column: int) -> Column:
        """From genomes (n, g) and objectives (n, m)."""
        rng = np.random.default_rng([self._seed, len(genomes)])
        rows = _rows(objectives, rng)
        targets = objectives[rows, column]
        kernel = self._kernel(genomes[rows], targets, column, rng)
        known = self._scaled(kernel, genomes[rows])
        own = _covariance(known, known) + (kernel.noise + JITTER) * np.eye(len(rows))
        factor, lower = cho_factor(own, lower=True)
        centred = targets - targets.mean()
        solved = cho_solve((factor, lower), centred)
        signal = float(centred @ solved) / len(rows)  # the scale under which the targets are likeliest
        whitening = solve_triangular(factor, np.eye(len(rows)), lower=True).astype(np.float32)

        def predict(candidates: Genomes) -> tuple[np.ndarray, np.ndarray]:
            across = _covariance(self._scaled(kernel, candidates), known)
            explained = ((across.astype(np.float32) @ whitening.T) ** 2).sum(axis=1)
            std = np.sqrt(np.maximum(1 - explained, LEAST) * signal)
            return targets.mean() + across @ solved, std

        return predict

    def _kernel(self, genomes: Genomes, targets: np.ndarray, column: int, rng: np.random.Generator) -> Kernel:
        """Learned anew whenever there are a fifth more rows."""
        n, kernel = self._kernels.get(column, (0, None))
        if kernel is None or len(genomes) > 1.2 * n:
            kernel = learn_kernel(self._embedding(genomes), targets, rng=rng)
            self._kernels[column] = len(genomes), kernel
        return kernel

    def _scaled(self, kernel: Kernel, genomes: Genomes) -> np.ndarray:
        """(n, f) so that the covariance is exp(-squared distance)."""
        parts = zip(kernel.weights, self._embedding(genomes), strict=True)
        return np.hstack([np.sqrt(weight / 2) / kernel.length * part for weight, part in parts])


def _covariance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    distances = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    return np.asarray(np.exp(-np.maximum(distances, 0)))


def _rows(objectives: Matrix, rng: np.random.Generator) -> np.ndarray:
    """Which rows to learn from, in order."""
    if len(objectives) <= MOST + ELSEWHERE:
        return np.arange(len(objectives))
    order = np.argsort(rank(objectives), kind="stable")
    return np.sort(np.concatenate((order[:MOST], rng.choice(order[MOST:], ELSEWHERE, replace=False))))
