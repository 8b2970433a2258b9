"""What a training starts from: checked before anything takes time, and said."""

import numpy as np

from nas.run.reporting import Reporter
from nas.run.run import Run
from supernet.train.checkpoint import Weights, load_weights
from supernet.train.initial import NONE, Start, start_from, weights_path


def check_start(run: Run) -> tuple[Weights, Start] | None:
    """Return the weights that training starts from and what of them is used; None where it starts from random
    ones, or has begun.

    Raises:
        TrilobitError: the checkpoint cannot be read, does not fit, or needs training but gets none.
    """
    config = run.config.train
    if config.init == NONE or run.checkpoint_path.exists():
        return None
    weights = load_weights(weights_path(config.init))
    net = run.family.supernet(rng=np.random.default_rng(0))
    begun = start_from(net, weights, run.task.classes, origin=config.init)
    begun.require_usable(config.epochs, config.init)
    return weights, begun


def announce_start(run: Run, reporter: Reporter) -> None:
    """Say what training starts from, and what of it does not fit the data."""
    start = check_start(run)
    if start is None:
        return
    weights, begun = start
    use = f"then {run.config.train.epochs} epochs" if run.config.train.epochs else "used as they are"
    reporter.say(f"first weights: {run.config.train.init}, {use}")
    for note in begun.notes:
        reporter.say(f"  {note}")
    if weights.classes == run.task.classes and weights.data not in ("", run.task.fingerprint):
        reporter.say(
            "  they may know images that are search-validation here, which makes accuracies there too good; "
            "those on the test part stay right"
        )
