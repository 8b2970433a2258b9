"""A space evolved on a table of blocks, and how good it is among others."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from hw_profiles.streams import Stream, open_stream
from nas.run.reporting import Reporter, progress_bar
from nas.search.limits import Limit
from nas.search.objectives import objective
from nas.search.space_design import (
    EVALUATIONS,
    NETWORKS,
    POPULATION,
    TOURNAMENT,
    BlockTable,
    DrawnNetworks,
    Evolved,
    Scores,
    Spaces,
    evolve,
    random_spaces,
    scores_under,
    uniform_spaces,
)
from nas.search.units import show

COMPARED = 200  # random spaces that the designed one is compared with
SHARE = 20  # spaces for each one that is alive: small bases need no population of 500


@dataclass(frozen=True, eq=False)
class Designed:
    """A designed space among others.

    Attributes:
        limits_s: that it was designed for.
        evolved: every space that was scored, and their scores.
        uniform, random: scores of spaces of one type throughout and of random ones.
        share: of the best space's networks that meet each limit.
        score: gives the score of any space, by the same drawn networks.
    """

    limits_s: tuple[float, ...]
    evolved: Evolved
    uniform: NDArray[np.float64]
    random: NDArray[np.float64]
    share: tuple[float, ...]
    score: Scores

    def beaten(self, spaces: Spaces) -> NDArray[np.float64]:
        """Return the share (n,) of the random spaces that score less than each of `spaces` (n, 2 s)."""
        return np.asarray((self.random < self.score(spaces)[:, None]).mean(axis=1))


def tempo(table: BlockTable) -> tuple[int, int]:
    """Return population and tournament for so many spaces."""
    population = int(np.clip(table.size / SHARE, 10, POPULATION))
    return population, max(2, population * TOURNAMENT // POPULATION)


def design(
    table: BlockTable,
    limits: Sequence[Limit],
    *,
    seed: int,
    evaluations: int = EVALUATIONS,
    networks: int = NETWORKS,
    compared: int = COMPARED,
    reporter: Reporter,
) -> Designed:
    """Search a space on a table of blocks; without limits, for one that half of all networks meet.

    Raises:
        TrilobitError: no network meets a limit.
    """
    rng = open_stream(seed, Stream.DESIGN_SPACES)
    drawn = DrawnNetworks(table, networks=networks, rng=open_stream(seed, Stream.DESIGN_NETWORKS))
    sample = random_spaces(table, compared, rng=rng)
    latency_s = np.concatenate([drawn(space)[1] for space in sample[:20]])
    limits_s = tuple(limit.resolve(float(latency_s.max())) for limit in limits) or (
        float(np.median(latency_s)),
    )
    score = scores_under(drawn, limits_s)
    most, (population, tournament) = int(min(evaluations, table.size)), tempo(table)
    with progress_bar(reporter, "evolve", most) as update:
        evolved = evolve(
            table,
            score,
            rng=rng,
            population=population,
            tournament=tournament,
            evaluations=most,
            on_progress=lambda scored: update(scored, "spaces scored"),
        )
    best_s = drawn(evolved.best)[1]
    share = tuple(float((best_s <= limit).mean()) for limit in limits_s)
    if not all(share):
        raise _unmet(limits_s[share.index(0.0)], min(latency_s.min(), best_s.min()))
    return Designed(limits_s, evolved, score(uniform_spaces(table)), score(sample), share, score)


def _unmet(limit_s: float, fastest_s: float) -> TrilobitError:
    missed, fastest = (show(objective("latency"), float(seconds)) for seconds in (limit_s, fastest_s))
    return TrilobitError(
        f"no network of the best space found takes at most {missed} in int8; the fastest one drawn takes "
        f"{fastest}: give a higher --max-latency"
    )


def summary(designed: Designed) -> dict[str, object]:
    """Return what is written about a design, whatever it was made from."""
    return {
        "limits_s": list(designed.limits_s),
        "score": float(designed.evolved.scores.max()),
        "within_limits": list(designed.share),
        "scored": len(designed.evolved.scores),
        "best_uniform_score": float(designed.uniform.max()),
        "random_scores": {
            "median": float(np.median(designed.random)),
            "largest": float(designed.random.max()),
        },
    }


def verdict(designed: Designed) -> str:
    """Return a sentence on the score of the best space, and on those of others."""
    limits = " and ".join(
        f"{show(objective('latency'), limit)} (met by {share:.0%} of its networks)"
        for limit, share in zip(designed.limits_s, designed.share, strict=True)
    )
    return (
        f"score {designed.evolved.scores.max():.4f} for {limits}; the best space of one block type has "
        f"{designed.uniform.max():.4f}, random ones {np.median(designed.random):.4f} (median) to "
        f"{designed.random.max():.4f}; {len(designed.evolved.scores)} spaces scored"
    )
