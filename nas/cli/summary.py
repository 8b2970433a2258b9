"""The exported networks of a run as one table: what `nas run` ends with."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nas.api.exported import ExportedNetwork, LibraryFigures, read_exports
from nas.export.library.library import LIBRARY
from nas.run.reporting import Reporter, Table
from nas.run.run import Run
from nas.search.objectives import objective
from nas.search.pareto import non_dominated
from nas.search.units import show_alike
from supernet.tasks.metric import ACCURACY
from supernet.tasks.task import called

FOR_SIZE = "*"  # another network is faster and no less accurate, none of those is as small
BY_CHANCE = "!"  # chosen on search-validation; on test another one is no worse in anything
COUNTED = "counted by TensorFlow Lite Micro on a machine of 64 bits; nothing says how long they take"
LIBRARY_NOTE = "+ model.so: the library of the network above, timed by itself when it was exported"
NOTES: Mapping[str, str] = {
    FOR_SIZE: "on the front for its size: another is faster and no less accurate",
    BY_CHANCE: "chosen by search-validation; on the test part another is no worse in anything",
}


def notes(networks: Sequence[ExportedNetwork]) -> list[str]:
    """Return why each network is there although another is faster and no less accurate; '' where none is."""
    if not networks:
        return []
    values = np.array([n.test_value for n in networks])
    losses = objective(networks[0].metric).to_min(values)
    if any(n.latency_s is None for n in networks):
        return [""] * len(networks)
    costs = np.array([(loss, n.latency_s, n.size_bytes) for loss, n in zip(losses, networks, strict=True)])
    fast, small = non_dominated(costs[:, :2]), non_dominated(costs)
    return [
        "" if on_front else FOR_SIZE if for_size else BY_CHANCE
        for on_front, for_size in zip(fast, small, strict=True)
    ]


def print_summary(run: Run, reporter: Reporter) -> dict[str, Any]:
    """Print the exported networks and where they are, and return that as data."""
    rows = print_networks(run, reporter)
    reporter.say(f"models: {run.export_path}{os.sep}ID{os.sep}model.onnx    report: {run.report_path}")
    return {"folder": str(run.folder), "exported": rows, "report": str(run.report_path)}


def print_networks(run: Run, reporter: Reporter) -> list[dict[str, Any]]:
    """Print the exported networks, the fastest first, and return them as data."""
    networks = read_exports(run.export_path).networks
    reporter.show(table(networks))
    for line in _footnotes(networks, run):
        reporter.say(line)
    return [
        {
            "id": network.id,
            f"test_{network.metric}": network.test_value,
            f"test_{network.metric}_standard_error": network.standard_error,
            "latency_s": network.latency_s,
            "latency_iqr_s": network.iqr_s,
            "load": network.load,
            "size_bytes": network.size_bytes,
            **{f"{name}_bytes": value for name, value in network.memory.items()},
            **network.quality,
            **({} if network.library is None else {"library": vars(network.library)}),
        }
        for network in networks
    ]


def table(networks: Sequence[ExportedNetwork]) -> Table:
    """Return the table, libraries behind their networks; it fits into 80 columns, which is what output that
    is no terminal gets.
    """
    remarks = notes(networks)
    metric = networks[0].metric if networks else ACCURACY.name
    first = ("network", f"test {metric.replace('_', ' ')}")
    if any(network.latency_s is None for network in networks):
        return _untimed(networks, first)
    columns = (*first, "latency", "IQR", "ratio", "size", "low-bit")
    files = [file for network in networks for file in (network, network.library) if file is not None]
    times, spreads, sizes = (
        show_alike(objective(name), values)
        for name, values in (
            ("latency", [file.latency_s for file in files if file.latency_s is not None]),
            ("latency", [file.iqr_s for file in files if file.iqr_s is not None]),
            ("size", [file.size_bytes for file in files]),
        )
    )
    figures = zip(times, spreads, sizes, strict=True)
    rows = []
    for network, remark in zip(networks, remarks, strict=True):
        rows.append((*_cells(network, *next(figures)), remark))
        if network.library is not None:
            rows.append((*_library_cells(network, network.library, *next(figures)), ""))
    if any(remarks):
        return Table((*columns, ""), rows, numbers=7)
    return Table(columns, [row[:-1] for row in rows], numbers=6)


def _untimed(networks: Sequence[ExportedNetwork], first: tuple[str, ...]) -> Table:
    """Return the table of networks for a device without times."""
    names = list(dict.fromkeys(name for network in networks for name in network.memory))
    columns = [[network.memory.get(name, np.nan) for network in networks] for name in names]
    columns.append([network.size_bytes for network in networks])
    texts = zip(*(show_alike(objective("size"), values) for values in columns), strict=True)
    rows = [
        (n.id, _quality(n, n.test_value), *cells, f"{n.low_bit} of {n.layers}")
        for n, cells in zip(networks, texts, strict=True)
    ]
    return Table((*first, *names, "size", "low-bit"), rows, numbers=len(first) + len(names) + 1)


def _cells(network: ExportedNetwork, time: str, spread: str, size: str) -> tuple[str, ...]:
    ratio = network.of_largest
    return (
        network.id,
        _quality(network, network.test_value),
        time,
        spread,
        "-" if ratio is None else f"{ratio:.2f} x",
        size,
        f"{network.low_bit} of {network.layers}",
    )


def _library_cells(
    network: ExportedNetwork, library: LibraryFigures, time: str, spread: str, size: str
) -> tuple[str, ...]:
    kind = "integers" if library.integer_only else ""
    return (f"+ {LIBRARY}", _quality(network, library.test_value), time, spread, "-", size, kind)


def _quality(network: ExportedNetwork, value: float) -> str:
    if objective(network.metric).unit == "fraction":
        return f"{100 * value:.2f} ± {100 * network.standard_error:.2f} %"
    return f"{value:.3f} ± {network.standard_error:.3f}"


def _footnotes(networks: Sequence[ExportedNetwork], run: Run) -> list[str]:
    if not networks:
        return []
    loads = [network.load for network in networks if network.load is not None]
    load = f" (load {max(loads):.1f})" if loads else ""
    times = "looked up, not measured" if run.recorded else f"medians, measured in turns when exported{load}"
    metric, n = networks[0].metric.replace("_", " "), networks[0].test_images
    quality = f"test {metric}: through the file, on {n:,} {called(run.task)}, ± standard error"
    ratio = "ratio: to the largest network in fp32, in the same turns"
    present = set(notes(networks))
    if run.timeless:
        return [quality, f"arena, flash: {COUNTED}"]
    libraries = [LIBRARY_NOTE] * any(network.library is not None for network in networks)
    remarks = [f"{key} {NOTES[key]}" for key in NOTES if key in present]
    return [quality, f"latency: {times}; {ratio}", *libraries, *remarks]
