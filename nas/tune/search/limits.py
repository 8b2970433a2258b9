"""Limits of a tune: as people write them, in units, and on what is predicted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError, did_you_mean, shown
from nas.search.limits import parse_limit
from nas.search.objectives import Objective, of_metric
from nas.search.units import show
from nas.tune.policies.costs import COSTS, LATENCY, TunedCosts
from supernet.tasks.metric import Metric

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Limits:
    """What files must keep.

    Attributes:
        objectives: limited ones, with bounds in their units.
    """

    objectives: tuple[Objective, ...]

    def bound(self, name: str) -> float:
        """Return the limit on an objective; infinite, or minus that, without one."""
        return next((o.bound for o in self.objectives if o.name == name and o.bound is not None), np.inf)

    def excess(self, values: Mapping[str, float]) -> float:
        """Return how far values by name are outside: relative, summed; 0 where all limits are met."""
        total = 0.0
        for o in self.objectives:
            assert o.bound is not None
            value = np.array([values.get(o.name, np.nan)])
            over = float((o.to_min(value) - o.to_min(np.array([o.bound])))[0]) / max(abs(o.bound), 1e-12)
            total += np.inf if np.isnan(over) else max(over, 0.0)
        return total

    def holds_on_size(self, costs: TunedCosts, values: Mapping[str, float]) -> bool:
        """Return whether a file keeps the limits on what it needs, whatever its time and its answers are."""
        return all(values[name] <= self.bound(name) for name in costs.names if name != LATENCY)

    def lines(self, original: Mapping[str, float]) -> list[str]:
        """Return a line for each limit."""
        lines = []
        for o in self.objectives:
            bound = o.bound or 0.0
            whole = f" ({bound / original[o.name]:.3g} x the original's)" if o.name in original else ""
            lines.append(f"limit: {o.name} {o.sign} {show(o, bound)}{whole}")
        return lines


def resolve_limits(
    constraints: Mapping[str, str], metrics: Sequence[Metric], original: Mapping[str, float]
) -> Limits:
    """Return limits in the units of what they limit.

    Args:
        constraints: as people write them, by name.
        metrics: of the answers.
        original: costs of the original, which percentages refer to, by name.

    Raises:
        TrilobitError: nothing is called so, or it cannot be read.
    """
    table = {**COSTS, **{metric.name: of_metric(metric) for metric in metrics}}
    resolved = []
    for name, text in constraints.items():
        if name not in table:
            hint = did_you_mean(name, table)
            raise TrilobitError(
                f"limit on {shown(name)}: this model's answers have no such metric; there are "
                f"{', '.join(table)}{hint}; an output that was not recognised is said by --role OUTPUT=ROLE"
            )
        limit = parse_limit(text, table[name])
        resolved.append(replace(table[name], bound=limit.resolve(original.get(name, np.nan))))
    return Limits(tuple(resolved))


def divergence_within(limited: Objective, values: Floats, divergences: Floats) -> float:
    """Return the divergence up to which a metric is likely within its limit, from evaluated policies: the cut
    that has the fewest of them on the wrong side; infinite where all are within.

    Args:
        values: (n,) of the metric.
        divergences: (n,) of the same policies.
    """
    assert limited.bound is not None
    inside = limited.to_min(values) <= limited.to_min(np.array([limited.bound]))
    if inside.all():
        return np.inf
    order = np.argsort(divergences, kind="stable")
    wrong_below = np.concatenate(([0], np.cumsum(~inside[order])))
    wrong_above = np.concatenate((np.cumsum(inside[order][::-1])[::-1], [0]))
    cut = len(order) - int((wrong_below + wrong_above)[::-1].argmin())
    ordered = divergences[order]
    if cut == 0:
        return float(ordered[0])  # nothing is within yet: near the least divergence, something may be
    return float(ordered[cut - 1] if cut == len(order) else np.sqrt(ordered[cut - 1] * ordered[cut]))
