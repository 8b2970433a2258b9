"""Timing functions in passes on the board: the method of `hw_profiles.measure.interleave`, which this module
is compared with.

One short window of each, again and again, until each has its undisturbed windows; a fixed reference workload
tells which are. What heat slows down is waited for.
"""

from __future__ import annotations

import bisect
import collections
import contextlib
import functools
import os
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hw_profiles.runtimes.transports.agent.conditions import Board

if TYPE_CHECKING:
    Timed = Callable[[int], float]  # runs so many times; gives the seconds of all together

REFERENCE_SIZE, REFERENCE_RUNS, LEARNING_S = 64, 3, 1.0
FASTER_SHARE, FASTER = 0.005, 50
ALIKE, RECENT, DENSEST = 1.25, 512, 3
FIRST_RUNS = 3
FEWEST_UNDISTURBED = 5
LOOK_S = 1.0  # how often heat is looked at, and the client hears that there is somebody
COOLING_S = 0.5  # between two looks while the board cools


def timed(run: Callable[[], object], by: str) -> Timed:
    """Return `run` as something to be timed, by the clock `thread` or `wall`."""
    clock = time.thread_time_ns if by == "thread" else time.perf_counter_ns

    def runs(count: int) -> float:
        start = clock()
        for _ in range(count):
            run()
        return (clock() - start) * 1e-9

    return runs


@contextlib.contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Run on one core only; None leaves the scheduler free."""
    if core is None or not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def load_average() -> float | None:
    """Return how many tasks ran or wanted to over the last minute; None where the system cannot tell."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


class Reference:
    """A fixed computation, and the time that it takes on an undisturbed core, learnt from all its runs."""

    def __init__(self, computation: Timed | None = None, learning_s: float = LEARNING_S) -> None:
        self._computation = computation or _matrix_product()
        self._seen, self._fastest_s = 0, []  # type: int, list[float]
        self._quiet_s = collections.deque(maxlen=RECENT)  # type: collections.deque[float]
        end = time.perf_counter() + learning_s
        while time.perf_counter() < end or not self._seen:
            self.measure_s()
        self._quiet_s.clear()

    def measure_s(self) -> float:
        """Return the seconds that it takes now."""
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
        """Its usual time on a quiet core."""
        limit_s = ALIKE * self._lucky_s
        quiet_s = sorted(seconds for seconds in self._quiet_s if seconds <= limit_s)
        return quiet_s[len(quiet_s) // 2] if quiet_s else self._lucky_s


def _matrix_product() -> Timed:
    a = np.random.default_rng(0).standard_normal((REFERENCE_SIZE, REFERENCE_SIZE), dtype=np.float32)
    out = np.empty_like(a)
    return timed(lambda: np.matmul(a, a, out=out), "wall")


class Watch:
    """Sees to it that the client hears of the measurement, and that a hot board cools.

    Args:
        board: whose heat is looked at.
        core: that is measured on.
        tell: sends a line.
        budget_s: that may be spent on cooling and on waiting for quiet, in all.
    """

    def __init__(self, board: Board, core: int, tell: Callable[..., None], budget_s: float) -> None:
        self._board, self._core, self._tell, self._left_s = board, core, tell, budget_s
        self._next = 0.0
        self.throttled_s = 0.0
        self.frequencies_hz, self.temperatures_c = [], []  # type: list[int], list[float]

    def look(self, **progress: Any) -> None:
        """Look, where it is time; wait while heat slows the board down, while there is time for it."""
        if time.perf_counter() < self._next:
            return
        self._note()
        self._tell("at", **progress)
        if self._board.held_back(self._core):
            self._cool(progress)
        self._next = time.perf_counter() + LOOK_S

    def _cool(self, progress: Mapping[str, Any]) -> None:
        start = time.perf_counter()
        while self.throttled_s < self._left_s and not self._board.cooled(self._core):
            time.sleep(COOLING_S)
            now = time.perf_counter()
            self.throttled_s, start = self.throttled_s + now - start, now
            self._tell("at", **dict(progress, cooling_c=self._board.temperature_c()))

    def _note(self) -> None:
        hz, celsius = self._board.frequency_hz(self._core), self._board.temperature_c()
        self.frequencies_hz += [hz] if hz is not None else []
        self.temperatures_c += [celsius] if celsius is not None else []

    def conditions(self) -> dict[str, Any]:
        """Return what was seen."""
        hz, celsius = self.frequencies_hz, self.temperatures_c
        return {
            "core": self._core,
            "governor": self._board.governor(self._core),
            "frequency_hz": [min(hz), max(hz)] if hz else None,
            "temperature_c": [celsius[0], max(celsius)] if celsius else None,
            "throttled_s": round(self.throttled_s, 3),
        }


class _Context:
    """Functions whose samples are subtracted from each other: a pass is undisturbed for all of them or for
    none.
    """

    def __init__(self, members: list[int]) -> None:
        self.members = members
        self.windows = []  # type: list[list[tuple[float, float, float]]]
        self.worst_s = []  # type: list[float]
        self.ascending_s = []  # type: list[float]

    def add(self, windows: list[tuple[float, float, float]]) -> None:
        """Add the windows of one pass: (seconds per run, reference before, and after) of each member."""
        self.windows.append(windows)
        self.worst_s.append(max(max(before_s, after_s) for _, before_s, after_s in windows))
        bisect.insort(self.ascending_s, self.worst_s[-1])

    def undisturbed(self, limit_s: float) -> int:
        """Return the number of passes in which no reference took longer than `limit_s`."""
        return bisect.bisect_right(self.ascending_s, limit_s)

    def samples(
        self, plan: Mapping[str, Any], usual_s: float, level_s: float
    ) -> Iterator[tuple[list[float], float]]:
        """Yield (seconds, share of undisturbed windows) of each member, all of the same passes."""
        windows, worst_s = np.array(self.windows), np.array(self.worst_s)
        undisturbed = worst_s <= plan["quiet"] * usual_s
        passes = np.flatnonzero(undisturbed)
        if len(passes) < min(FEWEST_UNDISTURBED, plan["rounds"]) or level_s != usual_s:
            off = np.abs(np.log(worst_s / level_s))
            passes = np.sort(np.argsort(off, kind="stable")[: plan["rounds"]])
        seconds, references = windows[passes, :, 0], windows[passes, :, 1:].mean(axis=2)
        if plan["scale_disturbed"]:
            near = (level_s == usual_s) & undisturbed[passes, None]
            seconds = np.where(near, seconds, seconds * level_s / references)
        share = float(undisturbed[passes].mean())
        for column in seconds.T.round(12):
            yield column.tolist(), share


def _level_s(groups: Sequence[_Context], plan: Mapping[str, Any], usual_s: float) -> float:
    """Return the speed at which functions are compared, as seconds of the reference."""
    enough = min(FEWEST_UNDISTURBED, plan["rounds"])
    quiet = sum(group.undisturbed(plan["quiet"] * usual_s) >= enough for group in groups)
    if 2 * quiet >= len(groups):
        return usual_s
    seen_s = np.sort(np.concatenate([group.worst_s for group in groups]))
    width = len(seen_s) // DENSEST
    first = int(np.argmin(seen_s[width:] / seen_s[: len(seen_s) - width]))
    return float(seen_s[first + width // 2])


def interleaved(
    runs: Sequence[Sequence[Timed]],
    plan: Mapping[str, Any],
    reference: Reference,
    contexts: Sequence[Hashable],
    watch: Watch,
) -> list[dict[str, Any]]:
    """Return the samples of each function: passes over all of them, one window of each, until each has
    `plan["rounds"]` quiet ones or `plan["waiting_s"]` seconds beyond the first of these passes are over.

    Args:
        runs: the sessions of each function; passes take them in turns.
        plan: the fields of a `hw_profiles.measure.measurement.MeasurePlan`.
        contexts: functions of one context get samples of the same passes; None stands by itself.
    """
    groups = _by_context(contexts)
    counts = []
    for sessions in runs:
        counts.append(_runs_per_window(sessions, plan))
        watch.look(share=0.0, waiting=False)
    pending, passes, deadline = groups, 0, float("inf")
    began_waiting, cooled_s = 0.0, 0.0
    while pending and time.perf_counter() < deadline:
        share = 1 - len(pending) / len(groups)
        of_pass = [sessions[passes % len(sessions)] for sessions in runs]
        _make_pass(
            pending,
            of_pass,
            counts,
            plan,
            reference,
            functools.partial(watch.look, share=share, waiting=passes >= plan["rounds"]),
        )
        passes += 1
        limit_s = plan["quiet"] * reference.usual_s
        pending = [group for group in groups if group.undisturbed(limit_s) < plan["rounds"]]
        if passes == plan["rounds"]:
            began_waiting, cooled_s = time.perf_counter(), watch.throttled_s
            deadline = began_waiting + max(0.0, plan["waiting_s"] - cooled_s)
    waited_s = cooled_s + (time.perf_counter() - began_waiting if passes > plan["rounds"] else 0.0)
    usual_s = reference.usual_s
    level_s = _level_s(groups, plan, usual_s)
    samples = [{}] * len(runs)  # type: list[dict[str, Any]]
    about = {"waited_s": waited_s, "load": load_average()}
    for group in groups:
        for member, (seconds, quiet) in zip(group.members, group.samples(plan, usual_s, level_s)):
            samples[member] = dict(about, seconds=seconds, quiet_share=quiet)
    return samples


def _by_context(contexts: Sequence[Hashable]) -> list[_Context]:
    """Return the functions by context, in the order of the first of each."""
    members = {}  # type: dict[Hashable, list[int]]
    for i, context in enumerate(contexts):
        members.setdefault(("alone", i) if context is None else ("context", context), []).append(i)
    return [_Context(indices) for indices in members.values()]


def _make_pass(
    groups: Sequence[_Context],
    runs: Sequence[Timed],
    counts: Sequence[int],
    plan: Mapping[str, Any],
    reference: Reference,
    look: Callable[[], None],
) -> None:
    """Make a pass: one window of every function; the reference after one is that before the next."""
    look()
    before_s = reference.measure_s()
    for group in groups:
        windows = []
        for i in group.members:
            runs[i](plan["warmup_runs"])
            elapsed_s = runs[i](counts[i])
            after_s = reference.measure_s()
            windows.append((elapsed_s / counts[i], before_s, after_s))
            before_s = after_s
        group.add(windows)
        look()


def _runs_per_window(sessions: Sequence[Timed], plan: Mapping[str, Any]) -> int:
    for run in sessions:
        run(1)
    if sessions[0](1) >= plan["window_s"]:
        return 1
    for run in sessions:
        run(FIRST_RUNS - 1)
    once_s = min(sessions[0](1) for _ in range(FIRST_RUNS))
    return max(1, round(float(plan["window_s"]) / max(once_s, 1e-9)))
