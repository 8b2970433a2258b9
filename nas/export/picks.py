"""Which entries of any front people mean by `--pick` and `--count`."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from nas.run.wanted import PICKS, Bounded, parse_pick
from nas.search.loop import choose_finalists


class Identified(Protocol):
    """What has an id."""

    @property
    def id(self) -> str:
        """That people may write the beginning of."""
        ...


E = TypeVar("E", bound=Identified)


def picked(
    entries: Sequence[E],
    picks: Sequence[str],
    count: int,
    *,
    minimised: NDArray[np.float64],
    best: Callable[[], int],
    bounded: Callable[[Bounded], int],
    noun: str,
) -> list[E]:
    """Return the entries of a front that `picks` names, each once, in order.

    Args:
        picks: any of `knee`, `all`, a bound such as `best<=8ms`, and ids or beginnings of one. Nothing means
            `count` well-spread entries: the best in each objective, then the loneliest.
        count: see `picks`; 0 takes all.
        minimised: (n, m) what is traded off, less is better.
        best: returns the row of the best compromise.
        bounded: returns the row that a bound means.
        noun: what the entries are, in errors.

    Raises:
        TrilobitError: no entry is meant, or several are by the beginning of an id.
    """
    if not picks:
        everything = not 0 < count < len(entries)
        rows = set(range(len(entries)) if everything else choose_finalists(minimised, count).tolist())
    else:
        rows = set[int]()
    for pick in picks:
        match parse_pick(pick.strip()):
            case "all":
                rows.update(range(len(entries)))
            case "knee":
                rows.add(best())
            case Bounded() as bound:
                rows.add(bounded(bound))
            case beginning:
                rows.add(_row_of(beginning, [entry.id for entry in entries], noun))
    return [entries[row] for row in sorted(rows)]


def _row_of(beginning: str, ids: Sequence[str], noun: str) -> int:
    rows = [row for row, name in enumerate(ids) if name.startswith(beginning)]
    if len(rows) != 1:
        problem = f"several {noun} begin so" if rows else f"write {PICKS}"
        raise TrilobitError(f"--pick {beginning!r}: {problem}; on the front are {', '.join(ids)}")
    return rows[0]


def knee(minimised: NDArray[np.float64]) -> int:
    """Return the row of a front (n, m) furthest below the plane through its ends: giving up a little of one
    objective costs much of another on either side of it.

    Objectives are scaled to 0..1 over the front; distances from that plane then differ only by the sum
    (Das 1999, "On characterizing the knee of the Pareto curve").

    >>> knee(np.array([[0.0, 1.0], [0.1, 0.2], [1.0, 0.0]]))
    1
    """
    extent = np.ptp(minimised, axis=0)
    scaled = (minimised - minimised.min(axis=0)) / np.where(extent > 0, extent, 1.0)
    return int(scaled.sum(axis=1).argmin())
