"""Whole networks' latency from few measurements: alone, and with full tables of other devices.

Published tables of NAS-Bench-201 (HELP, OneProxy), FBNet (HELP) and HAT. Networks to measure are drawn at
random (or, where it says so, chosen), the rest are predicted. NAS-Bench-201 is read in two ways, with
operations on no path from input to output as they stand and as dead genes; how far a device goes by either
is decided on the measured networks, with other devices and without. Peers get the reading that is better for
them on the networks tested.
Transfer: every other device is a source, on as many networks as it was measured on, but for other batch sizes
of the same chip; FBNet's columns that are exact sums of blocks are left out.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from harness import Row, interquartile_range, one_core, parse_arguments, report
from latency_spaces import Reading, Table, fbnet, hat, nas_bench_201
from scipy.stats import spearmanr
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import RidgeCV

from predictors.features import every
from predictors.latency.device_transfer import AdditiveSources, choose_networks, fit_sources
from predictors.latency.networks import LatencyPredictor, evidence

MEASURED = (10, 20, 50, 100)
TRANSFERRED = (10, 20)
TESTED = 4000  # networks, at random: more change no digit
POOL = 600  # networks that are left to choose from
METRICS = ("Spearman", "within 5 %", "within 10 %")
# What simple models reach, of shared/data/README.md: device -> networks -> METRICS.
TARGETS: Mapping[str, Mapping[int, tuple[float, float, float]]] = {
    "samsung_a50": {20: (0.815, 0.19, 0.36), 50: (0.966, 0.51, 0.76), 100: (0.979, 0.72, 0.92)},
    "true_640": {20: (0.910, 0.41, 0.65), 50: (0.989, 0.91, 0.95), 100: (0.994, 0.96, 0.98)},
    "eagle_dsp_855": {20: (0.688, 0.42, 0.70), 50: (0.919, 0.73, 0.93), 100: (0.942, 0.82, 0.96)},
}
OTHERS = ("eagle_gpu_855", "pixel3", "1080ti_32")  # of NAS-Bench-201; eagle_gpu_855 is an Adreno 640 too
FBNET = ("pixel2", "gold_6240", "1080ti_32")
TRANSFORMERS = ("wmt14ende_cpu_raspberrypi", "wmt14ende_cpu_xeon", "wmt14ende_gpu_titanxp")
PART = "nb201, devices measured on part of the table"
TRANSFER_TARGETS = {"nb201": 0.964, PART: 0.955, "fbnet": 0.969}
PUBLISHED = {  # mean Spearman, 20 measurements; their devices and draws
    "nb201": {"HELP (published)": 0.948, "NASFLAT (published)": 0.959},
    "fbnet": {"HELP (published)": 0.910, "NASFLAT (published)": 0.961},
}

CEILING = "sum over genes, every network measured"

Figures = tuple[float, float, float]  # METRICS
Fit = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # x, y, new x -> predicted


def main() -> None:
    """Print the table, write the JSON."""
    arguments = parse_arguments(__doc__, seeds=10)
    draws = 2 if arguments.quick else arguments.seeds
    with one_core():
        cells, layers = nas_bench_201(arguments.data), fbnet(arguments.data)
        rows = []
        for name in [*TARGETS, *OTHERS]:
            if name in cells.latency:  # true_640 is held back
                rows += alone_rows(f"nb201 {name}", cells, name, draws, TARGETS.get(name, {}))
        for name in FBNET:
            rows += alone_rows(f"fbnet {name}", layers, name, draws, {})
        for name, table in hat(arguments.data).items():
            if name in TRANSFORMERS:
                rows += alone_rows(f"hat {name}", table, "whole", draws, {})
        whole = [name for name, ms in cells.latency.items() if np.isfinite(ms).all()]
        rows += transfer_rows("nb201", cells, whole, draws)
        rows += transfer_rows(PART, cells, [name for name in cells.latency if name not in whole], draws)
        rows += transfer_rows("fbnet", layers, list(layers.latency), draws)
    report("latency_transfer", rows, arguments.json)


# -- without other devices -------------------------------------------------------------------------


def alone_rows(task: str, table: Table, device: str, draws: int, targets: Mapping[int, Figures]) -> list[Row]:
    """Ours and the peers on one device, for every number of measured networks."""
    rows = []
    for n in MEASURED:
        results: dict[str, list[Figures]] = {}
        for seed in range(draws):
            measured, tested = drawn(table.latency[device], n, seed)
            for name, figures in compare(table, table.latency[device], measured, tested, seed).items():
                results.setdefault(name, []).append(figures)
        rows += _rows(f"{task}, {n} measured", results, targets.get(n))
    return rows


def drawn(latency: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(n,) rows to measure and (m,) others to test on, of those with a latency."""
    order = np.random.default_rng(seed).permutation(np.flatnonzero(np.isfinite(latency)))
    return order[:n], order[n : n + min(TESTED, len(order) - n - POOL)]


def compare(
    table: Table, latency: np.ndarray, measured: np.ndarray, tested: np.ndarray, seed: int
) -> dict[str, Figures]:
    """Figures of one draw."""
    predictors = [
        LatencyPredictor(reading.space, seed=seed, costs=reading.costs).fit(
            reading.genomes[measured], latency[measured]
        )
        for reading in table.readings
    ]
    results = {"ours": figures(averaged(predictors, table.readings, tested), latency[tested])}
    for name, fit in PEERS.items():
        every = [
            figures(fit(*_described(reading, measured, tested, latency)), latency[tested])
            for reading in table.readings
        ]
        results[name] = max(every)
    return results


def averaged(fits: Sequence[LatencyPredictor], readings: Sequence[Reading], rows: np.ndarray) -> np.ndarray:
    """Predictions of networks by every reading, as far as the measured ones make it likely."""
    said = [fit.predict(reading.genomes[rows]).mean for fit, reading in zip(fits, readings, strict=True)]
    return evidence(fits) @ np.stack(said)


def _described(
    reading: Reading, measured: np.ndarray, tested: np.ndarray, latency: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One-hot genes, levels of those that are numbers and, where they are known, logarithms of costs."""

    def x(rows: np.ndarray) -> np.ndarray:
        genes = every(reading.space)(reading.genomes[rows]).astype(float)
        if reading.costs is None:
            return genes
        return np.hstack([genes, np.log(reading.costs(reading.genomes[rows]))])

    return x(measured), latency[measured], x(tested)


def _ridge(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
    return np.asarray(RidgeCV(np.geomspace(1e-3, 1e3, 13)).fit(x, y).predict(new))


def _process(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
    kernel = ConstantKernel(1.0) * RBF(3.0, (0.3, 100.0)) + WhiteKernel(1e-2, (1e-6, 1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of a length scale at its bound
        return np.asarray(GaussianProcessRegressor(kernel, normalize_y=True).fit(x, y).predict(new))


PEERS: Mapping[str, Fit] = {"ridge": _ridge, "Gaussian process": _process}


def figures(predicted: np.ndarray, measured: np.ndarray) -> Figures:
    """Spearman's rho and the shares within 5 and 10 %."""
    error = np.abs(predicted / measured - 1)
    rho = float(spearmanr(predicted, measured).statistic) if np.ptp(predicted) > 0 else 0.0
    return rho, float(np.mean(error <= 0.05)), float(np.mean(error <= 0.10))


def _rows(task: str, results: Mapping[str, Sequence[Figures]], targets: Figures | None) -> list[Row]:
    rows = []
    for i, metric in enumerate(METRICS):
        values = {name: np.array([draw[i] for draw in draws]) for name, draws in results.items()}
        peers = {name: float(v.mean()) for name, v in values.items() if name != "ours"}
        unit = "fraction" if i else "rho"
        target = targets[i] if targets else None
        ours, spread = float(values["ours"].mean()), interquartile_range(values["ours"])
        rows.append(Row(task, f"{metric}, mean", unit, "higher", ours, spread, peers, target))
    return rows


# -- with other devices ----------------------------------------------------------------------------


def transfer_rows(task: str, table: Table, devices: Sequence[str], draws: int) -> list[Row]:
    """Mean over held-out devices, networks drawn at random and chosen."""
    seconds = np.column_stack(list(table.latency.values()))
    sources = [
        fit_sources(reading.space, reading.genomes, seconds, list(table.latency))
        for reading in table.readings
    ]
    rows = []
    for n in TRANSFERRED:
        results: dict[str, list[list[Figures]]] = {}
        for seed in range(draws):
            every: dict[str, list[Figures]] = {}
            for device in devices:
                same = [other for other in table.latency if chip(other) == chip(device)]
                others = [source.without(same) for source in sources]
                scores = transfer(table.readings, others, table.latency[device], n, seed)
                scores[CEILING] = max(
                    ceiling(reading, own, table.latency[device], device, n, seed)
                    for reading, own in zip(table.readings, sources, strict=True)
                )
                for name, score in scores.items():
                    every.setdefault(name, []).append(score)
            for name, scores_of in every.items():
                results.setdefault(name, []).append(scores_of)
        rows += _transfer_rows(task, n, {name: np.array(v) for name, v in results.items()})
    return rows


def _transfer_rows(task: str, n: int, results: Mapping[str, np.ndarray]) -> list[Row]:
    """From figures (draws, devices, metrics)."""
    rows = []
    for i, metric in enumerate(METRICS):
        means = {name: values[:, :, i].mean(axis=1) for name, values in results.items()}
        peers = {name: float(v.mean()) for name, v in means.items() if name != "ours"}
        known = i == 0 and n == 20
        target = TRANSFER_TARGETS[task] if known else None
        peers |= PUBLISHED.get(task, {}) if known else {}
        title = f"{task}, new device, {n} measured"
        ours, spread = float(means["ours"].mean()), interquartile_range(means["ours"])
        unit = "fraction" if i else "rho"
        rows.append(Row(title, f"{metric}, mean of devices", unit, "higher", ours, spread, peers, target))
    return rows


def ceiling(
    reading: Reading, sources: AdditiveSources, latency: np.ndarray, device: str, n: int, seed: int
) -> Figures:
    """What the device's own additive predictor reaches, fitted on every network: what the rest is worth."""
    _, tested = drawn(latency, n, seed)
    own = sources(reading.genomes[tested])[:, sources.devices.index(device)]
    return figures(own * np.nanstd(latency) + np.nanmean(latency), latency[tested])


def chip(device: str) -> str:
    """The device without its batch size."""
    head, _, tail = device.rpartition("_")
    return head if head.startswith(("1080", "2080", "titan")) and tail.isdigit() else device


def transfer(
    readings: Sequence[Reading], sources: Sequence[AdditiveSources], latency: np.ndarray, n: int, seed: int
) -> dict[str, Figures]:
    """Figures of one draw on one device: ours on random networks, on chosen ones, and without sources."""
    order, tested = drawn(latency, n, seed)
    started = [
        LatencyPredictor(reading.space, seed=seed, costs=reading.costs, sources=known)
        for reading, known in zip(readings, sources, strict=True)
    ]
    pool = np.setdiff1d(np.flatnonzero(np.isfinite(latency)), tested)
    rng = np.random.default_rng(seed)
    chosen = pool[choose_networks(started[0], readings[0].genomes[pool], n, rng=rng)]
    ways = {
        "ours": (started, order),
        "ours, networks chosen": (started, chosen),
        "ours without other devices": ([replace(predictor, sources=None) for predictor in started], order),
    }
    results = {}
    for name, (predictors, rows) in ways.items():
        fits = [
            predictor.fit(reading.genomes[rows], latency[rows])
            for predictor, reading in zip(predictors, readings, strict=True)
        ]
        results[name] = figures(averaged(fits, readings, tested), latency[tested])
    results["affine fit of the most alike device"] = most_alike(
        readings[0], sources[0], latency, order, tested
    )
    return results


def most_alike(
    reading: Reading, sources: AdditiveSources, latency: np.ndarray, measured: np.ndarray, tested: np.ndarray
) -> Figures:
    """Of the other device that ranks the measured networks most alike, in the new device's unit."""
    known = sources(reading.genomes[measured])
    best = int(np.argmax([spearmanr(column, latency[measured]).statistic for column in known.T]))
    slope, intercept = np.polyfit(known[:, best], latency[measured], 1)
    return figures(slope * sources(reading.genomes[tested])[:, best] + intercept, latency[tested])


if __name__ == "__main__":
    main()
