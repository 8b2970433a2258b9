"""Joint search of architecture, pruning and bit-widths in APQ's space: our evolution against APQ's.

Costs are APQ's published BitFusion table (224 pixels, 1,000 classes); accuracy is what our default predictor
says, fitted on samples of a supernet of our own on CIFAR-10 (`apq_samples.npz`, made by
benchmarks/apq_supernet.py). Both searches are asked for the whole front, with the same accuracy model and as
many predictions of accuracy; what a limit or the table rules out costs nothing but a look into the table.
APQ's searches one limit at a time (benchmarks/apq_evolution.py), so it runs at a series of them, and all that
any of them evaluated counts for its front. Ours is compared with the best of its settings, seed by seed: as
published, and made stronger by warm starts from the last limit's networks and by operators on single genes.

Hypervolume is in units of the box that 2,000 random networks span, and counted from its worst corner: their
lowest predicted accuracy and highest cost. What is beyond that corner counts nothing and is no goal.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from apq_evolution import Excess, evolve_front, positions, single_genes
from harness import Row, argument_parser, interquartile_range, one_core, report
from numpy.typing import NDArray

from hw_profiles.graph.counts import macs, params
from hw_profiles.graph.workload import single
from hw_profiles.measure.measurement import MeasurePlan
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.runtimes.analytical.table import TableDevice
from hw_profiles.runtimes.runtime import Job
from nas.problem.costs import Costs, compile_costs
from nas.search.loop import search
from nas.search.pareto import Matrix, hypervolume
from nas.search.repair import TowardsAnchor
from nas.search.searcher import make_searcher
from predictors.assessment.quality import Quality, assess
from predictors.predictor import DEFAULT, Predictor, load_predictor
from predictors.table import compile_table, distinct_layers
from supernet.families.apq import INTEGER_FORMATS
from supernet.families.family import Family, load_family
from supernet.space.space import Genomes, SearchSpace

SAMPLES = Path(__file__).parent / "apq_samples.npz"
TABLE = Path("ofa") / "apq_bitfusion_b1_lut.npz"
BUDGET, QUICK = 40_000, 4_000  # predictions of accuracy; `nas search` has as many in a round
GENERATION = 250  # of ours; APQ's are of 100
RANDOM, RANDOM_DRAWN = 2_000, 20_000  # networks that the hypervolume's box is of: valid ones, and all drawn
TIGHTEST = 0.01  # quantile of random networks' costs: fewer within a limit are not found by rejection
PUBLISHED_MS = (6.11, 8.40, 12.17)  # latencies of APQ's published networks

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class AccuracyModel:
    """Predicted accuracy in 0..1 of networks of the published, integer space.

    Attributes:
        quality: cross-validated.
        samples: how many it learned from; images: that each was evaluated on.
    """

    predictor: Predictor
    quality: Quality
    samples: int
    images: int

    def __call__(self, genomes: Genomes) -> Floats:
        """(n, g) genomes of the integer space -> (n,)."""
        switched = np.array(genomes)
        switched[:, 0] = 1  # the option `integer` of `policy`, which stands alone in that space
        mean: Floats = self.predictor.predict(switched).mean
        return mean


def accuracy_model(path: Path) -> AccuracyModel:
    """Fitted on the samples there, those in fp32 included."""
    family = load_family("apq-proxyless", in_channels=3, classes=10)
    space, costs = family.space(), compile_table(family.space(), family.terms(), (macs, params))
    with np.load(path, allow_pickle=False) as file:
        genomes, targets, images = file["genomes"].astype(np.int16), file["accuracy"], int(file["images"])
    make = load_predictor(DEFAULT)
    quality = assess(make, space, genomes, targets, seed=0, costs=costs)
    return AccuracyModel(
        make(space, seed=0, costs=costs).fit(genomes, targets), quality, len(targets), images
    )


def table_costs(family: Family, path: Path) -> Costs:
    """Of the published table as a device."""
    device, layers = TableDevice(path=path), distinct_layers(family.space(), family.terms())
    measured = device.measure([Job(single(layer), bytes) for layer in layers], MeasurePlan())
    table = dict(zip(layers, measured, strict=True))
    return compile_costs(family, DeviceProfile(device.describe(), MeasurePlan(), table))


@dataclass(frozen=True, eq=False)
class Task:
    """What both searches are given.

    Attributes:
        names: of the costs beside accuracy.
        random: (r, k) costs of random networks that the table has.
        least: (k,) costs of the smallest network in the fewest bits.
        worst, best: (1 + k,) corners of the box that those span: accuracy negated, then the costs.
    """

    space: SearchSpace
    accuracy: AccuracyModel
    costs: Costs
    names: tuple[str, ...]
    random: Floats
    least: Floats
    worst: Floats
    best: Floats

    @classmethod
    def load(cls, accuracy: AccuracyModel, family: Family, costs: Costs, names: tuple[str, ...]) -> "Task":
        """With the box of random networks."""
        space, smallest = family.space(), family.extreme("smallest", "int4")
        least = costs.predict(np.array([smallest.genes], np.int16))
        drawn = space.sample(RANDOM_DRAWN, rng=np.random.default_rng(2020))
        values = costs.predict(drawn)
        valid = np.flatnonzero(np.isfinite(values["latency"]))[:RANDOM]
        random = np.column_stack([values[name][valid] for name in names])
        corners = np.column_stack((-accuracy(drawn[valid]), random))
        worst, best = corners.max(axis=0), corners.min(axis=0)
        return cls(space, accuracy, costs, names, random, np.array([least[n][0] for n in names]), worst, best)

    def cost(self, genomes: Genomes) -> Floats:
        """(n, k), infinite where the table lacks a layer."""
        values = self.costs.predict(genomes)
        return np.column_stack([values[name] for name in self.names])

    def volume(self, objectives: Matrix) -> float:
        """Hypervolume of (n, 1 + k) minimised objectives, as a share of the random networks' box."""
        return hypervolume((objectives - self.best) / (self.worst - self.best), np.ones(len(self.worst)))

    def excess(self, limits: Floats) -> Excess:
        """Of limits (k,) on the costs, infinite for none."""
        return lambda genomes: self.cost(genomes) / limits - 1

    def limits(self, n: int, *, chained: bool) -> list[Excess]:
        """`n` limits from loose to tight, evenly spread from the box's worst corner; of several costs, each
        has its share of them, and the others stay within the box.

        The tightest is what random networks meet now and then, or chained, just above the least there is.
        """
        turns = n // len(self.names)
        tight = self.least if chained else np.quantile(self.random, TIGHTEST, axis=0)
        rows = np.linspace(self.worst[1:], tight, turns + chained)[:turns]
        columns = np.eye(len(self.names), dtype=bool)
        return [self.excess(np.where(column, row, self.worst[1:])) for row in rows for column in columns]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one search found: objectives (n, 1 + k), minimised, and CPU seconds."""

    objectives: Matrix
    spent_s: float

    def best_within(self, seconds: float) -> float:
        """Accuracy in 0..1."""
        return -float(self.objectives[self.objectives[:, 1] <= seconds, 0].min(initial=0.0))


def ours(task: Task, seed: int, budget: int) -> Outcome:
    """The default search, for the whole front."""
    start, excess = time.process_time(), task.excess(task.worst[1:])

    def evaluate(genomes: Genomes) -> tuple[Matrix, Floats]:
        over = excess(genomes).max(axis=1)
        objectives = np.column_stack((-task.accuracy(genomes), task.cost(genomes)))
        return objectives, np.maximum(over, 0.0)

    searcher = make_searcher("evolution", task.space, seed=seed, repair=TowardsAnchor(task.space, excess))
    result = search(searcher, evaluate, budget=budget, batch=GENERATION, reference=task.worst.tolist())
    return Outcome(result.objectives, time.process_time() - start)


@dataclass(frozen=True)
class Setting:
    """Of APQ's search: how many limits, what is drawn and inherited together, and where a limit's search
    begins.
    """

    limits: int
    by_position: bool = True
    chained: bool = False

    def __str__(self) -> str:
        unit = "positions" if self.by_position else "single genes"
        start = "each limit after the looser one" if self.chained else "each limit from random networks"
        return f"APQ, {self.limits} limits, {unit}, {start}"

    def run(self, task: Task, seed: int, budget: int) -> Outcome:
        """Everything that it evaluated."""
        start = time.process_time()
        done = evolve_front(
            task.space,
            task.accuracy,
            task.limits(self.limits, chained=self.chained),
            evaluations=budget,
            groups=(positions if self.by_position else single_genes)(task.space),
            seed=seed,
            chained=self.chained,
        )
        objectives = np.column_stack((done.objectives, task.cost(done.genomes)))
        return Outcome(objectives, time.process_time() - start)


PUBLISHED = (Setting(5), Setting(10), Setting(20))
STRONGER = (  # than published: warm starts, and then also mutation and crossover gene by gene
    Setting(20, chained=True),
    Setting(20, by_position=False, chained=True),
)
TASKS = {  # costs beside accuracy -> settings of APQ's search
    ("latency",): (PUBLISHED, STRONGER),
    ("latency", "energy"): (PUBLISHED[-1:], STRONGER[-1:]),
}


# -- figures -----------------------------------------------------------------------------------------


def front_rows(task: Task, seeds: int, budget: int) -> list[Row]:
    """Both searches on one task."""
    published, stronger = TASKS[task.names]
    own = []
    for seed in range(seeds):
        own.append(ours(task, seed, budget))
        print(f"{task.names}, ours, seed {seed}: {task.volume(own[-1].objectives):.4f}", file=sys.stderr)
    peer_outcomes = {
        setting: [setting.run(task, seed, budget) for seed in range(seeds)]
        for setting in (*published, *stronger)
    }
    name = f"front of accuracy, {', '.join(task.names)}, {budget:,} evaluations"
    volume = _volumes(task, own)
    volumes = {setting: _volumes(task, outcomes) for setting, outcomes in peer_outcomes.items()}
    for setting, peer_volumes in volumes.items():
        print(f"{task.names}, {setting}: {peer_volumes.round(4).tolist()}", file=sys.stderr)
    means = {str(setting): float(peer_volumes.mean()) for setting, peer_volumes in volumes.items()}
    rows = [
        Row(f"{name}, mean of {seeds} seeds", "hypervolume", "random networks' box", "higher",
            float(volume.mean()), interquartile_range(volume), means),
        *_compared(name, volume, "APQ's search as published", [volumes[by] for by in published], True),
        *_compared(name, volume, "any stronger setting of it", [volumes[by] for by in stronger], False),
        _seconds(name, own, peer_outcomes),
    ]  # fmt: skip
    if len(task.names) == 1:
        rows += [_within(name, limit, own, peer_outcomes) for limit in PUBLISHED_MS]
    return rows


def _volumes(task: Task, outcomes: Sequence[Outcome]) -> Floats:
    return np.array([task.volume(outcome.objectives) for outcome in outcomes])


def _compared(
    name: str, volumes: Floats, what: str, peer_volumes: Sequence[Floats], aimed: bool
) -> list[Row]:
    """Hypervolumes (seeds,) beside those of several settings, of which each seed's best counts."""
    best = np.max(peer_volumes, axis=0)
    won, ratio = float((volumes > best).sum()), volumes / best
    lost = {"with less": float((volumes < best).sum())}
    seeds, worst = float(len(volumes)), float(ratio.min())
    return [
        Row(f"{name}, against the best of {what}", "seeds with more hypervolume", f"of {len(volumes)}",
            "higher", won, 0.0, lost, seeds if aimed else None),
        Row(f"{name}, worst seed against the best of {what}", "hypervolume, ours / theirs", "ratio", "higher",
            worst, interquartile_range(ratio), {}, 1.0 if aimed else None),
    ]  # fmt: skip


def _seconds(name: str, own: Sequence[Outcome], peer_outcomes: Mapping[Setting, Sequence[Outcome]]) -> Row:
    seconds = np.array([outcome.spent_s for outcome in own])
    peers = {
        str(by): float(np.median([outcome.spent_s for outcome in outcomes]))
        for by, outcomes in peer_outcomes.items()
    }
    spread = interquartile_range(seconds)
    return Row(f"{name}, median", "CPU time", "s", "lower", float(np.median(seconds)), spread, peers)


def _within(
    name: str, limit: float, own: Sequence[Outcome], peer_outcomes: Mapping[Setting, Sequence[Outcome]]
) -> Row:
    """The most accurate network on the front within a latency that APQ published a network for."""

    def percent(outcomes: Sequence[Outcome]) -> Floats:
        return np.array([100 * outcome.best_within(limit * 1e-3) for outcome in outcomes])

    best = percent(own)
    peers = {str(by): float(percent(outcomes).mean()) for by, outcomes in peer_outcomes.items()}
    return Row(f"{name}: best within {limit} ms, mean", "predicted accuracy", "%", "higher",
               float(best.mean()), interquartile_range(best), peers)  # fmt: skip


def model_rows(accuracy: AccuracyModel) -> list[Row]:
    """How good the accuracy model is."""
    quality, name = accuracy.quality, f"accuracy model, {accuracy.samples} samples, cross-validated"
    taus = {"integer": quality.kendall_tau_quantized, "all": quality.kendall_tau}
    task = f"{name}, each on {accuracy.images} images"
    return [
        Row(f"{task}: {kind}", "Kendall tau", "", "higher", tau, 0.0)
        for kind, tau in taus.items()
        if tau is not None
    ]


def main(words: Sequence[str] | None = None) -> None:
    """Run, print and write."""
    parser = argument_parser(__doc__, seeds=5)
    parser.add_argument(
        "--samples",
        type=Path,
        default=SAMPLES,
        metavar="NPZ",
        help="default: %(default)s",
    )
    arguments = parser.parse_args(words)
    with one_core():
        accuracy = accuracy_model(arguments.samples)
        family = load_family("apq-proxyless", in_channels=3, classes=1000, formats=INTEGER_FORMATS)
        costs, rows = table_costs(family, arguments.data / TABLE), model_rows(accuracy)
        for names in TASKS:
            task = Task.load(accuracy, family, costs, names)
            rows += front_rows(task, arguments.seeds, QUICK if arguments.quick else BUDGET)
    report("joint_apq", rows, arguments.json)


if __name__ == "__main__":
    main()
