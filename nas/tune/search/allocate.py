"""Where a search begins: formats allocated exactly, for some times of the network, or of what else costs."""

import numpy as np
from numpy.typing import NDArray

from nas.tune.policies.space import uniform_genomes
from nas.tune.search.proposals import COST, ROOT, Beliefs
from supernet.solvers.multiple_choice import InfeasibleError, Limit, Problem, Term, solve
from supernet.space.space import Genomes, SearchSpace, unique_rows

LEVELS = 8  # costs that are allocated for, between the least and the most


def allocated(space: SearchSpace, beliefs: Beliefs) -> Genomes:
    """Return policies (k, g) of the least summed divergence at some costs.

    What a choice costs is how the network changes if it alone changes: once from fp32, where conversions are
    its own, and once from the policy in which all others have a format too, where they have mostly gone.
    """
    rows = [_near(space, beliefs, base) for base in uniform_genomes(space)[:2]]
    genomes = np.concatenate(rows)
    return genomes[unique_rows(genomes)]


def _near(space: SearchSpace, beliefs: Beliefs, base: Genomes) -> Genomes:
    """Return the allocations on changes of one policy (g,)."""
    changed = _changes(space, base)
    believed = beliefs(np.concatenate([base[None], changed])).mean
    divergence, cost = believed[:, ROOT] ** 2, believed[:, COST]
    ends = np.cumsum(space.cardinalities)[:-1]
    costs = _terms(np.split(divergence[1:] - divergence[0], ends))
    spent = _terms(np.split(cost[1:] - cost[0], ends))
    least = sum(float(term.values.min()) for term in spent)
    most = sum(float(term.values.max()) for term in spent)
    problem = Problem(tuple(space.cardinalities.tolist()), costs)
    rows = []
    for level in np.linspace(least, most, LEVELS + 1)[:-1]:
        limit = Limit("cost", spent, upper=float(level + 1e-9 * (most - least)))
        try:
            rows.append(solve(Problem(problem.choices, costs, (limit,))).chosen)
        except InfeasibleError:  # by rounding, at the least
            continue
    return np.array(rows, np.int16).reshape(-1, len(base))


def _changes(space: SearchSpace, base: Genomes) -> Genomes:
    """Return (slots, g) a policy with one choice changed, in every way, its own option among them."""
    columns = np.repeat(np.arange(len(base)), space.cardinalities)
    rows = np.tile(base, (len(columns), 1))
    rows[np.arange(len(columns)), columns] = np.concatenate([np.arange(n) for n in space.cardinalities])
    return rows


def _terms(values: list[NDArray[np.float64]]) -> tuple[Term, ...]:
    return tuple(Term((item,), each) for item, each in enumerate(values))
