"""What counts joules, and joules per run by it.

All that a meter sees while a network runs counts, the idle system among it: it says something of the network
only on a machine that does nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

BATCH_S = 1e-3  # between two looks at the counter
STUCK_S = 2.0  # a counter that has not moved for so long never will


class EnergyError(Exception):
    """The counter stopped. The message says what to do."""


@runtime_checkable
class Meter(Protocol):
    """Something that counts joules."""

    @property
    def updates(self) -> int:
        """How often its counter must move in a measurement, so that both ends of it are certain enough."""
        ...

    @property
    def settling_s(self) -> float:
        """For how long what it says is still of what was before."""
        ...

    def counting(self) -> AbstractContextManager[Callable[[], float]]:
        """Return what tells the joules used so far, while the context lasts.

        Raises:
            EnergyError: it cannot be read any more.
        """
        ...

    def describe(self) -> str:
        """Return what is counted, as a profile says it."""
        ...


def joules_of(
    runs: Sequence[Callable[[int], float]], meter: Meter | str, *, seconds: float
) -> list[float | None]:
    """Return joules per run of each; None each where there is no meter, or no time for it.

    Raises:
        EnergyError: see `measure_energy`.
    """
    if isinstance(meter, str) or seconds <= 0:
        return [None] * len(runs)
    return [measure_energy(run, meter, seconds=seconds) for run in runs]


def measure_energy(run: Callable[[int], float], meter: Meter, *, seconds: float) -> float:
    """Measure joules per run of all that the meter counted while it ran again and again.

    Goes on for at least `seconds`, and until the counter has moved as often as its meter asks for.

    Args:
        run: what is measured: runs so often; the time that it gives is not used.
        meter: from `find_meter`.
        seconds: elapsed time, at least.

    Raises:
        EnergyError: the counter does not move.
    """
    count = _runs_per_batch(run)
    with meter.counting() as used_j:
        _settle(run, count, meter.settling_s)
        first_j, _ = _until_moved(run, count, used_j, used_j(), meter)  # begin where it has just moved
        start, updates, runs, last_j = time.perf_counter(), 0, 0, first_j
        while updates < meter.updates or time.perf_counter() - start < seconds:
            last_j, done = _until_moved(run, count, used_j, last_j, meter)
            updates, runs = updates + 1, runs + done
    return (last_j - first_j) / runs


def _until_moved(
    run: Callable[[int], float], count: int, used_j: Callable[[], float], last_j: float, meter: Meter
) -> tuple[float, int]:
    """Run in batches until a counter says something new: what it says, and how many runs that took."""
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < STUCK_S or not done:
        run(count)
        done += count
        now_j = used_j()
        if now_j != last_j:
            return now_j, done
    raise EnergyError(
        f"the energy counter ({meter.describe()}) has not moved for {STUCK_S:g} s; write energy_s = 0 below "
        "[measure] to measure without energy"
    )


def _settle(run: Callable[[int], float], count: int, seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        run(count)


def _runs_per_batch(run: Callable[[int], float]) -> int:
    """Return how many runs take about `BATCH_S`."""
    run(1)  # the first run allocates and chooses kernels
    start = time.perf_counter()
    run(3)
    return max(1, round(3 * BATCH_S / max(time.perf_counter() - start, 1e-9)))
