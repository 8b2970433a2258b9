"""Times of policies that a tune measured, and what it learned from them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from hw_profiles.documents import write_document
from hw_profiles.errors import TrilobitError
from hw_profiles.streams import Stream, open_stream
from nas.run.documents import read_optional
from nas.tune.setup.files import PolicyFiles
from nas.tune.timing.batches import Effort
from nas.tune.timing.latency import LatencyAccuracy, PolicyTimer, judge, learn, learn_latency
from nas.tune.timing.policy_times import PolicyTimes
from predictors.latency.policies import PolicyLatency
from supernet.space.space import Genomes

Floats = NDArray[np.float64]
BUDGET_S = 10.0, 90.0  # of learning the times of policies, at least and at most
RUNS = 8_000  # of the original that this takes
BUDGET_SHARE = 0.2  # of the time for the whole tune
USUAL_ERROR = 0.03  # of predicted times where too few policies were timed to know

Progress = Callable[[str, float], None]


@dataclass(frozen=True, eq=False)
class PolicyClock:
    """Times policies of a tune, and keeps what it measured.

    Attributes:
        files: of the policies.
    """

    files: PolicyFiles

    def read(self) -> PolicyTimes | None:
        """Return what was measured; None where nothing was that still counts."""
        times = read_optional(self.files.tuning.latency_path, PolicyTimes)
        return times if times is not None and times.fingerprint == self._fingerprint else None

    @property
    def _fingerprint(self) -> str:
        return self.files.tuning.fingerprint("profile")

    def timer(self, on_progress: Progress = lambda what, share: None) -> PolicyTimer:
        """Return what measures policies."""
        tuning = self.files.tuning
        return PolicyTimer(
            self.files.device,
            self.files.terms,
            self.files.artifact,
            tuning.plan,
            save=partial(write_document, tuning.latency_path),
            on_progress=on_progress,
        )

    def budget_s(self, run_s: float) -> float:
        """Return the time for learning, by that of one inference."""
        least, most = BUDGET_S
        usual_s = float(np.clip(RUNS * run_s, least, most))
        return min(usual_s, BUDGET_SHARE * self.files.tuning.config.tune.budget_s)

    def learn(self, run_s: float, on_progress: Progress, on_effort: Callable[[Effort], None]) -> None:
        """Time random policies; those that were are not timed again."""
        timer, rng = self.timer(on_progress), self._rng()
        anchors = timer.anchors(rng=rng)
        empty = PolicyTimes(self._fingerprint, tuple(map(tuple, anchors.tolist())))
        learn_latency(
            timer,
            budget_s=self.budget_s(run_s),
            rng=self._rng(),
            times=self.read() or empty,
            on_effort=on_effort,
        )

    def measured(self) -> PolicyTimes:
        """Return what was measured.

        Raises:
            TrilobitError: nothing was.
        """
        times = self.read()
        if times is None or not times.batches:
            raise TrilobitError(f"{self.files.tuning.latency_path}: missing; {PolicyTimes.REMEDY}")
        return times

    def time(self, genomes: Genomes, on_progress: Progress) -> PolicyTimes:
        """Time those of policies (n, g) that were not timed yet; return all that ever were."""
        times, timer = self.measured(), self.timer(on_progress)
        if not len(times.missing(genomes)):
            return times
        effort = timer.effort(np.array(times.anchors, np.int16), self.budget_s(times.original_s))
        return timer.measure(times, genomes, effort)

    def model(self, times: PolicyTimes) -> PolicyLatency:
        """Return the time of all policies, learned from some."""
        return learn(times, self.files.terms)

    def accuracy(self, times: PolicyTimes) -> LatencyAccuracy | None:
        """Return how good such predictions are, on policies that were left out."""
        return judge(times, self.files.terms, rng=self._rng())

    def _rng(self) -> np.random.Generator:
        return open_stream(self.files.tuning.config.seed, Stream.TUNE_TIMED)


def seconds_of(times: PolicyTimes, genomes: Genomes) -> Floats:
    """Return (n,) seconds of policies (n, g) at the machine's usual speed; infinite where a file failed, NaN
    where it was not timed.
    """
    rows, seconds = times.rows()
    by_genes = {tuple(row): s for row, s in zip(rows.tolist(), seconds.tolist(), strict=True)}
    failed = {policy.genes: np.inf for policy in times.policies if policy.seconds is None}
    known = {**failed, **by_genes}
    return np.array([known.get(tuple(row), np.nan) for row in genomes.tolist()])
