"""The exported networks of a run as one table: what `nas run` ends with."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nas.export.manifest import MANIFEST, MODEL_FILE, Manifest, read_manifest
from nas.export.written import written_networks
from nas.run.reporting import Reporter, Table
from nas.run.run import Run
from nas.search.objectives import objective
from nas.search.pareto import non_dominated
from nas.search.units import show

FOR_SIZE = "*"  # another network is faster and no less accurate, none of those is as small
BY_CHANCE = "!"  # chosen on search-validation; on test another one is no worse in anything
NOTES: Mapping[str, str] = {
    FOR_SIZE: "on the front for its size: another is faster and no less accurate",
    BY_CHANCE: "chosen by search-validation; on the test images another is no worse in anything",
}


@dataclass(frozen=True)
class ExportedNetwork:
    """One exported network's figures, all of its manifest.

    Attributes:
        test_accuracy: share of right labels among `test_images`, through the file.
        latency_s, iqr_s: median and interquartile range, measured in turns with the others at export.
        load: of the machine then; None where unknown.
        of_largest: ratio to the space's largest network in fp32, in the same run; None where the device
            cannot run that.
        low_bit, layers: layers in fewer bits than 32, and all layers that have a format.
    """

    id: str
    test_accuracy: float
    test_images: int
    latency_s: float
    iqr_s: float
    of_largest: float | None
    size_bytes: int
    low_bit: int
    layers: int
    load: float | None = None

    @property
    def standard_error(self) -> float:
        """Standard error of the test accuracy, the test images being a sample (binomial)."""
        return math.sqrt(self.test_accuracy * (1 - self.test_accuracy) / self.test_images)


def exported_network(manifest: Manifest) -> ExportedNetwork:
    """Return the figures of one manifest."""
    accuracy, latency, formats = manifest.accuracy, manifest.latency, manifest.policy.values()
    return ExportedNetwork(
        manifest.id,
        accuracy.test,
        accuracy.n,
        latency.median_s,
        latency.iqr_s,
        latency.ratios.get("largest/fp32"),
        manifest.files[MODEL_FILE].bytes,
        sum(number_format != "fp32" for number_format in formats),
        len(formats),
        latency.load,
    )


def notes(networks: Sequence[ExportedNetwork]) -> list[str]:
    """Return why each network is there although another is faster and no less accurate; '' where none is."""
    if not networks:
        return []
    costs = np.array([(-n.test_accuracy, n.latency_s, n.size_bytes) for n in networks])
    fast, small = non_dominated(costs[:, :2]), non_dominated(costs)
    return [
        "" if on_front else FOR_SIZE if for_size else BY_CHANCE
        for on_front, for_size in zip(fast, small, strict=True)
    ]


def print_summary(run: Run, reporter: Reporter) -> dict[str, Any]:
    """Print the exported networks, the fastest first, and return them as data."""
    manifests = map(read_manifest, written_networks(run.export_path, MANIFEST))
    networks = sorted(map(exported_network, manifests), key=lambda network: network.latency_s)
    reporter.show(table(networks))
    for line in _footnotes(networks, run):
        reporter.say(line)
    reporter.say(f"models: {run.export_path}{os.sep}ID{os.sep}model.onnx    report: {run.report_path}")
    rows = [
        {
            "id": network.id,
            "test_accuracy": network.test_accuracy,
            "test_accuracy_standard_error": network.standard_error,
            "latency_s": network.latency_s,
            "latency_iqr_s": network.iqr_s,
            "load": network.load,
            "size_bytes": network.size_bytes,
        }
        for network in networks
    ]
    return {"folder": str(run.folder), "exported": rows, "report": str(run.report_path)}


def table(networks: Sequence[ExportedNetwork]) -> Table:
    """Return the table; it fits into 80 columns, which is what output that is no terminal gets."""
    remarks = notes(networks)
    columns = ("network", "test accuracy", "latency", "IQR", "ratio", "size", "low-bit")
    rows = [_cells(network) for network in networks]
    if not any(remarks):
        return Table(columns, rows, numbers=6)
    remarked = [(*cells, remark) for cells, remark in zip(rows, remarks, strict=True)]
    return Table((*columns, ""), remarked, numbers=7)


def _cells(network: ExportedNetwork) -> tuple[str, ...]:
    ratio = network.of_largest
    return (
        network.id,
        f"{100 * network.test_accuracy:.2f} ± {100 * network.standard_error:.2f} %",
        show(objective("latency"), network.latency_s),
        show(objective("latency"), network.iqr_s),
        "-" if ratio is None else f"{ratio:.2f} x",
        show(objective("size"), network.size_bytes),
        f"{network.low_bit} of {network.layers}",
    )


def _footnotes(networks: Sequence[ExportedNetwork], run: Run) -> list[str]:
    if not networks:
        return []
    loads = [network.load for network in networks if network.load is not None]
    load = f" (load {max(loads):.1f})" if loads else ""
    times = "looked up, not measured" if run.recorded else f"medians, measured in turns when exported{load}"
    images = f"test accuracy: through the file, on {networks[0].test_images:,} images, ± standard error"
    ratio = "ratio: to the largest network in fp32, in the same turns"
    present = set(notes(networks))
    remarks = [f"{key} {NOTES[key]}" for key in NOTES if key in present]
    return [images, f"latency: {times}; {ratio}", *remarks]
