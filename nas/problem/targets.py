"""The objectives of a run with their bounds resolved, and how values score on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from nas.problem.costs import Costs
from nas.run.config import RunConfig
from nas.search.objectives import Objective, Values, objective, to_min, violation
from nas.search.pareto import finite_rows
from nas.search.units import show
from predictors.predictor import Predictor
from supernet.families.family import Family
from supernet.space.space import Genomes


@dataclass(frozen=True)
class Targets:
    """What is optimised and what is limited.

    Attributes:
        objectives: those of the search, in order, with bounds.
        limited: objectives that are only limited, with bounds.
    """

    objectives: tuple[Objective, ...]
    limited: tuple[Objective, ...]

    @property
    def bounded(self) -> tuple[Objective, ...]:
        """Everything that has a bound."""
        return tuple(o for o in (*self.objectives, *self.limited) if o.bound is not None)

    def minimised(self, values: Mapping[str, Values]) -> Values:
        """(n, m) objectives, less is better, from values by name."""
        return to_min(self.objectives, value_columns(self.objectives, values))

    def violation(self, values: Mapping[str, Values]) -> Values:
        """(n,) how far the limits are missed, 0 where they are met; infinitely by a network with a value that
        is not finite, limited or not: the device cannot run it.
        """
        missed = np.where(is_feasible_on_device(values), 0.0, np.inf)
        return (
            missed + violation(self.bounded, value_columns(self.bounded, values)) if self.bounded else missed
        )


def is_feasible_on_device(values: Mapping[str, Values]) -> NDArray[np.bool_]:
    """(n,) whether the device can run a network: all its values are finite."""
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


def resolve_targets(config: RunConfig, largest: Mapping[str, float]) -> Targets:
    """Objectives and limits; percentages become shares of `largest`, the largest network in fp32.

    Raises:
        TrilobitError: a percentage of something that the largest network has no value for, or of a network
            that the device cannot run.
    """
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
    return Targets(sought, others)


def limit_lines(config: RunConfig, targets: Targets, largest: Mapping[str, float]) -> list[str]:
    """Return a line for each limit: what applies, and where a percentage comes from.

    Args:
        config: has the limits as they were given.
        targets: has them resolved.
        largest: what the percentages refer to, by objective name.
    """
    given, lines = config.limits(), []
    for limited in targets.bounded:
        line = f"limit: {limited.name} {limited.sign} {show(limited, limited.bound or 0.0)}"
        if given[limited.name].relative:
            whole = show(limited, largest[limited.name])
            line += f": {given[limited.name].value:.3g} x the {whole} predicted for the largest in fp32"
        lines.append(line)
    return lines


def largest_costs(family: Family, costs: Costs) -> dict[str, float]:
    """Predicted costs of the largest network in fp32."""
    genome = np.array([family.corners()["largest/fp32"].genes], np.int16)
    return {name: float(values[0]) for name, values in costs.predict(genome).items()}


def predict_values(
    costs: Costs, predictor: Predictor | None, genomes: Genomes
) -> dict[str, NDArray[np.float64]]:
    """Predicted values (n,) by objective name."""
    values = costs.predict(genomes)
    if predictor is not None:
        values["accuracy"] = np.clip(predictor.predict(genomes).mean, 0.0, 1.0)
    return values
