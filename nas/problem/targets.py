"""The objectives of a run with their bounds resolved, and how values score on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from nas.problem.costs import Costs
from nas.problem.scenarios import TOKENS_PER_S, scenario_latency
from nas.run.config import RunConfig
from nas.search.objectives import OBJECTIVES, Objective, Values, objective, of_metric, to_min, violation
from nas.search.pareto import finite_rows
from nas.search.units import show
from predictors.predictor import Predictor
from supernet.families.family import Family
from supernet.space.space import Genomes
from supernet.tasks.metric import ACCURACY, CLASSIFICATION, Metric


@dataclass(frozen=True)
class Targets:
    """What is optimised and what is limited.

    Attributes:
        objectives: those of the search, in order, with bounds.
        limited: objectives that are only limited, with bounds.
        metric: the main metric of the task, which is predicted; all others are known of measured networks
        only.
    """

    objectives: tuple[Objective, ...]
    limited: tuple[Objective, ...]
    metric: Objective = OBJECTIVES[ACCURACY.name]

    @property
    def bounded(self) -> tuple[Objective, ...]:
        """Everything that has a bound."""
        return tuple(o for o in (*self.objectives, *self.limited) if o.bound is not None)

    def minimised(self, values: Mapping[str, Values]) -> Values:
        """Return (n, m) objectives, less is better, from values by name."""
        return to_min(self.objectives, value_columns(self.objectives, values))

    def violation(self, values: Mapping[str, Values]) -> Values:
        """Return (n,) how far the limits are missed, 0 where they are met; infinitely by a network with a
        value that is not finite, limited or not: the device cannot run it.

        Limits on metrics besides the main one count where there are values of them: of measured networks.
        """
        missed = np.where(is_feasible_on_device(values), 0.0, np.inf)
        bounded = [o for o in self.bounded if not self.is_only_measured(o) or o.name in values]
        return missed + violation(bounded, value_columns(bounded, values)) if bounded else missed

    def is_only_measured(self, limited: Objective) -> bool:
        """Return whether nothing predicts this objective."""
        return limited.origin == "metric" and limited.name != self.metric.name


def is_feasible_on_device(values: Mapping[str, Values]) -> NDArray[np.bool_]:
    """Return (n,) whether the device can run a network: all its values are finite."""
    return finite_rows(np.stack([*values.values()], axis=1))


def value_columns(objectives: Sequence[Objective], values: Mapping[str, Values]) -> Values:
    """Return (n, m) the values of some objectives, a column each.

    Raises:
        TrilobitError: there are no values of one of them.
    """
    for o in objectives:
        if o.name not in values:
            raise TrilobitError(
                f"this device gives no {o.name}; objectives it has: {', '.join(sorted(values))}"
            )
    return np.stack([values[o.name] for o in objectives], axis=1)


def resolve_targets(
    config: RunConfig, largest: Mapping[str, float], metrics: Sequence[Metric] = CLASSIFICATION
) -> Targets:
    """Return objectives and limits; percentages become shares of `largest`, the largest network in fp32.

    Raises:
        TrilobitError: a percentage of something that the largest network has no value for, or of a network
            that the device cannot run; or a metric that is none of `metrics`, the task's, or that nothing
            predicts and is yet an objective.
    """
    main = of_metric(metrics[0])
    _check_metrics(config, [metric.name for metric in metrics])
    _check_scenarios(config, largest)
    bounds: dict[str, float] = {}
    for name, limit in config.limits().items():
        if limit.relative and name not in largest:
            raise TrilobitError(
                f"limit on {name}: this device gives no {name} that a percentage could refer to"
            )
        bounds[name] = limit.resolve(largest.get(name, np.nan))
        if not np.isfinite(bounds[name]):
            raise TrilobitError(
                f"limit on {name}: the device cannot run the largest network in fp32, so there is no {name} "
                f"that a percentage could refer to; give a number and a unit"
            )
    sought = tuple(objective(name, bounds.get(name)) for name in config.search.objectives)
    others = tuple(
        objective(name, bound) for name, bound in bounds.items() if name not in config.search.objectives
    )
    return Targets(sought, others, main)


def _check_metrics(config: RunConfig, metrics: Sequence[str]) -> None:
    for name in (*config.search.objectives, *config.limits()):
        if objective(name).origin == "metric" and name not in metrics:
            raise TrilobitError(f"this task has no {name}; its metrics: {', '.join(metrics)}")
    for name in config.search.objectives:
        if objective(name).origin == "metric" and name != metrics[0]:
            raise TrilobitError(
                f"{name} is known of measured networks only, so it cannot be searched for; limit it "
                f"(--limit), and search for {metrics[0]}"
            )


def _check_scenarios(config: RunConfig, largest: Mapping[str, float]) -> None:
    for name in (*config.search.objectives, *config.limits()):
        if name not in largest and (name == TOKENS_PER_S or name.startswith(scenario_latency(""))):
            raise TrilobitError(
                f"{name} is known of decoders, which read a prompt and go on from it; space "
                f"{config.space.name} has none: take latency, or a space of decoders"
            )


def limit_lines(config: RunConfig, targets: Targets, largest: Mapping[str, float]) -> list[str]:
    """Return a line for each limit: what applies, and where a percentage comes from.

    Args:
        config: has the limits as they were given.
        targets: has them resolved.
        largest: what the percentages refer to, by objective name.
    """
    limits, lines = config.limits(), []
    for limited in targets.bounded:
        line = f"limit: {limited.name} {limited.sign} {show(limited, limited.bound or 0.0)}"
        if limits[limited.name].relative:
            whole = show(limited, largest[limited.name])
            line += f": {limits[limited.name].value:.3g} x the {whole} predicted for the largest in fp32"
        lines.append(line)
    return lines


def largest_costs(family: Family, costs: Costs) -> dict[str, float]:
    """Return the predicted costs of the largest network in fp32."""
    genome = np.array([family.extreme("largest").genes], np.int16)
    return {name: float(values[0]) for name, values in costs.predict(genome).items()}


def possible(metric: Objective, values: Values) -> Values:
    """Return predicted values of a metric, moved to what it can be: a share to 0..1."""
    return np.clip(values, 0.0, 1.0) if metric.unit == "fraction" else values


def predict_values(
    costs: Costs, predictor: Predictor | None, genomes: Genomes, metric: Objective = OBJECTIVES[ACCURACY.name]
) -> dict[str, NDArray[np.float64]]:
    """Return the predicted values (n,) by objective name."""
    values = costs.predict(genomes)
    if predictor is not None:
        values[metric.name] = possible(metric, predictor.predict(genomes).mean)
    return values
