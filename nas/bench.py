"""`nas bench`: what a file does in service, latency percentiles and throughput at given threads and batch
sizes.

Every call is timed by the wall, in turns between the settings, so that a disturbance meets all of them; what
competes for the machine is part of what a service sees, and is not taken out.
"""

import argparse
import itertools
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from hw_profiles.backends.ort import open_session, prepared
from hw_profiles.errors import TrilobitError
from nas.export.card import MODEL_FILE
from nas.objectives import OBJECTIVES
from nas.progress import progress_bar
from nas.targets import show

PERCENTILES = (50, 90, 95, 99)
WARM_UP_RUNS = 5
TURN_S = 0.1  # how long one setting runs before the next has its turn
FEWEST_CALLS = 100  # below which a 99th percentile is the slowest call


@dataclass(frozen=True)
class Serving:
    """What one setting does.

    Attributes:
        threads: of one inference.
        batch: images of one inference.
        calls: timed.
        percentiles_s: of the time of a call, by the percentile.
        images_per_s: images over the time of all calls.
    """

    threads: int
    batch: int
    calls: int
    percentiles_s: dict[int, float]
    images_per_s: float


def run(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Time the file and print a table.

    Raises:
        TrilobitError: no such file, ONNX Runtime cannot load it, or it has another batch size.
    """
    path: Path = arguments.model
    model = path / MODEL_FILE if path.is_dir() else path
    if not 0 < arguments.seconds < float("inf"):
        raise TrilobitError(f"--seconds {arguments.seconds}: it must be above 0")
    batches = _batches(model, arguments.batch)
    settings = list(itertools.product(arguments.threads, batches))
    with progress_bar(console, "bench", 100) as update:
        served = bench(model, settings, seconds=arguments.seconds, on_progress=update)
    console.print(_table(served))
    if any(one.calls < FEWEST_CALLS for one in served):
        console.print(f"fewer than {FEWEST_CALLS} calls: the 99th percentile is the slowest; more --seconds")
    return {"model": str(model), "settings": [asdict(one) for one in served]}


def _batches(model: Path, wanted: Sequence[int] | None) -> Sequence[int]:
    """The batch sizes to time."""
    if not model.is_file():
        raise TrilobitError(f"{model}: no such file; give an .onnx file or the folder of an exported network")
    try:
        fixed = open_session(model).get_inputs()[0].shape[0]
    except Exception as error:  # whatever the engine rejects, in its own words
        raise TrilobitError(f"{model}: ONNX Runtime cannot load it: {str(error).splitlines()[0]}") from None
    if not isinstance(fixed, int):
        return wanted or (1,)
    if wanted is not None and set(wanted) != {fixed}:
        raise TrilobitError(
            f"{model}: made for {fixed} images at once, asked for {','.join(map(str, wanted))}; "
            "`nas export --dynamic-batch` makes files for any number"
        )
    return (fixed,)


def bench(
    model: Path, settings: Sequence[tuple[int, int]], *, seconds: float, on_progress: Any
) -> list[Serving]:
    """Time every (threads, batch) for `seconds`, in turns."""
    calls = [prepared(open_session(model, threads=threads), batch) for threads, batch in settings]
    for call in calls:
        for _ in range(WARM_UP_RUNS):
            call()
    times: list[list[float]] = [[] for _ in settings]
    while (least := min(map(sum, times))) < seconds:
        for call, taken in zip(calls, times, strict=True):
            call()  # the one before had the caches
            turn = time.perf_counter() + TURN_S
            while (start := time.perf_counter()) < turn:
                call()
                taken.append(time.perf_counter() - start)
        on_progress(int(100 * min(1.0, least / seconds)), "")
    return [
        _serving(threads, batch, np.array(taken))
        for (threads, batch), taken in zip(settings, times, strict=True)
    ]


def _serving(threads: int, batch: int, taken_s: NDArray[np.float64]) -> Serving:
    percentiles = {p: float(np.percentile(taken_s, p)) for p in PERCENTILES}
    return Serving(
        threads, batch, len(taken_s), percentiles, float(batch * len(taken_s) / max(taken_s.sum(), 1e-12))
    )


def _table(served: Sequence[Serving]) -> Table:
    table = Table(*("threads", "batch", "calls", *(f"p{p}" for p in PERCENTILES), "images/s"))
    for one in served:
        times = (show(OBJECTIVES["latency"], value) for value in one.percentiles_s.values())
        table.add_row(str(one.threads), str(one.batch), f"{one.calls:,}", *times, f"{one.images_per_s:,.0f}")
    return table
