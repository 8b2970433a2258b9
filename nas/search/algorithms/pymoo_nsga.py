"""Algorithms of pymoo (Blank & Deb 2020, doi:10.1109/ACCESS.2020.2990567), usual in published searches."""

from abc import abstractmethod
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.algorithms.moo.nsga3 import NSGA3
from pymoo.algorithms.moo.rnsga2 import RNSGA2
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.core.termination import NoTermination
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.repair.rounding import RoundingRepair
from pymoo.util.ref_dirs import get_reference_directions

from nas.search.pareto import Matrix, finite_rows
from nas.search.sampling_searcher import SamplingSearcher
from supernet.space.space import Genomes

POPULATION = 50
DIRECTIONS = 100  # of NSGA-III, at most
# operators and rates as in SimQ-NAS, arXiv:2312.13301, rounded to integers
CROSSOVER = {"prob": 0.9, "eta": 15, "vtype": float, "repair": RoundingRepair()}
MUTATION = {"prob_var": 0.02, "eta": 20, "vtype": float, "repair": RoundingRepair()}


class _PymooSearch(SamplingSearcher):
    """See `nas.search.searcher.Searcher`. Genes are integers; children are made canonical."""

    _algorithm: Any = None

    @abstractmethod
    def _build(self, objectives: int) -> Any:
        """Build the algorithm for so many objectives; they are known when there are the first answers."""

    def ask(self, n: int) -> Genomes:
        rng = np.random.default_rng([self._seed, self._step])
        self._step += 1
        if self._algorithm is not None:
            self._algorithm.random_state = rng
        return self._deduplicator.draw(n, lambda k: self._children(k, rng), rng=rng)

    def tell(self, genomes: Genomes, objectives: NDArray[np.float64], violation: NDArray[np.float64]) -> None:
        valid = finite_rows(np.column_stack((objectives, violation)))
        if not valid.any():
            return
        if self._algorithm is None:
            self._algorithm = self._begin(objectives.shape[1])
        # R-NSGA-II and NSGA-III divide by the extent of the front, which may be nothing yet
        with np.errstate(divide="ignore", invalid="ignore"):
            self._algorithm.advance(infills=_population(genomes[valid], objectives[valid], violation[valid]))

    def _begin(self, objectives: int) -> Any:
        last = self._space.cardinalities - 1
        problem = Problem(len(last), n_obj=objectives, n_ieq_constr=1, xl=0, xu=last, vtype=int)
        algorithm = self._build(objectives)
        algorithm.setup(problem, termination=NoTermination(), seed=self._seed)
        algorithm.random_state = np.random.default_rng([self._seed, self._step])
        return algorithm

    def _children(self, n: int, rng: np.random.Generator) -> Genomes:
        """Return about `n` canonical genomes, not necessarily new."""
        algorithm = self._algorithm
        if algorithm is None or algorithm.pop is None or len(algorithm.pop) < 2:
            return self._space.sample(n, rng=rng)
        mate = algorithm.mating.do
        children = mate(algorithm.problem, algorithm.pop, n, algorithm=algorithm, random_state=rng)
        return self._space.canonical(np.rint(children.get("X")).astype(np.int16))


class PymooNsga2(_PymooSearch):
    """NSGA-II: Deb et al. 2002, doi:10.1109/4235.996017."""

    def _build(self, objectives: int) -> Any:
        return NSGA2(POPULATION, **_operators())


class PymooNsga3(_PymooSearch):
    """NSGA-III: Deb & Jain 2014, doi:10.1109/TEVC.2013.2281535. Its population is spread over reference
    directions, evenly between the objectives: meant for three and more of them.
    """

    def _build(self, objectives: int) -> Any:
        directions = reference_directions(objectives)
        return NSGA3(directions, pop_size=max(POPULATION, len(directions)), **_operators())


class PymooRnsga2(_PymooSearch):
    """R-NSGA-II: Deb & Sundar 2006, doi:10.1145/1143997.1144112. Of equally good networks those survive that
    are near an aim; without any aim, near the best value of every objective that was seen.
    """

    _aims: Matrix | None = None
    _best: NDArray[np.float64] | None = None  # (m,) least of each objective among feasible rows

    def set_reference_points(self, points: Matrix) -> None:
        """Head for points (k, m) of minimised objectives; NaN stands for the best value that was seen."""
        self._aims = points

    def tell(self, genomes: Genomes, objectives: NDArray[np.float64], violation: NDArray[np.float64]) -> None:
        good = objectives[finite_rows(objectives) & (violation <= 0)]
        if len(good):
            all_good = good if self._best is None else np.vstack((self._best, good))
            self._best = all_good.min(axis=0)
        if self._algorithm is not None:
            self._algorithm.survival.ref_points = self._points(objectives.shape[1])
        super().tell(genomes, objectives, violation)

    def _build(self, objectives: int) -> Any:
        points = self._points(objectives)
        return RNSGA2(points, normalization="ever", pop_size=POPULATION, **_operators())

    def _points(self, objectives: int) -> Matrix:
        best = np.zeros(objectives) if self._best is None else self._best
        aims = np.full((1, objectives), np.nan) if self._aims is None else self._aims
        return np.asarray(np.where(np.isnan(aims), best, aims), np.float64)


def reference_directions(objectives: int) -> Matrix:
    """Return (k, m) points evenly spread over the simplex, k at most `DIRECTIONS`, or m where that is more:
    Das & Dennis 1998, doi:10.1137/S1052623496307510.
    """
    parts = 1
    while objectives > 1 and comb(parts + objectives, objectives - 1) <= DIRECTIONS:
        parts += 1
    directions: Matrix = get_reference_directions("das-dennis", objectives, n_partitions=parts)
    return directions


def _operators() -> dict[str, Any]:
    """Return operators that leave duplicates to `Deduplicator`, which knows all generations."""
    return {"crossover": SBX(**CROSSOVER), "mutation": PM(**MUTATION), "eliminate_duplicates": False}


def _population(genomes: Genomes, objectives: NDArray[np.float64], violation: NDArray[np.float64]) -> Any:
    nothing = np.empty((len(genomes), 0))
    return Population.new(X=genomes.astype(float), F=objectives, G=violation[:, None], H=nothing)
