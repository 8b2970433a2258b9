"""`nas compare-runtimes`: a network on every runtime that is here, in fp32 and in the best mix of each."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hw_profiles.errors import TrilobitError
from hw_profiles.files import write_atomic
from hw_profiles.runtimes.plugin import DeviceChoice
from nas.run.reporting import Reporter, Table
from nas.run.tune_config import is_tune_folder
from nas.runtimes.comparison import ComparedFile, RuntimeComparison, compare_files, folder_names
from nas.runtimes.contestants import (
    GIVE,
    Contestant,
    best_mixes,
    example_of,
    exported,
    in_fp32,
    installed,
    original_of,
    require_one_machine,
)
from nas.runtimes.plot import draw
from nas.search.units import UNITS

RUNS = Path("runs")
PLOT = ".svg"
PICK = ("knee",)  # of each tune, where nothing is said


def compare_runtimes(arguments: argparse.Namespace, reporter: Reporter) -> dict[str, Any]:
    """Compare what a command line names, print it, and give it as plain data.

    Raises:
        TrilobitError: no such file or folder, nothing runs it, or a plot of another kind.
    """
    if arguments.plot is not None and arguments.plot.suffix != PLOT:
        raise TrilobitError(f"{arguments.plot}: the plot is written as {PLOT}; end the name in it")
    choices, notes = installed(tuple(arguments.devices or ()))
    if not choices:
        raise TrilobitError(
            f"nothing here runs ONNX files: {'; '.join(notes)}; name one that does, such as ort"
        )
    require_one_machine((str(choice), choice.kind.machine) for choice in choices)
    tuned = _tuned(arguments, choices, reporter) if arguments.data is not None else ()
    contestants = _contestants((*arguments.networks, *tuned), choices, arguments)
    require_one_machine((each.device, each.machine) for each in contestants)
    inputs = arguments.inputs or next((path for folder in tuned if (path := example_of(folder))), None)
    inputs = inputs or next((path for place in arguments.networks if (path := example_of(place))), None)
    with reporter.status(f"{len(contestants)} files are timed in turns"):
        comparison = compare_files(contestants, inputs=inputs)
    reporter.show(table_of(comparison))
    for line in (*notes, *_notes(comparison)):
        reporter.say(line)
    document = {**comparison.to_json(), "left_out": notes, "plot": None}
    if arguments.plot is not None:
        write_atomic(arguments.plot, draw(comparison))
        document["plot"] = str(arguments.plot)
        reporter.say(f"plot: {arguments.plot}")
    return document


def _tuned(
    arguments: argparse.Namespace, choices: Sequence[DeviceChoice], reporter: Reporter
) -> tuple[Path, ...]:
    """Tune the model for each runtime, and return the folders; what was done before is taken as it is.

    Raises:
        TrilobitError: it is no file, or cannot be tuned.
    """
    from nas.tune.pipeline import run_tune
    from nas.tune.session import tune_session

    [*others] = arguments.networks[1:]
    model = arguments.networks[0]
    if others or not model.is_file():
        raise TrilobitError("--data tunes one model for each runtime: give its ONNX file alone")
    base = arguments.output or RUNS / f"{model.stem}-runtimes"
    names = folder_names([str(choice) for choice in choices])
    for choice in choices:
        options = {"model.source": str(model), "samples.source": arguments.data, "device.name": str(choice)}
        if arguments.budget is not None:
            options["tune.budget"] = arguments.budget
        with tune_session(
            base / names[str(choice)], options, file=arguments.config, line=arguments.line, reporter=reporter
        ) as context:
            run_tune(context, reporter)
    return tuple(base / name for name in names.values())


def _contestants(
    places: Sequence[Path], choices: Sequence[DeviceChoice], arguments: argparse.Namespace
) -> list[Contestant]:
    """Return the files of all that is named: each original once in fp32 on every runtime, then the mixes."""
    originals, mixes, networks = dict[bytes, list[Contestant]](), list[Contestant](), list[Contestant]()
    for place in places:
        if place.is_dir() and not is_tune_folder(place):
            networks += exported(place, choices)
            continue
        path = original_of(place) if place.is_dir() else place
        if not path.is_file():
            raise TrilobitError(f"{place}: no such file; {GIVE}")
        originals.setdefault(path.read_bytes(), in_fp32(path, choices))
        if place.is_dir():
            picks = tuple(arguments.pick or PICK)
            mixes += best_mixes(place, picks, choices, run_library=arguments.run_library)
    return [*(each for listed in originals.values() for each in listed), *mixes, *networks]


def table_of(comparison: RuntimeComparison) -> Table:
    """Return the files as a table; times beside that of the first."""
    metrics = tuple(dict.fromkeys(file.metric for file in comparison.files if file.metric))
    columns = ("runtime", "network", "formats", *metrics, "answers off", "latency", "speed", "size")
    rows = [_cells(file, metrics) for file in comparison.files]
    return Table(columns, rows, numbers=len(columns) - 3)


def _cells(file: ComparedFile, metrics: Sequence[str]) -> tuple[str, ...]:
    latency, size = file.latency, UNITS["bytes"].text(file.size_bytes)
    qualities = tuple(
        f"{file.quality:.3g}" if m == file.metric and file.quality is not None else "-" for m in metrics
    )
    off = "-" if file.difference is None else f"{file.difference:.2g}"
    if latency is None:
        return (file.device, file.network, file.formats, *qualities, off, "fails", "-", size)
    time, speed = UNITS["s"].text(latency.median_s), f"{1 / latency.ratio:.2f} x"
    return (file.device, file.network, file.formats, *qualities, off, time, speed, size)


def _notes(comparison: RuntimeComparison) -> list[str]:
    first = comparison.files[0]
    load = first.latency.load if first.latency is not None else None
    busy = "" if load is None else f", load {load:.1f}"
    return [
        *(f"{file.device}, {file.network}: {file.error}" for file in comparison.files if file.error),
        f"latency: medians, all files in the same turns on {comparison.place}{busy}; "
        f"speed: the time of {first.network} in {first.formats} on {first.runtime} over the file's, pass by "
        "pass; answers off: largest difference from its answers to one example, as a share of the largest",
        advice(comparison),
    ]


def advice(comparison: RuntimeComparison) -> str:
    """Return which one to use: of a front which runtime, else which file, and whether others are as fast."""
    if comparison.runtimes:
        first, second = comparison.runtimes[:2]
        wins, faster = f"{first.fastest} of {first.files}", second.ratio / first.ratio
        return (
            f"use this one: {first.device}, the fastest for {wins} files that all run, "
            f"{faster:.2f} x as fast as {second.device} in the mean"
        )
    best, *alike = (comparison.files[place] for place in comparison.fastest)
    assert best.latency is not None
    others = ", ".join(f"{file.formats} on {file.device}" for file in alike)
    like = f"; as fast as far as this tells: {others}" if alike else ""
    first_place = comparison.fastest[0] == 0
    speed = "" if first_place else f", {1 / best.latency.ratio:.2f} x as fast as the first"
    quality = "" if best.quality is None else f", {best.metric} {best.quality:.3g}"
    return f"use this one: {best.formats} on {best.device}{speed}{quality}: {best.file}{like}"
