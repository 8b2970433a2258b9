"""What a run will search and what that will take, said before the work starts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.measure.host import load_average
from hw_profiles.profiles.profile_json import load_profile
from hw_profiles.runtimes.runtime import Job
from nas.evaluation.micro import ARENA, FLASH, require_micro
from nas.export.build import require_exportable
from nas.problem.costs import compile_costs
from nas.problem.reachable import check_reachable
from nas.problem.scenarios import TOKENS_PER_S, scenario_latency, tokens_per_s
from nas.problem.targets import largest_costs, limit_lines, resolve_targets
from nas.run.progress import duration
from nas.run.reporting import Reporter, Table
from nas.run.run import Run
from nas.run.storage import open_storage
from nas.search.objectives import Values, objective
from nas.search.searcher import check_engine
from nas.search.units import show
from nas.stages.estimates import Estimate, estimate
from nas.stages.fit import prior_source
from nas.stages.profile import random_emitter
from nas.stages.start import check_start
from predictors.predictor import load_predictor
from supernet.tasks.task import called

# Before profiling, only limits below this share of the cheapest corner are refused: mixtures may be cheaper.
CERTAIN = 0.5
WAITING_S = 5.0  # for quiet, of the extremes
LEFT_OUT = "predicting units that are not measured, what other work on this machine slows down, the report"


@dataclass(frozen=True)
class Preflight:
    """What is known before the work.

    Attributes:
        costs: corner name -> objective name -> value; latency and its `IQR` measured now, size and
            multiply-adds exact.
        time: what is left to do will take.
        load: of the machine when the latencies were measured.
    """

    costs: Mapping[str, Mapping[str, float]]
    time: Estimate
    load: float | None = None

    @property
    def busy(self) -> str:
        """How busy the machine was, for people."""
        return "" if self.load is None else f", load {self.load:.1f}"


def preflight(run: Run, reporter: Reporter) -> Preflight:
    """Measure the extremes of the space, check the limits as far as that can be done, estimate the time, and
    print all of it.

    Raises:
        ModuleNotFoundError: what counts for microcontrollers is not installed.
        TrilobitError: a limit that nothing can meet, a searcher or predictor that does not exist, or a
            storage that cannot be used.
    """
    check_start(run)
    require_exportable(run)
    require_micro(run)
    require_times(run)
    if run.shared:
        open_storage(run.storage_url)
    load_predictor(run.config.fit.predictor)
    if run.config.fit.prior:
        prior_source(run)
    check_engine(run.config.search.searcher)
    extremes = _extreme_costs(run)
    _check_limits(run, extremes)
    outcome = Preflight(extremes, estimate(run), None if run.recorded else load_average())
    _print(run, outcome, reporter)
    return outcome


def require_times(run: Run) -> None:
    """Refuse a run that weighs times that its device does not have.

    Raises:
        TrilobitError: it does; says what it can weigh.
    """
    sought = [name for name in run.config.search.objectives if objective(name).origin == "device"]
    limited = [name for name in run.config.constraints if objective(name).origin == "device"]
    if run.timeless and (names := [*sought, *limited]):
        raise TrilobitError(
            f"{run.config.device.name} has no {names[0]}: leave it out (--objective accuracy,arena,flash), "
            f"or give times of a board, --device {run.config.device.name}:FILE: a published table, a "
            "profile, or a .csv of layer,ms lines (`nas profile` writes one to fill in)"
        )


def _extreme_costs(run: Run) -> dict[str, dict[str, float]]:
    family = run.family
    extremes = family.extremes()
    static = compile_costs(family, None).predict(np.array([c.genes for c in extremes.values()], np.int16))
    if run.timeless:
        return {str(name): _counts(static, i) for i, name in enumerate(extremes)}
    emit = random_emitter(run)
    scenarios = tuple(family.scenarios) or ("",)
    works = [family.scenario_workload(c, name) for c in extremes.values() for name in scenarios]
    plan = replace(run.plan, waiting_s=min(WAITING_S, run.plan.waiting_s))
    measured = run.device.measure([Job(work, partial(emit, work)) for work in works], plan)
    rows = [measured[i : i + len(scenarios)] for i in range(0, len(measured), len(scenarios))]
    return {
        str(name): {
            "latency": times[0].median_s,
            "IQR": 0.0 if times[0].error else times[0].iqr_s,
            **_in_scenarios(run, [m.median_s for m in times]),
            **_counts(static, i),
        }
        for i, (name, times) in enumerate(zip(extremes, rows, strict=True))
    }


def _counts(static: Mapping[str, Values], i: int) -> dict[str, float]:
    """Return what is counted of one network."""
    return {cost: float(values[i]) for cost, values in static.items() if objective(cost).origin == "count"}


def _in_scenarios(run: Run, seconds: Sequence[float]) -> dict[str, float]:
    """Return the latency in each scenario of decoders, and what follows from it; nothing of others."""
    names = map(scenario_latency, run.family.scenarios)
    values = {name: np.array([value]) for name, value in zip(names, seconds, strict=False)}
    values |= tokens_per_s(values, run.config.device.batch)
    return {name: float(value[0]) for name, value in values.items()}


def _check_limits(run: Run, extremes: Mapping[str, Mapping[str, float]]) -> None:
    targets = resolve_targets(run.config, extremes["largest/fp32"], run.task.metrics)
    for limited in targets.bounded:
        if limited.name not in extremes["largest/fp32"] or limited.bound is None:
            continue
        reached = [values[limited.name] for values in extremes.values()]
        most = limited.direction == "max"
        least = max(reached) if most else min(reached)
        if (least < CERTAIN * limited.bound) if most else (limited.bound < CERTAIN * least):
            raise TrilobitError(
                f"{limited.name} {limited.sign} {show(limited, limited.bound)} cannot be met on this device; "
                f"the nearest reachable value is about {show(limited, least)}"
            )
    counted = tuple(o for o in targets.bounded if o.origin == "count")
    static = replace(targets, limited=(), objectives=counted)
    check_reachable(run.family, compile_costs(run.family, None), static, seed=run.config.seed)


def _print(run: Run, outcome: Preflight, reporter: Reporter) -> None:
    space = run.family.space()
    data = run.task
    parts = ", ".join(f"{len(getattr(data, part)):,} {part}" for part in ("train", "validation", "test"))
    reporter.say(
        f"{run.config.space.name}: {space.size:.3g} networks; data {data.name}: {parts} {called(data)}"
    )
    title = f"the ends of the space on {run.device.describe().name}{outcome.busy}"
    rows = []
    scenarios = (*map(scenario_latency, run.family.scenarios), *([TOKENS_PER_S] * bool(run.family.scenarios)))
    timed = () if run.timeless else (*(scenarios or ("latency",)), "IQR")
    counted = tuple(name for name in (ARENA, FLASH) if run.timeless or name in run.config.search.objectives)
    for name in (*timed, *counted, "size", "macs"):
        shown = objective("latency" if name == "IQR" else name)
        rows.append((name, *(show(shown, values[name]) for values in outcome.costs.values())))
    reporter.show(Table(("", *outcome.costs), rows, title, numbers=len(outcome.costs)))
    for line in _limit_lines(run, outcome):
        reporter.say(line)
    reporter.say(_time(outcome.time))
    if outcome.time.seconds["sample"] and None in (run.config.sample.fp32, run.config.sample.quantized):
        reporter.say("at most: sampling stops where more networks would hardly teach the predictor more")


def _limit_lines(run: Run, outcome: Preflight) -> list[str]:
    """Return what limits the search: as it will apply them, where the profile is complete; else about so."""
    if run.is_done("profile"):
        largest = largest_costs(run.family, compile_costs(run.family, load_profile(run.profile_path)))
        return limit_lines(run.config, resolve_targets(run.config, largest, run.task.metrics), largest)
    targets = resolve_targets(run.config, outcome.costs["largest/fp32"], run.task.metrics)
    shares = {name: limit.value for name, limit in run.config.limits().items() if limit.relative}
    lines = []
    for limited in targets.bounded:
        bound = show(limited, limited.bound or 0.0)
        if limited.name in shares and limited.origin == "device":
            bound = (
                f"about {bound}: {shares[limited.name]:.3g} x what the profile will predict for the largest"
            )
        lines.append(f"limit: {limited.name} {limited.sign} {bound}")
    return lines


def _time(times: Estimate) -> str:
    """Return the estimate in one line, and what it leaves out."""
    parts = [f"{stage} {duration(seconds)}" for stage, seconds in times.seconds.items() if seconds >= 0.5]
    if times.waiting_s:
        parts.append(f"waiting for a quiet machine, at most {duration(times.waiting_s)}")
    if not parts:
        return "estimated time: everything is there"
    return f"estimated time: {duration(times.total_s)} ({', '.join(parts)}); not counted: {LEFT_OUT}"
