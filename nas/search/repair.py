"""Moving networks inside limits that cost nothing to check, such as those on a cost table."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from supernet.space import Genomes, SearchSpace

# (n, g) canonical genomes -> (n, k) by how much each of k limits is exceeded, relative; below 0 inside it
Excess = Callable[[Genomes], NDArray[np.float64]]
Repair = Callable[[Genomes, np.random.Generator], Genomes]

SPREAD = 512  # random networks that the search for an anchor starts from
HALVINGS = 9  # of the way to the anchor: steps of 1/512 of it


class TowardsAnchor:
    """Walks each row that exceeds a limit towards a network that exceeds none, until it is inside.

    On the way every gene steps through its options towards the anchor's, all of them in an order drawn
    anew for each row. Where on the way the limits begin to be met is found by bisection, for all rows at
    once: nine costings of the rows outside, and no rejection. Rows inside are left as they are; so is
    everything where no network was found that meets all limits.

    Args:
        space: whose genomes they are.
        excess: of the limits; nothing but the cheap ones.
        known: (k, g) canonical genomes among which the anchor may be, such as the smallest network.
    """

    def __init__(self, space: SearchSpace, excess: Excess, known: Genomes | None = None) -> None:
        self._space = space
        self._excess = excess
        self.anchor = find_anchor(space, excess, known)
        self.reachable = bool(within(excess(self.anchor[None]))[0])

    def __call__(self, genomes: Genomes, rng: np.random.Generator) -> Genomes:
        outside = ~within(self._excess(genomes))
        if not outside.any() or not self.reachable:
            return genomes
        rows = genomes[outside]
        steps = rng.random((int(self._space.cardinalities.max()) - 1, *rows.shape), np.float32)
        too_near, far_enough = np.zeros(len(rows)), np.ones(len(rows))
        for _ in range(HALVINGS):
            middle = (too_near + far_enough) / 2
            inside = within(self._excess(self._on_the_way(rows, steps, middle)))
            far_enough = np.where(inside, middle, far_enough)
            too_near = np.where(inside, too_near, middle)
        repaired = genomes.copy()
        repaired[outside] = self._on_the_way(rows, steps, far_enough)
        return repaired

    def _on_the_way(self, rows: Genomes, steps: NDArray[np.float32], share: NDArray[np.float64]) -> Genomes:
        """`rows` (n, g) with the steps (s, n, g) taken that come before `share` (n,) of the way."""
        taken = (steps < share[:, None]).sum(axis=0, dtype=np.int16)
        towards = self.anchor - rows
        return self._space.canonical(rows + np.clip(towards, -taken, taken))


def within(excess: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(n,) whether all limits are met, from (n, k)."""
    met: NDArray[np.bool_] = np.logical_and.reduce(excess <= 0, axis=1)
    return met


def find_anchor(space: SearchSpace, excess: Excess, known: Genomes | None = None) -> Genomes:
    """(g,) a network as far inside all limits as can be found: the best of some, then improved gene by gene
    until no other option of any gene is better. Deterministic.
    """
    rng = np.random.default_rng(0)
    drawn = rng.binomial(space.cardinalities - 1, rng.random((SPREAD, 1))).astype(np.int16)
    ends = np.stack([np.zeros_like(drawn[0]), (space.cardinalities - 1).astype(np.int16)])
    rows = np.concatenate([ends, drawn] if known is None else [known, ends, drawn])
    anchor, least = _innermost(space.canonical(rows), excess)
    while True:
        better, found = _innermost(neighbours(space, anchor), excess)
        if not found < least:
            return anchor
        anchor, least = better, found


def _innermost(rows: Genomes, excess: Excess) -> tuple[Genomes, float]:
    """The row whose largest excess is least, and that; NaN counts as infinite."""
    worst = np.nan_to_num(excess(rows).max(axis=1), nan=np.inf, posinf=np.inf)
    return rows[int(worst.argmin())], float(worst.min())


def neighbours(space: SearchSpace, genome: Genomes) -> Genomes:
    """(k, g) the network itself, and with one gene changed, in every way."""
    columns = np.repeat(np.arange(len(space.choices)), space.cardinalities)
    options = np.concatenate([np.arange(size) for size in space.cardinalities])
    rows = np.tile(genome, (len(columns), 1))
    rows[np.arange(len(columns)), columns] = options
    return space.canonical(rows)
