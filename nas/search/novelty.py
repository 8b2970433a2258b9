"""Asking for every network at most once: row hashes, and where fresh rows come from when they run out."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from nas.search.repair import Repair
from supernet.space import Genomes, SearchSpace

ROUNDS = 8  # proposals in a row, from one origin, before it is given up
MOST = 8  # times as many rows are proposed as are missing, at most
ENUMERABLE = 2**18  # gene combinations up to which what is left of a space is listed


def row_hashes(genomes: Genomes) -> NDArray[np.uint64]:
    """(n,) hash of each row: dot product with random odd numbers, modulo 2^64.

    Two different rows agree with a probability of about 2^-63; all that happens then is that the later one
    is never asked for.
    """
    multipliers = np.random.default_rng(64).integers(0, 2**64, genomes.shape[1], np.uint64) | np.uint64(1)
    hashes: NDArray[np.uint64] = genomes.astype(np.uint64) @ multipliers
    return hashes


def enumerate_space(space: SearchSpace) -> Genomes:
    """(size, g) every canonical genome. Only for spaces of few gene combinations."""
    sizes = tuple(int(size) for size in space.cardinalities)
    every = np.indices(sizes, np.int16).reshape(len(sizes), -1).T
    return np.ascontiguousarray(every[(every == space.canonical(every)).all(axis=1)])


class Novelty:
    """Remembers what was drawn; the memory of a searcher.

    Args:
        space: what is drawn from.
        initial: (k, g) genomes to draw before any other, canonical or not.
        repair: moves proposed rows inside the limits; `initial` is drawn as it is.

    Raises:
        ValueError: `initial` does not belong to the space.
    """

    def __init__(
        self, space: SearchSpace, initial: Genomes | None = None, repair: Repair | None = None
    ) -> None:
        self._space = space
        self._repair = repair
        self._drawn = np.empty(0, np.uint64)  # hashes, sorted
        genes = len(space.choices)
        rows = np.empty((0, genes), np.int16) if initial is None else np.asarray(initial, np.int16)
        if rows.shape[1:] != (genes,) or ((rows < 0) | (rows >= space.cardinalities)).any():
            raise ValueError(f"initial genomes {rows.shape} do not belong to space {space.fingerprint}")
        self._pending = space.canonical(rows)

    def draw(self, n: int, propose: Callable[[int], Genomes], *, rng: np.random.Generator) -> Genomes:
        """Up to `n` canonical rows, all different and never drawn before.

        They come from `initial`; then from `propose(k)`, which gives about `k` canonical rows; where that
        gives known rows again and again, from uniform sampling; at last, in small spaces, from a list of
        what is left. Fewer than `n` rows, down to none, mean that the space is exhausted (or, where it is
        too large to list, seems so).
        """
        taken = [self._take_pending(n)]
        origins = ((propose, ROUNDS), (self._sampler(rng), ROUNDS), (self._lister(rng), 1))
        for origin, rounds in origins:
            times = 1.0
            for _ in range(rounds):
                missing = n - sum(map(len, taken))
                if missing <= 0:
                    return np.concatenate(taken)
                proposed = origin(int(missing * times))
                repaired = self._repair(proposed, rng) if self._repair else proposed
                fresh = self._fresh(repaired)
                times = min(MOST, len(proposed) / max(len(fresh), 1))
                taken.append(self._remember(fresh[:missing]))
        return np.concatenate(taken)

    def _take_pending(self, n: int) -> Genomes:
        fresh = self._fresh(self._pending)
        self._pending = fresh[n:]
        return self._remember(fresh[:n])

    def _fresh(self, genomes: Genomes) -> Genomes:
        """First occurrences of the rows that were not drawn yet, in order."""
        distinct, first = np.unique(row_hashes(genomes), return_index=True)
        known = self._drawn.searchsorted(distinct, "right") > self._drawn.searchsorted(distinct)
        return genomes[np.sort(first[~known])]

    def _remember(self, genomes: Genomes) -> Genomes:
        # timsort merges two sorted runs in linear time
        self._drawn = np.sort(np.append(self._drawn, np.sort(row_hashes(genomes))), kind="stable")
        return genomes

    def _sampler(self, rng: np.random.Generator) -> Callable[[int], Genomes]:
        return lambda k: self._space.sample(k, rng=rng)

    def _lister(self, rng: np.random.Generator) -> Callable[[int], Genomes]:
        small = np.prod(self._space.cardinalities, dtype=np.float64) <= ENUMERABLE
        return lambda k: rng.permutation(enumerate_space(self._space)) if small else self._pending[:0]
