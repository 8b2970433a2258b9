"""Stage 2: train the supernet."""

import time
from collections.abc import Mapping

from nas.run.reporting import Reporter, progress_bar
from nas.run.run import Run
from nas.run.stopping import stop_on_signals
from nas.stages.start import announce_start
from nas.stages.tensorboard import scalar_log
from supernet.tasks.metric import Metric, main_metric
from supernet.tasks.task import called
from supernet.train.loop import Progress, load_supernet, steps_per_epoch, train
from supernet.train.malloc import keep_freed_memory
from supernet.train.pace import Pace
from supernet.train.parallel import World, current_world
from supernet.train.placement import choose_placement
from supernet.train.quantized import phase_steps, train_quantized

PERCENT = 100


def run_train(run: Run, reporter: Reporter) -> None:
    """Train, or finish training; the checkpoint is left in the run folder, curves in `tensorboard`.

    Under torchrun all processes call this; the first one writes and speaks.

    Raises:
        KeyboardInterrupt: one of them was asked to stop; what was computed is saved.
    """
    announce_start(run, reporter)
    keep_freed_memory()
    config, world = run.config.train, current_world()
    if world.size > 1:
        examples = config.batch_size * config.accumulate * world.size
        reporter.say(f"{world.size} processes, {examples} {called(run.task)} a step")
    # with a budget nobody knows how many steps there will be: what is shown is its time
    total = PERCENT if config.budget else config.epochs * steps_per_epoch(run.task, config, world)
    arguments = (run.family, run.task, config, run.checkpoint_path)
    pace, accuracies, done = Pace(choose_placement(config, world).device, called(run.task)), "", 0.0
    with (
        stop_on_signals() as stop,
        progress_bar(reporter, "train, %" if config.budget else "train", total) as update,
        scalar_log(run.folder / "tensorboard", reporter, muted=not world.writes) as write,
    ):
        for progress in train(*arguments, seed=run.config.seed, world=world, stop=stop, say=reporter.say):
            pace.add(progress)
            done = progress.step / progress.steps if progress.steps else 1.0  # nothing to train
            accuracies = _shown(progress.accuracies, main_metric(run.task)) or accuracies
            update(
                progress.share * total if config.budget else progress.step,
                f"loss {progress.loss:.3f}, {pace}{accuracies}",
            )
            write(progress.step, _scalars(progress, pace.examples_per_s, called(run.task)))
        if stop() or done < 1:
            raise KeyboardInterrupt
    if world.writes:
        _run_quantized(run, reporter)


def _run_quantized(run: Run, reporter: Reporter) -> None:
    """Run the quantized phase, by one process, where the run has one."""
    phase, config = run.config.quantized.phase(), run.config.train
    if phase is None:
        return
    net, start = load_supernet(run.family, run.checkpoint_path), time.monotonic()
    net = net.to(choose_placement(config, World()).device)
    arguments = (run.family, net, run.task, phase, run.quantized_path)
    with progress_bar(reporter, "quantized", phase_steps(run.task, phase)) as update:
        examples = 0
        for progress in train_quantized(*arguments, seed=run.config.seed, recipe=config, sums=run.sums):
            examples += progress.images
            rate = examples / max(time.monotonic() - start, 1e-9)
            note = f"loss {progress.loss:.3f}, {rate:,.0f} {called(run.task)}/s"
            update(progress.step, note)


def _shown(values: Mapping[str, float], metric: Metric) -> str:
    """Return the values of a metric by network: shares in percent."""
    share = metric.unit == "fraction"
    texts = (f"{100 * value:.1f} %" if share else f"{value:.2f} {metric.unit}" for value in values.values())
    return "".join(f", {name} {text}" for name, text in zip(values, texts, strict=True))


def _scalars(progress: Progress, rate: float, examples: str) -> dict[str, float]:
    """Return what TensorBoard draws; nothing of a training that was finished already.

    Args:
        rate: examples per second.
        examples: what they are called.
    """
    if not progress.images:
        return {}
    drawn = {"train/loss": progress.loss, "train/learning_rate": progress.learning_rate}
    if rate:
        drawn[f"train/{examples}_per_s"] = rate
    return drawn | {f"validation/{name}": accuracy for name, accuracy in progress.accuracies.items()}
