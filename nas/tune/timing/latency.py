"""What every policy of a model takes on a device: learned from the kernels of a few files where the runtime
tells those, and from whole files of random policies; judged on others.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from hw_profiles.measure.host import pinned
from hw_profiles.measure.measurement import MeasurePlan
from hw_profiles.runtimes.device import MeasuredDevice
from hw_profiles.runtimes.runtime import Artifact, KernelTimer
from nas.tune.policies.random_policies import random_policies
from nas.tune.timing.batches import Effort, FileTimer, plan_effort
from nas.tune.timing.kernel_attribution import attribute
from nas.tune.timing.policy_times import PolicyTimes, kernel_seconds
from predictors.assessment.conformal import coverage
from predictors.latency.policies import PolicyLatency
from predictors.latency.policy_priors import Prior, prior_of_kernels, prior_of_work
from predictors.latency.policy_terms import PolicyTerms
from supernet.space.space import Genomes

Floats = NDArray[np.float64]
ArtifactOf = Callable[[Genomes], Artifact]  # of a policy (g,)

POLICIES = 24, 120  # that are measured, at least and at most, where kernels' times are known before
WITHOUT_KERNELS = 2.0  # times as many where they are not
PROFILED = 12  # policies whose kernels are timed
PROFILE_S, PROFILE_RUNS = 0.15, (8, 40)  # of each
KERNEL_SHARE = 0.3  # of the budget that the kernels may take
TEST_SHARE, FEWEST_TESTED = 0.25, 6  # policies that judge a model which was not fitted to them
ANCHORS = 3  # files of every batch
SETTLING_RUNS = 3


@dataclass(frozen=True)
class LatencyAccuracy:
    """How good predicted times are, on measured policies that were not learned from.

    Attributes:
        policies: learned from.
        tested: predicted.
        mape: mean absolute error, as a share of the measured time.
        kendall_tau: of the order; None where all are equal.
        inside: share of measured times inside the nominal 90 % interval.
    """

    policies: int
    tested: int
    mape: float
    kendall_tau: float | None
    inside: float


@dataclass(frozen=True, eq=False)
class LearnedLatency:
    """Times of policies.

    Attributes:
        predictor: of all policies, fitted to all that were measured.
        times: what was measured.
        accuracy: of a predictor that was fitted to most of them, on the others; None where they are too few.
    """

    predictor: PolicyLatency
    times: PolicyTimes
    accuracy: LatencyAccuracy | None


@dataclass(frozen=True, eq=False)
class PolicyTimer:
    """What measures policies on a device, and keeps what it measured.

    Attributes:
        device: runs files.
        terms: of the policies.
        artifact_of: writes a policy's file.
        plan: clock and core.
        save: keeps what was measured so far.
        on_progress: told what is done, and which share of it.
    """

    device: MeasuredDevice
    terms: PolicyTerms
    artifact_of: ArtifactOf
    plan: MeasurePlan
    save: Callable[[PolicyTimes], None] = lambda times: None
    on_progress: Callable[[str, float], None] = lambda what, share: None

    def anchors(self, *, rng: np.random.Generator) -> Genomes:
        """Return the policies (a, g) that are in every batch: the original, all of the first other formats,
        and a mixed one.
        """
        space = self.terms.space
        original = np.zeros((1, len(space.choices)), np.int16)
        uniform = np.minimum(space.cardinalities - 1, 1).astype(np.int16)[None]
        mixed = random_policies(space, self.terms.model, ANCHORS, rng=rng)
        rows = np.concatenate([original, uniform, mixed])
        _, first = np.unique(rows, axis=0, return_index=True)
        return rows[np.sort(first)][:ANCHORS]

    def effort(self, anchors: Genomes, budget_s: float) -> Effort:
        """Return how many policies are measured in about `budget_s`, after a look at how long one takes."""
        begun = time.monotonic()
        artifact = self.artifact_of(anchors[-1])
        run = self.device.runtime.compile(artifact).timed("wall", **_example(artifact))
        file_s = time.monotonic() - begun
        run_s = min(run(1) for _ in range(SETTLING_RUNS))
        least, most = POLICIES
        if not isinstance(self.device.runtime, KernelTimer):
            most = round(WITHOUT_KERNELS * most)
        return plan_effort(run_s, file_s, budget_s, (least, most))

    def measure(
        self, times: PolicyTimes, genomes: Genomes, effort: Effort, *, again: bool = False
    ) -> PolicyTimes:
        """Time the policies (n, g) that were not timed yet, beside the anchors; kept after every batch. Where
        the anchors are all that there is, they are timed.

        Args:
            again: all of them, in sessions of their own.
        """
        pending, done = genomes if again else times.missing(genomes), 0
        if not len(pending) and times.batches:
            return times
        anchors = tuple(self.artifact_of(np.array(row, np.int16)) for row in times.anchors)
        timer = FileTimer(self.device.runtime, self.device.transport, self.plan, anchors)
        files = [lambda row=row: self.artifact_of(row) for row in pending]
        for batch in timer.batches(
            files, rounds=effort.rounds, window_s=effort.window_s, warmup_runs=effort.warmup_runs
        ):
            count = len(batch.seconds)
            times = times.with_batch(pending[done : done + count], batch)
            self.save(times)
            done += count
            self.on_progress("policies", done / max(1, len(pending)))
        return times

    def time_kernels(self, times: PolicyTimes, genomes: Genomes, run_s: float) -> PolicyTimes:
        """Time the kernels of some policies (n, g) inside their files, where the runtime can."""
        runtime = self.device.runtime
        if not isinstance(runtime, KernelTimer) or times.kernels:
            return times
        runs = int(np.clip(PROFILE_S / run_s, *PROFILE_RUNS))
        kernels = []
        with pinned(self.plan.core):
            for number, genome in enumerate(genomes):
                with contextlib.suppress(Exception):  # it costs a prior, not the run
                    timed = runtime.kernel_times(self.artifact_of(genome), runs)
                    kernels.append(kernel_seconds(genome, attribute(timed, self.terms, genome)))
                self.on_progress("kernels", (number + 1) / len(genomes))
        times = replace(times, kernels=tuple(each for each in kernels if sum(each.seconds)))
        self.save(times)
        return times


def _example(artifact: Artifact) -> dict[str, Any]:
    return {} if artifact.example is None else {"example": artifact.example}


def _prior_of(times: PolicyTimes, terms: PolicyTerms) -> Prior:
    """Return what is expected of the terms: after the kernels where they were timed."""
    total_s = times.original_s
    observed = [kernels.observed for kernels in times.kernels]
    return prior_of_kernels(terms, observed, total_s) if observed else prior_of_work(terms, total_s)


def learn(times: PolicyTimes, terms: PolicyTerms) -> PolicyLatency:
    """Return the times of all policies, fitted to all that were measured."""
    return PolicyLatency(terms, _prior_of(times, terms)).fit(*times.rows())


def judge(times: PolicyTimes, terms: PolicyTerms, *, rng: np.random.Generator) -> LatencyAccuracy | None:
    """Return how well policies are predicted that were not learned from; None where too few were measured.

    The anchors are learned from: their time is what others' is compared with.
    """
    genomes, seconds = times.rows()
    others = len(times.anchors) + rng.permutation(len(seconds) - len(times.anchors))
    tested = others[: round(TEST_SHARE * len(others))]
    if len(tested) < FEWEST_TESTED:
        return None
    learned = np.setdiff1d(np.arange(len(seconds)), tested)
    fitted = PolicyLatency(terms, _prior_of(times, terms)).fit(genomes[learned], seconds[learned])
    return accuracy_of(fitted, genomes[tested], seconds[tested], len(learned))


def accuracy_of(predictor: PolicyLatency, genomes: Genomes, seconds: Floats, learned: int) -> LatencyAccuracy:
    """Return how far predictions of policies (n, g) are from their measured times (n,)."""
    predicted = predictor.predict(genomes)
    errors = predicted.mean - seconds
    tau = float(kendalltau(predicted.mean, seconds).statistic)
    return LatencyAccuracy(
        learned,
        len(seconds),
        float(np.mean(np.abs(errors) / seconds)),
        tau if np.isfinite(tau) else None,
        coverage(errors, predicted.std),
    )


def learn_latency(
    timer: PolicyTimer,
    *,
    budget_s: float,
    rng: np.random.Generator,
    times: PolicyTimes | None = None,
    on_effort: Callable[[Effort], None] = lambda effort: None,
) -> LearnedLatency:
    """Measure random policies, and learn the time of all.

    Args:
        budget_s: for all of it, about.
        times: what an earlier call measured.
        on_effort: told how much will be measured, before it is.
    """
    space = timer.terms.space
    anchors = timer.anchors(rng=rng)
    times = times or PolicyTimes(space.fingerprint, tuple(map(tuple, anchors.tolist())))
    effort = timer.effort(anchors, budget_s)
    on_effort(effort)
    genomes = random_policies(space, timer.terms.model, effort.policies, rng=rng)
    times = timer.time_kernels(times, np.concatenate([anchors, genomes])[:PROFILED], effort.run_s)
    times = timer.measure(times, genomes, effort)
    return LearnedLatency(learn(times, timer.terms), times, judge(times, timer.terms, rng=rng))
