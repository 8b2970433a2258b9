"""Uniform random search: the baseline that any other search has to beat."""

import numpy as np
from numpy.typing import NDArray

from nas.search.novelty import Novelty
from nas.search.repair import Repair
from supernet.space import Genomes, SearchSpace


class RandomSearch:
    """Every living gene uniform over its options; learns nothing. See `nas.search.searcher.Searcher`."""

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        initial: Genomes | None = None,
        repair: Repair | None = None,
    ) -> None:
        self._space = space
        self._seed = seed
        self._step = 0
        self._novelty = Novelty(space, initial, repair)

    def ask(self, n: int) -> Genomes:
        rng = np.random.default_rng([self._seed, self._step])
        self._step += 1
        return self._novelty.draw(n, lambda k: self._space.sample(k, rng=rng), rng=rng)

    def tell(self, genomes: Genomes, objectives: NDArray[np.float64], violation: NDArray[np.float64]) -> None:
        del genomes, objectives, violation
