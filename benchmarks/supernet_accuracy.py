"""How good a trained supernet's subnets are on test images: at both ends, at sizes of one's choice, at random
in between, in fp32 and quantized, and beside the same architectures trained alone.

Takes a finished run (`--run`, for example of `nas train examples/cifar-fast.toml`), behind those that it went
on from; where the last had a quantized phase, networks are rounded by its learned scales, otherwise by
calibration alone. Accuracy is that of the simulation, which equals the exported file's; the networks are
those of the model card that `nas train --ship` writes. `--alone K` trains K of the random architectures alone
with the runs' own recipes one after the other, all their passes and seeds, in `RUN/alone`; such a training
goes on where it was stopped.

    python benchmarks/supernet_accuracy.py --run runs/cifar-pooled --sizes 12 26 --alone 3 \\
        --target largest=0.925 "about 26=0.905" "about 12=0.875" smallest=0.8
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from harness import Row, argument_parser, interquartile_range, report
from torch import nn
from trained_alone import Alone, recipe, train_alone

from hw_profiles.reference.integer_sums import IntegerSums
from hw_profiles.streams import Stream, open_stream
from nas.evaluation.builder import NetworkBuilder
from nas.export.representatives import MILLION, Representative, representatives, scored
from nas.run.reporting import PlainReporter, Reporter, progress_bar
from nas.run.run import Run, find_run
from supernet.data.images import Images
from supernet.families.family import Family, load_family
from supernet.qat.learned import LearnedQuantizers
from supernet.space.space import Candidate, in_format
from supernet.tasks.evaluate import build_network, simulated_metric
from supernet.train.initial import NONE

FORMATS = ("fp32", "int8", "int4")
# every layer in the same format, rounded for devices of those sums
POLICIES = {
    "fp32": ("fp32", IntegerSums.EXACT),
    "int8": ("int8", IntegerSums.EXACT),
    "int8 of 7 bits": ("int8", IntegerSums.SATURATING),
    "int4": ("int4", IntegerSums.EXACT),
}
POINT = 0.01


@dataclass(frozen=True)
class Supernet:
    """What networks are made of.

    Attributes:
        family: with all formats that are measured.
        quantizers: learned scales; None where there was no quantized phase.
    """

    run: Run
    family: Family
    net: nn.Module
    quantizers: LearnedQuantizers | None

    @property
    def policies(self) -> tuple[str, ...]:
        """Names of those that it can be measured in: learned scales are for one kind of sums."""
        return tuple(name for name in POLICIES if self.quantizers is None or name != "int8 of 7 bits")

    def accuracy(self, candidate: Candidate, policy: str = "fp32", examples: Images | None = None) -> float:
        """Accuracy on the test part, or on other examples."""
        number_format, sums = POLICIES[policy]
        space, data = self.family.space(), self.run.images
        genes = in_format(space, np.array([candidate.genes], np.int16), number_format)
        calibration = NetworkBuilder(self.run).calibration
        network = build_network(
            self.family, self.net, space.candidate(genes[0]), data, calibration, self.quantizers, sums=sums
        )
        return simulated_metric(network, data.test if examples is None else examples, data)


def open_supernet(run: Run) -> Supernet:
    """The trained supernet of a run; without learned scales its weights serve every format."""
    trained, data = NetworkBuilder(run), run.images
    if trained.quantizers is not None:
        return Supernet(run, run.family, trained.supernet, trained.quantizers)
    family = load_family(
        run.family.name, in_channels=data.channels, classes=len(data.classes), formats=FORMATS
    )
    return Supernet(run, family, trained.supernet, None)


def alone_accuracy(
    runs: Sequence[Run], family: Family, candidate: Candidate, number: int, reporter: Reporter
) -> float:
    """Test accuracy of an architecture trained by itself, with the recipe of the supernet and as many passes.

    Args:
        runs: its parts in their order; the first starts anew, every other where the one before it ended.
    """
    only, init = Alone.of(family, candidate), NONE
    for run in runs:
        path = run.folder / "alone" / f"{candidate.id}.pt"
        config, name = replace(recipe(run), init=init), f"alone {number}"
        net = train_alone(only, run.images, config, path, seed=run.config.seed, name=name, reporter=reporter)
        init = str(path)
    accuracy = Supernet(runs[-1], only, net, None).accuracy(only.extreme("largest"))
    reporter.say(f"random {number} trained alone: {accuracy:.4f}")
    return accuracy


def targets(words: Sequence[str]) -> dict[str, float]:
    """Accuracies that are aimed at, by network: `largest=0.925`."""
    return {name: float(share) for name, _, share in (word.partition("=") for word in words)}


def main() -> None:
    parser = argument_parser(__doc__, seeds=20)
    parser.add_argument(
        "--run", type=Path, nargs="+", required=True, help="folder of a trained supernet, behind earlier ones"
    )
    parser.add_argument(
        "--sizes",
        type=float,
        nargs="*",
        default=[],
        metavar="M",
        help="also of about M million multiply-adds",
    )
    parser.add_argument("--alone", type=int, default=0, metavar="K", help="architectures to train alone")
    parser.add_argument(
        "--target",
        nargs="*",
        default=[],
        metavar="NAME=SHARE",
        help="accuracy aimed at, of a network in fp32",
    )
    arguments = parser.parse_args()
    aims = targets(arguments.target)
    reporter = PlainReporter(partial(print, file=sys.stderr))
    runs = [find_run(folder) for folder in arguments.run]
    torch.set_num_threads(runs[-1].config.train.threads)
    supernet = open_supernet(runs[-1])
    score = partial(supernet.accuracy, examples=scored(runs[-1].images.validation))
    shown = list(
        representatives(
            supernet.family,
            random=3 if arguments.quick else arguments.seeds,
            rng=open_stream(runs[-1].config.seed, Stream.SHIPPED),
            sizes=[MILLION * size for size in arguments.sizes],
            score=score,
        )
    )
    accuracies = np.zeros((len(supernet.policies), len(shown)))
    for row, policy in enumerate(supernet.policies):
        with progress_bar(reporter, policy, len(shown)) as update:
            for i, network in enumerate(shown):
                accuracies[row, i] = supernet.accuracy(network.candidate, policy)
                update(i + 1, f"{network.name}, {network.macs / MILLION:.1f} MMACs: {accuracies[row, i]:.4f}")
    how = "by calibration" if supernet.quantizers is None else "after the quantized phase"
    first = next(i for i, network in enumerate(shown) if network.name.startswith("random"))
    drawn = [network.candidate for network in shown[first : first + arguments.alone]]
    rows = [
        *_rows_of_each(shown, accuracies, supernet.policies, how, aims),
        *_rows_of_random(
            accuracies[:, first:], supernet.policies, how, goal=None if supernet.quantizers is None else 2.0
        ),
        *_rows_alone(runs, supernet.family, drawn, accuracies[0, first:], reporter),
    ]
    report("supernet_accuracy", rows, arguments.json)


def _rows_of_each(
    shown: Sequence[Representative],
    accuracies: np.ndarray,
    policies: Sequence[str],
    how: str,
    aims: dict[str, float],
) -> Iterator[Row]:
    """Every network: its size, its accuracy in fp32 and, but of random ones, what formats cost it."""
    for i, network in enumerate(shown):
        name = network.name
        yield Row(name, "multiply-adds", "millions", "lower", network.macs / MILLION, 0.0)
        yield Row(
            f"{name}, fp32", "test accuracy", "share", "higher", accuracies[0, i], 0.0, {}, aims.get(name)
        )
        if name.startswith("random"):
            continue
        for row, policy in list(enumerate(policies))[1:]:
            lost = (accuracies[0, i] - accuracies[row, i]) / POINT
            goal = 0.3 if policy == "int8" else None
            yield Row(f"{name}, {policy} {how}", "accuracy lost", "points", "lower", lost, 0.0, {}, goal)


def _rows_of_random(
    accuracies: np.ndarray, policies: Sequence[str], how: str, goal: float | None
) -> list[Row]:
    """`goal`: points that no network in 4 bits should lose more than."""
    n = accuracies.shape[1]
    spread = interquartile_range(accuracies[0])
    rows = [
        Row(f"{n} random, fp32", "test accuracy", "share", "higher", float(np.median(accuracies[0])), spread),
        Row(
            f"worst of {n} random, fp32", "test accuracy", "share", "higher", float(accuracies[0].min()), 0.0
        ),
    ]
    for row, policy in list(enumerate(policies))[1:]:
        lost = (accuracies[0] - accuracies[row]) / POINT
        task = f"{n} random, {policy} {how}"
        median, spread = float(np.median(lost)), interquartile_range(lost)
        usual = 0.3 if policy == "int8" else None
        rows.append(Row(task, "accuracy lost", "points", "lower", median, spread, {}, usual))
        worst = goal if policy == "int4" else None
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
