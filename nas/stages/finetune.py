"""Fine-tuning of the networks that are exported; each is resumed where it was, and not done twice."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from hw_profiles.reference.integer_sums import IntegerSums
from nas.evaluation.builder import NetworkBuilder
from nas.run.reporting import Reporter, progress_bar
from nas.run.run import Run
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.qat.learned import LearnedQuantizers
from supernet.space.space import Candidate
from supernet.train.finetune import (
    FineTuning,
    FineTuningContext,
    finetune,
    prepare_finetuning,
    seconds_per_step,
    steps_left,
    tuned_network,
)
from supernet.train.malloc import keep_freed_memory


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
    config = FineTuning(epochs=export.finetune, learning_rate=export.finetune_learning_rate)
    shared = (run.family, net, run.task, config, run.config.train)
    return prepare_finetuning(*shared, seed=run.config.seed, learned=learned, sums=sums)


def finetuned(
    builder: NetworkBuilder, candidates: Sequence[Candidate], reporter: Reporter
) -> dict[str, QuantizedGraph]:
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
    reporter.say(
        f"fine-tuning {len(pending)} networks, {epochs} epochs each: about {seconds / 60:.1f} min"
        if total
        else f"fine-tuning: {len(pending)} networks, already there"
    )
    networks, done = {}, 0
    with progress_bar(reporter, "finetune", total) as update:
        for tuning in pending:
            student = context.student(tuning.candidate)
            for progress in finetune(context, student, tuning.path):
                if tuning.steps:
                    note = f"{tuning.candidate.id}, loss {progress.loss:.3f}"
                    update(done + tuning.steps - (progress.steps - progress.step), note)
            done += tuning.steps
            networks[tuning.candidate.id] = tuned_network(context, student)
    return networks


def _pending(run: Run, context: FineTuningContext, candidate: Candidate) -> Pending:
    path = run.folder / "finetune" / f"{candidate.id}.pt"
    return Pending(candidate, path, steps_left(context, context.student(candidate), path))


def finetune_seconds(run: Run) -> float:
    """Estimate the seconds of fine-tuning, from a few steps at both ends of the space, untrained."""
    if not run.config.export.finetune:
        return 0.0
    context = finetuning_context(run, run.family.supernet(rng=np.random.default_rng(0)).eval(), run.sums)
    number_format = run.family.formats[0]
    ends = [run.family.extreme("largest", number_format), run.family.extreme("smallest", number_format)]
    step = float(np.mean([seconds_per_step(context, candidate) for candidate in ends]))
    return step * context.steps * run.config.export.count
