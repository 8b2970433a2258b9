"""Joules from samples of power: watts, added up over the time between them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

WHOLE_BOARD = ("VDD_IN", "POM_5V_IN", "5V_IN", "VIN")  # rails that feed all others, as makers call them


@dataclass(frozen=True)
class PowerMeter:
    """A source of power samples.

    Attributes:
        source: what tells it, for people.
        counted: of what it is.
        samples: watts, one after the other, until the event that it is given is set.
        updates: samples of a measurement, at least.
        settling_s: for how long a sample still speaks of before.
    """

    source: str
    counted: str
    samples: Callable[[threading.Event], Iterator[float]]
    updates: int
    settling_s: float

    @contextlib.contextmanager
    def counting(self) -> Iterator[Callable[[], float]]:
        """Return what tells the joules from now on: they move with every sample."""
        stopped, integral = threading.Event(), _Integral()

        def follow() -> None:
            with contextlib.suppress(OSError, ValueError):  # then the counter stands still, which is said
                for watts in self.samples(stopped):
                    integral.add(time.monotonic(), watts)

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield integral.joules
        finally:
            stopped.set()
            thread.join()

    def describe(self) -> str:
        """Return what is counted, as a profile says it.

        >>> PowerMeter("tegrastats", "VDD_IN", lambda stopped: iter(()), 1, 0.0).describe()
        'tegrastats: all that VDD_IN drew while it ran'
        """
        return f"{self.source}: all that {self.counted} drew while it ran"


@dataclass
class _Integral:
    """Power over time, by the trapezoidal rule."""

    total_j: float = 0.0
    last: tuple[float, float] | None = None  # when, watts
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, now_s: float, watts: float) -> None:
        """Add a sample."""
        with self.lock:
            if self.last is not None:
                then_s, then_w = self.last
                self.total_j += (now_s - then_s) * (then_w + watts) / 2
            self.last = now_s, watts

    def joules(self) -> float:
        """Return joules so far."""
        with self.lock:
            return self.total_j


def rails_that_count(names: list[str]) -> list[str]:
    """Return which rails to add up: the one that feeds the whole board where there is one, or else all.

    >>> rails_that_count(["VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"])
    ['VDD_IN']
    >>> rails_that_count(["VDD_GPU_SOC", "VDD_CPU_CV"])
    ['VDD_GPU_SOC', 'VDD_CPU_CV']
    """
    return [name for name in names if name.upper() in WHOLE_BOARD][:1] or names
