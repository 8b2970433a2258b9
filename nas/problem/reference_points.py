"""Aims of a search by reference points: where on the front people want to be, in their own units."""

import numpy as np

from hw_profiles.errors import TrilobitError
from nas.problem.targets import Targets
from nas.run.config import RunConfig
from nas.run.wanted import parse_aim
from nas.search.objectives import Values, to_min


def reference_points_of(config: RunConfig, targets: Targets, largest: dict[str, float]) -> Values:
    """Return (k, m) minimised values of the search's objectives, NaN for the best that is seen: those that
    `search.aims` names, else one that has every objective at its limit.

    Raises:
        TrilobitError: there is neither an aim nor a limit on an objective, or an aim cannot be read.
    """
    rows = [_row(text, targets, largest) for text in config.search.aims]
    bounds = [np.nan if o.bound is None else o.bound for o in targets.objectives]
    if not rows and np.isnan(bounds).all():
        raise TrilobitError(
            f"searcher {config.search.searcher} needs to know where to go: give a reference point, such as "
            f"--aim 'latency=60%', or a limit on one of {', '.join(o.name for o in targets.objectives)}"
        )
    return to_min(targets.objectives, np.array(rows or [bounds], np.float64))


def _row(text: str, targets: Targets, largest: dict[str, float]) -> list[float]:
    names, aims = [o.name for o in targets.objectives], parse_aim(text)
    if others := [name for name in aims if name not in names]:
        raise TrilobitError(
            f"reference point {text!r}: {', '.join(others)} is no objective of the search "
            f"({', '.join(names)})"
        )
    values = {name: limit.resolve(largest.get(name, np.nan)) for name, limit in aims.items()}
    return [values.get(name, np.nan) for name in names]
