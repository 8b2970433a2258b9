"""The end of a tune: what looks best is timed once more in turns with the original and all references, judged
on examples that nothing saw before, and the front of that is written.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from hw_profiles.measure.measurement import MeasurePlan
from nas.evaluation.micro import TOO_LARGE
from nas.run.reporting import Reporter, progress_bar
from nas.search.loop import choose_finalists
from nas.search.objectives import of_metric
from nas.search.pareto import non_dominated
from nas.search.units import show
from nas.tune.evaluation.context import TuneContext
from nas.tune.evaluation.quality import Comparison, PolicyQuality
from nas.tune.policies.costs import LATENCY, SIZE, TunedCosts
from nas.tune.policies.space import all_int8, policy_of
from nas.tune.result.references import ReferenceFile
from nas.tune.search.limits import Limits
from nas.tune.search.rounds import SearchOutcome
from nas.tune.timing.batches import SETTLED_S
from nas.tune.timing.turns import TimedFile, time_in_turns
from supernet.space.space import Genomes, unique_rows
from supernet.tasks.metric import Metric, main_metric

Floats = NDArray[np.float64]
TIME_AND_SIZE = TunedCosts()
FINALISTS = 16  # files that are timed together with the references
REPEATS = 0.01  # that two measurements of one file's time may differ by; of a size that nobody minds
TURNS_S, FEWEST_ROUNDS = 180.0, 8  # that all turns take, unless that would be fewer than so many
OPEN_BYTES = 4 * 2**30  # of weights of all files that are open together


@dataclass(frozen=True, eq=False)
class Judged:
    """A file after all was measured.

    Attributes:
        name: id of a policy, or name of a reference.
        latency: timed with all others; without a time and an error where nothing is.
        choosing, judging: what it is like on both parts.
        size_bytes: of the file.
    """

    name: str
    latency: TimedFile
    choosing: PolicyQuality
    judging: PolicyQuality
    size_bytes: float

    @property
    def runs(self) -> bool:
        """Whether there are all numbers."""
        fits = all(value < TOO_LARGE for value in self.memory.values())
        return not self.latency.error and fits and bool(self.judging.metrics and self.choosing.metrics)

    @property
    def memory(self) -> Mapping[str, float]:
        """Bytes that it needs on a microcontroller, by name; empty where nobody asks."""
        return self.judging.memory

    def values(self, part: PolicyQuality) -> dict[str, float]:
        """Return costs, and metrics on a part, by name."""
        time = self.latency.latency
        timed = {} if time is None else {LATENCY: time.median_s}
        return {**timed, SIZE: self.size_bytes, **self.memory, **part.metrics}


@dataclass(frozen=True, eq=False)
class Verdict:
    """What was measured in the end.

    Attributes:
        genomes: (n, g) policies that were judged.
        policies: of each.
        references: what they are compared with, the original first.
    """

    genomes: Genomes
    policies: tuple[Judged, ...]
    references: tuple[Judged, ...]


def pick_for_judging(context: TuneContext, outcome: SearchOutcome, limits: Limits) -> Genomes:
    """Return policies (n, g) for the last measurement: fp32, int8, and well-spread ones of the front within
    limits, or nearest to them where none is within. What is slower and worse than fp32 or int8 will not be on
    the front, however small it is (`front_of`), unless these are too large.
    """
    known, costs = outcome.known, context.costs
    values = _values(outcome)
    excess = np.array([limits.excess(row) for row in values])
    main = of_metric(main_metric(context.fidelity))
    quality = main.to_min(np.array([row.get(main.name, np.nan) for row in values]))
    points = np.column_stack([quality, *map(known.cost, costs.sought)])
    whole = np.isfinite(points).all(axis=1)
    slack = excess <= np.min(np.append(excess[whole], np.inf)) + 0.05  # what is nearly within may be
    ends = np.stack([np.zeros(len(context.space.choices), np.int16), all_int8(context.space)])
    small = np.array([limits.holds_on_size(costs, row) for row in values])
    compared = (known.genomes[:, None] == ends).all(axis=2).any(axis=1) & small
    columns = costs.columns(costs.decisive)
    beaten = slower_and_worse(points, points[compared & whole], columns, margin=REPEATS)
    points[~(whole & slack) | beaten] = np.nan
    front = np.flatnonzero(non_dominated(points))
    most = int(min(FINALISTS, max(2, OPEN_BYTES / (2 * len(context.tuning.original)) - 6)))
    chosen = front[choose_finalists(_comparable(points[front]), most)]
    rows = np.concatenate([ends, known.genomes[chosen]])
    return rows[unique_rows(rows)]


def _values(outcome: SearchOutcome) -> list[dict[str, float]]:
    pairs = zip(outcome.known.qualities, outcome.known.seconds.tolist(), strict=True)
    return [{**quality.metrics, LATENCY: seconds, **quality.costs} for quality, seconds in pairs]


def slower_and_worse(
    points: Floats, others: Floats, columns: Sequence[int] = (1,), *, margin: float = 0.0
) -> NDArray[np.bool_]:
    """Return (n,) whether points (n, m), of quality and costs, have worse answers than any other (k, m) and
    take more of what is decisive, by more than a share of it: longer, where that is time.

    Args:
        columns: of the decisive costs.
    """
    worse = points[:, None, 0] > others[None, :, 0]
    slower = (points[:, None, columns] > others[None, :, columns] * (1 + margin)).all(axis=2)
    return np.asarray((worse & slower).any(axis=1))


def _comparable(points: Floats) -> Floats:
    """Return ranks: metrics of very different sizes are spread evenly."""
    return np.argsort(np.argsort(points, axis=0, kind="stable"), axis=0, kind="stable").astype(np.float64)


@dataclass(frozen=True, eq=False)
class _File:
    """A file to judge: its name, its bytes, whether its answers depend on what it is run with, and what is
    known of it on the examples that policies are compared on.
    """

    name: str
    content: bytes
    alone: bool
    choosing: PolicyQuality | None = None


def judge(
    context: TuneContext, genomes: Genomes, references: Sequence[ReferenceFile], reporter: Reporter
) -> Verdict:
    """Time policies and references in the same turns, and judge them on examples that nothing saw before.

    Where the policy that is fp32 throughout is the original itself, it is measured once.
    """
    policies = [_policy_file(context, genome) for genome in genomes]
    compared = [_File(file.name, file.model, True) for file in references if file.model]
    own = (not context.files.is_original(genome) for genome in genomes)
    files = [*compared, *(file for file, other in zip(policies, own, strict=True) if other)]
    times = _times(context, files, reporter) if context.costs.timed else [TimedFile()] * len(files)
    judging = context.compared_on(context.tuning.parts.judging)
    judged: dict[str, Judged] = {}
    with progress_bar(reporter, "judge", len(files)) as update:
        for file, time in zip(files, times, strict=True):
            judged[file.name] = _judged(context, file, time, judging)
            update(len(judged), "")
    original = judged[compared[0].name]
    return Verdict(
        genomes,
        tuple(judged.get(file.name) or replace(original, name=file.name) for file in policies),
        tuple(judged[file.name] for file in compared),
    )


def _times(context: TuneContext, files: Sequence[_File], reporter: Reporter) -> list[TimedFile]:
    plan = replace(context.tuning.plan, waiting_s=context.tuning.plan.waiting_s / 2)
    plan = turns_of(plan, context.clock.measured().original_s, len(files))
    with reporter.status("time the front and its references in turns"):
        contents = [file.content for file in files]
        return time_in_turns(context.files.device, contents, context.files.example, plan)


def turns_of(plan: MeasurePlan, run_s: float, files: int) -> MeasurePlan:
    """Return how files are timed in turns, where one of them takes so long: what takes longer than reading
    its weights needs no run to warm up, and what takes very long needs fewer turns.
    """
    warmup_runs = 0 if run_s >= SETTLED_S else plan.warmup_runs
    rounds = max(FEWEST_ROUNDS, int(TURNS_S / (files * run_s * (1 + warmup_runs))))
    return replace(plan, warmup_runs=warmup_runs, rounds=min(plan.rounds, rounds))


def _policy_file(context: TuneContext, genome: Genomes) -> _File:
    policy = policy_of(context.space, genome)
    alone = any("dynamic" in name for name in policy.values())
    content, known = context.files.content(genome), context.choosing.known(genome)
    return _File(context.space.candidate(genome).id, content, alone, known)


def _judged(context: TuneContext, file: _File, time: TimedFile, judging: Comparison) -> Judged:
    choosing = context.choosing.comparison
    return Judged(
        file.name,
        time,
        file.choosing or choosing.of_file(file.content, alone=file.alone),
        judging.of_file(file.content, alone=file.alone),
        float(len(file.content)),
    )


def front_of(
    verdict: Verdict, metric: Metric, limits: Limits, costs: TunedCosts = TIME_AND_SIZE
) -> list[int]:
    """Return the positions of the policies on the front, those that take least of the first cost first.

    They are within the limits, and none is worse than another in quality and all costs, such as time and
    size. None is slower and worse than any reference either, and none has worse answers than all of them,
    unless those miss a limit on size: what is left of a model in 2 bits throughout may be small, and says
    nothing any more.

    Raises:
        TrilobitError: nothing meets the limits; says what is nearest.
    """
    runs = [i for i, judged in enumerate(verdict.policies) if judged.runs]
    values = [verdict.policies[i].values(verdict.policies[i].judging) for i in runs]
    excess = np.array([limits.excess(row) for row in values])
    if not len(excess) or excess.min() > 0:
        raise TrilobitError(_unreachable(values, excess, limits))
    points = np.array([_point(row, metric, costs) for row in values])
    points[excess > 0] = np.nan
    others = _references(verdict, metric, limits, costs)
    if len(others):
        beaten = slower_and_worse(points, others, costs.columns(costs.decisive))
        points[beaten | (points[:, 0] > others[:, 0].max())] = np.nan
    front = np.flatnonzero(non_dominated(points))
    if not len(front):
        raise TrilobitError(_unreachable(values, excess, limits))
    front = front[_worth_it(points[front])]
    ordered = front[np.argsort(points[front, 1], kind="stable")]
    return [runs[i] for i in ordered]


def _references(verdict: Verdict, metric: Metric, limits: Limits, costs: TunedCosts) -> Floats:
    """Return (n, m) quality and costs of the references that run and keep a limit on size."""
    values = [reference.values(reference.judging) for reference in verdict.references if reference.runs]
    small = [_point(row, metric, costs) for row in values if limits.holds_on_size(costs, row)]
    return np.array(small).reshape(-1, 1 + len(costs.sought))


def _worth_it(points: Floats) -> NDArray[np.bool_]:
    """Return (n,) whether a file of the front (n, m) has more for its worse answers than what measurements of
    one file differ by: no better file costs nearly as little.
    """
    better = points[:, None, 0] > points[None, :, 0]  # the second has the better answers
    as_cheap = (points[None, :, 1:] <= points[:, None, 1:] * (1 + REPEATS)).all(axis=2)
    return np.asarray(~(better & as_cheap).any(axis=1))


def _point(values: Mapping[str, float], metric: Metric, costs: TunedCosts) -> tuple[float, ...]:
    quality = float(of_metric(metric).to_min(np.array([values[metric.name]]))[0])
    return quality, *(values[name] for name in costs.sought)


def _unreachable(values: Sequence[Mapping[str, float]], excess: Floats, limits: Limits) -> str:
    if not len(values):
        return "no file of this model runs on the device; see the reasons in the report"
    nearest = values[int(excess.argmin())]
    parts = [
        f"{o.name} {show(o, nearest[o.name])} (limit {show(o, o.bound or 0.0)})" for o in limits.objectives
    ]
    return f"no file meets all limits; the nearest one has {', '.join(parts)}: loosen a limit"
