"""What a tune will take, from running a little of it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hw_profiles.runtimes.runtime import Artifact
from nas.run.progress import duration
from nas.run.reporting import Reporter
from nas.run.tune_config import TuneSection
from nas.tune.libraries import library_s
from nas.tune.policies import evaluations_for
from nas.tune.tuning import Tuning
from supernet.data.split_samples import CALIBRATION
from supernet.space.space import SearchSpace

CHOOSING_S, JUDGING_S = 0.6, 2.0  # of one file on all examples of a part
CHOOSING, JUDGING = (48, 256), (128, 4096)  # examples at least, and at most
EMIT_S, EMIT_S_PER_BYTE = 0.05, 4e-9  # to write the file of a policy
TIMED_PASSES = 3 * 18  # runs of a file that is timed, warm-up and first runs among them
SEARCH_S = 4.0  # of one round of predicting
RECIPES_S = 10.0  # that the runtime's own recipes take, besides running the model
RECIPE_RUNS = 6  # times that each of them runs an example of the calibration part, as outputs are kept
PROFILED = 40  # policies that are timed before the search, about
FEWEST = 24  # evaluations below which nothing can be learned


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
    """

    run_s: float
    open_s: float
    emit_s: float

    @staticmethod
    def of(run_s: float, open_s: float, size_bytes: int, emit_s: float | None = None) -> "Costs":
        """Return what steps take with a file that was run and opened once.

        Args:
            emit_s: to write one, where that is no ONNX file.
        """
        return Costs(run_s, open_s, EMIT_S + EMIT_S_PER_BYTE * size_bytes if emit_s is None else emit_s)

    def stages(self, work: Work) -> dict[str, float]:
        """Return the seconds of each stage."""
        policies = work.rounds * work.finalists
        evaluate = self.emit_s + self.open_s + work.choosing * self.run_s
        timed = self.emit_s + 2 * self.open_s + TIMED_PASSES * self.run_s
        return {
            "import": 0.0,
            "calibrate": 8 * work.calibration * self.run_s + 0.05 * work.slots,
            "profile": PROFILED * timed,
            "sample": work.evaluations * evaluate,
            "search": policies * (evaluate + timed) + work.rounds * SEARCH_S,
            "export": 20 * (work.judging * self.run_s + 2 * timed)
            + RECIPES_S
            + 2 * RECIPE_RUNS * work.calibration * self.run_s,
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
    return Work(
        calibration=CALIBRATION,
        choosing=_within(CHOOSING_S / costs.run_s, CHOOSING),
        judging=_within(JUDGING_S / costs.run_s, JUDGING),
        slots=int((space.cardinalities - 1).sum()),
        evaluations=evaluations_for(space),
        rounds=section.rounds,
        finalists=section.finalists,
    )


def measure_costs(tuning: Tuning) -> Costs:
    """Return what one step takes on this machine as busy as it is now."""
    start = time.perf_counter()
    executable = tuning.runtime.compile(Artifact(tuning.original))
    open_s = time.perf_counter() - start
    feed = tuning.samples.feed(0)
    executable.run(feed)
    runs = []
    for _ in range(3):
        start = time.perf_counter()
        executable.run(feed)
        runs.append(time.perf_counter() - start)
    size = len(tuning.original)
    return Costs.of(min(runs), open_s, size, library_s(tuning.runtime, size))


def sized(tuning: Tuning, costs: Costs) -> TuneSection:
    """Return the settings with what was left open decided: how many examples can be run often enough, and how
    many policies the budget allows.
    """
    section = tuning.config.tune
    choosing = section.choosing or _within(CHOOSING_S / costs.run_s, CHOOSING)
    judging = section.judging or _within(JUDGING_S / costs.run_s, JUDGING)
    section = replace(section, choosing=choosing, judging=judging)
    if section.evaluations is not None:
        return section
    most = evaluations_for(tuning.space)
    resolved = Tuning(tuning.folder, replace(tuning.config, tune=section))
    for share in (1.0, 0.8, 0.6, 0.45, 0.3):
        count = max(FEWEST, round(share * most))
        finalists = max(4, round(share * section.finalists))
        smaller = replace(section, evaluations=count, finalists=finalists)
        if sum(costs.stages(work_of(resolved, smaller, count)).values()) <= section.budget_s:
            return smaller
    return smaller


def _within(count: float, ends: tuple[int, int]) -> int:
    return int(min(max(count, ends[0]), ends[1]))


def tell(seconds: Mapping[str, float], stages: Sequence[str], budget_s: float, reporter: Reporter) -> None:
    """Say what the tune takes."""
    whole_s = sum(seconds.get(stage, 0.0) for stage in stages)
    parts = ", ".join(f"{stage} {duration(seconds[stage])}" for stage in stages if seconds.get(stage, 0) >= 1)
    reporter.say(f"about {duration(whole_s)}: {parts}")
    reporter.say("  not counted: waiting for quiet while files are timed (measure.waiting_s), and other jobs")
    if whole_s > budget_s:
        reporter.say(f"  more than the budget of {duration(budget_s)}: fewer steps than these find nothing")
