"""Evolution that also moves runs of neighbouring choices together: what conversions between formats cost
depends on where the borders lie, so a border is moved, or a block changed, in one step.
"""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nas.search.algorithms.evolution import Evolution
from supernet.space.space import Genomes

MOVED = 0.4  # share of children in which a run, or a block, takes one option
BLOCKS = 0.4  # share of those that are blocks
LONGEST = 8  # choices of a run, at most
NONE = -1  # where a choice has no such option


class LocalMoves(Evolution):
    """See `nas.search.searcher.Searcher` for the promises."""

    def _children(self, n: int, rng: np.random.Generator) -> Genomes:
        children = super()._children(n, rng)
        moved = rng.binomial(len(children), MOVED)
        children[:moved] = self._moved(children[:moved], rng)
        return children.take(rng.permutation(len(children)), axis=0)

    def _moved(self, genomes: Genomes, rng: np.random.Generator) -> Genomes:
        """Return `genomes` (n, g) in each of which a run of choices, or a block, takes one option, where
        choices have it: that of the choice before, that of the choice after, so that a border moves, or any.
        """
        n, g = len(genomes), len(self._space.choices)
        columns = np.arange(g)
        start = rng.integers(0, g, n)
        stop = np.minimum(start + rng.integers(1, LONGEST + 1, n), g)
        inside = (columns >= start[:, None]) & (columns < stop[:, None])
        whole = (rng.random(n) < BLOCKS)[:, None]
        inside = np.where(whole, self._blocks[start][:, None] == self._blocks, inside)
        rows, before, after = np.arange(n), np.maximum(start - 1, 0), np.minimum(stop, g - 1)
        names = self._name_of[before, genomes[rows, before]], self._name_of[after, genomes[rows, after]]
        anything = self._name_of[start, rng.integers(0, self._space.cardinalities[start])]
        name = np.choose(rng.integers(0, 3, n), [*names, anything])
        gene = self._gene_of[name]
        moved = np.where(inside & (gene != NONE), gene, genomes)
        return self._space.canonical(moved.astype(np.int16))

    @cached_property
    def _blocks(self) -> NDArray[np.int64]:
        """(g,) a number for the block of each choice."""
        places = [(c.stage, c.block) for c in self._space.choices]
        numbers = {place: number for number, place in enumerate(dict.fromkeys(places))}
        return np.array([numbers[place] for place in places])

    @cached_property
    def _options(self) -> dict[str, int]:
        """A number for each option of any choice."""
        listed = dict.fromkeys(str(option) for c in self._space.choices for option in c.options)
        return {name: number for number, name in enumerate(listed)}

    @cached_property
    def _name_of(self) -> NDArray[np.int64]:
        """(g, most options) the number of each choice's options."""
        table = np.zeros((len(self._space.choices), int(self._space.cardinalities.max())), np.int64)
        for column, choice in enumerate(self._space.choices):
            table[column, : len(choice.options)] = [self._options[str(option)] for option in choice.options]
        return table

    @cached_property
    def _gene_of(self) -> NDArray[np.int64]:
        """(options, g) the gene by which each choice has an option; `NONE` where it does not."""
        table = np.full((len(self._options), len(self._space.choices)), NONE)
        for column, choice in enumerate(self._space.choices):
            for gene, option in enumerate(choice.options):
                table[self._options[str(option)], column] = gene
        return table
