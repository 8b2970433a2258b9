"""How numbers are written for people: SI units with a fitting prefix, shares as per cent."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import median

from nas.search.objectives import OBJECTIVES, Objective, objectives
from nas.search.units import unit_of

TIMES = "\N{MULTIPLICATION SIGN}"

# by unit of an objective
_PREFIXES: Mapping[str, tuple[tuple[float, str], ...]] = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")),
    "J": ((1.0, "J"), (1e-3, "mJ"), (1e-6, "µJ")),
    "bytes": ((1e6, "MB"), (1e3, "kB"), (1.0, "B")),
    "": ((1.0, ""),),
    "MACs": ((1.0, ""),),
    "fraction": ((0.01, "%"),),
}


@dataclass(frozen=True)
class Scale:
    """A unit with its prefix: `value / factor` is written before `unit`."""

    factor: float
    unit: str

    def __call__(self, value: float) -> float:
        """Return the number in this unit."""
        return value / self.factor

    def text(self, value: float) -> str:
        """Return the number in this unit, three significant digits, with the unit.

        >>> scale_for("latency", [4e-5, 2e-4]).text(4.218e-5)
        '42.2 µs'
        """
        return f"{digits(self(value))} {self.unit}".strip()


@cache
def _all() -> Mapping[str, Objective]:
    return objectives()


def scale_for(objective: str, values: Iterable[float]) -> Scale:
    """Return the scale in which the largest of `values`, in SI units or a share, is at least 1."""
    largest = max((abs(value) for value in values), default=1.0)
    by_name = OBJECTIVES if objective in OBJECTIVES else _all()
    unit = by_name[objective].unit if objective in by_name else ""
    scales = _PREFIXES.get(unit) or unit_of(unit).shown
    factor, unit = next((scale for scale in scales if largest >= scale[0]), scales[-1])
    return Scale(factor, unit)


def column_scale(objective: str, values: Sequence[float]) -> Scale:
    """Return the scale of a column of a table: the one that fits the median of its values.

    >>> scale = column_scale("latency", [3.1e-4, 4.2e-4, 1.2e-3])
    >>> [scale.text(value) for value in (3.1e-4, 1.2e-3)]
    ['310 µs', '1200 µs']
    """
    return scale_for(objective, [median(map(abs, values))] if values else ())


def text(objective: str, value: float) -> str:
    """Return one value with the unit that fits it."""
    return scale_for(objective, [value]).text(value)


def digits(value: float) -> str:
    """Return three significant digits without an exponent; whole numbers from 100 on.

    >>> digits(1234.4), digits(0.04217)
    ('1234', '0.0422')
    """
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:#.3g}".rstrip(".")


def percent(share: float) -> str:
    """Return a share as per cent with one decimal."""
    return f"{100 * share:.1f} %"


def duration(seconds: float) -> str:
    """Return seconds as people say them.

    >>> duration(42.3), duration(3725)
    ('42 s', '1 h 02 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
