"""Moving networks inside limits that cost nothing to check, such as those on a cost table."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from supernet.space.space import Genomes, SearchSpace

# (n, g) canonical genomes -> (n, k) by how much each of k limits is exceeded, relative; below 0 inside it
Excess = Callable[[Genomes], NDArray[np.float64]]
Repair = Callable[[Genomes, np.random.Generator], Genomes]

SHORTEST = 1e-3  # stretch of the way in which a gene changes
SPREAD = 512  # random networks that the search for an anchor starts from
COSTINGS = 5  # until the limit is found
EDGE = 0.3  # of what is left of the way is discarded each time, at least


class TowardsAnchor:
    """Walks each row that exceeds a limit towards a network that exceeds none, until it is inside.

    On the way every gene steps through its options towards the anchor's, when is drawn anew for each row.
    Where on the way the limits begin to be met is found for all rows at once, by trying where the excess
    would be 0 if it changed evenly: `COSTINGS` of the rows outside, and no rejection. Rows inside are left as
    they are; so is everything where no network was found that meets all limits.

    Args:
        space: whose genomes they are.
        excess: of the limits; nothing but the cheap ones.
        evaluated: (k, g) canonical genomes among which the anchor may be, such as the smallest network.
    """

    def __init__(self, space: SearchSpace, excess: Excess, evaluated: Genomes | None = None) -> None:
        self._space = space
        self._excess = excess
        self.anchor = find_anchor(space, excess, evaluated)
        self._least = float(excess(self.anchor[None]).max())
        self.reachable = self._least <= 0

    def __call__(self, genomes: Genomes, rng: np.random.Generator) -> Genomes:
        excess = self._excess(genomes).max(axis=1)
        outside = np.flatnonzero(~(excess <= 0))
        if not len(outside) or not self.reachable:
            return genomes
        repaired = genomes.copy()
        repaired[outside] = self._moved(genomes.take(outside, axis=0), excess[outside], rng)
        return repaired

    def _moved(self, rows: Genomes, excess: NDArray[np.float64], rng: np.random.Generator) -> Genomes:
        """Return `rows` (n, g), which exceed limits by `excess` (n,), moved inside."""
        walk = Walk(rows, self.anchor, rng)
        too_near, far_enough = np.zeros(len(rows)), np.ones(len(rows))
        above, below = excess, np.full(len(rows), self._least)
        best = np.tile(self.anchor, (len(rows), 1))
        for _ in range(COSTINGS):
            share = too_near + (far_enough - too_near) * _crossing(above, below)
            tried = self._space.canonical(walk.at(share))
            excess = self._excess(tried).max(axis=1)
            inside = excess <= 0
            np.copyto(best, tried, where=inside[:, None])
            far_enough, below = np.where(inside, share, far_enough), np.where(inside, excess, below)
            too_near, above = np.where(inside, too_near, share), np.where(inside, above, excess)
        return best


class Walk:
    """From networks to an anchor, every gene in a stretch of the way of its own.

    Args:
        rows: (n, g) where they begin.
        anchor: (g,) where they end.
        rng: draws where a gene begins to step through its options, and where it has the anchor's.
    """

    def __init__(self, rows: Genomes, anchor: Genomes, rng: np.random.Generator) -> None:
        way = anchor - rows
        first, second = rng.random((2, *rows.shape), np.float32)
        self._rows = rows
        self._sign, self._length = np.sign(way), np.abs(way).astype(np.float32)
        self._speed = self._length / np.maximum(np.abs(first - second), SHORTEST)
        self._before = self._speed * np.minimum(first, second)

    def at(self, share: NDArray[np.float64]) -> Genomes:
        """Return (n, g) after `share` (n,) of the way, 1 being the anchor."""
        steps = self._speed * share.astype(np.float32)[:, None]
        steps -= self._before
        np.clip(steps, 0, self._length, out=steps)
        moved: Genomes = self._sign * steps.astype(np.int16)
        moved += self._rows
        return moved


def _crossing(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (n,) share of the way from `above` 0 to `below` where a line would be 0; the middle where
    unknown.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        share = above / (above - below)
    return np.clip(np.where(np.isfinite(above) & np.isfinite(share), share, 0.5), EDGE, 1 - EDGE)


def within(excess: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return (n,) whether all limits are met, from (n, k)."""
    met: NDArray[np.bool_] = np.logical_and.reduce(excess <= 0, axis=1)
    return met


def find_anchor(space: SearchSpace, excess: Excess, evaluated: Genomes | None = None) -> Genomes:
    """Return (g,) a network as far inside all limits as can be found: the best of some, then improved gene
    by gene until no other option of any gene is better. Deterministic.
    """
    rng = np.random.default_rng(0)
    drawn = rng.binomial(space.cardinalities - 1, rng.random((SPREAD, 1))).astype(np.int16)
    ends = np.stack([np.zeros_like(drawn[0]), (space.cardinalities - 1).astype(np.int16)])
    rows = np.concatenate([ends, drawn] if evaluated is None else [evaluated, ends, drawn])
    anchor, least = _innermost(space.canonical(rows), excess)
    while True:
        better, excess_of_better = _innermost(neighbours(space, anchor), excess)
        if not excess_of_better < least:
            return anchor
        anchor, least = better, excess_of_better


def _innermost(rows: Genomes, excess: Excess) -> tuple[Genomes, float]:
    """Return the row whose largest excess is least, and that; NaN counts as infinite."""
    worst = np.nan_to_num(excess(rows).max(axis=1), nan=np.inf, posinf=np.inf)
    return rows[int(worst.argmin())], float(worst.min())


def neighbours(space: SearchSpace, genome: Genomes) -> Genomes:
    """Return (k, g) the network itself, and with one gene changed, in every way."""
    columns = np.repeat(np.arange(len(space.choices)), space.cardinalities)
    options = np.concatenate([np.arange(size) for size in space.cardinalities])
    rows = np.tile(genome, (len(columns), 1))
    rows[np.arange(len(columns)), columns] = options
    return space.canonical(rows)
