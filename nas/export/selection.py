"""Which networks of a front are exported."""

from collections.abc import Sequence

import numpy as np

from hw_profiles.errors import TrilobitError
from nas.run.front_document import Entry, Front
from nas.run.wanted import PICKS, Bounded, parse_pick
from nas.search.loop import choose_finalists
from nas.search.objectives import objective, to_min
from nas.search.units import show


def pick(front: Front, wanted: Sequence[str], count: int) -> list[Entry]:
    """Return the networks of a front that `wanted` names, each once, in the order of the front.

    Args:
        wanted: any of `knee`: the best compromise; `fastest>=92%`: the quickest that is so accurate;
            `best<=0.3ms`: the most accurate that is so quick; `all`; and ids or beginnings of one. Nothing
            means `count` well-spread ones: the best in each objective, then the loneliest.
        count: see `wanted`.

    Raises:
        TrilobitError: no network is meant, or several are by the beginning of an id.
    """
    rows = set(choose_finalists(_minimised(front), count).tolist()) if not wanted else set[int]()
    for one in wanted:
        rows.update(_rows(front, one.strip()))
    return [front.candidates[row] for row in sorted(rows)]


def _rows(front: Front, wanted: str) -> list[int]:
    entries = front.candidates
    match parse_pick(wanted):
        case "all":
            return list(range(len(entries)))
        case "knee":
            return [knee(_minimised(front))]
        case Bounded() as bounded:
            return [_bounded(front, bounded)]
    found = [row for row, entry in enumerate(entries) if entry.id.startswith(wanted)]
    if len(found) != 1:
        ids = ", ".join(entry.id for entry in entries)
        problem = "several networks begin so" if found else f"write {PICKS}"
        raise TrilobitError(f"--pick {wanted!r}: {problem}; on the front are {ids}")
    return found


def _bounded(front: Front, pick: Bounded) -> int:
    """Return the row of the quickest that is accurate enough, or of the most accurate that is quick
    enough.
    """
    sought = "latency" if pick.fastest else "accuracy"
    objectives = objective(pick.bounded), objective(sought)
    bound = np.full(1, pick.limit.resolve(front.largest.measured[pick.bounded].value))
    values = front.measured(*(o.name for o in objectives))
    minimised = to_min(objectives, values)
    allowed = minimised[:, 0] <= objectives[0].to_min(bound)[0]
    if not allowed.any():
        nearest = float(values[minimised[:, 0].argmin(), 0])
        raise TrilobitError(
            f"no network of the front has {pick.bounded} {'>=' if pick.fastest else '<='} {pick.text}; the "
            f"nearest has {show(objectives[0], nearest)}"
        )
    return int(np.where(allowed, minimised[:, 1], np.inf).argmin())


def knee(minimised: np.ndarray) -> int:
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


def _minimised(front: Front) -> np.ndarray:
    """Return (n, m) measured objectives of the front, less is better."""
    names = [o.name for o in front.objectives if o.name in front.always_measured]
    return to_min([objective(name) for name in names], front.measured(*names))
