"""All stages in order, skipping what is there and unchanged."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import FP32
from nas.export.written import left_out, say_left_out
from nas.report import write_report
from nas.run.progress import duration
from nas.run.reporting import Reporter
from nas.run.run import STAGES, Run
from nas.search.searcher import MILP
from nas.stages.allocate import run_allocation
from nas.stages.estimates import Estimate
from nas.stages.export import run_export
from nas.stages.fit import judge_finalists, run_fit
from nas.stages.preflight import preflight
from nas.stages.profile import run_profile
from nas.stages.sample import run_sample
from nas.stages.search import run_search
from nas.stages.train import run_train
from supernet.train.parallel import current_world

Stage = Callable[[Run, Reporter], Any]


def _search(run: Run, reporter: Reporter) -> None:
    allocate = run.config.search.searcher == MILP
    (run_allocation if allocate else run_search)(run, reporter)
    if run.quality_path.exists() and run.is_done("sample"):
        judge_finalists(run)


_STAGES: Mapping[str, Stage] = {
    "profile": run_profile,
    "train": run_train,
    "sample": run_sample,
    "fit": run_fit,
    "search": _search,
    "export": run_export,
    "report": lambda run, reporter: write_report(run.folder),
}


def run_stage(run: Run, stage: str, reporter: Reporter) -> float:
    """Run one stage, unless it is done already; record its time and return its seconds."""
    if stage != "report" and run.is_done(stage):
        reporter.say(f"{stage}: already there")
        if stage == "export":
            say_left_out(left_out(run.export_path), reporter.say)
        return 0.0
    if stage not in ("profile", "report"):
        _require_fp32(run)
    start = time.monotonic()
    _STAGES[stage](run, reporter)
    seconds = time.monotonic() - start
    if current_world().writes:
        run.mark_done(stage, seconds)
    reporter.say(f"{stage}: {seconds:.1f} s")
    return seconds


def run_all(run: Run, reporter: Reporter) -> None:
    """Run everything from profile to report."""
    run_stages(run, STAGES, reporter)


def run_stages(run: Run, stages: Sequence[str], reporter: Reporter) -> None:
    """Run stages in order, after saying what is searched and how long that will take.

    Raises:
        TrilobitError: a limit that nothing can meet, or whatever a stage refuses.
    """
    _require_fp32(run)
    last = next(stage for stage in reversed(stages) if stage != "report")
    expected = preflight(run, reporter).time if not run.is_done(last) else Estimate({})
    took_s: dict[str, float] = {}
    for stage in stages:
        took_s[stage] = run_stage(run, stage, reporter)
        if took_s[stage] and (left_s := expected.left_s(took_s)) >= 1:
            reporter.say(f"about {duration(left_s)} left")


def _require_fp32(run: Run) -> None:
    """Refuse a space without fp32: supernets are trained in it, and everything is compared with it.

    Raises:
        TrilobitError: the space has no such network.
    """
    if FP32 not in run.family.formats:
        raise TrilobitError(
            f"space.formats {', '.join(run.config.space.formats)}: training and search need fp32 among them; "
            "only `nas profile` does without"
        )
