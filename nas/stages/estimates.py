"""How long the stages of a run will take, from timing a little of each."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from hw_profiles.graph.layer import Layer
from hw_profiles.graph.workload import Workload
from hw_profiles.profiles.batches import Batch, probe_networks, reference_network, works_of
from hw_profiles.profiles.whole_networks import TRUTH
from hw_profiles.runtimes.runtime import Job
from nas.evaluation.builder import NetworkBuilder
from nas.evaluation.on_supernet import SupernetEvaluator
from nas.run.run import STAGES, Run
from nas.search.searcher import SLOWER, USUAL
from nas.stages.finetune import finetune_seconds
from nas.stages.profile import FITTED, HELD_OUT, estimate_batches, random_emitter
from nas.stages.sample import most_samples
from predictors.table import profiled_layers
from supernet.tasks.evaluate import build_network, calibration_examples, simulated_metric
from supernet.train.loop import steps_per_epoch, train
from supernet.train.quantized import phase_steps, train_quantized

TIMED = 6  # networks that are measured to tell how long the others will take
FIT_S = (
    2.0  # one fit of the accuracy predictor, on two idle cores; it hardly depends on the number of samples
)
FITS = 10  # of the fit stage: five folds, and parts of the samples
REFERENCES = 3  # networks that each exported one is measured beside, at most: itself in fp32, and shared ones
MEASURING = ("profile", "search", "export")  # stages that time networks on the device
CORRECTION = (0.5, 5.0)  # what a machine that turns out slower or faster may change an estimate by


@dataclass(frozen=True)
class Estimate:
    """Seconds of each stage that is not done.

    Attributes:
        seconds: by stage, on a machine that is as busy as it is now.
        waiting_s: what waiting for quiet may add, in all stages that measure.
    """

    seconds: Mapping[str, float]
    waiting_s: float = 0.0

    @property
    def total_s(self) -> float:
        """All of them, the waiting included."""
        return sum(self.seconds.values()) + self.waiting_s

    def left_s(self, took_s: Mapping[str, float]) -> float:
        """Return what is left after the stages that took so long.

        Stages that measure are corrected by how far off those that measured were, their waiting included, and
        stages that compute by those that computed: a machine that is never quiet does not train slower.
        """
        measuring = {stage for stage in MEASURING if self.seconds.get(stage, 0.0) > 0}
        waiting_s = self.waiting_s / max(1, len(measuring))
        expected_s = {
            stage: seconds + waiting_s * (stage in measuring) for stage, seconds in self.seconds.items()
        }
        kinds = (
            [stage for stage in expected_s if (stage in measuring) == measures] for measures in (True, False)
        )
        return sum(_left_of({stage: expected_s[stage] for stage in kind}, took_s) for kind in kinds)


def _left_of(expected_s: Mapping[str, float], took_s: Mapping[str, float]) -> float:
    """Return what is left of stages that are all as far off as those of them that are done."""
    done_s = sum(seconds for stage, seconds in expected_s.items() if stage in took_s)
    spent_s = sum(took_s[stage] for stage in expected_s if stage in took_s)
    ratio = spent_s / done_s if done_s >= 1 else 1.0
    rest_s = sum(seconds for stage, seconds in expected_s.items() if stage not in took_s)
    return rest_s * float(np.clip(ratio, *CORRECTION))


def estimate(run: Run) -> Estimate:
    """Return the seconds of every stage that is not done."""
    seconds = dict.fromkeys(STAGES, 0.0)
    search, per_network, restless = run.config.search, 0.0, False
    if not run.recorded and not all(map(run.is_done, ("profile", "search", "export"))):
        ends = [run.family.workload(candidate) for candidate in run.family.extremes().values()]
        per_network, restless = _seconds_each(run, ends[:2])
        per_network *= TRUTH
    if not run.is_done("profile") and not run.recorded:
        measured = _units_seconds(run) + per_network * (FITTED + HELD_OUT) * _precisions(run)
        seconds["profile"] = min(measured, run.config.profile.budget_s())
    if not run.is_done("train"):
        seconds["train"] = _train_seconds(run) + _quantized_seconds(run)
    sampled, evaluation = _evaluation_seconds(run)
    workers = _evaluating(run)
    if not run.is_done("sample"):
        seconds["sample"] = most_samples(run) * sampled / workers
    if not run.is_done("fit"):
        seconds["fit"] = FIT_S * FITS
    if not run.is_done("search"):
        measured = search.rounds * search.finalists * (evaluation / workers + per_network)
        predicted = search.rounds * search.candidates * SLOWER.get(search.searcher, USUAL).candidate_s
        seconds["search"] = measured + predicted + FIT_S * (search.rounds + 2)
    if not run.is_done("export"):
        exported = run.config.export.count * (3 * evaluation + (1 + REFERENCES) * per_network)
        seconds["export"] = exported + finetune_seconds(run)
    measuring = sum(seconds[stage] > 0 for stage in MEASURING)
    waiting_s = run.plan.waiting_s * measuring if restless and not run.recorded else 0.0
    return Estimate(seconds, waiting_s)


def _evaluating(run: Run) -> int:
    """Count those who evaluate networks; where nothing is left to evaluate, no cluster is asked."""
    if run.cluster is None or (run.is_done("sample") and run.is_done("search")):
        return 1
    return run.cluster.count()


def measuring_seconds(run: Run, layers: Sequence[Layer]) -> float:
    """Return how long measuring those of the units that are still to be measured will take."""
    batches = estimate_batches(run, tuple(layers))
    n = probe_networks(run.device, batches, reference_network(run.device, layers))
    works = _some_works(run, batches)
    return n * _seconds_each(run, works)[0] if works else 0.0


def _units_seconds(run: Run) -> float:
    return measuring_seconds(run, profiled_layers(run.family))


def _some_works(run: Run, batches: Sequence[Batch]) -> list[Workload]:
    """Return a few of the networks that will be measured."""
    groups = [group for batch in batches for group in batch.groups]
    positions = np.linspace(0, len(groups) - 1, min(TIMED, len(groups))).round().astype(int)
    return [work for i in positions for work in works_of(run.device, groups[i])[:1]]


def _seconds_each(run: Run, works: Sequence[Workload]) -> tuple[float, bool]:
    """Measure the seconds to emit, open and time one of these, and whether the machine is restless."""
    emit = random_emitter(run)
    start = time.perf_counter()
    jobs = [Job(work, partial(emit, work)) for work in works]
    measured = run.device.measure(jobs, replace(run.plan, waiting_s=0.0))
    seconds = (time.perf_counter() - start) / max(1, len(works))
    return seconds, any(m.undisturbed_windows < run.plan.rounds for m in measured if m.error is None)


def _precisions(run: Run) -> int:
    """Count the kinds of whole networks that calibrate a profile: one for each format, and mixed ones."""
    formats = sum(name.size == "largest" for name in run.family.extremes())
    return formats + (formats > 1)


def _train_seconds(run: Run) -> float:
    """Estimate training from two steps of a throw-away supernet."""
    if run.config.train.epochs == 0:
        return 0.0
    if run.config.train.budget:
        return run.config.train.budget_s
    config = replace(run.config.train, epochs=1, evaluate_every=0, checkpoint_s=float("inf"))
    steps = train(run.family, run.task, config, run.folder / "supernet" / "estimate.pt", seed=run.config.seed)
    next(steps)
    start = time.perf_counter()
    next(steps, None)
    per_step = time.perf_counter() - start
    steps.close()  # type: ignore[attr-defined]
    return per_step * run.config.train.epochs * steps_per_epoch(run.task, run.config.train)


def _quantized_seconds(run: Run) -> float:
    """Estimate the quantized phase from the second step of a throw-away quantized phase."""
    phase = run.config.quantized.phase()
    if phase is None:
        return 0.0
    net = run.family.supernet(rng=np.random.default_rng(0))
    path, little = (
        run.folder / "supernet" / "estimate.pt",
        replace(phase, probes=1, checkpoint_s=float("inf")),
    )
    steps = train_quantized(run.family, net, run.task, little, path, seed=run.config.seed)
    next(steps)
    start = time.perf_counter()
    next(steps, None)
    return (time.perf_counter() - start) * phase_steps(run.task, phase)


def _evaluation_seconds(run: Run) -> tuple[float, float]:
    """Estimate evaluations from the largest and the smallest network of an untrained supernet.

    Returns:
        Seconds for one network on the examples that samples are scored on, and on all of search-validation.
    """
    net = run.family.supernet(rng=np.random.default_rng(0)).eval()
    calibration = calibration_examples(run.task, seed=run.config.seed)
    scoring = SupernetEvaluator(NetworkBuilder(run)).scoring
    smallest = run.family.extreme("smallest")
    networks = (smallest, smallest, run.family.extreme("largest", run.family.formats[-1]))
    building, scored = np.zeros(len(networks)), np.zeros(len(networks))
    with torch.no_grad():
        for i, candidate in enumerate(networks):
            start = time.perf_counter()
            network = build_network(run.family, net, candidate, run.task, calibration, sums=run.sums)
            built = time.perf_counter()
            simulated_metric(network, scoring, run.task)
            building[i], scored[i] = built - start, time.perf_counter() - built
    built_s, scored_s = building[1:].mean(), scored[1:].mean()  # what the first takes longer happens once
    share = len(run.task.validation) / len(scoring)
    return float(built_s + scored_s), float(built_s + share * scored_s)
