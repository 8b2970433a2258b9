"""What every round of one search shares: costs, limits, samples, and values of what was measured."""

from dataclasses import dataclass

import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.profiles.profile_json import load_profile
from nas.evaluation.builder import NetworkBuilder
from nas.evaluation.on_device import DeviceEvaluator
from nas.evaluation.on_supernet import SupernetEvaluator
from nas.problem.costs import Costs, compile_costs
from nas.problem.predicted import check_confidence
from nas.problem.reachable import check_reachable, worst_costs
from nas.problem.targets import Targets, largest_costs, resolve_targets
from nas.run.front_document import Round
from nas.run.run import Run
from nas.search.front import Evaluation
from nas.search.objectives import Values, objective
from nas.search.pareto import hypervolume
from nas.stages.fit import training_rows
from supernet.space.space import Candidate, Genomes
from supernet.tasks.metric import main_metric

Measurements = dict[Candidate, Evaluation]  # in the order in which they were measured


@dataclass(frozen=True, eq=False)
class SearchContext:
    """What every round of one search shares."""

    run: Run
    evaluator: DeviceEvaluator
    costs: Costs
    targets: Targets
    reference: Values  # (m,) minimised
    sampled: tuple[Genomes, np.ndarray]

    @property
    def metric(self) -> str:
        """Name of the task's main metric, which is predicted."""
        return self.evaluator.builder.metric


def prepare_search(run: Run, sampled: tuple[Genomes, np.ndarray] | None = None) -> SearchContext:
    """Load profile and samples, resolve the limits and check that they can be met.

    Args:
        sampled: genomes and accuracies to take for those of the sample stage.

    Raises:
        TrilobitError: a stage before has not run, or a limit cannot be met.
    """
    if not run.profile_path.exists():
        raise TrilobitError(f"{run.profile_path}: no such profile; run `nas profile`")
    costs = compile_costs(run.family, load_profile(run.profile_path))
    builder = NetworkBuilder(run)
    genomes, accuracies = training_rows(run, SupernetEvaluator(builder)) if sampled is None else sampled
    largest = largest_costs(run.family, costs)
    targets = resolve_targets(run.config, largest, run.task.metrics)
    check_confidence(costs, targets, run.config.search.latency_confidence)
    check_reachable(run.family, costs, targets, seed=run.config.seed)
    most = worst_costs(run.family, costs, seed=run.config.seed)
    worst = {
        name: np.array([value / 1.1 if objective(name).direction == "max" else value * 1.1])
        for name, value in most.items()
    }
    metric = main_metric(run.task)
    worst[metric.name] = np.array([accuracies.min() if metric.direction == "max" else accuracies.max()])
    return SearchContext(
        run, DeviceEvaluator(builder), costs, targets, targets.minimised(worst)[0], (genomes, accuracies)
    )


def measured_values(context: SearchContext, measured: Measurements) -> dict[str, Values]:
    """Return measured values (n,) by objective name; counts are exact, and energy is what the profile
    predicts. All that a network that the device failed to run has is infinitely bad.
    """
    evaluations = [*measured.values()]
    ran = [evaluation for evaluation in evaluations if evaluation.error is None]
    always = set.intersection(*(set(evaluation.values) for evaluation in ran)) if ran else {context.metric}
    limited = {o.name for o in context.targets.bounded if context.targets.is_only_measured(o)}
    values = {name: np.array([e.values.get(name, np.nan) for e in evaluations]) for name in always | limited}
    values = {**context.costs.predict(genomes_of_measured(measured)), **values}

    def worst(name: str) -> Values:
        return objective(name).to_min(np.array(np.inf))

    failed = np.array([evaluation.error is not None for evaluation in evaluations])
    return {name: np.where(failed, worst(name), column) for name, column in values.items()}


def genomes_of_measured(measured: Measurements) -> Genomes:
    """Return (n, g) the genomes of measured networks."""
    return np.array([candidate.genes for candidate in measured], np.int16)


def round_summary(context: SearchContext, r: int, measured: Measurements, *, rejected: int = 0) -> Round:
    """Return the real evaluations so far, the hypervolume they reach, and how many candidates the device
    cannot run.
    """
    values = measured_values(context, measured)
    feasible = context.targets.violation(values) <= 0
    volume = hypervolume(context.targets.minimised(values)[feasible], context.reference)
    return Round(r + 1, len(measured), volume, rejected)
