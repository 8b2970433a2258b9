"""Uniform random search: the baseline that any other search has to beat."""

import numpy as np
from numpy.typing import NDArray

from nas.search.sampling_searcher import SamplingSearcher
from supernet.space.space import Genomes


class RandomSearch(SamplingSearcher):
    """Every living gene uniform over its options; learns nothing. See `nas.search.searcher.Searcher`."""

    def _children(self, n: int, rng: np.random.Generator) -> Genomes:
        return self._space.sample(n, rng=rng)

    def tell(self, genomes: Genomes, objectives: NDArray[np.float64], violation: NDArray[np.float64]) -> None:
        del genomes, objectives, violation
