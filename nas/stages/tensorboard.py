"""Curves of a training for TensorBoard, where it is installed."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from nas.run.reporting import Reporter

HINT = "no curves for TensorBoard: it is not installed; pip install 'trilobit[tensorboard]'"
Write = Callable[[int, Mapping[str, float]], None]


def _nothing(step: int, values: Mapping[str, float]) -> None:
    pass


@contextmanager
def scalar_log(folder: Path, reporter: Reporter, *, muted: bool = False) -> Iterator[Write]:
    """Yield `write(step, values by name)`, which adds to the event files in `folder`.

    Steps that a killed training had written, but does again, replace their former values. Without TensorBoard
    it says so, and nothing is written; `muted` writes nothing either.
    """
    if muted:
        yield _nothing
        return
    try:
        from torch.utils.tensorboard import SummaryWriter  # optional, and slow to import
    except ImportError:
        reporter.say(HINT)
        yield _nothing
        return
    writers: list[SummaryWriter] = []

    def write(step: int, values: Mapping[str, float]) -> None:
        if values and not writers:
            writers.append(SummaryWriter(str(folder), purge_step=step))
        for name, value in values.items():
            writers[0].add_scalar(name, value, step)

    try:
        yield write
    finally:
        for writer in writers:
            writer.close()
