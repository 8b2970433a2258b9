"""What is optimised: name, unit and direction of a number, and the limits that people set on it."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError, did_you_mean, shown

Direction = Literal["max", "min"]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Objective:
    """One number per network, and which way is better.

    Attributes:
        name: for example `latency`.
        unit: of every value of it: `s`, `bytes`, `MACs`, `J` or `fraction`.
        direction: `max` where more is better.
        bound: the worst value that is still acceptable, in `unit`; None where any will do.

    Raises:
        ValueError: the bound is not a positive finite number.
    """

    name: str
    unit: str
    direction: Direction
    bound: float | None = None

    def __post_init__(self) -> None:
        if self.bound is not None and not 0 < self.bound < math.inf:
            raise ValueError(f"{self.name}: a bound is positive and finite, not {self.bound}")

    def to_min(self, values: Values) -> Values:
        """The same values so that less is better, and back: its own inverse. Only here are signs flipped.

        >>> OBJECTIVES["accuracy"].to_min(np.array([0.75]))
        array([-0.75])
        """
        return -values if self.direction == "max" else values


OBJECTIVES: Mapping[str, Objective] = {
    known.name: known
    for known in (
        Objective("accuracy", "fraction", "max"),
        Objective("latency", "s", "min"),
        Objective("size", "bytes", "min"),
        Objective("macs", "MACs", "min"),
        Objective("memory", "bytes", "min"),
        Objective("energy", "J", "min"),
    )
}


def objective(name: str, bound: float | None = None) -> Objective:
    """The objective called `name`, with a bound.

    Raises:
        TrilobitError: no such objective.
    """
    if name not in OBJECTIVES:
        hint = did_you_mean(name, OBJECTIVES)
        raise TrilobitError(f"unknown objective {shown(name)}; known: {', '.join(OBJECTIVES)}{hint}")
    return replace(OBJECTIVES[name], bound=bound)


def to_min(objectives: Sequence[Objective], values: Values) -> Values:
    """(n, m) values, one column per objective, all of them to be minimised."""
    columns = [objective.to_min(values[:, column]) for column, objective in enumerate(objectives)]
    return np.column_stack(columns) if columns else np.empty((len(values), 0))


def violation(objectives: Sequence[Objective], values: Values) -> Values:
    """(n,) how far the rows of `values` (n, m) are out of bounds: relative excess, summed; 0 is feasible.

    A value that is not finite breaks its bound infinitely.

    >>> violation([objective("latency", 0.5)], np.array([[0.25], [0.75]]))
    array([0. , 0.5])
    """
    total = np.zeros(len(values))
    for column, bounded in enumerate(objectives):
        if bounded.bound is not None:
            excess = bounded.to_min(values[:, column]) - bounded.to_min(np.full(1, bounded.bound))
            total += np.nan_to_num(np.maximum(excess, 0.0) / bounded.bound, nan=np.inf, posinf=np.inf)
    return total


# -- limits as people write them ------------------------------------------

UNITS: Mapping[str, Mapping[str, float]] = {
    "fraction": {"": 1.0, "%": 1e-2},
    "s": {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9},
    "bytes": {
        **{"B": 1.0, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9},
        **{"KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30},
    },
    "MACs": {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12},
    "J": {"J": 1.0, "mJ": 1e-3, "uJ": 1e-6, "µJ": 1e-6, "nJ": 1e-9},
}
# ASCII digits only: others look alike, and no file gives them back
_QUANTITY = re.compile(r"\s*([-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?)\s*([^\d\s]*)\s*")


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
        """The bound in the objective's unit; `largest` is the largest network's value."""
        return self.value * largest if self.relative else self.value


def parse_limit(text: str, limited: Objective) -> Limit:
    """A limit as people write it: `0.3ms`, `200KB`, `12M` multiply-adds, `95%` or `0.95` accuracy.

    A KB has 1000 bytes, a KiB 1024. A percentage of anything but accuracy is a share of the largest network.

    >>> parse_limit("200KB", OBJECTIVES["size"])
    Limit(value=200000.0, relative=False)
    >>> parse_limit("60%", OBJECTIVES["latency"])
    Limit(value=0.6, relative=True)

    Raises:
        TrilobitError: not a number, not a unit of this objective, not positive, or an accuracy above 1.
    """
    units = UNITS[limited.unit]
    relative = limited.unit != "fraction"
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
    if not relative and value > 1:
        hint = "at most 100%" if match[2] else f"it is a fraction up to 1; '{match[1]}%' is a percentage"
        raise TrilobitError(f"limit {text!r} on {limited.name}: {hint}")
    return Limit(value, relative and match[2] == "%")
