"""The analytical accelerator and the published tables, against the published numbers.

Bit Fusion: our model of the array against the 6,567 rows of APQ's table, which a simulator made. Its two
energies are fitted to a random half of the rows; every figure is of the other half. That a depthwise
convolution runs in blocks of 8 channels was read off all rows.

Note 10: one map size at a time is left out of the measured table and interpolated from its neighbours.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from harness import Row, parse_arguments, report
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr

from hw_profiles.graph.layer import Layer, map_layer
from hw_profiles.profiles.published_tables import PublishedTable, interpolated, read_table
from hw_profiles.runtimes.analytical.systolic import layer_cost, load_accelerator

TARGET = 0.95  # rank correlation
FIT_TURNS = 100  # of reweighted least squares: it has settled long before

Numbers = NDArray[np.float64]


def fitted_half(n: int) -> NDArray[np.bool_]:
    """(n,) which rows the energies are fitted to."""
    return np.asarray(np.random.default_rng(0).permutation(n) < n // 2)


def row_layers(rows: Numbers) -> list[Layer]:
    """(n, 11) rows of the table as layers."""
    return [
        map_layer("conv", (c, size, size), out, k, stride, groups, "none", f"int{w}", f"int{a}")
        for c, out, size, k, stride, _, groups, w, a in rows[:, :9].astype(int).tolist()
    ]


def fit_energies(computing: Numbers, moved_bits: Numbers, energy_j: Numbers) -> Numbers:
    """Joules of a computing cycle and of a moved bit: least absolute relative error."""
    design, weight = np.column_stack((computing, moved_bits)) / energy_j[:, None], np.ones(len(energy_j))
    energies = np.zeros(2)
    for _ in range(FIT_TURNS):
        energies = np.linalg.lstsq(design * weight[:, None], weight, rcond=None)[0]
        weight = 1 / np.sqrt(np.maximum(np.abs(design @ energies - 1), 1e-3))
    return energies


def agreement(task: str, predicted: Numbers, published: Numbers) -> Iterator[Row]:
    """Rank correlations and relative error."""
    error = np.abs(predicted / published - 1)
    lower, upper = np.percentile(error, [25, 75])
    yield Row(task, "Spearman", "1", "higher", float(spearmanr(predicted, published)[0]), 0.0, {}, TARGET)
    yield Row(task, "Kendall tau-b", "1", "higher", float(kendalltau(predicted, published)[0]), 0.0)
    tail = {"90th percentile": float(np.percentile(error, 90)), "largest": float(error.max())}
    yield Row(
        task, "median relative error", "1", "lower", float(np.median(error)), float(upper - lower), tail
    )


def bitfusion_rows(data: Path) -> list[Row]:
    """Our array against the table's rows that were not fitted."""
    with np.load(data / "ofa" / "apq_bitfusion_b1_lut.npz", allow_pickle=False) as file:
        published = file["rows"]
    array, fitted = load_accelerator("bitfusion"), fitted_half(len(published))
    costs = [layer_cost(array, layer) for layer in row_layers(published)]
    cycles, computing, moved = np.array([(c.cycles, c.computing, c.moved_bits) for c in costs if c]).T
    latency_s, energy_j = published[:, 9] * 1e-3, published[:, 10] * 1e-3
    energies = fit_energies(computing[fitted], moved[fitted], energy_j[fitted])
    print(
        f"fitted to {fitted.sum():,} rows: {energies[0]:.3g} J a computing cycle,"
        f" {energies[1]:.3g} J a moved bit"
    )
    kinds = {"pointwise": published[:, 6] == 1, "depthwise": published[:, 6] > 1, "all": published[:, 6] > 0}
    out: list[Row] = []
    for kind, chosen in kinds.items():
        held = chosen & ~fitted
        label = f"{kind} ({held.sum():,} rows)"
        out += agreement(f"latency, {label}", cycles[held] / array.clock, latency_s[held])
        ours_j = array.energy_j(computing[held], moved[held])
        out += agreement(f"energy, {label}", np.asarray(ours_j), energy_j[held])
    return out


def interpolation_errors(table: PublishedTable) -> Numbers:
    """Return the (n,) relative error of every unit at every inner size, interpolated without that size."""
    errors = []
    for curve in table.curves.values():
        for size in list(curve)[1:-1]:
            rest = {other: entry for other, entry in curve.items() if other != size}
            errors.append(abs(interpolated(rest, size).latency_s / curve[size].latency_s - 1))
    return np.array(errors)


def interpolation_row(data: Path) -> Row:
    """Blocks of every inner resolution of the Note 10 table, from the resolutions around it."""
    error = interpolation_errors(read_table(data / "ofa" / "note10_latency_lut.json"))
    lower, upper = np.percentile(error, [25, 75])
    tail = {"90th percentile": float(np.percentile(error, 90)), "largest": float(error.max())}
    task = f"Note 10, one map size left out ({len(error)} units)"
    spread = float(upper - lower)
    return Row(task, "median relative error", "1", "lower", float(np.median(error)), spread, tail)


def main() -> None:
    """Run, print and write."""
    arguments = parse_arguments(__doc__, seeds=1)
    rows = [*bitfusion_rows(arguments.data), interpolation_row(arguments.data)]
    report("accelerator_model", rows, arguments.json)


if __name__ == "__main__":
    main()
