"""Asking for every network at most once: row hashes, and where fresh rows come from when they run out."""

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from nas.search.repair import Repair
from supernet.space.space import Genomes, SearchSpace

ROUNDS = 8  # proposals in a row, from one origin, before it is given up
MOST = 8  # times as many rows are proposed as are missing, at most
MARGIN = 1.05  # times as many as the round before needed
RUNS = 4  # times longer is a sorted run of hashes than the next, at least
ODD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 by the golden ratio
ENUMERABLE = 2**18  # gene combinations up to which what is left of a space is listed


def row_hashes(genomes: Genomes) -> NDArray[np.uint64]:
    """Return (n,) hash of each row: two products with random integers, exact in double precision, made into
    one.

    Two different rows agree with a probability of about 2^-60; all that happens then is that the later one
    is never asked for.
    """
    sums = (genomes.astype(np.float64) @ _multipliers(genomes.shape[1])).astype(np.int64).view(np.uint64)
    hashes: NDArray[np.uint64] = sums[:, 0] * ODD + sums[:, 1]
    return hashes


@cache
def _multipliers(genes: int) -> NDArray[np.float64]:
    """Return (genes, 2) integers, of so many bits that sums of `genes` int16 times them stay below 2^53."""
    bits = 53 - 15 - genes.bit_length()
    return np.random.default_rng(64).integers(0, 2**bits, (genes, 2)).astype(np.float64)


class HashSet:
    """A growing set of hashes, kept as sorted runs that are merged when they are of about the same length."""

    def __init__(self) -> None:
        self._runs: list[NDArray[np.uint64]] = []

    def add(self, ordered: NDArray[np.uint64]) -> None:
        """Take in hashes that are sorted and not in the set."""
        while self._runs and len(self._runs[-1]) < RUNS * len(ordered):
            # timsort merges two sorted runs in linear time
            ordered = np.sort(np.concatenate((self._runs.pop(), ordered)), kind="stable")
        self._runs.append(ordered)

    def holds(self, hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Return (n,) whether each is in the set; fastest where they are sorted."""
        held = np.zeros(len(hashes), bool)
        for run in self._runs:
            if len(run):
                held |= run.take(run.searchsorted(hashes), mode="clip") == hashes
        return held


def enumerate_space(space: SearchSpace) -> Genomes:
    """Return (size, g) every canonical genome. Only for spaces of few gene combinations."""
    sizes = tuple(int(size) for size in space.cardinalities)
    every = np.indices(sizes, np.int16).reshape(len(sizes), -1).T
    return np.ascontiguousarray(every[(every == space.canonical(every)).all(axis=1)])


class Deduplicator:
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
        self._drawn = HashSet()
        self._times = 1.0  # rows to propose for each that is missing: as many as the draw before needed
        genes = len(space.choices)
        rows = np.empty((0, genes), np.int16) if initial is None else np.asarray(initial, np.int16)
        if rows.shape[1:] != (genes,) or ((rows < 0) | (rows >= space.cardinalities)).any():
            raise ValueError(f"initial genomes {rows.shape} do not belong to space {space.fingerprint}")
        self._pending = space.canonical(rows)

    def draw(self, n: int, propose: Callable[[int], Genomes], *, rng: np.random.Generator) -> Genomes:
        """Return up to `n` canonical rows, all different and never drawn before.

        They come from `initial`; then from `propose(k)`, which gives about `k` canonical rows; where that
        gives known rows again and again, from uniform sampling; at last, in small spaces, from a list of
        what is left. Fewer than `n` rows, down to none, mean that the space is exhausted (or, where it is
        too large to list, seems so).
        """
        taken = [self._take_pending(n)]
        origins = ((propose, ROUNDS), (self._sampler(rng), ROUNDS), (self._lister(rng), 1))
        for origin, rounds in origins:
            times = self._times if origin is propose else 1.0
            for turn in range(rounds):
                missing = n - sum(map(len, taken))
                if missing <= 0:
                    return np.concatenate(taken)
                proposed = origin(int(missing * times))
                repaired = self._repair(proposed, rng) if self._repair else proposed
                rows, fresh = self._take(repaired, missing)
                taken.append(rows)
                times = min(MOST, MARGIN * len(proposed) / max(fresh, 1))
                if origin is propose and turn == 0:
                    self._times = times
        return np.concatenate(taken)

    def _take_pending(self, n: int) -> Genomes:
        rows, fresh = self._take(self._pending, n)
        if fresh <= n:
            self._pending = self._pending[:0]
        return rows

    def _take(self, genomes: Genomes, most: int) -> tuple[Genomes, int]:
        """Take the first `most` distinct rows that were not drawn yet, which now are, and how many there
        were.
        """
        hashes, first = np.unique(row_hashes(genomes), return_index=True)
        new = ~self._drawn.holds(hashes)
        hashes, first = hashes[new], first[new]
        fresh = len(first)
        if fresh > most:
            early = first < np.partition(first, most)[most]
            hashes, first = hashes[early], first[early]
        self._drawn.add(hashes)
        return genomes.take(np.sort(first), axis=0), fresh

    def _sampler(self, rng: np.random.Generator) -> Callable[[int], Genomes]:
        return lambda k: self._space.sample(k, rng=rng)

    def _lister(self, rng: np.random.Generator) -> Callable[[int], Genomes]:
        small = np.prod(self._space.cardinalities, dtype=np.float64) <= ENUMERABLE
        return lambda k: rng.permutation(enumerate_space(self._space)) if small else self._pending[:0]
