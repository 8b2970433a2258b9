"""Stage 2: train the supernet."""

import time

from rich.console import Console

from nas.progress import progress_bar
from nas.run import Run
from nas.stages.start import announce_start
from supernet.train.allocator import keep_freed_memory
from supernet.train.loop import steps_per_epoch, train


def run_train(run: Run, console: Console) -> None:
    """Train, or finish training; the checkpoint is left in the run folder."""
    announce_start(run, console)
    keep_freed_memory()
    config = run.config.train
    steps = config.epochs * steps_per_epoch(run.dataset, config)
    start, first = time.monotonic(), None
    with progress_bar(console, "train", steps) as update:
        for progress in train(run.family, run.dataset, config, run.checkpoint_path, seed=run.config.seed):
            first = progress.step if first is None else first
            images = (progress.step - first) * config.batch_size
            rate = images / max(time.monotonic() - start, 1e-9)
            update(progress.step, f"loss {progress.loss:.3f}, {rate:,.0f} images/s")
