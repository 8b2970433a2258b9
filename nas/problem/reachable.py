"""What a space can reach on a device: the least of each limited cost, by a short search, and the most."""

import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.streams import Stream, open_stream, seed_of
from nas.problem.costs import Costs
from nas.problem.targets import Targets, is_feasible_on_device, value_columns
from nas.search.loop import search
from nas.search.objectives import Values, objective, to_min
from nas.search.searcher import make_searcher
from nas.search.units import show
from supernet.families.family import Family
from supernet.space.space import Genomes

PROBE_BUDGET = 6_000  # candidates to find the cheapest network with
NOTHING_RUNS = (
    "the profile rejects some unit of every network; `nas profile` says which: search a space or number "
    "formats that the device can run"
)
NEARLY = 0.02  # a limit this close to the cheapest network found may still be met by one that was not


def worst_costs(family: Family, costs: Costs, *, seed: int) -> dict[str, float]:
    """Return the worst that anything is at the ends of the space, of a cost the most; where the device cannot
    run all of those, the worst of what it can run of some random networks too.

    Raises:
        TrilobitError: it can run none of them.
    """
    genomes = np.array([c.genes for c in family.extremes().values()], np.int16)
    if not is_feasible_on_device(costs.predict(genomes)).all():
        rng = open_stream(seed, Stream.WORST_COSTS)
        genomes = np.concatenate([genomes, family.space().sample(PROBE_BUDGET, rng=rng)])
    values = costs.predict(genomes)
    feasible = is_feasible_on_device(values)
    if not feasible.any():
        raise TrilobitError(f"{NOTHING_RUNS} ({len(genomes)} networks tried)")
    return {
        name: float(column[feasible].min() if objective(name).direction == "max" else column[feasible].max())
        for name, column in values.items()
    }


def check_reachable(family: Family, costs: Costs, targets: Targets, *, seed: int) -> dict[str, float]:
    """Return the best of each limited cost, as a rule the least, that a short search finds.

    Raises:
        TrilobitError: a limit lies beyond it: nothing could ever meet it. Says the nearest reachable value.
    """
    best = {}
    for limited in targets.bounded:
        if limited.origin == "metric" or limited.bound is None:
            continue
        best[limited.name] = reached = _best(family, costs, limited.name, seed)
        if limited.excess(np.array([reached]))[0] > NEARLY:
            raise TrilobitError(
                f"{limited.name} {limited.sign} {show(limited, limited.bound)} cannot be met on this device; "
                f"the nearest reachable value is {show(limited, reached)}"
            )
    return best


def _best(family: Family, costs: Costs, name: str, seed: int) -> float:
    space, sought = family.space(), (objective(name),)
    extremes = np.array([c.genes for c in family.extremes().values()], np.int16)
    searcher = make_searcher("evolution", space, seed=seed_of(seed, Stream.LEAST_COSTS), initial=extremes)

    def evaluate(genomes: Genomes) -> tuple[Values, Values]:
        values = costs.predict(genomes)
        return to_min(sought, value_columns(sought, values)), np.where(
            is_feasible_on_device(values), 0.0, np.inf
        )

    result = search(searcher, evaluate, budget=PROBE_BUDGET, batch=500, reference=[np.finfo(np.float64).max])
    if not len(result.genomes):
        raise TrilobitError(f"{NOTHING_RUNS} ({result.evaluations} networks tried)")
    return float(sought[0].to_min(result.objectives.min(keepdims=True))[0, 0])
