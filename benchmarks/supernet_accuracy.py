"""How good a trained supernet's subnets are on test images: at both ends, at random in between, in fp32 and
quantized, and beside the same architectures trained alone.

Takes a finished run (`--run`, for example of `nas train examples/cifar10.toml`), behind those that it went
on from; where the last had a quantized phase, networks are rounded by its learned scales, otherwise by
calibration alone. Accuracy is that of the simulation, which equals the exported file's. `--alone K` trains K
of the random architectures alone with the runs' own recipes one after the other and as many passes as those
had, in `RUN/alone`; such a training goes on where it was stopped.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from harness import Row, argument_parser, interquartile_range, report
from torch import nn
from trained_alone import Alone, recipe, train_alone

from hw_profiles.graph.counts import macs
from nas.evaluation.builder import NetworkBuilder
from nas.run.reporting import PlainReporter, Reporter, progress_bar
from nas.run.run import Run, find_run
from supernet.families.family import Family, load_family
from supernet.qat.learned import LearnedQuantizers
from supernet.space.space import Candidate
from supernet.tasks.evaluate import build_network, simulated_metric
from supernet.train.initial import NONE

POLICIES = ("fp32", "int8", "int4")  # every layer in the same format
TARGETS = {"largest": 0.93, "smallest": 0.88}
POINT = 0.01


def uniform(family: Family, candidate: Candidate, fmt: str) -> Candidate:
    """The same architecture with every layer in one format."""
    space = family.space()
    genes = np.array(candidate.genes, np.int16)
    for column, choice in enumerate(space.choices):
        if choice.kind == "precision":
            genes[column] = choice.options.index(fmt)
    return space.candidate(genes)


def accuracies(
    run: Run,
    family: Family,
    net: nn.Module,
    chosen: list[Candidate],
    quantizers: LearnedQuantizers | None = None,
) -> Iterator[float]:
    """Test accuracy of each."""
    calibration = NetworkBuilder(run).calibration
    for candidate in chosen:
        network = build_network(family, net, candidate, run.images, calibration, quantizers)
        yield simulated_metric(network, run.images.test, run.images)


def alone_accuracy(
    runs: Sequence[Run], family: Family, candidate: Candidate, number: int, reporter: Reporter
) -> float:
    """Test accuracy of an architecture trained by itself, with the recipe of the supernet and as many passes.

    Args:
        runs: its parts in their order; the first starts anew, every other where the one before it ended.
    """
    only, init = Alone(family, candidate), NONE
    for run in runs:
        path = run.folder / "alone" / f"{candidate.id}.pt"
        config = replace(recipe(run), init=init)
        net = train_alone(
            only,
            run.images,
            config,
            path,
            seed=run.config.seed,
            name=f"alone {number}",
            reporter=reporter,
        )
        init = str(path)
    accuracy = next(accuracies(runs[-1], only, net, [only.extreme("largest")]))
    reporter.say(f"random {number} trained alone: {accuracy:.4f}")
    return accuracy


def main() -> None:
    parser = argument_parser(__doc__, seeds=20)
    parser.add_argument(
        "--run", type=Path, nargs="+", required=True, help="folder of a trained supernet, behind earlier ones"
    )
    parser.add_argument("--alone", type=int, default=0, metavar="K", help="architectures to train alone")
    arguments = parser.parse_args()
    reporter = PlainReporter(partial(print, file=sys.stderr))
    runs = [find_run(folder) for folder in arguments.run]
    run = runs[-1]
    torch.set_num_threads(run.config.train.threads)
    data, trained = run.images, NetworkBuilder(run)
    net, quantizers = trained.supernet, trained.quantizers
    family = run.family
    if quantizers is None:  # weights serve every format
        family = load_family(
            family.name, in_channels=data.channels, classes=len(data.classes), formats=POLICIES
        )
    space = family.space()
    drawn = [
        space.candidate(genes)
        for genes in space.sample(3 if arguments.quick else arguments.seeds, rng=np.random.default_rng(0))
    ]
    architectures = [family.extreme("largest"), family.extreme("smallest"), *drawn]
    found = np.zeros((len(POLICIES), len(architectures)))
    for row, fmt in enumerate(POLICIES):
        chosen = [uniform(family, candidate, fmt) for candidate in architectures]
        with progress_bar(reporter, fmt, len(chosen)) as update:
            for i, accuracy in enumerate(accuracies(run, family, net, chosen, quantizers)):
                found[row, i] = accuracy
                update(i + 1, f"{accuracy:.4f}")
    how = "by calibration" if quantizers is None else "after the quantized phase"
    rows = [
        *_rows_of_ends(found, how),
        *_rows_of_random(found[:, 2:], how, goal=None if quantizers is None else 2.0),
        *_rows_alone(runs, family, drawn[: arguments.alone], found[0, 2:], reporter),
    ]
    mega = [sum(map(macs, family.workload(c).layers)) / 1e6 for c in architectures]
    reporter.say(f"MMACs: largest {mega[0]:.1f}, smallest {mega[1]:.1f}, random {np.median(mega[2:]):.1f}")
    report("supernet_accuracy", rows, arguments.json)


def _rows_of_ends(found: np.ndarray, how: str) -> list[Row]:
    rows = []
    for i, (name, target) in enumerate(TARGETS.items()):
        rows.append(Row(f"{name}, fp32", "test accuracy", "share", "higher", found[0, i], 0.0, {}, target))
        for row, fmt in list(enumerate(POLICIES))[1:]:
            lost = (found[0, i] - found[row, i]) / POINT
            goal = 0.5 if (name, fmt) == ("largest", "int8") else None
            task = f"{name}, {fmt} {how}"
            rows.append(Row(task, "accuracy lost", "points", "lower", lost, 0.0, {}, goal))
    return rows


def _rows_of_random(found: np.ndarray, how: str, goal: float | None) -> list[Row]:
    """`goal`: points that no network in 4 bits should lose more than."""
    n = found.shape[1]
    spread = interquartile_range(found[0])
    rows = [
        Row(f"{n} random, fp32", "test accuracy", "share", "higher", float(np.median(found[0])), spread),
        Row(f"worst of {n} random, fp32", "test accuracy", "share", "higher", float(found[0].min()), 0.0),
    ]
    for row, fmt in list(enumerate(POLICIES))[1:]:
        lost = (found[0] - found[row]) / POINT
        task = f"{n} random, {fmt} {how}"
        median, spread = float(np.median(lost)), interquartile_range(lost)
        usual = 0.7 if fmt == "int8" else None
        rows.append(Row(task, "accuracy lost", "points", "lower", median, spread, {}, usual))
        worst = goal if fmt == "int4" else None
        rows.append(
            Row(f"worst of {task}", "accuracy lost", "points", "lower", float(lost.max()), 0.0, {}, worst)
        )
    return rows


def _rows_alone(
    runs: Sequence[Run], family: Family, drawn: list[Candidate], shared: np.ndarray, reporter: Reporter
) -> list[Row]:
    rows = []
    for i, candidate in enumerate(drawn):
        alone = alone_accuracy(runs, family, candidate, i, reporter)
        peers = {"trained alone, test accuracy": alone, "in the supernet, test accuracy": float(shared[i])}
        lost = (alone - shared[i]) / POINT
        task = f"random {i} against itself trained alone"
        rows.append(Row(task, "accuracy lost", "points", "lower", lost, 0.0, peers, 1.0))
    return rows


if __name__ == "__main__":
    main()
