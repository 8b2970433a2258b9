"""Fine-tuning of the networks that are exported; each is resumed where it was, and not done twice."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

from hw_profiles.graph.lowering import lower
from hw_profiles.reference.integer_sums import IntegerSums
from nas.evaluation.builder import NetworkBuilder
from nas.export.build import Tuned, TuningMethod
from nas.run.config_file import parse_config
from nas.run.reporting import Reporter, progress_bar
from nas.run.run import Run, find_run
from supernet.families.family import Family
from supernet.qat.learned import LearnedQuantizers
from supernet.space.space import Candidate
from supernet.train.checkpoint import load_weights
from supernet.train.config import HOST_ONLY, TrainConfig
from supernet.train.finetune import (
    FineTuning,
    FineTuningContext,
    finetune,
    prepare_finetuning,
    seconds_for_answers,
    seconds_per_step,
    steps_left,
    tuned_network,
    with_answers,
)
from supernet.train.initial import weights_path
from supernet.train.malloc import keep_freed_memory
from supernet.train.student import is_narrow

TEACHER = "teacher.pt"  # its answers, among the networks


@dataclass(frozen=True)
class Pending:
    """A network to fine-tune, and how much of that is left."""

    candidate: Candidate
    path: Path
    steps: int


def finetuning_context(
    run: Run, net: nn.Module, sums: IntegerSums, learned: LearnedQuantizers | None = None
) -> FineTuningContext:
    """Return what fine-tuning with the run's settings needs; `net` is its supernet, `learned` its scales."""
    export = run.config.export
    rates = {"rate_share": export.finetune_rate_share, "learning_rate": export.finetune_learning_rate}
    config = FineTuning(epochs=export.finetune, **rates)
    shared = (run.family, net, run.task, config, recipe_of(run))
    return prepare_finetuning(*shared, seed=run.config.seed, learned=learned, sums=sums)


def recipe_of(run: Run) -> TrainConfig:
    """Return how the weights of a run were trained, on this machine's terms: by its own settings, or, where
    it uses those of a checkpoint as they are, as that says; by its own where it does not.

    Raises:
        TrilobitError: the checkpoint is of a version with other settings.
    """
    own, origin = run.config.train, run.config.train.init
    if own.epochs:
        return own
    path, recipe = weights_path(origin), own
    if path.is_file() and (stored := load_weights(path).metadata.get("recipe")):
        recipe = parse_config(tomllib.loads(str(stored)), origin=origin).train
    elif (path.parents[1] / "run.toml").is_file():
        recipe = find_run(path.parents[1]).config.train
    return replace(recipe, **{name: getattr(own, name) for name in HOST_ONLY})


def finetuned(
    builder: NetworkBuilder, candidates: Sequence[Candidate], reporter: Reporter
) -> dict[str, Tuned]:
    """Return the candidates by id, fine-tuned for `export.finetune` epochs; none where that is 0."""
    run = builder.run
    epochs = run.config.export.finetune
    if not epochs:
        return {}
    keep_freed_memory()
    context = finetuning_context(run, builder.supernet, builder.sums, builder.quantizers)
    pending = [_pending(run, context, candidate) for candidate in candidates]
    seconds = sum(
        tuning.steps * seconds_per_step(context, tuning.candidate) for tuning in pending if tuning.steps
    )
    total = sum(tuning.steps for tuning in pending)
    seconds += seconds_for_answers(context) if total else 0.0
    reporter.say(
        f"fine-tuning {len(pending)} networks, {epochs} epochs each: about {seconds / 60:.1f} min"
        if total
        else f"fine-tuning: {len(pending)} networks, already there"
    )
    if total:
        context = _answered(run, context, reporter)
    networks, done = dict[str, Tuned](), 0
    with progress_bar(reporter, "finetune", total) as update:
        for tuning in pending:
            student = context.student(tuning.candidate)
            for progress in finetune(context, student, tuning.path):
                if tuning.steps:
                    note = f"{tuning.candidate.id}, loss {progress.loss:.3f}"
                    update(done + tuning.steps - (progress.steps - progress.step), note)
            done += tuning.steps
            settings, rounded = context.settings(student), student.quantizers is not None
            method = TuningMethod(settings.optimiser, settings.learning_rate, rounded)
            networks[tuning.candidate.id] = Tuned(tuned_network(context, student), method)
    return networks


def _answered(run: Run, context: FineTuningContext, reporter: Reporter) -> FineTuningContext:
    """Return the context with what the teacher says of all examples, where that can be kept."""
    with progress_bar(reporter, "teacher", len(run.task.train)) as update:
        return with_answers(context, run.folder / "finetune" / TEACHER, update)


def _pending(run: Run, context: FineTuningContext, candidate: Candidate) -> Pending:
    path = run.folder / "finetune" / f"{candidate.id}.pt"
    return Pending(candidate, path, steps_left(context, context.student(candidate), path))


def finetune_seconds(run: Run) -> float:
    """Estimate the seconds of fine-tuning, from a few steps at both ends of the space, untrained."""
    if not run.config.export.finetune:
        return 0.0
    context = finetuning_context(run, run.family.supernet(rng=np.random.default_rng(0)).eval(), run.sums)
    number_format = _slowest_format(run.family)
    ends = [run.family.extreme("largest", number_format), run.family.extreme("smallest", number_format)]
    step = float(np.mean([seconds_per_step(context, candidate) for candidate in ends]))
    return step * context.steps * run.config.export.count + seconds_for_answers(context)


def _slowest_format(family: Family) -> str:
    """Return a format in which networks learn quantization-aware, if there is one: that takes longer."""
    formats = {name: family.workload(family.extreme("smallest", name)) for name in family.formats}
    return next((name for name, work in formats.items() if is_narrow(lower(work))), family.formats[0])
