"""What searchers of ours have in common: where their networks come from, and one stream of chance per ask."""

from abc import ABC, abstractmethod

import numpy as np

from nas.search.deduplication import Deduplicator
from nas.search.repair import Repair
from supernet.space.space import Genomes, SearchSpace


class SamplingSearcher(ABC):
    """Asks for what `_children` proposes, none of it twice; see `nas.search.searcher.Searcher`."""

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
        self._deduplicator = Deduplicator(space, initial, repair)

    def ask(self, n: int) -> Genomes:
        """Return up to `n` genomes (n, g) that were never asked for."""
        rng = np.random.default_rng([self._seed, self._step])
        self._step += 1
        return self._deduplicator.draw(n, lambda k: self._children(k, rng), rng=rng)

    @abstractmethod
    def _children(self, n: int, rng: np.random.Generator) -> Genomes:
        """Return about `n` canonical genomes, not necessarily new."""
