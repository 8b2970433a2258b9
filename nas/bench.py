"""`nas bench`: what a file does in service, latency percentiles and throughput at given threads and batch
sizes.

Every call is timed by the wall, in turns between the settings, so that a disturbance meets all of them; what
competes for the machine is part of what a service sees, and is not taken out.
"""

import argparse
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from hw_profiles.backends.ort import open_session, prepared
from hw_profiles.errors import TrilobitError
from nas.command_sections import BenchSection
from nas.export.card import MODEL_FILE
from nas.export.check import Input
from nas.export.library import prepared_library, require_runnable
from nas.export.package import MANIFEST, hash_of, read_manifest
from nas.export.sums import open_exactly
from nas.objectives import OBJECTIVES
from nas.progress import progress_bar
from nas.targets import show

PERCENTILES = (50, 90, 95, 99)
WARM_UP_RUNS = 5
TURN_S = 0.1  # how long one setting runs before the next has its turn
FEWEST_CALLS = 100  # below which a 99th percentile is the slowest call
Calls = Mapping[tuple[int, int], Callable[[], object]]  # one inference, by (threads, images of it)


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
        TrilobitError: no such file, it cannot be loaded here, or it has another batch size.
    """
    path: Path = arguments.model
    model = path / MODEL_FILE if path.is_dir() else path
    BenchSection(tuple(arguments.threads), tuple(arguments.batch or ()), arguments.seconds)
    if not model.is_file():
        raise TrilobitError(
            f"{model}: no such file; give an .onnx file, a model.so or the folder of an exported network"
        )
    calls = (_library_calls if model.suffix == ".so" else _file_calls)(model, arguments)
    with progress_bar(console, "bench", 100) as update:
        served = bench(calls, seconds=arguments.seconds, on_progress=update)
    console.print(_table(served))
    if any(one.calls < FEWEST_CALLS for one in served):
        console.print(f"fewer than {FEWEST_CALLS} calls: the 99th percentile is the slowest; more --seconds")
    return {"model": str(model), "settings": [asdict(one) for one in served]}


def _file_calls(model: Path, arguments: argparse.Namespace) -> Calls:
    """An ONNX file in every setting."""
    settings = itertools.product(arguments.threads, _batches(model, arguments.batch))
    return {
        (threads, batch): prepared(open_exactly(model, threads=threads), batch) for threads, batch in settings
    }


def _batches(model: Path, wanted: Sequence[int] | None) -> Sequence[int]:
    """The batch sizes to time."""
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


def _library_calls(library: Path, arguments: argparse.Namespace) -> Calls:
    """A library in its only setting."""
    for name, wanted in (("--threads", arguments.threads), ("--batch", arguments.batch or (1,))):
        if set(wanted) != {1}:
            raise TrilobitError(
                f"{name} {','.join(map(str, wanted))}: {library.name} takes one image at a time on one "
                f"thread; give {name} 1, or the {MODEL_FILE} beside it"
            )
    manifest = _manifest_of(library)
    shape, classes = Input.from_json(manifest["input"]).shape, len(manifest["classes"])
    require_runnable(library, shape, classes)
    return {(1, 1): prepared_library(library, shape, classes)}


def _manifest_of(library: Path) -> dict[str, Any]:
    """What says what a library reads, and that it is one to load."""
    path = library.with_name(MANIFEST)
    if not path.is_file():
        raise TrilobitError(
            f"{library}: no {MANIFEST} beside it, which says what it reads; keep its folder whole"
        )
    manifest = read_manifest(path.parent)
    if hash_of(library) != manifest["files"].get(library.name, {}).get("sha256"):
        raise TrilobitError(
            f"{library}: not the file that its {MANIFEST} has the hash of; fetch its folder again"
        )
    return manifest


def bench(calls: Calls, *, seconds: float, on_progress: Any) -> list[Serving]:
    """Time every call for `seconds`, in turns."""
    for call in calls.values():
        for _ in range(WARM_UP_RUNS):
            call()
    times: list[list[float]] = [[] for _ in calls]
    while (least := min(map(sum, times))) < seconds:
        for call, taken in zip(calls.values(), times, strict=True):
            call()  # the one before had the caches
            turn = time.perf_counter() + TURN_S
            while (start := time.perf_counter()) < turn:
                call()
                taken.append(time.perf_counter() - start)
        on_progress(int(100 * min(1.0, least / seconds)), "")
    return [
        _serving(threads, batch, np.array(taken))
        for (threads, batch), taken in zip(calls, times, strict=True)
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
