"""Whole files timed beside each other: in passes, as many open at a time as the memory allows, with the same
anchor files in every batch, by which the batches are compared.

A file's time is the lower quartile of its windows: what disturbs a window only makes it longer. How fast the
machine was meanwhile is what the anchors say: other programs slow all files of a batch by a few percent.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hw_profiles.measure.host import load_average
from hw_profiles.measure.measurement import Measurement, MeasurePlan
from hw_profiles.runtimes.device import Transport
from hw_profiles.runtimes.runtime import Artifact, Runtime

Floats = NDArray[np.float64]
Emit = Callable[[], Artifact]  # writes a file when it is its turn

WINDOW_S = 1.5e-3  # of files that take less: some runs, so that reading the clock does not count
SETTLED_S = 4e-3  # what takes longer brings all that it reads into the caches by itself
MOST_OPEN, OPEN_BYTES = 48, 2**31  # files of a batch, and what they may take in memory
SESSION_BYTES, COPIES = 4_000_000, 3  # of a session besides its file; of the file: its own, packed, as read
QUARTILE = 25  # percent
ROUNDS = (12, 48)  # windows of each file, at least and at most
ANCHORS_SHARE = 0.15  # of what the files of a batch take, for its anchors


@dataclass(frozen=True)
class TimedBatch:
    """Files that were timed in the same passes.

    Attributes:
        anchors_s: of each anchor.
        seconds: of each file; None where it failed.
        errors: why; empty where it did not.
        quiet_share: of all windows, in how many nothing else used the core.
        load: of the machine (runnable tasks, over a minute); None where unknown.
        wall_s: how long all of it took.
    """

    anchors_s: tuple[float, ...]
    seconds: tuple[float | None, ...]
    errors: tuple[str, ...]
    quiet_share: float
    load: float | None
    wall_s: float


@dataclass(frozen=True, eq=False)
class FileTimer:
    """What times files on a device.

    Attributes:
        runtime, transport: of the device.
        plan: how its profile was, or would be, measured: clock and core are taken from it.
        anchors: files of every batch, the original first.
    """

    runtime: Runtime
    transport: Transport
    plan: MeasurePlan
    anchors: tuple[Artifact, ...]

    def batches(
        self, files: Sequence[Emit], *, rounds: int, window_s: float = WINDOW_S, warmup_runs: int = 0
    ) -> Iterator[TimedBatch]:
        """Time files, as many at a time as may be open: one batch after the other, so that each can be kept;
        without files the anchors alone, in one batch.

        Args:
            rounds: windows of each file.
            window_s: of a window, at least one run.
            warmup_runs: untimed, before each window.
        """
        passes = replace(self.plan, rounds=rounds, sessions=1, waiting_s=0.0, energy_s=0.0)
        plan = replace(passes, window_s=window_s, warmup_runs=warmup_runs)
        pending, left = list(files), True
        while left:
            begun, artifacts = time.monotonic(), _openable(pending, self.anchors)
            del pending[: len(artifacts)]
            left = bool(pending)
            yield self._timed(artifacts, plan, begun)

    def _timed(self, artifacts: Sequence[Artifact], plan: MeasurePlan, begun: float) -> TimedBatch:
        together = [*self.anchors, *artifacts, *self.anchors]  # twice: all others are divided by their times
        measured = self.transport.sample(self.runtime, together, [None] * len(together), plan)
        count = len(self.anchors)
        first, others, second = measured[:count], measured[count:-count], measured[-count:]
        if failed := [m.error for m in (*first, *second) if m.error is not None]:
            raise RuntimeError(f"a file that ran before fails now: {failed[0]}")
        pairs = zip(map(_lower_quartile_s, first), map(_lower_quartile_s, second), strict=True)
        return TimedBatch(
            tuple((before + after) / 2 for before, after in pairs),
            tuple(None if m.error is not None else _lower_quartile_s(m) for m in others),
            tuple(m.error or "" for m in others),
            float(np.mean([m.quiet_share for m in measured if m.error is None])),
            load_average(),
            time.monotonic() - begun,
        )


def _lower_quartile_s(measurement: Measurement) -> float:
    """Return the time that a quarter of the windows stayed below."""
    return float(np.percentile(measurement.array, QUARTILE))


def _openable(pending: Sequence[Emit], anchors: Sequence[Artifact]) -> list[Artifact]:
    """Write the first files, as many as may be open beside the anchors; one at least."""
    artifacts: list[Artifact] = []
    size = 2 * sum(map(_session_bytes, anchors))
    for emit in pending[: MOST_OPEN - 2 * len(anchors)]:
        artifacts.append(emit())
        size += _session_bytes(artifacts[-1])
        if size >= OPEN_BYTES:
            break
    return artifacts


def _session_bytes(artifact: Artifact) -> int:
    return SESSION_BYTES + COPIES * len(artifact.content)


def batch_factors(anchors_s: Floats) -> Floats:
    """Return (b,) how much slower than usual each of b batches ran, from the times (b, a) of its anchors."""
    logs = np.log(anchors_s)
    return np.asarray(np.exp((logs - np.median(logs, axis=0)).mean(axis=1)))


@dataclass(frozen=True)
class Effort:
    """How much is measured, and how long that will take.

    Attributes:
        run_s: of one inference.
        policies: whole files.
        rounds: windows of each.
        window_s: of a window.
        warmup_runs: before each window.
        estimated_s: for all of it.
    """

    run_s: float
    policies: int
    rounds: int
    window_s: float
    warmup_runs: int
    estimated_s: float


def plan_effort(run_s: float, file_s: float, budget_s: float, policies: tuple[int, int]) -> Effort:
    """Return how many policies can be measured in a time, and how: of few windows rather than too few.

    Args:
        run_s: of one inference of the slowest anchor.
        file_s: to write and open a file.
        budget_s: for all of them.
        policies: at least and at most.
    """
    window_s = min(WINDOW_S, max(4 * run_s, MeasurePlan.window_s))
    warmup_runs = 0 if run_s >= SETTLED_S else 1 if run_s >= WINDOW_S else 2
    turn_s = max(window_s, run_s) + warmup_runs * run_s
    least, most = policies

    def cost_s(rounds: int) -> float:
        return (1 + ANCHORS_SHARE) * (file_s + 3 * run_s + rounds * turn_s)

    rounds = ROUNDS[0]
    while rounds < ROUNDS[1] and most * cost_s(rounds + 1) <= budget_s:
        rounds += 1
    count = max(least, min(most, math.floor(budget_s / cost_s(rounds))))
    return Effort(run_s, count, rounds, window_s, warmup_runs, count * cost_s(rounds))
