"""`nas bench`: what a file does in service, latency percentiles and throughput at given threads and batch
sizes. What competes for the machine is part of what a service sees, and is not taken out.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from hw_profiles.documents import MismatchError, parse
from hw_profiles.errors import TrilobitError
from hw_profiles.measure.host import load_average
from nas.checks.confined import ConfinedError, Limits, confined
from nas.export.library.library import OtherProcessorError, require_machine, stopped
from nas.export.manifest import MANIFEST, MODEL_FILE, Manifest, read_manifest
from nas.export.package import hash_of
from nas.run.command_sections import BenchSection
from nas.run.progress import progress_bar
from nas.search.objectives import objective
from nas.search.units import show
from nas.serving.serving import PERCENTILES, Serving

FEWEST_CALLS = 100  # below which a 99th percentile is the slowest call
START_S = 60.0  # of one setting: to load the file, and for its first calls
THREAD_BYTES = 2**28  # of addresses that a thread reserves


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
    if model.suffix == ".so":
        served = _serve_library(model, arguments, console)
    else:
        request = {"threads": arguments.threads, "batches": arguments.batch}
        served = _serve("nas.serving.serving:serve_file", model, request, arguments, console)
    console.print(_table(served))
    if (load := load_average()) is not None:
        console.print(f"load {load:.1f} meanwhile, this command included")
    if any(one.calls < FEWEST_CALLS for one in served):
        console.print(f"fewer than {FEWEST_CALLS} calls: the 99th percentile is the slowest; more --seconds")
    return {"model": str(model), "settings": [asdict(one) for one in served]}


def _serve(
    task: str, model: Path, request: Mapping[str, Any], arguments: argparse.Namespace, console: Console
) -> Sequence[Serving]:
    """Return what the model does, in a process of its own."""
    settings = len(arguments.threads) * len(arguments.batch or (1,))
    expected_s = settings * arguments.seconds
    limits = Limits(
        wall_s=settings * START_S + 2 * expected_s,
        memory_bytes=Limits.memory_bytes + settings * max(arguments.threads) * THREAD_BYTES,
    )
    whole = {**request, "path": str(model.absolute()), "seconds": arguments.seconds}
    try:
        with progress_bar(console, "bench", 100) as update:
            document, _ = confined(
                task, whole, limits=limits, on_tick=lambda s: update(int(min(100, 100 * s / expected_s)), "")
            )
        return parse(tuple[Serving, ...], document)
    except OtherProcessorError:
        raise
    except (ConfinedError, MismatchError) as error:
        if model.suffix == ".so":
            raise stopped(model, error) from None
        raise TrilobitError(f"{model}: ONNX Runtime cannot run it: {error}") from None


def _serve_library(library: Path, arguments: argparse.Namespace, console: Console) -> Sequence[Serving]:
    """Return what a library does in its only setting."""
    for name, wanted in (("--threads", arguments.threads), ("--batch", arguments.batch or (1,))):
        if set(wanted) != {1}:
            raise TrilobitError(
                f"{name} {','.join(map(str, wanted))}: {library.name} takes one image at a time on one "
                f"thread; give {name} 1, or the {MODEL_FILE} beside it"
            )
    manifest = _manifest_of(library)
    require_machine(library)
    if not arguments.run_library:
        raise TrilobitError(
            f"{library}: machine code of whoever made it; with --run-library it is run, with your rights"
        )
    request = {"shape": manifest.input.shape, "classes": len(manifest.classes)}
    return _serve("nas.serving.serving:serve_library", library, request, arguments, console)


def _manifest_of(library: Path) -> Manifest:
    """Return what says what a library reads, and that it is the one that was exported."""
    path = library.with_name(MANIFEST)
    if not path.is_file():
        raise TrilobitError(
            f"{library}: no {MANIFEST} beside it, which says what it reads; keep its folder whole"
        )
    manifest = read_manifest(path.parent)
    known = manifest.files.get(library.name)
    if known is None or hash_of(library) != known.sha256:
        raise TrilobitError(
            f"{library}: not the file that its {MANIFEST} has the hash of; fetch its folder again"
        )
    return manifest


def _table(served: Sequence[Serving]) -> Table:
    table = Table(*("threads", "batch", "calls", *(f"p{p}" for p in PERCENTILES), "images/s"))
    for one in served:
        times = (show(objective("latency"), value) for value in one.percentiles_s.values())
        table.add_row(str(one.threads), str(one.batch), f"{one.calls:,}", *times, f"{one.images_per_s:,.0f}")
    return table
