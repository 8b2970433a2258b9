"""Which rows of any front people mean by `--pick` and `--count`."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from nas.run.wanted import PICKS, Bounded, parse_pick
from nas.search.loop import choose_finalists


def picked_rows(
    picks: Sequence[str],
    count: int,
    *,
    ids: Sequence[str],
    minimised: NDArray[np.float64],
    bounded: Callable[[Bounded], int],
    noun: str,
) -> list[int]:
    """Return the rows of a front that `picks` names, each once, in order.

    Args:
        picks: any of `knee`, `all`, a bound such as `best<=8ms`, and ids or beginnings of one. Nothing means
            `count` well-spread rows: the best in each objective, then the loneliest.
        count: see `picks`; 0 takes all.
        ids: of the rows.
        minimised: (n, m) what is traded off, less is better.
        bounded: returns the row that a bound means.
        noun: what the rows are, in errors.

    Raises:
        TrilobitError: no row is meant, or several are by the beginning of an id.
    """
    if not picks:
        everything = not 0 < count < len(ids)
        return list(range(len(ids))) if everything else sorted(choose_finalists(minimised, count).tolist())
    rows: set[int] = set()
    for pick in picks:
        match parse_pick(pick.strip()):
            case "all":
                rows.update(range(len(ids)))
            case "knee":
                rows.add(knee(minimised))
            case Bounded() as bound:
                rows.add(bounded(bound))
            case beginning:
                rows.add(_row_of(beginning, ids, noun))
    return sorted(rows)


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
