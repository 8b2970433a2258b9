"""The objectives of a run with their bounds resolved, and how genomes score on them by prediction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from hw_profiles.streams import Stream, open_stream, seed_of
from nas.problem.costs import Costs
from nas.run.config import RunConfig
from nas.search.loop import search
from nas.search.objectives import OBJECTIVES, Objective, Values, objective, to_min, violation
from nas.search.pareto import finite_rows
from nas.search.searcher import make_searcher
from predictors.predictor import Predictor
from supernet.families.family import Family
from supernet.space.space import Genomes

PROBE_BUDGET = 6_000  # candidates to find the cheapest network with
NOTHING_RUNS = (
    "the profile rejects some unit of every network; `nas profile` says which: search a space or number "
    "formats that the device can run"
)
NEARLY = 1.02  # a limit this close to the cheapest network found may still be met by one that was not


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
        return to_min(self.objectives, _columns(self.objectives, values))

    def violation(self, values: Mapping[str, Values]) -> Values:
        """(n,) how far the limits are missed, 0 where they are met; infinitely by a network with a value that
        is not finite, limited or not: the device cannot run it.
        """
        missed = np.where(runs(values), 0.0, np.inf)
        return missed + violation(self.bounded, _columns(self.bounded, values)) if self.bounded else missed


def runs(values: Mapping[str, Values]) -> NDArray[np.bool_]:
    """(n,) whether the device can run a network: all its values are finite."""
    return finite_rows(np.stack([*values.values()], axis=1))


def _columns(objectives: Sequence[Objective], values: Mapping[str, Values]) -> Values:
    for wanted in objectives:
        if wanted.name not in values:
            raise TrilobitError(
                f"this device gives no {wanted.name}; objectives it has: {', '.join(sorted(values))}"
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
    wanted = tuple(replace(OBJECTIVES[name], bound=bounds.get(name)) for name in config.search.objectives)
    others = tuple(
        objective(name, bound) for name, bound in bounds.items() if name not in config.search.objectives
    )
    return Targets(wanted, others)


def limit_lines(config: RunConfig, targets: Targets, largest: Mapping[str, float]) -> list[str]:
    """Return a line for each limit: what applies, and where a percentage comes from.

    Args:
        config: has the limits as they were given.
        targets: has them resolved.
        largest: what the percentages refer to, by objective name.
    """
    given, lines = config.limits(), []
    for limited in targets.bounded:
        sign = "<=" if limited.direction == "min" else ">="
        line = f"limit: {limited.name} {sign} {show(limited, limited.bound or 0.0)}"
        if given[limited.name].relative:
            whole = show(limited, largest[limited.name])
            line += f": {given[limited.name].value:.3g} x the {whole} predicted for the largest in fp32"
        lines.append(line)
    return lines


def largest_costs(family: Family, costs: Costs) -> dict[str, float]:
    """Predicted costs of the largest network in fp32."""
    genome = np.array([family.corners()["largest/fp32"].genes], np.int16)
    return {name: float(values[0]) for name, values in costs.predict(genome).items()}


def worst_costs(family: Family, costs: Costs, *, seed: int) -> dict[str, float]:
    """The most that anything costs at the ends of the space; where the device cannot run all of those, the
    most of what it can run of some random networks too.

    Raises:
        TrilobitError: it can run none of them.
    """
    genomes = np.array([c.genes for c in family.corners().values()], np.int16)
    if not runs(costs.predict(genomes)).all():
        rng = open_stream(seed, Stream.WORST_COSTS)
        genomes = np.concatenate([genomes, family.space().sample(PROBE_BUDGET, rng=rng)])
    values = costs.predict(genomes)
    chosen = runs(values)
    if not chosen.any():
        raise TrilobitError(f"{NOTHING_RUNS} ({len(genomes)} networks tried)")
    return {name: float(column[chosen].max()) for name, column in values.items()}


def predict_values(
    costs: Costs, predictor: Predictor | None, genomes: Genomes
) -> dict[str, NDArray[np.float64]]:
    """Predicted values (n,) by objective name."""
    values = costs.predict(genomes)
    if predictor is not None:
        values["accuracy"] = np.clip(predictor.predict(genomes).mean, 0.0, 1.0)
    return values


def check_reachable(family: Family, costs: Costs, targets: Targets, *, seed: int) -> dict[str, float]:
    """The least of each limited cost that a short search finds.

    Raises:
        TrilobitError: a limit lies below it: nothing could ever meet it. Says the nearest reachable value.
    """
    least = {}
    for limited in targets.bounded:
        if limited.direction == "max" or limited.bound is None:
            continue
        least[limited.name] = found = _least(family, costs, limited.name, seed)
        if limited.bound * NEARLY < found:
            raise TrilobitError(
                f"{limited.name} <= {show(limited, limited.bound)} cannot be met on this device; "
                f"the nearest reachable value is {show(limited, found)}"
            )
    return least


def _least(family: Family, costs: Costs, name: str, seed: int) -> float:
    space = family.space()
    corners = np.array([c.genes for c in family.corners().values()], np.int16)
    searcher = make_searcher("evolution", space, seed=seed_of(seed, Stream.LEAST_COSTS), initial=corners)

    def evaluate(genomes: Genomes) -> tuple[Values, Values]:
        values = costs.predict(genomes)
        return _columns((OBJECTIVES[name],), values), np.where(runs(values), 0.0, np.inf)

    result = search(searcher, evaluate, budget=PROBE_BUDGET, batch=500, reference=[np.finfo(np.float64).max])
    if not len(result.genomes):
        raise TrilobitError(f"{NOTHING_RUNS} ({result.evaluations} networks tried)")
    return float(result.objectives.min())


_SCALES: Mapping[str, tuple[tuple[float, str], ...]] = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")),
    "bytes": ((1e6, "MB"), (1e3, "KB"), (1.0, "B")),
    "MACs": ((1e9, "G"), (1e6, "M"), (1e3, "K"), (1.0, "")),
    "J": ((1.0, "J"), (1e-3, "mJ"), (1e-6, "uJ")),
    "fraction": ((1e-2, "%"),),
}


def show(shown: Objective, value: float) -> str:
    """A value as people write it.

    >>> show(OBJECTIVES["latency"], 0.00031)
    '310 us'
    """
    scales = _SCALES[shown.unit]
    factor, unit = next(((f, u) for f, u in scales if abs(value) >= f), scales[-1])
    return f"{value / factor:.3g} {unit}".rstrip() if unit != "%" else f"{value / factor:.2f} %"


def show_latency(median_s: float, iqr_s: float, load: float | None = None) -> str:
    """Return a measured latency with its spread, and how busy the machine was where that is known.

    >>> show_latency(0.00031, 4.2e-6, 3.14)
    '310 us, IQR 4.2 us, load 3.1'
    """
    latency = OBJECTIVES["latency"]
    busy = "" if load is None else f", load {load:.1f}"
    return f"{show(latency, median_s)}, IQR {show(latency, iqr_s)}{busy}"
