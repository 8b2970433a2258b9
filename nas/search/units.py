"""Units of objectives: what people may write after a number, and how values are shown to them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from nas.search.objectives import Objective

WHOLE = 999.5  # numbers from here on are shown without decimals


@dataclass(frozen=True)
class Unit:
    """One unit with its prefixes.

    Attributes:
        written: factor of each text that may follow a number.
        shown: factors and the texts that follow a number, largest first.
        decimals: digits after the point that are always shown; None shows three significant digits.
    """

    written: Mapping[str, float]
    shown: tuple[tuple[float, str], ...]
    decimals: int | None = None

    def text(self, value: float, like: float | None = None) -> str:
        """Return `value` with the largest prefix that leaves at least 1 before it, or before `like`."""
        size = abs(value if like is None else like)
        factor, unit = next((scale for scale in self.shown if size >= scale[0]), self.shown[-1])
        return f"{self._number(value / factor)} {unit}".rstrip()

    def _number(self, value: float) -> str:
        if self.decimals is not None:
            return f"{value:.{self.decimals}f}"
        return f"{value:,.0f}" if abs(value) >= WHOLE else f"{value:.3g}"


_COUNTS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
UNITS: Mapping[str, Unit] = {
    "fraction": Unit({"": 1.0, "%": 1e-2}, ((1e-2, "%"),), decimals=2),
    "s": Unit(
        {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}, ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))
    ),
    "bytes": Unit(
        {
            **{"B": 1.0, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9},
            **{"KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30},
        },
        ((1e6, "MB"), (1e3, "KB"), (1.0, "B")),
    ),
    "MACs": Unit(_COUNTS, ((1e9, "G"), (1e6, "M"), (1e3, "K"), (1.0, ""))),
    "tokens/s": Unit(_COUNTS, ((1e6, "M tokens/s"), (1e3, "K tokens/s"), (1.0, "tokens/s"))),
    "nats": Unit({"": 1.0, "nats": 1.0}, ((1.0, "nats"),)),
    "bits": Unit({"": 1.0, "bits": 1.0}, ((1.0, "bits"),)),
    "choices": Unit({"": 1.0}, ((1.0, "choices"),)),
    "dB": Unit({"": 1.0, "dB": 1.0}, ((1.0, "dB"),)),
    "J": Unit(
        {"J": 1.0, "mJ": 1e-3, "uJ": 1e-6, "µJ": 1e-6, "nJ": 1e-9}, ((1.0, "J"), (1e-3, "mJ"), (1e-6, "uJ"))
    ),
}


def unit_of(name: str) -> Unit:
    """Return the unit called `name`; one that is not in the table is written and shown as plain numbers, with
    its name behind.

    >>> unit_of("weights").text(2.5e6)
    '2.5 M weights'
    """
    unit = UNITS.get(name)
    prefixes = ((1e9, "G"), (1e6, "M"), (1e3, "K"), (1.0, ""))
    return unit or Unit(_COUNTS, tuple((factor, f"{prefix} {name}".strip()) for factor, prefix in prefixes))


def show(shown: Objective, value: float) -> str:
    """Return a value of an objective as people write it.

    >>> from nas.search.objectives import objective
    >>> show(objective("latency"), 0.00031)
    '310 us'
    """
    return unit_of(shown.unit).text(value)


def show_alike(shown: Objective, values: Sequence[float]) -> list[str]:
    """Return values of an objective in one unit, which fits their median: a column of a table.

    >>> from nas.search.objectives import objective
    >>> show_alike(objective("latency"), [0.00031, 0.00042, 0.0012])
    ['310 us', '420 us', '1,200 us']
    """
    like = median(map(abs, values)) if values else None
    return [unit_of(shown.unit).text(value, like) for value in values]


def show_latency(median_s: float, iqr_s: float, load: float | None = None) -> str:
    """Return a measured latency with its spread, and how busy the machine was where that is known.

    >>> show_latency(0.00031, 4.2e-6, 3.14)
    '310 us, IQR 4.2 us, load 3.1'
    """
    seconds = UNITS["s"]
    busy = "" if load is None else f", load {load:.1f}"
    return f"{seconds.text(median_s)}, IQR {seconds.text(iqr_s)}{busy}"
