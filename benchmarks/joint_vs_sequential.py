"""The headline: is it worth deciding architecture, pruning and number formats together?

Three ways to networks for this machine (`joint_methods.py`): (1) a fixed network at several widths, int8
everywhere; (2) stages: architecture in fp32, then pruning, then formats; (3) all genes together, with as many
evaluations as the stages have in all. (2) and (3) are from one trained supernet and by the same predictions;
(1) is ResNet-8 trained alone by the supernet's recipe (`--fixed DIR`, of `joint_fixed.py`), without that
option the plain network in the space with the supernet's weights. Networks spread over the latencies that
both searches reach are exported, tested on the test part through their files, and timed in turns in one run.
APQ (Wang et al. 2020, arXiv:2006.08509) reports half the latency of (1) and 2.3 points over (2), on an
accelerator with 4- to 8-bit layers and with fine-tuning; nothing is fine-tuned here.

`--run` is a folder after `nas profile` and `nas sample` (of any space), such as that of a trained supernet:

    nas profile -o RUN && nas sample -o RUN
    python benchmarks/joint_fixed.py --run RUN -o FIXED
    python benchmarks/joint_vs_sequential.py --run RUN --fixed FIXED

A search drives predictions to where they are wrong. So before anything is compared, networks that (2) and (3)
propose are evaluated on the supernet and learned from, as many of each, round after round; they are kept in
the run's storage, so that the same command goes on where it was stopped. `--learn` does that and no more: the
machine may be busy meanwhile. `--device tvm` measures own kernels (after `nas profile -o RUN --device tvm`).
"""

import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from harness import Row, argument_parser, interquartile_range, one_core, report
from joint_exported import FIXED, PLAIN, Tested, choose, test
from joint_fixed import FixedNetwork, trained_networks
from joint_fronts import Apart, Curve, apart, shares, standard_errors
from joint_methods import METHODS, PARTS, Front, Task, fixed_networks, spread
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from hw_profiles.graph.layer import FP32
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.profiles.profile_json import load_profile
from nas.evaluation.builder import NetworkBuilder
from nas.evaluation.on_supernet import SupernetEvaluator
from nas.problem.costs import compile_costs
from nas.report.drawing import layer_kind
from nas.run.config import DeviceSection, ProfileSection, RunConfig, SampleSection
from nas.run.reporting import PlainReporter
from nas.run.run import Run, find_run, open_run
from nas.stages.fit import fit_predictor, training_rows
from nas.stages.pipeline import run_stage
from predictors.table import distinct_layers
from supernet.space.space import Genomes, row_keys

PUBLISHED_TIMES, PUBLISHED_POINTS = 2.0, 2.3  # APQ over a fixed network, and over stages


@dataclass(frozen=True)
class Effort:
    """How much is done.

    Attributes:
        budget: evaluations of each method.
        rounds: of learning from networks that the methods propose.
        proposed: networks of each method and round.
        chosen: networks of each method that are exported.
        timed: windows of each exported network.
    """

    budget: int = 60_000
    rounds: int = 4
    proposed: int = 8
    chosen: int = 6
    timed: int = 100


QUICK = Effort(budget=3_000, rounds=1, proposed=4, chosen=3, timed=6)


@dataclass(frozen=True, eq=False)
class Study:
    """The networks (n, g) evaluated on a run's supernet, and their accuracies (n,)."""

    evaluator: SupernetEvaluator
    genomes: Genomes
    targets: NDArray[np.float64]

    def task(self) -> Task:
        """With a predictor of all that is known."""
        run = self.evaluator.builder.run
        costs = compile_costs(run.family, load_profile(run.profile_path))
        return Task(run.family, costs, fit_predictor(run, self.genomes, self.targets))

    def learned(self, genomes: Genomes) -> "Study":
        """With the accuracies of more networks, evaluated now where they are not in the storage."""
        space = self.evaluator.builder.run.family.space()
        samples = self.evaluator.sample([space.candidate(genome) for genome in genomes])
        accuracies = np.array(list(samples))
        new = ~np.isin(row_keys(genomes), row_keys(self.genomes))
        rows = np.concatenate((self.genomes, genomes[new]))
        return Study(self.evaluator, rows, np.concatenate((self.targets, accuracies[new])))

    def known(self, genomes: Genomes) -> NDArray[np.float64]:
        """(n,) accuracies of networks that were evaluated."""
        values = dict(zip(row_keys(self.genomes).tolist(), self.targets, strict=True))
        return np.array([values[key] for key in row_keys(genomes).tolist()])


def load_study(run: Run) -> Study:
    """What the run's sample stage evaluated on its supernet: nothing that was learned for another device.

    Raises:
        TrilobitError: that stage has not finished with this configuration.
    """
    evaluator = SupernetEvaluator(NetworkBuilder(run))
    return Study(evaluator, *training_rows(run, evaluator))


@dataclass(frozen=True)
class Surprise:
    """Of networks that one method proposed in one round: predicted minus evaluated accuracy, the mean."""

    method: str
    points: float


def learn(study: Study, effort: Effort) -> tuple[Study, list[Surprise]]:
    """Learn from what the methods propose, as many networks of each."""
    surprises = []
    for r in range(effort.rounds):
        task = study.task()
        for name, method in METHODS.items():
            front = method(task, effort.budget, 1000 + r)
            rows = spread(front, effort.proposed)
            study = study.learned(front.genomes[rows])
            off = front.accuracy[rows] - study.known(front.genomes[rows])
            surprises.append(Surprise(name, 100 * float(off.mean())))
            print(f"round {r + 1}: {surprises[-1]}", file=sys.stderr)
    return study, surprises


# -- figures -----------------------------------------------------------------------------------------------

Fronts = Mapping[str, Front]


def predicted_rows(task: Task, every: Sequence[Fronts], effort: Effort) -> Iterator[Row]:
    """Of all seeds: how far the joint search is ahead by prediction, and which of its freedoms matter."""
    fixed = task.front(fixed_networks(task))
    names = list(every[0])
    curves = [[_curve(fronts[name]) for name in names] + [_curve(fixed)] for fronts in every]
    volumes = dict(zip([*names, PLAIN], np.array([shares(row) for row in curves]).T, strict=True))
    where = f"predicted, {effort.budget} evaluations each, {len(every)} seeds"
    peers = {
        name: float(np.median(hypervolumes)) for name, hypervolumes in volumes.items() if name != "joint"
    }
    own = volumes["joint"]
    volume = float(np.median(own)), interquartile_range(own), peers
    yield Row(f"{where}: joint", "hypervolume", "share of the box", "higher", *volume)
    for i, name in enumerate([*names, PLAIN]):
        if name != "joint":
            gaps = [apart(row[names.index("joint")], row[i]) for row in curves]
            yield from _ahead(f"{where}: joint against {name}", gaps, name)


def _ahead(task: str, gaps: Sequence[Apart], peer: str) -> Iterator[Row]:
    """Medians over seeds; nothing where two fronts have no range in common."""
    points, times = (np.array([getattr(gap, name) for gap in gaps]) for name in ("points", "times"))
    if np.isfinite(points).all():
        most = {"most, at one latency": float(np.median([gap.points_most for gap in gaps]))}
        target = PUBLISHED_POINTS if peer == "sequential" else None
        row = float(np.median(points)), interquartile_range(points), {**most, **_worst(points)}, target
        yield Row(task, "accuracy at equal latency", "points", "higher", *row)
    if np.isfinite(times).all():
        most = {"most, at one accuracy": float(np.median([gap.times_most for gap in gaps]))}
        target = PUBLISHED_TIMES if peer in (FIXED, PLAIN) else None
        row = float(np.median(times)), interquartile_range(times), {**most, **_worst(times)}, target
        yield Row(task, "speed at equal accuracy", "times as fast", "higher", *row)


def _worst(values: NDArray[np.float64]) -> dict[str, float]:
    return {"worst seed": float(values.min())} if len(values) > 1 else {}


def _curve(front: Front) -> Curve:
    return Curve(front.latency_s, front.accuracy)


def measured_rows(tested: Sequence[Tested]) -> Iterator[Row]:
    """How far the joint search is ahead of each peer, with the standard error that the test images leave."""
    names = dict.fromkeys((*METHODS, *(network.method for network in tested)))
    groups = {name: [network for network in tested if network.method == name] for name in names}
    seconds = {
        name: np.array([network.latency.median_s for network in group]) for name, group in groups.items()
    }
    right = {name: np.array([network.right for network in group]) for name, group in groups.items()}
    rng, images = np.random.default_rng(0), len(tested[0].right)
    for peer in (name for name in groups if name != "joint"):
        pair = "joint", peer
        gap = apart(*(Curve(seconds[name], right[name].mean(axis=1)) for name in pair))
        errors = standard_errors([seconds[n] for n in pair], [right[n] for n in pair], rng)
        where = f"measured, {images} test images: joint against {peer}"
        for row, error in zip(_ahead(where, [gap], peer), errors, strict=False):
            low, high = gap.latencies_s if row.unit == "points" else gap.accuracies
            scale = (1e6, "us") if row.unit == "points" else (100, "%")
            ends = {f"from, {scale[1]}": scale[0] * low, f"to, {scale[1]}": scale[0] * high}
            yield replace(row, spread=error, peers={**row.peers, **ends})


def network_rows(tested: Sequence[Tested]) -> Iterator[Row]:
    """Every exported network."""
    for i, network in enumerate(tested):
        accuracy, quiet = 100 * float(network.right.mean()), network.latency.quiet_share
        peers = {"test accuracy, %": accuracy, **network.chosen.expected, "quiet windows, share": quiet}
        latency_us, spread_us = 1e6 * network.latency.median_s, 1e6 * network.latency.iqr_s
        yield Row(f"network {i}: {network.method}", "latency", "us", "lower", latency_us, spread_us, peers)


def shape_rows(task: Task, tested: Sequence[Tested]) -> Iterator[Row]:
    """What the networks of each method look like, on average: every choice as a share of its largest option,
    and the share of layers in each format.
    """
    space, means = task.space, dict[str, dict[str, float]]()
    for name in METHODS:
        genomes = [network.chosen.genome for network in tested if network.method == name]
        decoded = [space.decode(space.candidate(genome)) for genome in genomes if genome is not None]
        parts: dict[str, list[float]] = {}
        for choice in space.choices:
            kind = choice.name.rpartition(".")[2]
            for options in decoded:
                if choice.name in options and choice.kind == "precision":
                    for fmt in task.formats:
                        part = f"{kind_of_layer(choice.name)} in {fmt}"
                        parts.setdefault(part, []).append(float(options[choice.name] == fmt))
                elif choice.name in options:
                    value = float(options[choice.name]) / float(max(map(float, choice.options)))
                    parts.setdefault(f"{kind}, of the largest", []).append(value)
        means[name] = {part: float(np.mean(values)) for part, values in parts.items()}
    for part, value in means["joint"].items():
        peers = {name: parts[part] for name, parts in means.items() if name != "joint" and part in parts}
        yield Row(f"chosen by the joint search: {part}", "mean share", "1", "higher", value, 0.0, peers)


def kind_of_layer(choice: str) -> str:
    """The layer that a choice of formats is for, without its block: `s1.b0.expand.format` is an `expand`."""
    return choice.split(".")[-2]


def speed_rows(task: Task, profile: DeviceProfile) -> Iterator[Row]:
    """How much faster int8 makes each kind of layer by the table; a difference lost in the noise may be 0."""
    gains: dict[str, list[float]] = {}
    for layer in distinct_layers(task.space, task.family.terms()):
        if (layer.weight_format, layer.activation_format) == ("int8", "int8"):
            plain = profile.cost_s(layer.with_formats(FP32, FP32))
            if (own := profile.cost_s(layer)) > 0:
                gains.setdefault(layer_kind(layer), []).append(plain / own)
    for kind, ratios in gains.items():
        speedups = np.array(ratios)
        row = (
            float(np.median(speedups)),
            interquartile_range(speedups),
            {"share faster": float((speedups > 1).mean())},
        )
        yield Row(
            f"table, {len(speedups)} of {kind}: int8", "speed against fp32", "times as fast", "higher", *row
        )


def surprise_rows(surprises: Sequence[Surprise], effort: Effort) -> Iterator[Row]:
    """How much too good predictions were, round after round."""
    for name in METHODS:
        points = [surprise.points for surprise in surprises if surprise.method == name]
        if points:
            peers = {f"round {i + 1}": value for i, value in enumerate(points)}
            task = f"{effort.proposed} networks of a predicted front in each round: {name}"
            row = points[-1], 0.0, peers
            yield Row(task, "predicted minus evaluated accuracy", "points", "lower", *row)


# -- the command -------------------------------------------------------------------------------------------


def quick_run(folder: Path) -> Run:
    """A run on the embedded digits: an hour's work in seconds, and as rough."""
    config = RunConfig()
    config = replace(
        config,
        train=replace(config.train, epochs=1, batch_size=128, random_subnets=1),
        sample=SampleSection(fp32=10, quantized=14),
        profile=ProfileSection(share=0.05),
        measure=replace(config.measure, rounds=2, sessions=1, waiting_s=0.0),
    )
    run = open_run(folder, config)
    for stage in ("profile", "train", "sample"):
        run_stage(run, stage, PlainReporter(partial(print, file=sys.stderr)))
    return run


def compare(run: Run, seeds: int, effort: Effort, fixed: Sequence[FixedNetwork]) -> list[Row]:
    """All figures of one run."""
    with _phase("learning"):
        study, surprises = learn(load_study(run), effort)
        task = study.task()
    methods = {**METHODS, **PARTS}
    with _phase("searching"):
        every = [
            {name: method(task, effort.budget, seed) for name, method in methods.items()}
            for seed in range(seeds)
        ]
    with _phase("exporting, testing and timing"):
        chosen = choose(
            study.evaluator.builder, task, {name: every[0][name] for name in METHODS}, effort.chosen, fixed
        )
        tested = test(run, chosen, effort.timed)
    return [
        *measured_rows(tested),
        *predicted_rows(task, every, effort),
        *surprise_rows(surprises, effort),
        *speed_rows(task, load_profile(run.profile_path)),
        *shape_rows(task, tested),
        *network_rows(tested),
    ]


@contextmanager
def _phase(name: str) -> Iterator[None]:
    begin = time.monotonic()
    yield
    print(f"{name}: {time.monotonic() - begin:.0f} s", file=sys.stderr)


def main() -> None:
    """Print the table, write the JSON."""
    parser = argument_parser(__doc__, seeds=3)
    parser.add_argument("--run", type=Path, metavar="DIR", help="after `nas sample` and `nas profile`")
    parser.add_argument("--device", default="", help="instead of the run's, such as tvm")
    parser.add_argument(
        "--rounds", type=int, default=4, help="of learning from what is proposed (default: %(default)s)"
    )
    parser.add_argument(
        "--chosen", type=int, default=6, help="networks of each method to export (default: %(default)s)"
    )
    parser.add_argument("--fixed", type=Path, metavar="DIR", help="networks that `joint_fixed.py` trained")
    parser.add_argument("--learn", action="store_true", help="evaluate what is learned from, and end there")
    arguments = parser.parse_args()
    if not arguments.run and not arguments.quick:
        raise SystemExit("--run DIR is needed, a folder after `nas sample` and `nas profile`; or --quick")
    effort = QUICK if arguments.quick else Effort(rounds=arguments.rounds, chosen=arguments.chosen)
    with threadpool_limits(1) if arguments.learn else one_core(), tempfile.TemporaryDirectory() as folder:
        run = find_run(arguments.run) if arguments.run else quick_run(Path(folder) / "run")
        if arguments.device:
            device = DeviceSection(arguments.device)
            run = replace(run, config=replace(run.config, device=device))
        if not run.profile_path.exists():
            raise SystemExit(f"{run.profile_path}: no such profile; run `nas profile`")
        if arguments.learn:
            torch.set_num_threads(1)  # as in the run that follows, so that the same networks are proposed
            learn(load_study(run), effort)
            return
        fixed = trained_networks(run, arguments.fixed) if arguments.fixed else []
        rows = compare(run, 1 if arguments.quick else arguments.seeds, effort, fixed)
    engine = run.device.describe().engine
    report("joint_vs_sequential" + ("_tvm" if engine == "apache-tvm" else ""), rows, arguments.json)


if __name__ == "__main__":
    main()
