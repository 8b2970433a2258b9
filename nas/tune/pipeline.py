"""All stages of a tune in order, skipping what is there and unchanged."""

import math
import time
from collections.abc import Callable, Mapping

import numpy as np

from hw_profiles.documents import write_document
from hw_profiles.files import write_atomic
from hw_profiles.runtimes.runtime import CountsMemory
from hw_profiles.streams import Stream, open_stream
from nas.checks.model_notes import notes_on
from nas.export.written import left_out, say_left_out
from nas.report import write_report
from nas.run.progress import duration
from nas.run.reporting import Reporter, progress_bar
from nas.run.tune_config import STAGES
from nas.tune.estimates import measure_costs, spared, tell, work_of
from nas.tune.evaluation.answers import Outputs
from nas.tune.evaluation.context import TuneContext
from nas.tune.export_stage import run_export
from nas.tune.policies.first_policies import evaluations_for, first_policies
from nas.tune.search_stage import run_search
from nas.tune.setup.libraries import kernels_s, tune_kernels, untuned_layers
from nas.tune.setup.prepared import ORIGINAL_KIND, time_prepared, time_unchanged
from nas.tune.setup.stored import save_example
from nas.tune.setup.tuning import Tuning
from supernet.data.samples import Samples
from supernet.ptq.quantization_file import save_quantization
from supernet.ptq.quantize_model import quantize_model
from supernet.space.space import Genomes
from supernet.tasks.fidelity import Fidelity
from supernet.tasks.metric import ACCURACY

NEAR_CHANCE = 1.5  # times the share of right guesses: below it, what is read is not what was learned
Stage = Callable[[TuneContext, Reporter], None]


def run_tune(context: TuneContext, reporter: Reporter) -> None:
    """Run every stage that is not done, after saying how long it takes.

    Raises:
        TrilobitError: a limit that nothing can meet, or whatever a stage refuses.
    """
    tuning = context.tuning
    left = [stage for stage in STAGES if stage == "report" or not tuning.is_done(stage)]
    expected_s: Mapping[str, float] = {}
    if "search" in left:
        section = tuning.config.tune
        count = section.evaluations or evaluations_for(context.space)
        costs, work = measure_costs(tuning), work_of(tuning, section, count)
        counted_s = costs.stages(work, section.budget_s)
        untuned = untuned_layers(tuning.runtime, tuning.model, tuning.formats)
        counted_s = {**counted_s, "profile": counted_s["profile"] + kernels_s(tuning.runtime, untuned)}
        expected_s = {stage: counted_s.get(stage, 0.0) for stage in left}
        tell(counted_s, left, section.budget_s, reporter)
        if math.isinf(section.budget_s) and (line := spared(work, costs, evaluations_for(context.space))):
            reporter.say(f"  {line}")
    took_s: dict[str, float] = {}
    for stage in STAGES:
        if stage not in left:
            reporter.say(f"{stage}: already there")
            if stage == "export":
                say_left_out(left_out(tuning.export_path), reporter.say)
            continue
        start = time.monotonic()
        _STAGES[stage](context, reporter)
        took_s[stage] = time.monotonic() - start
        tuning.mark_done(stage, took_s[stage])
        left_s = _left_s(expected_s, took_s)
        more = f"; about {duration(left_s)} left" if left_s >= 1 else ""
        reporter.say(f"{stage}: {took_s[stage]:.1f} s{more}")


def _left_s(expected_s: Mapping[str, float], took_s: Mapping[str, float]) -> float:
    """Return what is left, corrected by how far off the stages so far were."""
    counted = [stage for stage in took_s if expected_s.get(stage, 0.0) > 0]
    expected = sum(expected_s[stage] for stage in counted)
    ratio = sum(took_s[stage] for stage in counted) / expected if expected >= 1 else 1.0
    rest = sum(seconds for stage, seconds in expected_s.items() if stage not in took_s)
    return rest * float(np.clip(ratio, 0.5, 5.0))


def _import(context: TuneContext, reporter: Reporter) -> None:
    """Keep the model in the folder: what is exported later does not need the file any more."""
    tuning = context.tuning
    if tuning.count is not None:
        _require_micro(tuning)
    write_atomic(tuning.original_path, tuning.original)
    save_example(tuning.folder, tuning.samples.feed(0))
    prepared = time_prepared(tuning)
    if prepared.pays:
        reporter.say(f"  prepared, in fp32: {1 / prepared.ratio:.2f} x as fast as the file as it was given")


def _require_micro(tuning: Tuning) -> None:
    """Refuse a model that no microcontroller runs, before the work.

    Raises:
        TrilobitError: it is one; says why.
    """
    if isinstance(tuning.runtime, CountsMemory):
        tuning.runtime.memory_bytes(tuning.original)


def _calibrate(context: TuneContext, reporter: Reporter) -> None:
    """Find scales and rounded weights for every format of every unit."""
    tuning = context.tuning
    with reporter.status("calibrate"):
        quantization = quantize_model(
            tuning.model,
            tuning.parts.calibration,
            tuning.calibrated_formats,
            sums=tuning.device.describe().sums,
            rng=open_stream(tuning.config.seed, Stream.TUNE_CALIBRATION),
        )
    save_quantization(tuning.quantization_path, quantization, tuning.model)


def _profile(context: TuneContext, reporter: Reporter) -> None:
    """Time whole policies, and learn the time of all, once the kernels of their files are there."""
    tuning = context.tuning
    if not context.costs.timed:
        return
    if layers := untuned_layers(tuning.runtime, tuning.model, tuning.formats):
        with progress_bar(reporter, "tune kernels", len(layers)) as update:
            tune_kernels(tuning.runtime, layers, lambda done: update(done, ""))
    run_s = measure_costs(context.tuning).run_s
    with progress_bar(reporter, "time policies, percent", 100) as update:
        context.clock.learn(
            run_s,
            lambda what, share: update(100 * share, what),
            lambda effort: reporter.say(
                f"  {effort.policies} policies are timed, which takes about {effort.estimated_s:.0f} s"
            ),
        )
    if tuning.runtime.artifact != ORIGINAL_KIND and tuning.times_original:  # a library: only now is there one
        time_unchanged(tuning, context.files.content(np.zeros(len(context.space.choices), np.int16)))
    accuracy = context.clock.accuracy(context.clock.measured())
    if accuracy is not None:
        reporter.say(
            f"  times of {accuracy.tested} policies that were left out: {100 * accuracy.mape:.1f} % off "
            "in the mean" + (f", tau {accuracy.kendall_tau:.2f}" if accuracy.kendall_tau is not None else "")
        )


def sampled_policies(context: TuneContext) -> Genomes:
    """Return the policies (n, g) whose quality is evaluated before the search."""
    tuning = context.tuning
    count = tuning.config.tune.evaluations or evaluations_for(context.space)
    return first_policies(context.space, count, rng=open_stream(tuning.config.seed, Stream.TUNE_POLICIES))


def _sample(context: TuneContext, reporter: Reporter) -> None:
    """Evaluate policies: one unit at a time, and random ones."""
    comparison = context.choosing.comparison
    if line := rightness(comparison.fidelity, comparison.original, comparison.samples):
        reporter.say(f"  {line}")
    genomes = sampled_policies(context)
    with progress_bar(reporter, "evaluate policies", len(genomes)) as update:
        context.evaluate(genomes, lambda done: update(done, ""))


def rightness(fidelity: Fidelity, original: Outputs, samples: Samples) -> str:
    """Return how often the original is right where answers are known, in one line: a preprocessing that it
    was not trained with shows there. Empty where it is not asked for classes.
    """
    if samples.labels is None:
        return ""
    accuracy = fidelity.evaluate(original, samples, original).get(ACCURACY.name)
    if accuracy is None:
        return ""
    classes = len(np.unique(samples.labels))
    line = f"the original is right on {100 * accuracy:.1f} % of {len(samples)} examples"
    if accuracy >= NEAR_CHANCE / classes:
        return line
    return (
        f"{line}, about what guessing among {classes} classes gives: was it trained with this --scale, "
        "--mean, --std, --channels and --layout, and are --labels in its order?"
    )


def _search(context: TuneContext, reporter: Reporter) -> None:
    front = run_search(context, sampled_policies(context), reporter)
    write_document(context.tuning.front_path, front)


def _export(context: TuneContext, reporter: Reporter) -> None:
    """Write the files of the front."""
    run_export(context, reporter, picks=(), count=context.tuning.config.tune.count)


def _report(context: TuneContext, reporter: Reporter) -> None:
    """Write the page."""
    write_report(context.tuning.folder)


_STAGES: Mapping[str, Stage] = {
    "import": _import,
    "calibrate": _calibrate,
    "profile": _profile,
    "sample": _sample,
    "search": _search,
    "export": _export,
    "report": _report,
}


def introduce(tuning: Tuning, reporter: Reporter) -> None:
    """Say what is tuned, on what, and what each unit may be in."""
    space, model = tuning.space, tuning.model
    reporter.say(
        f"  {len(model.units)} units, {len(space.choices)} of which can change: {space.size:.3g} policies"
    )
    for name, value in model.fixed.items():
        reporter.say(f"  {name} is {value} in all examples: files do not read it (--fix none leaves it open)")
    for note in notes_on(tuning.opened.outline.operations, tuning.opened.facts.operations):
        reporter.say(f"  note: the model {note}")
    reporter.say(f"  {tuning.samples.origin}")
    if len(tuning.samples) < tuning.config.samples.count:
        reporter.say(f"  fewer than the {tuning.config.samples.count:,} that --count asks for")
    reporter.say(f"  {tuning.parts}")
    counted: dict[str, int] = {}
    for choice in space.choices:
        for option in choice.options[1:]:
            counted[str(option)] = counted.get(str(option), 0) + 1
    reporter.say("  formats: " + ", ".join(f"{name} ({count} units)" for name, count in counted.items()))
