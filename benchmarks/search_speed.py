"""Candidates predicted and costed per second on one core.

Once-for-all's MobileNetV3 space with its published accuracy predictor (0.74 MFLOP per candidate) and a
published latency table. Ours works on genome matrices. The peer takes the same candidates, decoded already,
one at a time, with the feature vector and the dictionary look-ups of the published code. Both must give the
same numbers.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from harness import Row, interleaved_s, interquartile_range, one_core, parse_arguments, report
from ofa_mbv3 import (
    ROWS,
    STAGES,
    AccuracyModel,
    Lut,
    block_key,
    fixed_keys,
    latency_table,
    ofa_space,
    published_lut,
    published_profiles,
    published_slot,
    published_weights,
)

from nas.search.loop import search
from nas.search.searcher import make_searcher
from predictors.table import CostTable
from supernet.space.space import Genomes, Option, SearchSpace

TARGET = 120_000  # candidates per second
ACCURACY_TOLERANCE = 1e-5  # float32, summed in another order
LATENCY_TOLERANCE = 1e-12  # float64, the same
SINGLES = 500  # candidates evaluated one at a time, per repeat
REFERENCE = (-0.70, 0.090)  # accuracy negated, seconds


Decisions = Mapping[str, Option]
Weights = Mapping[str, np.ndarray]
Slots = Mapping[tuple[str, Option], int]


def published_slots(space: SearchSpace) -> Slots:
    """(choice, option) -> input of the published predictor."""
    pairs = [(choice.name, option) for choice in space.choices for option in choice.options]
    slots = {pair: published_slot(pair[0], int(pair[1])) for pair in pairs}
    return {pair: slot for pair, slot in slots.items() if slot is not None}


def accuracy_of(decisions: Decisions, slots: Slots, weights: Weights) -> float:
    """Top-1 in 0..1 of one candidate, as once-for-all's released code predicts it."""
    features = np.zeros(128, np.float32)
    for decision in decisions.items():
        if decision in slots:
            features[slots[decision]] = 1
    for layer in (1, 2, 3):
        features = np.maximum(weights[f"W{layer}"] @ features + weights[f"b{layer}"], 0)
    return float((weights["W4"] @ features + weights["b4"])[0])


def latency_of(decisions: Decisions, lut: Lut) -> float:
    """Seconds of one candidate: the table's entries by name, added up."""
    resolution = int(decisions["resolution"])
    entries = lut[str(resolution)]
    milliseconds = sum(entries[key]["mean"] for key in fixed_keys(resolution))
    for s in range(len(STAGES)):
        for b in range(int(decisions[f"s{s}.depth"])):
            kernel, expand = int(decisions[f"s{s}.b{b}.kernel"]), int(decisions[f"s{s}.b{b}.expand"])
            milliseconds += entries[block_key(resolution, s, b, kernel, expand)]["mean"]
    return milliseconds * 1e-3


def evaluate_singly(decoded: Sequence[Decisions], slots: Slots, weights: Weights, lut: Lut) -> np.ndarray:
    """(n, 2) accuracy and seconds, one candidate after the other."""
    return np.array([(accuracy_of(each, slots, weights), latency_of(each, lut)) for each in decoded])


def matrix_products(weights: Weights, n: int) -> None:
    """Nothing but the predictor's float32 products, by numpy: what one core's sgemm allows."""
    x = np.ones((ROWS, 128), np.float32)
    for _ in range(n // ROWS):
        h = x
        for layer in (1, 2, 3):
            h = h @ weights[f"W{layer}"].T


def matrix_products_onednn(accuracy: AccuracyModel, n: int) -> None:
    """The predictor alone, by oneDNN, on rows that are encoded already."""
    x = torch.ones(ROWS, int(accuracy.space.cardinalities.sum())).to_mkldnn()
    with torch.inference_mode():
        for _ in range(n // ROWS):
            accuracy.net(x)


def search_once(
    name: str, space: SearchSpace, accuracy: AccuracyModel, latency: CostTable, budget: int
) -> None:
    """A whole search: ask, predict, cost, tell."""

    def evaluate(genomes: Genomes) -> tuple[np.ndarray, np.ndarray]:
        return np.column_stack((-accuracy(genomes), latency(genomes))), np.zeros(len(genomes))

    search(make_searcher(name, space, seed=0), evaluate, budget=budget, batch=4096, reference=REFERENCE)


def check(batched: np.ndarray, single: np.ndarray) -> None:
    """Both ways must give the same numbers."""
    np.testing.assert_allclose(batched[:, 0], single[:, 0], rtol=0, atol=ACCURACY_TOLERANCE)
    np.testing.assert_allclose(batched[:, 1], single[:, 1], rtol=LATENCY_TOLERANCE)


def rows(data: Path, repeats: int, n: int) -> list[Row]:
    """Measure everything, `n` candidates at a time."""
    space, weights, lut = ofa_space(), published_weights(data), published_lut(data)
    accuracy, latency = AccuracyModel(space, weights), latency_table(space, published_profiles(data))
    genomes = space.sample(n, rng=np.random.default_rng(0))
    few = genomes[:SINGLES]
    decoded, slots = [space.decode(space.candidate(genome)) for genome in few], published_slots(space)
    check(np.column_stack((accuracy(few), latency(few))), evaluate_singly(decoded, slots, weights, lut))
    tasks = {
        "ours": (n, lambda: (accuracy(genomes), latency(genomes))),
        "one at a time": (SINGLES, lambda: evaluate_singly(decoded, slots, weights, lut)),
        "limit: numpy sgemm alone": (n, lambda: matrix_products(weights, n)),
        "limit: oneDNN predictor alone": (n, lambda: matrix_products_onednn(accuracy, n)),
        "evolution": (n, lambda: search_once("evolution", space, accuracy, latency, n)),
        "nsga2 (pymoo)": (n // 4, lambda: search_once("nsga2", space, accuracy, latency, n // 4)),
    }
    seconds = interleaved_s({name: task for name, (_, task) in tasks.items()}, repeats)
    rates = {name: count / seconds[name] for name, (count, _) in tasks.items()}
    median = {name: float(np.median(rate)) for name, rate in rates.items()}
    metric = ("candidates per second", "1/s", "higher")
    limit = "limit: oneDNN predictor alone"
    share = rates["ours"] / rates[limit]
    peers = {name: median[name] for name in ("one at a time", "limit: numpy sgemm alone", limit)}
    return [
        Row("predict and cost", *metric, median["ours"], interquartile_range(rates["ours"]), peers, TARGET),
        Row(
            "whole search: ask, predict, cost, tell",
            *metric,
            median["evolution"],
            interquartile_range(rates["evolution"]),
            {"nsga2 (pymoo)": median["nsga2 (pymoo)"]},
            TARGET,
        ),
        Row(
            "predict and cost",
            "share of oneDNN's limit",
            "1",
            "higher",
            float(np.median(share)),
            interquartile_range(share),
        ),
    ]


def main() -> None:
    """Run, print and write."""
    arguments = parse_arguments(__doc__, seeds=15)
    repeats, n = (3, 8192) if arguments.quick else (arguments.seeds, 65536)
    with one_core():
        report("search_speed", rows(arguments.data, repeats, n), arguments.json)


if __name__ == "__main__":
    main()
