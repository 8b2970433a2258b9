"""Timing several functions in turns, in the moments when the core is left alone.

A core that shares its execution units (a hyper-thread, another virtual machine) runs 1.4 to 1.75x slower for
stretches of 20 ms to minutes, in CPU time as in wall time, and not equally for all kinds of layers. A fixed
reference computation, the pulse, tells such stretches: a window begins when the pulse takes its usual time,
and counts if it still does afterwards. Over 40 s on a busy host that reduced the IQR of a window from 40 %
to 2 % (docs/measuring.md).
"""

import time
from collections.abc import Callable, Sequence

import numpy as np

from hw_profiles.measurement import MeasurePlan, Samples

Timed = Callable[[int], float]  # runs so many times one after the other; gives the seconds of all together

# A 64 x 64 matrix product takes a few microseconds, fits the first-level cache and never starts threads.
PULSE_SIZE = 64
PULSE_RUNS = 3
LEARNING_S = 1.0
FLOOR_PERCENTILE = 0.5  # of all pulses seen: the minimum itself may be a lucky one


def timed(run: Callable[[], object], plan: MeasurePlan) -> Timed:
    """`run` as something to be timed here, by the plan's clock."""
    clock = time.thread_time_ns if plan.clock == "thread" else time.perf_counter_ns

    def runs(count: int) -> float:
        start = clock()
        for _ in range(count):
            run()
        return (clock() - start) * 1e-9

    return runs


def _matrix_product() -> Timed:
    a = np.random.default_rng(0).standard_normal((PULSE_SIZE, PULSE_SIZE), dtype=np.float32)
    out = np.empty_like(a)

    def runs(count: int) -> float:
        start = time.perf_counter_ns()
        for _ in range(count):
            np.matmul(a, a, out=out)
        return (time.perf_counter_ns() - start) * 1e-9

    return runs


class Pulse:
    """The reference computation, and the time it takes on a quiet core, learnt from all its runs.

    Args:
        reference: what is computed; a matrix product on this machine, or something on the board that is
            measured.
    """

    def __init__(self, reference: Timed | None = None) -> None:
        self._reference = reference or _matrix_product()
        self._seen: list[float] = []
        end = time.perf_counter() + LEARNING_S
        while time.perf_counter() < end:
            self.measure_s()
        self.floor_s = 0.0
        self.learn()

    def measure_s(self) -> float:
        """Seconds that the reference takes now."""
        self._reference(1)  # what ran before has evicted its numbers
        elapsed_s = self._reference(PULSE_RUNS)
        self._seen.append(elapsed_s)
        return elapsed_s

    def learn(self) -> None:
        """Renew `floor_s`."""
        self.floor_s = float(np.percentile(self._seen, FLOOR_PERCENTILE))


def interleaved(runs: Sequence[Timed], plan: MeasurePlan, pulse: Pulse) -> list[Samples]:
    """`plan.rounds` samples for each function, the functions taking turns.

    Waits for quiet moments, `plan.patience_s` seconds in all; when that is used up every window counts, and
    the samples say so.
    """
    pulse.learn()
    counts = [_runs_per_window(run, plan) for run in runs]
    deadline = time.perf_counter() + plan.patience_s
    seconds = np.empty((len(runs), plan.rounds))
    quiet = np.empty((len(runs), plan.rounds), bool)
    for r in range(plan.rounds):
        for i, (run, count) in enumerate(zip(runs, counts, strict=True)):
            seconds[i, r], quiet[i, r] = _window(run, count, plan, pulse, deadline)
    return [
        Samples(tuple(row.round(12).tolist()), float(ok.mean()))
        for row, ok in zip(seconds, quiet, strict=True)
    ]


def _window(run: Timed, count: int, plan: MeasurePlan, pulse: Pulse, deadline: float) -> tuple[float, bool]:
    """(seconds per run, whether the core was quiet): tried again until it was, or until the deadline."""
    limit = pulse.floor_s * plan.quiet
    while True:
        while pulse.measure_s() > limit and time.perf_counter() < deadline:
            pass
        run(plan.warmup_runs)
        before = pulse.measure_s()
        elapsed_s = run(count)
        after = pulse.measure_s()
        quiet = max(before, after) <= limit
        if quiet or time.perf_counter() >= deadline:
            scale = 2 * pulse.floor_s / (before + after) if plan.scale_disturbed and not quiet else 1.0
            return elapsed_s / count * scale, quiet


def _runs_per_window(run: Timed, plan: MeasurePlan) -> int:
    run(10)  # the first runs allocate and choose kernels
    return max(1, round(plan.window_s / max(run(10) / 10, 1e-9)))
