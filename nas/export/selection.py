"""Which networks of a front are exported."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from hw_profiles.errors import TrilobitError
from nas.export.picks import knee, picked
from nas.run.front_document import Entry, Front, Measured, Predicted
from nas.run.wanted import Bounded
from nas.search.limits import Limit, parse_limit
from nas.search.objectives import Objective, objective, to_min, violation
from nas.search.units import show


def pick(front: Front, picks: Sequence[str], count: int) -> list[Entry]:
    """Return the networks of a front that `picks` names, each once, in the order of the front.

    Args:
        picks: any of `knee`: the best compromise; `fastest>=92%`: the quickest that is so accurate;
            `best<=0.3ms`: the most accurate that is so quick; and what else `picked` takes.
        count: networks without `picks`, well-spread ones; 0 takes all.

    Raises:
        TrilobitError: no network is meant, or several are by the beginning of an id.
    """
    minimised = _minimised(front)
    return picked(
        front.candidates,
        picks,
        count,
        minimised=minimised,
        best=partial(knee, minimised),
        bounded=partial(_bounded, front),
        noun="networks",
    )


def _bounded(front: Front, pick: Bounded) -> int:
    """Return the row of the quickest that is accurate enough, or of the most accurate that is quick
    enough.
    """
    sought = "latency" if pick.fastest else "accuracy"
    objectives = objective(pick.bounded), objective(sought)
    bound = np.full(1, pick.limit.resolve(_figure(front.largest, pick.bounded)))
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


def best(front: Front, limits: Mapping[str, str | float]) -> Entry:
    """Return the most accurate network of a front within limits; of equally accurate ones the quickest.

    Args:
        limits: by objective, as people write them (`8ms`, `60%` of the largest network's) or in SI units.

    Raises:
        TrilobitError: an unknown objective, a limit that cannot be read, or no network within them.
    """
    return _first_within(front, ("accuracy", "latency"), limits)


def fastest(front: Front, limits: Mapping[str, str | float]) -> Entry:
    """Return the quickest network of a front within limits; of equally quick ones the most accurate.

    Raises:
        TrilobitError: as in `best`.
    """
    return _first_within(front, ("latency", "accuracy"), limits)


def _first_within(front: Front, order: Sequence[str], limits: Mapping[str, str | float]) -> Entry:
    """Return the network within limits that is first by the objectives in `order`."""
    bounded = [_bounded_objective(front, name, limit) for name, limit in limits.items()]
    excess = violation(bounded, _figures(front, bounded))
    if not (excess <= 0).any():
        nearest = front.candidates[int(excess.argmin())]
        parts = [f"{limit.name} {limit.sign} {show(limit, limit.bound or 0.0)}" for limit in bounded]
        figures = [f"{limit.name} {show(limit, _figure(nearest, limit.name))}" for limit in bounded]
        raise TrilobitError(
            f"no network of the front has {', '.join(parts)}; the nearest, {nearest.id}, has "
            f"{', '.join(figures)}"
        )
    sought = [objective(name) for name in order]
    costs = to_min(sought, _figures(front, sought))
    costs[excess > 0] = np.inf
    return front.candidates[int(np.lexsort(costs.T[::-1])[0])]


def _bounded_objective(front: Front, name: str, limit: str | float) -> Objective:
    unbounded = objective(name)
    value = parse_limit(limit, unbounded) if isinstance(limit, str) else Limit(float(limit))
    return replace(unbounded, bound=value.resolve(_figure(front.largest, name) if value.relative else 0.0))


def _figures(front: Front, objectives: Sequence[Objective]) -> np.ndarray:
    """Return (n, m) values of the candidates."""
    rows = [[_figure(entry, stated.name) for stated in objectives] for entry in front.candidates]
    return np.array(rows, np.float64).reshape(len(rows), len(objectives))


def _figure(entry: Entry, name: str) -> float:
    """Return a network's measured value, or the predicted one where nothing is measured; NaN if unknown."""
    figure: Measured | Predicted | None = entry.measured.get(name) or entry.predicted.get(name)
    return float("nan") if figure is None or figure.value is None else figure.value


def _minimised(front: Front) -> np.ndarray:
    """Return (n, m) measured objectives of the front, less is better."""
    names = [o.name for o in front.objectives if o.name in front.always_measured]
    return to_min([objective(name) for name in names], front.measured(*names))
