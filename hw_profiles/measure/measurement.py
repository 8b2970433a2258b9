"""How something is measured, and what came out: raw samples, or the reason why there are none."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hw_profiles.options import Range, check

Clock = Literal["thread", "wall"]
FEWEST_UNDISTURBED = 5  # windows that a median is taken of; with fewer, disturbed ones count too


@dataclass(frozen=True)
class MeasurePlan:
    """How to measure. The defaults repeat within 1 % on a busy 2-core machine (docs/concepts/measuring.md).

    Attributes:
        rounds: quiet windows that each workload gets; workloads of one call take turns, one window a pass.
        sessions: the passes take turns between so many sessions of each workload: where a session's memory
            lies changes its time by 0.5 to 2 %.
        window_s: length of a window. Short ones fit between disturbances.
        warmup_runs: untimed runs after every switch, since the other workloads evicted the weights.
        quiet: a window is quiet if the reference computation around it took at most this factor of its usual
            time.
        waiting_s: seconds that a stage may spend on more passes than `rounds`, in all; then what there is
            must do.
        scale_disturbed: where there are too few quiet windows, divide what those nearest to the core's usual
            speed took by how much slower the reference computation ran around them: right for a table, whose
            rows must be comparable; not for what is shipped.
        clock: `thread` counts CPU time of the calling thread only (right for one thread), `wall` is elapsed
            time.
        core: CPU core to pin to while measuring; None leaves the scheduler free.
        max_spread: IQR above this share of the time of the network that a row was measured in: the row's
            number is refused.
        energy_s: how long each workload runs for its energy, where the device can tell any; 0 leaves it out.
        max_drift: a row is measured again when the reference network beside it was off its usual time by
            more than this share.

    Raises:
        TrilobitError: a value that is not allowed.
    """

    RETIRED: ClassVar[tuple[str, ...]] = ("patience_s", "quiet_share", "remeasure_s")  # of older run folders

    rounds: Annotated[int, Range(1, 10_000)] = 16
    sessions: Annotated[int, Range(1, 100)] = 2
    window_s: Annotated[float, Range(0, 10, above=True)] = 1.5e-4
    warmup_runs: Annotated[int, Range(0, 10_000)] = 2
    quiet: Annotated[float, Range(1, 100)] = 1.06
    waiting_s: Annotated[float, Range(0, 86_400)] = 40.0
    scale_disturbed: bool = False
    clock: Clock = "thread"
    core: Annotated[int | None, Range(0, 65_535)] = None
    max_spread: Annotated[float, Range(0, 1e9, above=True, share=True)] = 0.1
    max_drift: Annotated[float, Range(0, 100, share=True)] = 0.03
    energy_s: Annotated[float, Range(0, 3_600)] = 0.05

    def __post_init__(self) -> None:
        check(self, "measure")

    def to_json(self) -> dict[str, Any]:
        """Return the fields as they are stored in a profile."""
        return asdict(self)


def plan_on(plan: MeasurePlan, clock: Clock) -> MeasurePlan:
    """Return a plan as a device keeps it: by the clock of the calling thread, pinned to a core; or where
    other threads work too by the wall, on any core.
    """
    if clock == "wall":
        return replace(plan, clock="wall", core=None)
    if plan.core is None and hasattr(os, "sched_getaffinity"):
        return replace(plan, core=max(os.sched_getaffinity(0)))
    return plan


class Samples(NamedTuple):
    """What passes gave of one function.

    Attributes:
        seconds: per run, of each window that counts.
        quiet_share: share of those in which the core was quiet.
        waited_s: how long its call took passes only to find quiet windows.
        load: of the machine then; None where it cannot tell.
    """

    seconds: tuple[float, ...]
    quiet_share: float
    waited_s: float = 0.0
    load: float | None = None


@dataclass(frozen=True)
class Measurement:
    """Raw samples of one workload, or the error that prevented them.

    Attributes:
        samples_s: seconds per run, one per timed window; empty if and only if `error` is set.
        error: why it could not be measured, in one line.
        quiet_share: share of the windows in which nothing else used the core: 1 where there were enough such.
        context_s: seconds of the longest network that the samples are a difference of; 0 where they are not.
        reference_s: seconds of the profile's reference network in the same turns; None where there was none.
        energy_j: joules per run; None where the device cannot tell.
        load: of the machine (runnable tasks, over a minute) when it was measured; None where unknown.
        waited_s: seconds that the call which measured it waited for quiet windows.
        temperature_c: highest of the processor meanwhile; None where nothing said so.
        frequency_hz: lowest of the core meanwhile; None where nothing said so.

    Raises:
        ValueError: neither or both are given.
    """

    samples_s: tuple[float, ...] = ()
    error: str | None = None
    quiet_share: float = 1.0
    context_s: float = 0.0
    reference_s: float | None = None
    energy_j: float | None = None
    load: float | None = None
    waited_s: float = 0.0
    temperature_c: float | None = None
    frequency_hz: float | None = None

    def __post_init__(self) -> None:
        if bool(self.samples_s) == (self.error is not None):
            raise ValueError("a measurement has either samples or an error")

    @classmethod
    def of(cls, samples: Samples, energy_j: float | None = None) -> "Measurement":
        """Return a measurement from what `hw_profiles.measure.interleave` gives, and joules where the device
        can tell.
        """
        return cls(
            samples.seconds,
            quiet_share=samples.quiet_share,
            energy_j=energy_j,
            load=samples.load,
            waited_s=samples.waited_s,
        )

    @property
    def array(self) -> NDArray[np.float64]:
        """The samples in seconds, in order: samples of one interleaved call are paired by index."""
        return np.array(self.samples_s)

    @cached_property
    def _ordered_s(self) -> list[float]:
        return sorted(map(float, self.samples_s))

    @property
    def undisturbed_windows(self) -> int:
        """How many of its windows were quiet."""
        return round(self.quiet_share * len(self.samples_s))

    @cached_property
    def median_s(self) -> float:
        """Median seconds per run; infinite where there is an error, so that a search avoids it."""
        if not self.samples_s:
            return float("inf")
        middle = (len(self.samples_s) - 1) // 2
        return (self._ordered_s[middle] + self._ordered_s[-1 - middle]) / 2

    @cached_property
    def iqr_s(self) -> float:
        """Interquartile range in seconds."""
        if not self.samples_s:
            return float("nan")
        return _quantile(self._ordered_s, 0.75) - _quantile(self._ordered_s, 0.25)

    @property
    def spread(self) -> float:
        """IQR as a share of what was timed: the network around a row, or the row itself."""
        if not self.samples_s:
            return float("nan")
        return self.iqr_s / max(self.median_s, self.context_s, 1e-9)


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Return what `numpy.quantile` does of sorted numbers, to the last bit: a profile asks thousands of times
    for quantiles of a few numbers each, which numpy needs thirty times as long for.
    """
    place, part = divmod(share * (len(ordered) - 1), 1)
    low, high = ordered[int(place)], ordered[min(int(place) + 1, len(ordered) - 1)]
    return high - (high - low) * (1 - part) if part >= 0.5 else low + (high - low) * part


def slowdown(drift: float, plan: MeasurePlan) -> float:
    """Return what to divide a time by, when the reference network ran slower than usual by `drift` beside it.

    1 within the plan's limit: there a reference differs as much by where its session's memory lies as by
    the machine.
    """
    return 1 + drift if abs(drift) > plan.max_drift else 1.0


def estimator(row: Measurement, plan: MeasurePlan) -> str:
    """Return what the median of a row is of, in words."""
    if row.quiet_share == 1:
        return "quiet windows"
    return f"disturbed windows{', scaled by the reference computation' * plan.scale_disturbed}"


Watch = Callable[[float, bool], None]  # told how many items are done, whether quiet is waited for


def unwatched(done: float, waiting: bool) -> None:
    """Tell nobody."""


@dataclass
class WaitBudget:
    """Seconds that may still be spent on waiting for quiet windows, by everything that shares it.

    Attributes:
        watch: told meanwhile how many of its items are done.
    """

    left_s: float
    watch: Watch = unwatched

    @contextlib.contextmanager
    def part(
        self, share: float, *, most_s: float = float("inf"), watch: Watch | None = None
    ) -> Iterator["WaitBudget"]:
        """Give a share of what is left to something; what it does not spend stays."""
        given_s = min(share * self.left_s, max(0.0, most_s))
        some = WaitBudget(given_s, watch or self.watch)
        yield some
        self.left_s = max(0.0, self.left_s - (given_s - some.left_s))

    def spend(self, seconds: float) -> None:
        """Count what was waited."""
        self.left_s = max(0.0, self.left_s - seconds)


@dataclass(frozen=True)
class Estimate:
    """A predicted row: mean and standard deviation in seconds."""

    mean_s: float
    std_s: float

    def __post_init__(self) -> None:
        if not (0 <= self.mean_s < float("inf") and 0 <= self.std_s < float("inf")):
            raise ValueError(f"an estimate is two finite times, got {self.mean_s} and {self.std_s}")
