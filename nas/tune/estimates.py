"""What a tune will take, from running a little of it."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hw_profiles.measure.measurement import MeasurePlan
from hw_profiles.runtimes.runtime import Artifact
from nas.run.progress import duration
from nas.run.reporting import Reporter
from nas.run.tune_config import TuneSection
from nas.search.units import UNITS
from nas.tune.policies.first_policies import evaluations_for
from nas.tune.result.judge import FINALISTS, turns_of
from nas.tune.setup.libraries import first_library, library_s
from nas.tune.setup.times import BUDGET_S, BUDGET_SHARE, RUNS
from nas.tune.setup.tuning import Tuning
from nas.tune.timing.batches import Effort, plan_effort
from nas.tune.timing.latency import POLICIES, PROFILE_RUNS, PROFILE_S, PROFILED
from supernet.data.split_samples import CALIBRATION
from supernet.space.space import SearchSpace

SLOW_S = 600.0  # a tune that nobody gave a budget takes fewer policies rather than longer, down to `LEAST`
LEAST = 0.45
EMIT_S, EMIT_S_PER_BYTE = 0.05, 4e-9  # to write the file of a policy
FIRST_RUNS = 6  # of a file that is timed with the references, before the first turn
REFERENCES = 5  # files that the front is compared with
SEARCH_S = 4.0  # of one round of predicting
EXPORT_S = 3.0  # of a few small files, each asked once more in a process of its own
RECIPES_S = 10.0  # that the runtime's own recipes take, besides running the model
RECIPE_RUNS = 6  # times that each of them runs an example of the calibration part, as outputs are kept
FEWEST = 24  # evaluations below which nothing can be learned
SHARES = (1.0, 0.8, 0.6, LEAST, 0.3)  # of the usual policies, where time is short


@dataclass(frozen=True)
class Examples:
    """How many examples of a part a file is run on, by how long one takes.

    Attributes:
        usual_s, usual, most: so many seconds, but at least and at most so many.
        longest_s, least: more than so many seconds only for so many.
    """

    usual_s: float
    usual: int
    most: int
    longest_s: float
    least: int

    def count(self, run_s: float) -> int:
        """Return how many."""
        usual = min(max(self.usual_s / run_s, self.usual), self.most)
        return int(max(min(usual, self.longest_s / run_s), self.least))


CHOOSING = Examples(0.6, 48, 256, longest_s=2.0, least=16)
JUDGING = Examples(2.0, 128, 4096, longest_s=10.0, least=48)


@dataclass(frozen=True)
class Work:
    """How much of each step a tune does.

    Attributes:
        calibration, choosing, judging: examples of each part.
        slots: formats beside fp32 that units can take, of all units.
        evaluations: policies whose quality is evaluated before the search.
        rounds: of searching, measuring and learning.
        finalists: policies measured per round.
    """

    calibration: int
    choosing: int
    judging: int
    slots: int
    evaluations: int
    rounds: int
    finalists: int


@dataclass(frozen=True)
class Costs:
    """What one step takes.

    Attributes:
        run_s: one inference of the original.
        open_s: opening its file.
        emit_s: writing the file of a policy.
        timed: whether files are timed.
    """

    run_s: float
    open_s: float
    emit_s: float
    timed: bool = True

    @staticmethod
    def of(run_s: float, open_s: float, size_bytes: int, emit_s: float | None = None) -> "Costs":
        """Return what steps take with a file that was run and opened once.

        Args:
            emit_s: to write one, where that is no ONNX file.
        """
        return Costs(run_s, open_s, EMIT_S + EMIT_S_PER_BYTE * size_bytes if emit_s is None else emit_s)

    @property
    def file_s(self) -> float:
        """Writing and opening the file of a policy."""
        return self.emit_s + self.open_s

    def timing(self, budget_s: float) -> Effort:
        """Return how policies are timed, in a tune of so many seconds."""
        least, most = BUDGET_S
        timing_s = min(min(max(RUNS * self.run_s, least), most), BUDGET_SHARE * budget_s)
        return plan_effort(self.run_s, self.file_s, timing_s, POLICIES)

    def stages(self, work: Work, budget_s: float = math.inf) -> dict[str, float]:
        """Return the seconds of each stage, in a tune of at most so many."""
        policies = work.rounds * work.finalists
        evaluate = self.file_s + work.choosing * self.run_s
        timing = self.timing(budget_s)
        timed = timing.estimated_s / timing.policies * self.timed
        kernels = PROFILED * (2 * self.file_s + max(PROFILE_S, PROFILE_RUNS[0] * self.run_s))
        judged = min(FINALISTS, policies // 2) + REFERENCES
        turns = turns_of(MeasurePlan(), self.run_s, judged)
        runs = FIRST_RUNS + turns.rounds * (1 + turns.warmup_runs)
        turn = (self.emit_s + 2 * self.open_s + runs * self.run_s) * self.timed
        return {
            "import": 0.0,
            "calibrate": 8 * work.calibration * self.run_s + 0.05 * work.slots,
            "profile": (timing.estimated_s + kernels) * self.timed,
            "sample": work.evaluations * evaluate,
            "search": policies * (evaluate + timed)
            + work.rounds * SEARCH_S
            + judged * (work.judging * self.run_s + turn)
            + REFERENCES * work.choosing * self.run_s
            + RECIPES_S
            + 2 * RECIPE_RUNS * work.calibration * self.run_s,
            "export": EXPORT_S,
            "report": 1.0,
        }


def work_of(tuning: Tuning, section: TuneSection, evaluations: int) -> Work:
    """Return how much a tune does with these settings."""
    parts = tuning.parts
    return Work(
        calibration=len(parts.calibration),
        choosing=len(parts.choosing),
        judging=len(parts.judging),
        slots=sum(map(len, tuning.formats.values())),
        evaluations=evaluations,
        rounds=section.rounds,
        finalists=section.finalists,
    )


def typical_work(space: SearchSpace, costs: Costs) -> Work:
    """Return how much a tune does where nothing is said and there are examples enough."""
    section = TuneSection()
    whole = Work(
        calibration=CALIBRATION,
        choosing=CHOOSING.count(costs.run_s),
        judging=JUDGING.count(costs.run_s),
        slots=int((space.cardinalities - 1).sum()),
        evaluations=evaluations_for(space),
        rounds=section.rounds,
        finalists=section.finalists,
    )
    return affordable(whole, costs, math.inf)


def affordable(work: Work, costs: Costs, budget_s: float) -> Work:
    """Return as much of the work as a budget allows, or, where there is none, as a slow model is worth."""
    unlimited = math.isinf(budget_s)
    for share in SHARES:
        count = max(FEWEST, round(share * work.evaluations))
        finalists = min(work.finalists, max(4, round(share * work.finalists)))
        smaller = replace(work, evaluations=count, finalists=finalists)
        taken_s = sum(costs.stages(smaller, budget_s).values())
        if taken_s <= (SLOW_S if unlimited else budget_s) or (unlimited and share <= LEAST):
            return smaller
    return smaller


def measure_costs(tuning: Tuning) -> Costs:
    """Return what one step takes on the device as busy as it is now."""
    content = tuning.original if tuning.times_original else first_library(tuning.runtime, tuning.model)
    start = time.perf_counter()
    executable = tuning.runtime.compile(Artifact(content))
    open_s = time.perf_counter() - start
    feed = tuning.samples.feed(0)
    executable.run(feed)
    runs = []
    for _ in range(3):
        start = time.perf_counter()
        executable.run(feed)
        runs.append(time.perf_counter() - start)
    size = len(tuning.original)
    costs = Costs.of(min(runs), open_s, size, library_s(tuning.runtime, size))
    return replace(costs, timed=tuning.costs.timed)


def sized(tuning: Tuning, costs: Costs) -> TuneSection:
    """Return the settings with what was left open decided: how many examples can be run often enough, and how
    many policies the budget allows.
    """
    section = tuning.config.tune
    choosing = section.choosing or CHOOSING.count(costs.run_s)
    judging = section.judging or JUDGING.count(costs.run_s)
    section = replace(section, choosing=choosing, judging=judging)
    if section.evaluations is not None:
        return section
    resolved = tuning.with_config(replace(tuning.config, tune=section))
    whole = work_of(resolved, section, evaluations_for(tuning.space))
    work = affordable(whole, costs, section.budget_s)
    return replace(section, evaluations=work.evaluations, finalists=work.finalists)


def spared(work: Work, costs: Costs, usual: int) -> str:
    """Return, where a slow model made a tune take fewer policies than usual, a line that says so."""
    if work.evaluations >= usual:
        return ""
    once = UNITS["s"].text(costs.run_s)
    return (
        f"{work.evaluations} policies are evaluated, not the usual {usual}, since an inference takes {once}: "
        "--budget 30m takes more, and finds more"
    )


def tell(seconds: Mapping[str, float], stages: Sequence[str], budget_s: float, reporter: Reporter) -> None:
    """Say what the tune takes."""
    whole_s = sum(seconds.get(stage, 0.0) for stage in stages)
    parts = ", ".join(f"{stage} {duration(seconds[stage])}" for stage in stages if seconds.get(stage, 0) >= 1)
    reporter.say(f"about {duration(whole_s)}: {parts}")
    reporter.say("  not counted: waiting for quiet while files are timed (measure.waiting_s), and other jobs")
    if whole_s > budget_s:
        reporter.say(
            f"  more than the budget of {duration(budget_s)}, but with fewer steps nothing would be found"
        )
