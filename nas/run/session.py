"""Working on a run folder: it is held, its configuration is resolved and written, and its run is opened."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.run.configuration import configure
from nas.run.lock import locked
from nas.run.recording import taken_back_if_refused
from nas.run.reporting import QUIET, Reporter
from supernet.train.world import launched_world

if TYPE_CHECKING:
    from nas.run.run import Run


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Lock a folder for this process alone, and leave it as it was where the block is refused; of several
    processes of one training, the first does.

    Raises:
        TrilobitError: another process writes to it.
    """
    if not launched_world().writes:
        yield
        return
    with locked(folder), taken_back_if_refused(folder):
        yield


@contextmanager
def session(
    folder: Path,
    options: Mapping[str, Any],
    *,
    stage: str = "run",
    file: Path | None = None,
    reset: bool = False,
    line: str = "",
    reporter: Reporter = QUIET,
) -> Iterator["Run"]:
    """Lock a run folder and yield its run, configured; torch has as many threads as it says meanwhile.

    Args:
        given, stage, file, reset: see `nas.run.configuration.configure`.
        line: what people wrote; it is kept in `env.json`.

    Raises:
        TrilobitError: something is not allowed, does not exist, or another process writes to the folder.
    """
    with held(folder):
        configuration = configure(options, folder, stage=stage, file=file, reset=reset)
        reporter.say(f"nas {stage}: {folder}")
        for note in configuration.notes:
            reporter.say(f"  {note}")
        import torch  # from here on it takes seconds

        from nas.run.run import open_run

        run = open_run(folder, configuration.config, line)
        threads = torch.get_num_threads()
        torch.set_num_threads(run.config.train.threads)
        try:
            _introduce(run, reporter)
            yield run
        finally:
            torch.set_num_threads(threads)


def _introduce(run: "Run", reporter: Reporter) -> None:
    """Say what the data is, and how much of it networks see."""
    from supernet.families.family import resolutions

    reporter.say(f"  {run.task}")
    if sizes := resolutions(run.family):
        text = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        images = run.family.reads == "images"
        read = f"see them at {text} pixels" if images else f"read {text} tokens"
        reporter.say(f"  networks of {run.config.space.name} {read}")
