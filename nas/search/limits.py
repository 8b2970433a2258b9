"""Limits on objectives, as people write them."""

import math
import re
from dataclasses import dataclass

from hw_profiles.errors import TrilobitError, shown
from nas.search.objectives import Objective, objective
from nas.search.units import unit_of

# ASCII digits only: others look alike, and no file gives them back
_QUANTITY = re.compile(r"\s*([-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?)\s*([^\d\s]*)\s*")
_BOUND = re.compile(r"\s*([A-Za-z][A-Za-z0-9_.-]*)\s*(<=|>=)(.*)", re.DOTALL)


@dataclass(frozen=True)
class Limit:
    """A bound on one objective.

    Attributes:
        value: in the objective's unit or, where `relative`, as a share of what the largest network has.
        relative: whether the largest network must be known before the bound is.
    """

    value: float
    relative: bool = False

    def resolve(self, largest: float) -> float:
        """Return the bound in the objective's unit; `largest` is the largest network's value."""
        return self.value * largest if self.relative else self.value


def parse_limit(text: str, limited: Objective) -> Limit:
    """Return the limit that people write as `text`: `0.3ms`, `200KB`, `12M` multiply-adds, `95%` or `0.95`
    accuracy.

    A KB has 1000 bytes, a KiB 1024. A percentage of a cost is a share of the largest network; of a metric
    that is a share itself, it is that share.

    >>> parse_limit("200KB", objective("size"))
    Limit(value=200000.0, relative=False)
    >>> parse_limit("60%", objective("latency"))
    Limit(value=0.6, relative=True)

    Raises:
        TrilobitError: not a number, not a unit of this objective, not positive, or a share above 1.
    """
    units = unit_of(limited.unit).written
    share, relative = limited.unit == "fraction", limited.origin != "metric"
    factors = {**units, "%": 1e-2} if relative else units
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2] not in factors:
        written = ", ".join(unit or "no unit" for unit in factors)
        example = next(iter(factors))
        raise TrilobitError(
            f"limit {shown(text)} on {limited.name}: write a number and one of: {written} (for example "
            f"'2{example}')"
        )
    value = float(match[1]) * factors[match[2]]
    if not 0 < value < math.inf:
        raise TrilobitError(f"limit {shown(text)} on {limited.name}: it must be positive and finite")
    if share and value > 1:
        hint = "at most 100%" if match[2] else f"it is a fraction up to 1; '{match[1]}%' is a percentage"
        raise TrilobitError(f"limit {text!r} on {limited.name}: {hint}")
    return Limit(value, relative and match[2] == "%")


def parse_bound(text: str) -> tuple[str, str]:
    """Return the name and the limit's text of a bound on any objective, such as `macs<=3M`.

    >>> parse_bound("macs <= 3M")
    ('macs', '3M')

    Raises:
        TrilobitError: not of this form, no such objective, or the wrong direction.
    """
    match = _BOUND.fullmatch(text)
    if match is None:
        raise TrilobitError(f"bound {shown(text)}: write an objective, <= or >=, and a limit: 'macs<=3M'")
    limited, sign = objective(match[1]), match[2]
    if sign != limited.sign:
        raise TrilobitError(
            f"bound {shown(text)}: {'less' if limited.sign == '<=' else 'more'} {limited.name} is better: "
            f"its limit is written {limited.name}{limited.sign}{match[3].strip()}"
        )
    return limited.name, match[3].strip()
