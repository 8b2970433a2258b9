"""Which space to search on a device: the Q-T score of spaces, and evolution over them (SpaceEvo, Wang et al.
2023, arXiv:2303.08308).

A designed space has, in every stage, one block type and one window of output widths; all else stays elastic.
It is a row `(2 s,)` of small integers: the type of every stage, then the window of every stage. What is known
of it is a table of sampled sub-stages, each with the loss of its imitation of a teacher and its latency;
losses and latencies of stages add up to those of networks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError

Spaces = NDArray[np.int16]  # (m, 2 s)
Scores = Callable[[Spaces], NDArray[np.float64]]  # (m, 2 s) -> (m,), more is better
Position = tuple[int, int, int, int]  # stage, type, window, resolution: an index of each

NETWORKS, BATCH = 100_000, 500  # drawn for a score, and of one resolution together
BEST = 50  # networks within the limit whose mean loss counts
WANTED_SHARE = 0.08  # t: how many networks should meet the limit
SHARPNESS = 0.01  # a: and how much it counts
COUNTED = 1e-5  # added to the share of networks that meet it
HOPELESS = 1e5  # the loss of a space no network of which meets it

POPULATION, TOURNAMENT, EVALUATIONS = 500, 125, 5000
IDLE = 200  # cycles without a new space, after which a converged population is left


@dataclass(frozen=True, eq=False)
class BlockTable:
    """Sampled sub-stages of every stage, block type, window and resolution.

    Attributes:
        loss: (k,) noise-to-signal ratio of each.
        latency_s: (k,) seconds of each.
        start, count: (stages, types, windows, resolutions) first row of a group, and how many it has; a group
            without rows is one that no space has.
        constant_s: (resolutions,) seconds of what no stage holds.
    """

    loss: NDArray[np.float64]
    latency_s: NDArray[np.float64]
    start: NDArray[np.int64]
    count: NDArray[np.int64]
    constant_s: NDArray[np.float64]

    @property
    def allowed(self) -> NDArray[np.bool_]:
        """(stages, types, windows): what a space can have: what has rows at every resolution."""
        return np.asarray((self.count > 0).all(axis=-1))

    @property
    def size(self) -> float:
        """How many spaces there are."""
        return float(np.prod(self.allowed.sum(axis=(1, 2), dtype=float)))


def block_table(
    groups: Mapping[Position, NDArray[np.float64]], *, constant_s: Sequence[float] = (0.0,)
) -> BlockTable:
    """Return the table of `groups` of rows (n, 2): loss and seconds.

    Args:
        constant_s: seconds of what no stage holds, at each resolution.

    Raises:
        TrilobitError: a stage has no group at all, or a number is not one.
    """
    if not groups:
        raise TrilobitError("no sampled sub-stages: there is nothing to design a space from")
    shape = tuple(np.max([*groups], axis=0) + 1)
    start, count = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    begin = 0
    for position, rows in groups.items():
        start[position], count[position] = begin, len(rows)
        begin += len(rows)
    rows = np.concatenate([*groups.values()]).astype(float)
    if not np.isfinite(rows).all():
        raise TrilobitError("sampled sub-stages have losses or seconds that are no numbers")
    table = BlockTable(rows[:, 0], rows[:, 1], start, count, np.asarray(constant_s, float))
    missing = np.flatnonzero(~table.allowed.any(axis=(1, 2)))
    if len(missing):
        raise TrilobitError(f"no block type of stage {missing[0]} has sampled sub-stages at every resolution")
    return table


class DrawnNetworks:
    """Networks drawn once, of which every space is judged: the same uniform numbers choose the rows of each,
    so that spaces are compared on like draws and a space has one score.

    Args:
        networks: how many, in batches of `BATCH` that share a resolution.
    """

    def __init__(self, table: BlockTable, *, networks: int = NETWORKS, rng: np.random.Generator) -> None:
        stages, _, _, resolutions = table.count.shape
        batches = rng.integers(resolutions, size=-(-networks // BATCH))
        ends = np.cumsum(np.bincount(batches, minlength=resolutions)) * BATCH
        self._table = table
        self._parts = [  # networks of one resolution
            slice(start, min(end, networks)) for start, end in zip([0, *ends[:-1]], ends, strict=True)
        ]
        self._uniform = rng.random((stages, networks))
        self._picked: dict[tuple[int, int, int], NDArray[np.intp]] = {}

    def __call__(self, space: NDArray[np.int16]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return (2 s,) as losses (n,) and seconds (n,) of the networks as that space has them."""
        table, (stages, networks) = self._table, self._uniform.shape
        loss, latency_s = np.zeros(networks), np.zeros(networks)
        for r, part in enumerate(self._parts):
            latency_s[part] = table.constant_s[r]
            for s, (block, window) in enumerate(zip(space[:stages], space[stages:], strict=True)):
                start, count = table.start[s, block, window, r], table.count[s, block, window, r]
                rows, row = slice(start, start + count), self._rows(s, r, int(count))
                loss[part] += table.loss[rows].take(row)
                latency_s[part] += table.latency_s[rows].take(row)
        return loss, latency_s

    def _rows(self, s: int, r: int, count: int) -> NDArray[np.intp]:
        """Return which of `count` rows each network of a resolution has in a stage; groups of one size share
        it.
        """
        at = (s, r, count)
        if at not in self._picked:
            self._picked[at] = (self._uniform[s, self._parts[r]] * count).astype(np.intp)
        return self._picked[at]


def penalty(
    share: float | NDArray[np.float64], *, target_share: float = WANTED_SHARE, sharpness: float = SHARPNESS
) -> NDArray[np.float64]:
    """Return what a space's loss is multiplied by where too few of its networks meet the limit.

    >>> float(penalty(0.5)), round(float(penalty(0.008)), 4)
    (1.0, 1.0233)
    """
    return np.maximum(1.0, (target_share / np.asarray(share, float)) ** sharpness)


def qt_score(
    loss: NDArray[np.float64],
    latency_s: NDArray[np.float64],
    limit_s: float,
    *,
    target_share: float = WANTED_SHARE,
    sharpness: float = SHARPNESS,
) -> float:
    """Return the Q-T score of a space by its drawn networks' losses (n,) and seconds (n,): one over the mean
    of the `BEST` least losses within the limit, less where few networks meet it. It grows with the limit as
    long as `BEST` networks meet it.
    """
    within = loss[latency_s <= limit_s]
    share = len(within) / len(loss) + COUNTED
    best = HOPELESS
    if len(within) > BEST:
        best = float(np.partition(within, BEST - 1)[:BEST].mean())
    elif len(within):
        best = float(within.mean())
    return float(1 / (penalty(share, target_share=target_share, sharpness=sharpness) * best))


def scores_under(
    networks: DrawnNetworks,
    limits_s: Sequence[float],
    *,
    target_share: float = WANTED_SHARE,
    sharpness: float = SHARPNESS,
) -> Scores:
    """Return the score of whole matrices of spaces: the sum of Q-T scores under each of the limits."""

    def score(spaces: Spaces) -> NDArray[np.float64]:
        totals = np.zeros(len(spaces))
        for i, space in enumerate(spaces):
            loss, latency_s = networks(space)
            totals[i] = sum(
                qt_score(loss, latency_s, limit, target_share=target_share, sharpness=sharpness)
                for limit in limits_s
            )
        return totals

    return score


# -- spaces ----------------------------------------------------------------------------------------


def random_spaces(table: BlockTable, n: int, *, rng: np.random.Generator) -> Spaces:
    """Return (n, 2 s), each block type and each window of it drawn uniformly."""
    stages = len(table.count)
    spaces = np.empty((n, 2 * stages), np.int16)
    for s, allowed in enumerate(table.allowed):
        types = rng.choice(np.flatnonzero(allowed.any(axis=1)), size=n)
        spaces[:, s] = types
        spaces[:, stages + s] = _windows(allowed[types], rng)
    return spaces


def uniform_spaces(table: BlockTable) -> Spaces:
    """Return (m, 2 s): every block type that all stages can have, throughout, with windows from the narrowest
    everywhere to the widest everywhere.
    """
    allowed, rows = table.allowed, []
    steps = int(allowed.sum(axis=2).max())
    for block in np.flatnonzero(allowed.any(axis=2).all(axis=0)):
        choices = [np.flatnonzero(stage[block]) for stage in allowed]
        for share in np.linspace(0, 1, steps):
            windows = [choice[round(share * (len(choice) - 1))] for choice in choices]
            rows.append([*[block] * len(choices), *windows])
    return np.unique(np.array(rows, np.int16).reshape(-1, 2 * len(allowed)), axis=0)


def _windows(allowed: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return (n, windows) -> (n,) one of those allowed, uniformly."""
    return np.asarray(np.where(allowed, rng.random(allowed.shape), -1.0).argmax(axis=1))


def mutated(
    table: BlockTable, space: NDArray[np.int16], *, rng: np.random.Generator
) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Return (2 s,) twice: with another block type in one stage, and with another window in one stage; the
    space itself where no stage has another.
    """
    stages, allowed = len(table.count), table.allowed
    changed = []
    for part in (0, 1):
        child, positions = space.copy(), rng.permutation(stages)
        for s in positions:
            block, window = space[s], space[stages + s]
            others = allowed[s].any(axis=1) if part == 0 else allowed[s, block].copy()
            others[block if part == 0 else window] = False
            if others.any():
                choice = rng.choice(np.flatnonzero(others))
                child[part * stages + s] = choice
                if part == 0 and not allowed[s, choice, window]:
                    child[stages + s] = _windows(allowed[s, [choice]], rng)[0]
                break
        changed.append(child)
    return changed[0], changed[1]


@dataclass(frozen=True, eq=False)
class Evolved:
    """What a search over spaces found.

    Attributes:
        spaces: (n, 2 s) every space that was scored, in order, each once.
        scores: (n,) of them.
    """

    spaces: Spaces
    scores: NDArray[np.float64]

    @property
    def best(self) -> NDArray[np.int16]:
        """(2 s,) the space of the highest score."""
        return np.asarray(self.spaces[int(self.scores.argmax())])


class _Scored:
    """Every space scored so far, in order: none is scored twice."""

    def __init__(self, score: Scores, most: int) -> None:
        self._score, self._most = score, most
        self.known: dict[bytes, float] = {}
        self.spaces: list[NDArray[np.int16]] = []

    def __call__(self, spaces: Spaces) -> list[float]:
        """Return for (m, 2 s) m scores, fewer once `most` spaces are known."""
        unknown = {row.tobytes(): row for row in spaces if row.tobytes() not in self.known}
        new = [*unknown.values()][: self._most - len(self.known)]
        if new:
            scores = self._score(np.array(new))
            self.known |= {row.tobytes(): float(value) for row, value in zip(new, scores, strict=True)}
            self.spaces += new
        return [self.known[row.tobytes()] for row in spaces if row.tobytes() in self.known]

    @property
    def full(self) -> bool:
        return len(self.known) >= self._most


def evolve(
    table: BlockTable,
    score: Scores,
    *,
    rng: np.random.Generator,
    population: int = POPULATION,
    tournament: int = TOURNAMENT,
    evaluations: int = EVALUATIONS,
    on_progress: Callable[[int], None] = lambda scored: None,
) -> Evolved:
    """Search by aging evolution: the best of a random tournament has two children, of another block type and
    of another window, and the oldest two die.

    Args:
        population: spaces alive; the first are all uniform spaces, as many as fit, and random ones.
        tournament: spaces of which the best has children.
        evaluations: distinct spaces to score, at most as many as there are.
        on_progress: is called with the number scored so far.
    """
    most = int(min(evaluations, table.size))
    population, scored = min(population, most), _Scored(score, most)
    first = uniform_spaces(table)
    first = first[rng.permutation(len(first))][: max(1, population // 2)]
    alive = [*first, *random_spaces(table, population - len(first), rng=rng)]
    fitness = scored(np.array(alive))
    alive, idle = alive[: len(fitness)], 0
    while not scored.full and idle < IDLE:
        entrants = rng.choice(len(alive), size=min(tournament, len(alive)), replace=False)
        parent = alive[max(entrants, key=lambda i: fitness[i])]
        known_before = len(scored.known)
        children = mutated(table, parent, rng=rng)
        child_scores = scored(np.array(children))
        alive = [*alive[2:], *children[: len(child_scores)]]
        fitness = [*fitness[2:], *child_scores]
        idle = 0 if len(scored.known) > known_before else idle + 1
        on_progress(len(scored.known))
    spaces = np.array(scored.spaces)
    return Evolved(spaces, np.array([scored.known[row.tobytes()] for row in spaces]))
