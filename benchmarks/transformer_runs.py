"""Transformers as `nas run` leaves them: errors of sums of a table, and searched fronts against scaling.

`--run` names finished run folders, of one family and searched with different seeds. In the first of them, in
every scenario of decoders: new random networks that the profile never saw, measured whole (MAPE, Kendall's
tau beside that of measuring them again, see `scenarios`). Then the front of each against its family scaled
uniformly, every block of the same heads and feed-forward width, at each depth and each uniform number format:
metrics on the test part, which chose neither, through the files, and latency of all of them in turns.
Hypervolume is counted from the worst of both in metric and latency, as a share of the box to the best.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
from harness import Row, argument_parser, interquartile_range, report
from scenarios import ceilings, measured_twice

from hw_profiles.documents import read_document
from hw_profiles.graph.lowering import lower
from hw_profiles.profiles.latency_model import Validation, WholeNetwork
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.profiles.profile_json import load_profile
from hw_profiles.profiles.whole_networks import measure_networks
from hw_profiles.runtimes.runtime import Job
from nas.evaluation.builder import NetworkBuilder
from nas.evaluation.on_device import DeviceEvaluator
from nas.evaluation.through import device_outputs
from nas.problem.scenarios import timings_of
from nas.run.front_document import Front
from nas.run.run import Run, find_run
from nas.search.pareto import Matrix, hypervolume
from nas.stages.profile import random_emitter
from nas.stages.validation import random_networks
from supernet.families.family import Family
from supernet.space.space import Candidate, unique_rows
from supernet.tasks.metric import main_metric

MOST_ERROR, LEAST_TAU = 0.03, 0.97
SCALES = (0.0, 0.5, 1.0)  # of the way from the smallest option of a choice to the largest
INPUTS = ("resolution", "length")  # roles of what is read; uniform networks have the largest
SEARCHED, SCALED = "searched", "uniform depth and width"


# -- sums of a table -----------------------------------------------------------------------------


def latency_rows(run: Run, networks: int) -> list[Row]:
    """MAPE and tau of `networks` new random networks of each kind, in every scenario."""
    profile, rows = load_profile(run.profile_path), list[Row]()
    truth = replace(
        profile, plan=replace(profile.plan, scale_disturbed=False)
    )  # as it was seen, never scaled
    for objective, timing in timings_of(run.family, profile).items():
        scenario = objective.partition(".")[2]
        first, second = measured_twice(_measured(run, truth, networks, scenario))
        measured = Validation(0, "", tuple(first))
        task = f"{run.family.name}, {run.config.device.name}, {objective}"
        for precision in dict.fromkeys(network.precision for network in measured.networks):
            error = measured.error(timing.calibration, precision)
            name = f"{task}, {precision}"
            share = ("fraction", "lower", error["mape"], 0.0)
            rows.append(Row(name, f"MAPE of {error['n']:.0f}", *share, target=MOST_ERROR))
            pairs = [(a, b) for a, b in zip(first, second, strict=True) if a.precision == precision]
            best = ceilings([a for a, _ in pairs], [b for _, b in pairs])
            rows.append(Row(name, "Kendall tau", "", "higher", error["kendall_tau"], 0.0, best, LEAST_TAU))
    return rows


def _measured(run: Run, profile: DeviceProfile, n: int, scenario: str) -> list[WholeNetwork]:
    """Random networks, each measured twice."""
    rng = np.random.default_rng([run.config.seed, 17])
    drawn = random_networks(run.family, n, rng, scenario)
    networks = [(precision, True, work) for precision, works in drawn.items() for work in works]
    shuffled = [networks[i] for i in rng.permutation(len(networks))]
    return measure_networks(run.device, profile, [*shuffled, *shuffled], emit=random_emitter(run))


# -- the front against scaling -------------------------------------------------------------------


def uniform_networks(family: Family) -> list[Candidate]:
    """Networks whose blocks are alike, at each depth, scale of all widths and uniform number format."""
    space = family.space()
    depth = next(c for c in space.choices if c.role == "depth")

    def gene(choice_at: int, d: int, scale: float, fmt: str) -> int:
        choice = space.choices[choice_at]
        if choice.kind == "precision":
            return family.uniform(choice, fmt)
        if choice is depth:
            return d
        largest = len(choice.options) - 1
        return largest if choice.role in INPUTS else round(scale * largest)

    points = product(range(len(depth.options)), SCALES, family.formats)
    genomes = np.array([[gene(c, *point) for c in range(len(space.choices))] for point in points], np.int16)
    genomes = space.canonical(genomes)
    return [space.candidate(genome) for genome in genomes[unique_rows(genomes)]]


@dataclass(frozen=True, eq=False)
class Judge:
    """Measures networks of a run by the files that it would ship."""

    evaluator: DeviceEvaluator

    @property
    def builder(self) -> NetworkBuilder:
        return self.evaluator.builder

    def __call__(self, candidates: Sequence[Candidate]) -> Matrix:
        """(n, 2) the metric on the test part, less is better, and seconds: of all of them in turns."""
        run, jobs, metrics = self.builder.run, list[Job](), list[float]()
        metric = main_metric(run.task)
        sign = -1.0 if metric.direction == "max" else 1.0
        for candidate in candidates:
            network = self.builder.network(candidate)
            model = self.builder.file_of(network)
            outputs = device_outputs(run, network, model, run.task.test).outputs
            metrics.append(sign * run.task.evaluate(outputs, run.task.test)[metric.name])
            scenario = next(iter(run.family.scenarios), "")
            if scenario:
                network = replace(network, workload=lower(run.family.scenario_workload(candidate, scenario)))
                model = self.builder.file_of(network)
            jobs.append(Job(network.workload, partial(bytes, model)))
        latencies = self.evaluator.latencies(jobs)
        for latency in latencies:
            if latency.error is not None:
                raise RuntimeError(latency.error)
        return np.column_stack((metrics, [latency.median_s for latency in latencies]))


def volumes(measured: Mapping[str, Matrix]) -> dict[str, float]:
    """Hypervolume by name, as a share of the box from the worst to the best of all."""
    everything = np.concatenate(list(measured.values()))
    best, extent = everything.min(axis=0), np.ptp(everything, axis=0)
    extent = np.where(extent > 0, extent, 1.0)
    return {name: hypervolume((points - best) / extent, (1.0, 1.0)) for name, points in measured.items()}


def front_volumes(run: Run) -> dict[str, float]:
    """Hypervolumes of the run's front and of uniform networks, measured together."""
    front = read_document(run.front_path, Front)
    space = run.family.space()
    searched = [space.candidate(np.array(entry.genes, np.int16)) for entry in front.candidates]
    scaled = uniform_networks(run.family)
    measured = Judge(DeviceEvaluator(NetworkBuilder(run)))([*searched, *scaled])
    return volumes({SEARCHED: measured[: len(searched)], SCALED: measured[len(searched) :]})


def front_rows(runs: Sequence[Run]) -> list[Row]:
    """Hypervolume of the fronts, one run each and the mean of all, beside uniform scaling."""
    seed_volumes = {run.config.seed: front_volumes(run) for run in runs}
    task, out = f"{runs[0].family.name}, front against uniform scaling", list[Row]()
    shared = ("hypervolume", "share of the box", "higher")
    for seed, each in seed_volumes.items():
        out.append(Row(f"{task}, seed {seed}", *shared, each[SEARCHED], 0.0, {SCALED: each[SCALED]}))
    searched, scaled = (
        np.array([each[name] for each in seed_volumes.values()]) for name in (SEARCHED, SCALED)
    )
    mean, spread = float(searched.mean()), interquartile_range(searched)
    return [*out, Row(f"{task}, mean of {len(runs)}", *shared, mean, spread, {SCALED: float(scaled.mean())})]


def main(words: Sequence[str] | None = None) -> None:
    """Run, print and write."""
    parser = argument_parser(__doc__, seeds=1)
    parser.add_argument(
        "--run", type=Path, nargs="+", required=True, metavar="DIR", help="finished run folders"
    )
    parser.add_argument("--networks", type=int, default=10, metavar="N", help="random ones of each kind")
    parser.add_argument(
        "--parts", nargs="+", choices=("latency", "front"), default=["latency", "front"], help="default: both"
    )
    arguments = parser.parse_args(words)
    runs = [find_run(folder) for folder in arguments.run]
    rows = list[Row]()
    if "latency" in arguments.parts:
        rows += latency_rows(runs[0], 3 if arguments.quick else arguments.networks)
    if "front" in arguments.parts:
        rows += front_rows(runs)
    report("transformer_runs", rows, arguments.json)


if __name__ == "__main__":
    main()
