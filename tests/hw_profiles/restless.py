"""A clock and a core of our own making, which others slow down or take away: this machine plays no part."""

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from hw_profiles.graph.layer import Layer
from hw_profiles.graph.workload import Workload
from hw_profiles.measure.in_context import Probe, in_context
from hw_profiles.measure.interleave import ReferenceWorkload, interleaved
from hw_profiles.measure.measurement import Measurement, MeasurePlan
from hw_profiles.runtimes.info import DeviceInfo
from hw_profiles.runtimes.runtime import Job

REFERENCE_S = 8e-6  # of one run of the reference computation
OPENING_S = 4e-3  # to open a session


@dataclass
class Core:
    """A clock that only work moves on, and a core that is slower at times.

    Attributes:
        slowdown: from the time to how much slower the core is.
        taken: from the time to how many seconds others have the core before work goes on.
        own_s: seconds for which work itself had the core: what a thread's clock counts.
    """

    slowdown: Callable[[float], float] = lambda now: 1.0
    taken: Callable[[float], float] = lambda now: 0.0
    now: float = 0.0
    own_s: float = 0.0
    turns: list[str] = field(default_factory=list)

    def work(self, seconds: float, sensitivity: float = 1.0) -> float:
        """Do what takes so long on a quiet core; gives what it took of the core."""
        self.now += self.taken(self.now)
        spent = seconds * (1 + sensitivity * (self.slowdown(self.now) - 1))
        self.now += spent
        self.own_s += spent
        return spent

    def run(self, name: str, seconds: float, sensitivity: float = 1.0) -> Callable[[int], float]:
        """Something to be timed, by the thread's clock."""

        def runs(count: int) -> float:
            self.turns.append(name)
            return self.work(count * seconds, sensitivity)

        return runs

    def reference(self) -> ReferenceWorkload:
        """The reference computation on this core, by the wall."""

        def computation(count: int) -> float:
            start = self.now
            self.work(count * REFERENCE_S)
            return self.now - start

        return ReferenceWorkload(computation)

    def perf_counter(self) -> float:
        return self.now

    monotonic = perf_counter

    def perf_counter_ns(self) -> int:
        return round(self.now * 1e9)


def stretches(
    rng: np.random.Generator, quiet_share: float, *, mean_s: float = 2.0, slow: float = 1.5
) -> Callable[[float], float]:
    """Slowdown in stretches from below a second to several seconds, quiet for a share of the time."""
    lengths = rng.exponential(1.0, 4000) * np.tile(
        [2 * mean_s * quiet_share, 2 * mean_s * (1 - quiet_share)], 2000
    )
    ends = np.cumsum(lengths).tolist()

    def slowdown(now: float) -> float:
        return slow if bisect.bisect(ends, now) % 2 else 1.0  # begins quiet

    return slowdown


def time_slices(load: int, *, slice_s: float = 3e-3) -> Callable[[float], float]:
    """Others take the core for `load - 1` slices out of `load`."""
    state = {"until": slice_s}

    def taken(now: float) -> float:
        if now < state["until"]:
            return 0.0
        away = (load - 1) * slice_s
        state["until"] = now + away + slice_s
        return away

    return taken


@dataclass
class RestlessBackend:
    """Networks whose time is the sum of secret costs, measured in passes on a core of that kind."""

    core: Core
    secret_s: Callable[[Layer], float]
    opened: int = 0
    _reference: ReferenceWorkload | None = None

    @property
    def runtime(self) -> None:
        return None

    def describe(self) -> DeviceInfo:
        return DeviceInfo("restless", "no CPU", "arithmetic", "1", "none")

    def supports(self, layer: Layer) -> bool:
        return True

    def why_not(self, layer: Layer) -> str:
        raise AssertionError(layer)

    def probe(self, layer: Layer) -> Probe:
        return in_context(layer)

    @property
    def timed(self) -> bool:
        return True

    @property
    def parallel(self) -> int:
        return 1

    def network_s(self, work: Workload) -> float:
        return 2e-6 + sum(map(self.secret_s, work.layers))

    def measure(self, jobs: Sequence[Job], plan: MeasurePlan) -> list[Measurement]:
        self.opened += len(jobs)
        runs = []
        for job in jobs:
            self.core.work(plan.sessions * OPENING_S)
            runs.append([self.core.run("", self.network_s(job.workload), 1.3)] * plan.sessions)
        self._reference = self._reference or self.core.reference()
        samples = interleaved(runs, plan, self._reference, [job.context for job in jobs])
        return [Measurement.of(sample) for sample in samples]
