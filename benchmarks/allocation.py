"""Exact allocation of number formats: how fast, and how far from exact the usual shortcuts are.

The instances are made up: what a format hurts and costs in each layer is drawn at random, over several orders
of magnitude. What is compared is solvers on one instance, never networks. Peers: every assignment (where
there are few enough), and the greedy rule that narrows the layer which hurts least for what it saves until
all limits are met.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from harness import Row, interleaved_s, interquartile_range, one_core, parse_arguments, report

from supernet.solvers.multiple_choice import InfeasibleError, Limit, Problem, Term, solve, total

WIDTHS = {8: (1.0, 1.0), 6: (0.75, 0.9), 4: (0.5, 0.6), 2: (0.25, 0.55)}  # shares of size and of time
TARGET_S = 0.1  # 52 layers


def alone(values: Sequence[np.ndarray]) -> tuple[Term, ...]:
    """A sum that every layer decides by itself."""
    return tuple(Term((layer,), each) for layer, each in enumerate(values))


def instance(layers: int, widths: Sequence[int], seed: int, *, neighbours: bool = False) -> Problem:
    """Damage grows about fourfold with every bit less; limits are halfway between the widest and narrowest.

    Args:
        neighbours: whether two layers in a row of different widths need a conversion, which takes time.
    """
    rng = np.random.default_rng([seed, layers])
    curvature, weights = rng.lognormal(0, 2, layers), rng.lognormal(11, 1.2, layers)
    times = rng.lognormal(3, 0.7, layers)
    bits = np.array(widths)
    damage = [each * 4.0 ** (8 - bits) * (bits < max(bits)) for each in curvature]
    size, time = (np.array([WIDTHS[width][kind] for width in widths]) for kind in (0, 1))
    noise = rng.uniform(0.85, 1.15, (layers, len(widths)))
    conversions = tuple(
        Term((layer, layer + 1), 0.1 * float(np.median(times)) * (1.0 - np.eye(len(widths))))
        for layer in range(layers - 1 if neighbours else 0)
    )
    sums = {"size": alone(np.outer(weights, size)), "time": alone(times[:, None] * noise * time)}
    limits = []
    for name, terms in sums.items():
        ends = [total(terms, np.full(layers, end)) for end in (0, len(widths) - 1)]
        limits.append(Limit(name, (*terms, *(conversions if name == "time" else ())), upper=sum(ends) / 2))
    return Problem((len(widths),) * layers, alone(damage), tuple(limits))


def sums(terms: tuple[Term, ...], assignments: np.ndarray) -> np.ndarray:
    """(n,) the sum of the terms for assignments (layers, n)."""
    return np.sum([term.values[tuple(assignments[list(term.items)])] for term in terms], axis=0)


def every(problem: Problem) -> float:
    """The least damage, by trying every assignment in one sweep of arrays; infinite where none will do."""
    grid = np.indices(problem.choices, np.int8).reshape(len(problem.choices), -1)
    met = np.all([sums(limit.terms, grid) <= limit.upper for limit in problem.limits], axis=0)
    return float(sums(problem.costs, grid)[met].min(initial=np.inf))


def exact(problem: Problem) -> float:
    """The least damage by our solver; infinite where nothing will do."""
    try:
        return solve(problem).cost
    except InfeasibleError:
        return float("inf")


def greedy(problem: Problem) -> float:
    """Damage after narrowing one layer at a time, that of the least damage per excess removed; infinite where
    no step helps any more.
    """
    chosen = np.zeros((len(problem.choices), 1), np.int64)
    while (excess := over(problem, chosen)[0]) > 0:
        steps = [(i, c) for i, k in enumerate(problem.choices) for c in range(int(chosen[i, 0]) + 1, k)]
        others = np.tile(chosen, (1, len(steps)))
        for column, (layer, choice) in enumerate(steps):
            others[layer, column] = choice
        saved = excess - over(problem, others)
        if not (saved > 0).any():
            return float("inf")
        hurt = sums(problem.costs, others) - sums(problem.costs, chosen)
        price = np.where(saved > 0, hurt / np.where(saved > 0, saved, 1.0), np.inf)
        chosen = others[:, [int(price.argmin())]]
    return float(sums(problem.costs, chosen)[0])


def over(problem: Problem, assignments: np.ndarray) -> np.ndarray:
    """(n,) by how much the limits are exceeded, relative and summed, for assignments (layers, n)."""
    relative = [sums(limit.terms, assignments) / limit.upper - 1 for limit in problem.limits]
    return np.maximum(relative, 0).sum(axis=0)


def timed(task: str, problem: Problem, repeats: int, *, brute: bool, target: float | None) -> Row:
    """Seconds to the exact solution; those of the peers beside it."""
    tasks = {"ours": lambda: solve(problem), "greedy": lambda: greedy(problem)}
    if brute:
        tasks["every assignment"] = lambda: every(problem)
    seconds = interleaved_s(tasks, repeats)
    peers = {name: float(np.median(samples)) for name, samples in seconds.items() if name != "ours"}
    ours = seconds["ours"]
    spread = interquartile_range(ours)
    return Row(task, "seconds to solve", "s", "lower", float(np.median(ours)), spread, peers, target)


def gaps(task: str, problems: Sequence[Problem]) -> Row:
    """How much more damage the greedy rule does than the exact solution, in percent."""
    pairs = [(exact(problem), greedy(problem)) for problem in problems]
    more = np.array([100 * (rule / least - 1) for least, rule in pairs if np.isfinite(rule)])
    peers = {"greedy": float(np.median(more)), "greedy, worst": float(more.max())}
    return Row(task, "damage above the least", "%", "lower", 0.0, 0.0, peers, 0.0)


def agreement(count: int) -> Row:
    """Share of random instances of up to 10 layers and 4 widths whose solution costs what the best of all
    assignments costs.
    """
    equal = []
    for seed in range(count):
        layers, k = 2 + seed % 9, 2 + seed % 3
        problem = instance(layers, tuple(WIDTHS)[:k], seed, neighbours=seed % 2 == 1)
        equal.append(np.isclose(exact(problem), every(problem), rtol=1e-9, atol=1e-9))
    share = 100 * float(np.mean(equal))
    return Row(f"{count} random instances", "equal to the best of all", "%", "higher", share, 0.0, {}, 100.0)


def rows(repeats: int, count: int) -> list[Row]:
    """All figures."""
    small = instance(16, (8, 4), 0)
    figures = [agreement(count), timed("16 layers x 2, 2 limits", small, repeats, brute=True, target=None)]
    for layers, widths, neighbours in itertools.product((52,), ((8, 4), (8, 6, 4, 2)), (False, True)):
        kind = ", conversions between neighbours" if neighbours else ""
        task = f"{layers} layers x {len(widths)}, 2 limits{kind}"
        problem = instance(layers, widths, 0, neighbours=neighbours)
        target = None if neighbours else TARGET_S
        figures.append(timed(task, problem, repeats, brute=False, target=target))
        others = [instance(layers, widths, seed, neighbours=neighbours) for seed in range(repeats)]
        figures.append(gaps(task, others))
    return figures


def main() -> None:
    """Run, print and write."""
    arguments = parse_arguments(__doc__, seeds=11)
    repeats, count = (3, 30) if arguments.quick else (arguments.seeds, 1000)
    with one_core():
        report("allocation", rows(repeats, count), arguments.json)


if __name__ == "__main__":
    main()
