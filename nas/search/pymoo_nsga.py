"""NSGA-II of pymoo (Blank & Deb 2020, doi:10.1109/ACCESS.2020.2990567), usual in published searches."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.core.termination import NoTermination
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.repair.rounding import RoundingRepair

from nas.pareto import finite_rows
from nas.search.novelty import Novelty
from supernet.space import Genomes, SearchSpace

POPULATION = 50
# operators and rates as in SimQ-NAS, arXiv:2312.13301, rounded to integers
CROSSOVER = {"prob": 0.9, "eta": 15, "vtype": float, "repair": RoundingRepair()}
MUTATION = {"prob_var": 0.02, "eta": 20, "vtype": float, "repair": RoundingRepair()}


class PymooNsga2:
    """See `nas.search.searcher.Searcher`. Genes are integers; children are made canonical."""

    def __init__(self, space: SearchSpace, *, seed: int, initial: Genomes | None = None) -> None:
        self._space = space
        self._seed = seed
        self._step = 0
        self._novelty = Novelty(space, initial)
        last = space.cardinalities - 1
        self._problem = Problem(len(last), n_ieq_constr=1, xl=0, xu=last, vtype=int)
        crossover, mutation = SBX(**CROSSOVER), PM(**MUTATION)
        self._algorithm = NSGA2(
            POPULATION, crossover=crossover, mutation=mutation, eliminate_duplicates=False
        )
        self._algorithm.setup(self._problem, termination=NoTermination(), seed=seed)

    def ask(self, n: int) -> Genomes:
        rng = np.random.default_rng([self._seed, self._step])
        self._step += 1
        self._algorithm.random_state = rng
        return self._novelty.draw(n, lambda k: self._children(k, rng), rng=rng)

    def tell(self, genomes: Genomes, objectives: NDArray[np.float64], violation: NDArray[np.float64]) -> None:
        valid = finite_rows(np.column_stack((objectives, violation)))
        if valid.any():
            self._algorithm.advance(infills=_population(genomes[valid], objectives[valid], violation[valid]))

    def _children(self, n: int, rng: np.random.Generator) -> Genomes:
        """About `n` canonical genomes, not necessarily new."""
        parents = self._algorithm.pop
        if parents is None or len(parents) < 2:
            return self._space.sample(n, rng=rng)
        algorithm = self._algorithm
        children = algorithm.mating.do(self._problem, parents, n, algorithm=algorithm, random_state=rng)
        return self._space.canonical(np.rint(children.get("X")).astype(np.int16))


def _population(genomes: Genomes, objectives: NDArray[np.float64], violation: NDArray[np.float64]) -> Any:
    nothing = np.empty((len(genomes), 0))
    return Population.new(X=genomes.astype(float), F=objectives, G=violation[:, None], H=nothing)
