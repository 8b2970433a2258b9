"""How something is measured, and what came out: raw samples, or the reason why there are none."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hw_profiles.options import Range, check


@dataclass(frozen=True)
class MeasurePlan:
    """How to measure. The defaults repeat within 1 % on a busy 2-core machine (docs/measuring.md).

    Attributes:
        rounds: timed windows per workload; workloads of one call take turns, one window each a round.
        sessions: the rounds are shared by so many sessions, each opened anew: where a session's memory lies
            changes its time by 0.5 to 2 %.
        window_s: length of a window. Short ones fit between disturbances.
        warmup_runs: untimed runs after every switch, since the other workloads evicted the weights.
        quiet: a window counts if the reference computation around it took at most this factor of its usual
            time.
        patience_s: seconds that one call may wait for quiet moments before it takes what it gets.
        scale_disturbed: divide what a disturbed window took by how much slower the pulse ran around it.
            That is 6 to 27 % above the quiet time where the raw time is 41 to 72 % above it (15 networks,
            docs/measuring.md): right for a table, whose rows must be comparable; not for what is shipped.
        quiet_share: rows with fewer quiet windows than this share are measured again, with twice the
            patience...
        remeasure_s: ...until so many seconds have passed since profiling began.
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

    rounds: Annotated[int, Range(1, 10_000)] = 25
    sessions: Annotated[int, Range(1, 100)] = 2
    window_s: Annotated[float, Range(0, 10, above=True)] = 1.5e-4
    warmup_runs: Annotated[int, Range(0, 10_000)] = 2
    quiet: Annotated[float, Range(1, 100)] = 1.06
    patience_s: Annotated[float, Range(0, 3_600)] = 0.25
    scale_disturbed: bool = False
    quiet_share: Annotated[float, Range(0, 1, share=True)] = 0.7
    remeasure_s: Annotated[float, Range(0, 86_400)] = 60.0
    clock: Literal["thread", "wall"] = "thread"
    core: Annotated[int | None, Range(0, 65_535)] = None
    max_spread: Annotated[float, Range(0, 100, above=True, share=True)] = 0.1
    max_drift: Annotated[float, Range(0, 100, share=True)] = 0.03
    energy_s: Annotated[float, Range(0, 3_600)] = 0.05

    def __post_init__(self) -> None:
        check(self, "measure")

    def to_json(self) -> dict[str, Any]:
        """As stored in a profile."""
        return asdict(self)


class Samples(NamedTuple):
    """Seconds per run of each window, and the share of windows in which the core was quiet."""

    seconds: tuple[float, ...]
    quiet_share: float


@dataclass(frozen=True)
class Measurement:
    """Raw samples of one workload, or the error that prevented them.

    Attributes:
        samples_s: seconds per run, one per timed window; empty if and only if `error` is set.
        error: why it could not be measured, in one line.
        quiet_share: share of the windows in which nothing else used the core.
        context_s: seconds of the longest network that the samples are a difference of; 0 where they are not.
        reference_s: seconds of the profile's reference network in the same turns; None where there was none.
        energy_j: joules per run; None where the device cannot tell.

    Raises:
        ValueError: neither or both are given.
    """

    samples_s: tuple[float, ...] = ()
    error: str | None = None
    quiet_share: float = 1.0
    context_s: float = 0.0
    reference_s: float | None = None
    energy_j: float | None = None

    def __post_init__(self) -> None:
        if bool(self.samples_s) == (self.error is not None):
            raise ValueError("a measurement has either samples or an error")

    @classmethod
    def of(cls, samples: Samples, energy_j: float | None = None) -> "Measurement":
        """From what `hw_profiles.interleave` gives, and joules where the device can tell."""
        return cls(samples.seconds, quiet_share=samples.quiet_share, energy_j=energy_j)

    @property
    def array(self) -> NDArray[np.float64]:
        """The samples in seconds, in order: samples of one interleaved call are paired by index."""
        return np.array(self.samples_s)

    @cached_property
    def median_s(self) -> float:
        """Median seconds per run; infinite where there is an error, so that a search avoids it."""
        return float(np.median(self.samples_s)) if self.samples_s else float("inf")

    @cached_property
    def iqr_s(self) -> float:
        """Interquartile range in seconds."""
        if not self.samples_s:
            return float("nan")
        low, high = np.percentile(self.samples_s, (25, 75))
        return float(high - low)

    @property
    def spread(self) -> float:
        """IQR as a share of what was timed: the network around a row, or the row itself."""
        if not self.samples_s:
            return float("nan")
        return self.iqr_s / max(self.median_s, self.context_s, 1e-9)


def slowdown(drift: float, plan: MeasurePlan) -> float:
    """What to divide a time by, when the reference network ran slower than usual by `drift` beside it.

    1 within the plan's limit: there a reference differs as much by where its session's memory lies as by
    the machine.
    """
    return 1 + drift if abs(drift) > plan.max_drift else 1.0


def joined(parts: Sequence[Measurement]) -> Measurement:
    """Measurements of one workload in several sessions as one, or the first error."""
    errors = [part for part in parts if part.error is not None]
    if errors:
        return errors[0]
    joules = [part.energy_j for part in parts if part.energy_j is not None]
    return replace(
        parts[0],
        samples_s=tuple(sample for part in parts for sample in part.samples_s),
        quiet_share=sum(part.quiet_share for part in parts) / len(parts),
        energy_j=sum(joules) / len(joules) if joules else None,
    )


@dataclass(frozen=True)
class Estimate:
    """A predicted row: mean and standard deviation in seconds."""

    mean_s: float
    std_s: float

    def __post_init__(self) -> None:
        if not (0 <= self.mean_s < float("inf") and 0 <= self.std_s < float("inf")):
            raise ValueError(f"an estimate is two finite times, got {self.mean_s} and {self.std_s}")
