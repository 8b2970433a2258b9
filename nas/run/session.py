"""Working on a run folder: it is held, its configuration is resolved and written, and its run is opened."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.run.cluster import Cluster
from nas.run.config import ClusterSection
from nas.run.configuration import configure
from nas.run.lock import locked
from nas.run.recording import taken_back_if_refused
from nas.run.reporting import QUIET, Reporter
from nas.run.wanted import NO_CLUSTER
from supernet.train.world import launched_world

if TYPE_CHECKING:
    from nas.run.run import Run

EVALUATING = ("sample", "fit", "search")  # stages that a cluster helps with


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

        with cluster_of(configuration.config.cluster, reporter) as cluster:
            run = open_run(folder, configuration.config, line, cluster=cluster)
            threads = torch.get_num_threads()
            torch.set_num_threads(run.config.train.threads)
            try:
                _introduce(run, reporter)
                _require_workers(run, stage)
                yield run
            finally:
                torch.set_num_threads(threads)


@contextmanager
def cluster_of(section: ClusterSection, reporter: Reporter = QUIET) -> Iterator[Cluster | None]:
    """Yield the cluster that evaluates, which is reached on first use; None where this process does."""
    if section.address == NO_CLUSTER:
        yield None
        return
    with Cluster(section.address, reporter) as cluster:
        yield cluster


def _require_workers(run: "Run", stage: str) -> None:
    """See that the run's cluster can do what is left of a stage, before anything else is done.

    Raises:
        TrilobitError: it cannot; says how to start what is missing.
    """
    left = [each for each in EVALUATING if stage in ("run", each) and not run.is_done(each)]
    if run.cluster is None or not left:
        return
    here = run.cluster.local or run.on_board
    run.cluster.require_workers(measuring="search" in left and not run.recorded and not here)
    run.cluster.introduce(run.config.device.choice.kind.machine)


def _introduce(run: "Run", reporter: Reporter) -> None:
    """Say what the data is, and how much of it networks see."""
    from supernet.families.family import resolutions

    reporter.say(f"  {run.task}")
    if sizes := resolutions(run.family):
        text = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        images = run.family.reads == "images"
        read = f"see them at {text} pixels" if images else f"read {text} tokens"
        reporter.say(f"  networks of {run.config.space.name} {read}")
