"""Timing functions in passes: one short window of each, again and again, until each has its undisturbed
windows.

A core that shares its execution units (a hyper-thread, another virtual machine) runs 1.4 to 1.75x slower for
stretches of 20 ms to minutes, in CPU time as in wall time, and not equally for all kinds of layers. A fixed
reference workload reveals such stretches: a window is undisturbed if that took its usual time
before and after it. On a host that is quiet a quarter of the time, waiting for quiet beside each function
finds hardly any; passes over all of them give each its share of every quiet stretch
(docs/concepts/measuring.md).
"""

import bisect
import contextlib
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field

import numpy as np

from hw_profiles.measure.host import load_average
from hw_profiles.measure.measurement import FEWEST_UNDISTURBED, Clock, MeasurePlan, Samples

Timed = Callable[[int], float]  # runs so many times one after the other; gives the seconds of all together
# Told after every pass: the share of the functions that have their undisturbed windows, and whether it waits.
Watch = Callable[[float, bool], None]

# A 64 x 64 matrix product takes a few microseconds, fits the first-level cache and never starts threads.
REFERENCE_SIZE = 64
REFERENCE_RUNS = 3
LEARNING_S = 1.0
# The time of a lucky run is that which this share of all seen are faster than, or this many: the first quiet
# moment shall tell after a long disturbance.
FASTER_SHARE, FASTER = 0.005, 50
# A run within this factor of it was on a quiet core: where the clock follows the load, and behind networks
# that heat and evict, lucky runs are a tenth faster than usual ones. Disturbed ones are 1.4 times as slow.
ALIKE, RECENT = 1.25, 512
DENSEST = 3  # one in so many windows tells the usual speed of a core that is never quiet
FIRST_RUNS = 3  # allocate, and choose kernels

_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


@contextlib.contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Tell `watch` how far a measurement within is; one on a board, in another process, is silent."""
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)


def watch_of_caller() -> Watch | None:
    """Return what is told of a measurement that is made elsewhere; None where nobody watches."""
    return _watch.get()


def timed(run: Callable[[], object], by: Clock) -> Timed:
    """Return `run` as something to be timed here, by that clock."""
    clock = time.thread_time_ns if by == "thread" else time.perf_counter_ns

    def runs(count: int) -> float:
        start = clock()
        for _ in range(count):
            run()
        return (clock() - start) * 1e-9

    return runs


def _matrix_product() -> Timed:
    a = np.random.default_rng(0).standard_normal((REFERENCE_SIZE, REFERENCE_SIZE), dtype=np.float32)
    out = np.empty_like(a)

    def runs(count: int) -> float:
        start = time.perf_counter_ns()
        for _ in range(count):
            np.matmul(a, a, out=out)
        return (time.perf_counter_ns() - start) * 1e-9

    return runs


class ReferenceWorkload:
    """A fixed computation, and the time that it takes on an undisturbed core, learnt from all its runs.

    Args:
        computation: what is run; a matrix product on this machine, or something on the board that is
            measured.
    """

    def __init__(self, computation: Timed | None = None) -> None:
        self._computation = computation or _matrix_product()
        self._seen, self._fastest_s = 0, list[float]()  # how many, and the first of them in ascending order
        self._quiet_s = deque[float](maxlen=RECENT)  # of the latest runs, those on a quiet core
        end = time.perf_counter() + LEARNING_S
        while time.perf_counter() < end:
            self.measure_s()
        self._quiet_s.clear()  # one after the other they are faster than between networks

    def measure_s(self) -> float:
        """Return the seconds that the reference takes now."""
        self._computation(1)  # what ran before has evicted its numbers
        elapsed_s = self._computation(REFERENCE_RUNS)
        self._seen += 1
        bisect.insort(self._fastest_s, elapsed_s)
        del self._fastest_s[FASTER + 1 :]
        if elapsed_s <= ALIKE * self._lucky_s:
            self._quiet_s.append(elapsed_s)
        return elapsed_s

    @property
    def _lucky_s(self) -> float:
        return self._fastest_s[min(FASTER, int(FASTER_SHARE * self._seen))]

    @property
    def usual_s(self) -> float:
        """Its usual time on a quiet core: the median of the latest runs that were not disturbed."""
        limit_s = ALIKE * self._lucky_s
        quiet_s = sorted(seconds for seconds in self._quiet_s if seconds <= limit_s)
        return quiet_s[len(quiet_s) // 2] if quiet_s else self._lucky_s


@dataclass
class _Context:
    """Functions whose samples are subtracted from each other: a pass is undisturbed for all of them or for
    none.

    Attributes:
        members: which functions.
        windows: a row a pass: (seconds per run, reference before, reference after) of each member.
        worst_s: a pass: the longest reference around any of its windows.
        ascending_s: the same, sorted.
    """

    members: list[int]
    windows: list[list[tuple[float, float, float]]] = field(default_factory=list)
    worst_s: list[float] = field(default_factory=list)
    ascending_s: list[float] = field(default_factory=list)

    def add(self, windows: list[tuple[float, float, float]]) -> None:
        """Add the windows of one pass."""
        self.windows.append(windows)
        self.worst_s.append(max(max(before_s, after_s) for _, before_s, after_s in windows))
        bisect.insort(self.ascending_s, self.worst_s[-1])

    def undisturbed(self, limit_s: float) -> int:
        """Return the number of passes in which no reference took longer than `limit_s`."""
        return bisect.bisect_right(self.ascending_s, limit_s)

    def samples(
        self, plan: MeasurePlan, usual_s: float, level_s: float
    ) -> Iterator[tuple[tuple[float, ...], float]]:
        """Yield (seconds, share of undisturbed windows) of each member, all of the same passes: the
        undisturbed ones, or where those are too few those whose references were nearest to `level_s`.
        """
        windows, worst_s = np.array(self.windows), np.array(self.worst_s)
        undisturbed = worst_s <= plan.quiet * usual_s
        passes = np.flatnonzero(undisturbed)
        if len(passes) < min(FEWEST_UNDISTURBED, plan.rounds) or level_s != usual_s:
            off = np.abs(np.log(worst_s / level_s))
            passes = np.sort(np.argsort(off, kind="stable")[: plan.rounds])
        seconds, references = windows[passes, :, 0], windows[passes, :, 1:].mean(axis=2)
        if plan.scale_disturbed:
            near = (level_s == usual_s) & undisturbed[passes, None]
            seconds = np.where(near, seconds, seconds * level_s / references)
        share = float(undisturbed[passes].mean())
        for column in seconds.T.round(12):
            yield tuple(column.tolist()), share


def interleaved(
    runs: Sequence[Sequence[Timed]],
    plan: MeasurePlan,
    reference: ReferenceWorkload,
    contexts: Sequence[Hashable | None] | None = None,
) -> list[Samples]:
    """Return samples of each function: passes over all of them, one window of each, until each has
    `plan.rounds` quiet ones or `plan.waiting_s` seconds beyond the first `plan.rounds` passes are over.

    Args:
        runs: the sessions of each function; passes take them in turns.
        contexts: functions of one context get samples of the same passes; None stands by itself.
    """
    groups = _by_context(contexts or [None] * len(runs))
    counts = [_runs_per_window(sessions, plan) for sessions in runs]
    pending, passes, deadline = groups, 0, float("inf")
    began_waiting, watch = 0.0, _watch.get()
    while pending and time.perf_counter() < deadline:
        _make_pass(pending, [sessions[passes % len(sessions)] for sessions in runs], counts, plan, reference)
        passes += 1
        limit_s = plan.quiet * reference.usual_s
        pending = [group for group in groups if group.undisturbed(limit_s) < plan.rounds]
        if passes == plan.rounds:
            began_waiting = time.perf_counter()
            deadline = began_waiting + plan.waiting_s
        if watch:
            watch(1 - len(pending) / len(groups), passes > plan.rounds)
    usual_s = reference.usual_s
    level_s = _level_s(groups, plan, usual_s)
    waited_s, load = (time.perf_counter() - began_waiting if passes > plan.rounds else 0.0), load_average()
    samples = {
        member: Samples(seconds, share, waited_s, load)
        for group in groups
        for member, (seconds, share) in zip(group.members, group.samples(plan, usual_s, level_s), strict=True)
    }
    return [samples[member] for member in range(len(runs))]


def _level_s(groups: Sequence[_Context], plan: MeasurePlan, usual_s: float) -> float:
    """Return the speed at which functions are compared, as seconds of the reference: its usual time on a
    quiet core, or where most functions hardly ever had one, the middle of the densest third of all windows.

    A core that is never quiet has a usual speed too. To scale all that is measured there to a quiet core
    errs: not all kernels slow down alike.
    """
    enough = min(FEWEST_UNDISTURBED, plan.rounds)
    quiet = sum(group.undisturbed(plan.quiet * usual_s) >= enough for group in groups)
    if 2 * quiet >= len(groups):
        return usual_s
    seen_s = np.sort(np.concatenate([group.worst_s for group in groups]))
    width = len(seen_s) // DENSEST
    first = int(np.argmin(seen_s[width:] / seen_s[: len(seen_s) - width]))
    return float(seen_s[first + width // 2])


def _by_context(contexts: Sequence[Hashable | None]) -> list[_Context]:
    """Return the functions by context, in the order of the first of each."""
    members: dict[Hashable, list[int]] = {}
    for i, context in enumerate(contexts):
        members.setdefault(("alone", i) if context is None else ("context", context), []).append(i)
    return [_Context(indices) for indices in members.values()]


def _make_pass(
    groups: Sequence[_Context],
    runs: Sequence[Timed],
    counts: Sequence[int],
    plan: MeasurePlan,
    reference: ReferenceWorkload,
) -> None:
    """Make a pass: one window of every function; the reference after one is that before the next."""
    before_s = reference.measure_s()
    for group in groups:
        windows = []
        for i in group.members:
            runs[i](plan.warmup_runs)
            elapsed_s = runs[i](counts[i])
            after_s = reference.measure_s()
            windows.append((elapsed_s / counts[i], before_s, after_s))
            before_s = after_s
        group.add(windows)


def _runs_per_window(sessions: Sequence[Timed], plan: MeasurePlan) -> int:
    for run in sessions:
        run(1)
    if sessions[0](1) >= plan.window_s:  # settled by now, and too long to be run more often for nothing
        return 1
    for run in sessions:
        run(FIRST_RUNS - 1)
    once_s = min(sessions[0](1) for _ in range(FIRST_RUNS))
    return max(1, round(plan.window_s / max(once_s, 1e-9)))
