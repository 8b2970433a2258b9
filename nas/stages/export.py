"""Stage 6: write the chosen networks as ONNX, check them, and measure what is exported. The test part is used
here, once.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.attention import spelled_out
from hw_profiles.graph.integer_only import integer_only
from hw_profiles.graph.workload import Workload
from nas.checks.check import DisagreementError
from nas.evaluation.builder import NetworkBuilder
from nas.evaluation.on_device import DeviceEvaluator
from nas.export.build import Exported, Tuned, Tuning, build, original_outputs, require_exportable
from nas.export.claims import exported_files
from nas.export.context import ExportContext
from nas.export.library.target import library_target
from nas.export.seal import MANIFEST
from nas.export.selection import pick
from nas.export.signature import private_key
from nas.export.timing import measure
from nas.export.written import replace_written, say_left_out
from nas.run.front_document import read_front
from nas.run.progress import tell_of_waiting
from nas.run.reporting import Reporter, progress_bar
from nas.run.run import Run
from nas.stages.finetune import finetuned

SHOWN = 5  # names in a line


def run_export(run: Run, reporter: Reporter) -> list[Path]:
    """Export the networks that the configuration picks; return the manifests' paths. A network whose file or
    library disagrees with the simulation is left out, with a line that says why.

    Raises:
        TrilobitError: there is no front, it is of another space, a library is wanted that cannot be, or every
            network disagrees.
    """
    config = run.config.export
    return export_networks(run, config.pick, config.count, run.export_path, reporter)


def export_networks(
    run: Run, picks: Sequence[str], count: int, target: Path, reporter: Reporter
) -> list[Path]:
    """Export networks of the front to folders in `target`; return the manifests' paths.

    Args:
        picks, count: see `nas.export.selection.pick`.

    Raises:
        TrilobitError: as in `run_export`.
    """
    require_exportable(run)
    front = read_front(run.front_path, run.family.space())
    if run.config.export.sign:
        private_key(Path(run.config.export.sign))  # refused before the work
    picked = pick(front, picks, count)
    contexts = [ExportContext.of(run.family, entry) for entry in picked]
    if run.config.export.integer_only:
        for entry, context in zip(picked, contexts, strict=True):
            _require_integer_only(entry.id, run.family.arch(context.candidate).workload)
    elif library_target(run):
        from nas.export.library.limits import require_kernels  # TVM: only where a library is wanted

        everyone = [ExportContext.of(run.family, entry) for entry in front.candidates]
        networks = {context.entry.id: (context.entry.genes, context.lowered) for context in everyone}
        require_kernels([entry.id for entry in picked], networks)
    builder = NetworkBuilder(run, portable=run.config.export.portable)
    tuned = finetuned(builder, [context.candidate for context in contexts], reporter)
    exported, left_out = _build_all(builder, contexts, tuned, reporter)
    _say_tuning([network.tuning for network in exported if network.tuning is not None], reporter)
    with progress_bar(reporter, "measure", 1) as update, tell_of_waiting(partial(update, 0)):
        latencies = measure(DeviceEvaluator(builder), ExportContext.of(run.family, front.largest), exported)
    files: dict[str, bytes] = {}
    for network, latency in zip(exported, latencies, strict=True):
        files |= exported_files(run, network, latency)
    _say_kept(target, replace_written(target, files, left_out), reporter)
    return [target / network.context.entry.id / MANIFEST for network in exported]


def _require_integer_only(name: str, work: Workload) -> None:
    """Refuse a network in fp32 that has no form in integers only.

    Raises:
        TrilobitError: which layer has none, and why.
    """
    try:
        integer_only(spelled_out(work).work)
    except TrilobitError as error:
        raise TrilobitError(f"{name}: {error}; leave --integer-only out") from None


def _build_all(
    builder: NetworkBuilder,
    contexts: Sequence[ExportContext],
    tuned: Mapping[str, Tuned],
    reporter: Reporter,
) -> tuple[list[Exported], dict[str, str]]:
    """Return the networks whose files do what the simulation does, and why the others are left out, by id;
    say it too.

    Raises:
        TrilobitError: there is none.
    """
    exported, left_out = list[Exported](), dict[str, str]()
    original = original_outputs(builder)
    with progress_bar(reporter, "export", len(contexts)) as update:
        for done, context in enumerate(contexts, 1):
            name = context.entry.id
            try:
                exported.append(build(builder, context, tuned.get(name), original))
            except DisagreementError as error:
                left_out[name] = str(error)
            update(done, name)
    if not exported:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        raise TrilobitError(f"no network can be exported: {reasons}")
    say_left_out(left_out, reporter.say)
    return exported, left_out


def _say_tuning(tunings: Sequence[Tuning], reporter: Reporter) -> None:
    if not tunings:
        return
    gain, metric = float(np.median([tuning.gain for tuning in tunings])), tunings[0].metric
    shares = metric.unit == "fraction"
    better = f"{100 * gain:+.2f} points" if shares else f"{metric.name} better by {gain:.3g}"
    worse = sum(not tuning.kept for tuning in tunings)
    reporter.say(
        f"fine-tuned {len(tunings)} networks: {better} on search-validation in the median; {worse} got worse "
        + ("and is exported as it was" if worse == 1 else "and are exported as they were")
    )


def _say_kept(target: Path, kept: Sequence[str], reporter: Reporter) -> None:
    if kept:
        more = f" and {len(kept) - SHOWN} more" if len(kept) > SHOWN else ""
        line = f"kept in {target}, not of this export: {', '.join(kept[:SHOWN])}{more}"
        reporter.say(line)
