"""SimQ-NAS's search (LINAS, arXiv:2312.13301) against ours, on networks that its authors measured.

Nothing but recorded rows can be evaluated: 936 BERT networks with their accuracy and multiply-adds, and
ResNet-50 networks with int8 or fp32 for every layer, with their accuracy and latency. Every method is asked
for one network after the other, and counts by the hypervolume of what it has so far, as a share of that of
all rows. Ours is the loop of `nas.search.algorithms.expensive` with the predictor `gp`, which knows
multiply-adds from a table; "our loop as LINAS" is the same loop in that configuration (`LINAS`, predictor
`ridge-svr`), and LINAS the re-implementation of benchmarks/published_searches.py, which shares neither loop
nor predictors.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
from harness import Row, interquartile_range, parse_arguments, report
from published_rows import PublishedRows, bert, ofa_resnet
from published_searches import linas
from threadpoolctl import threadpool_limits

from nas.search.algorithms.expensive import DEFAULT, LINAS, Fit, Plan, Posterior, Predict, search_expensive
from nas.search.deduplication import row_hashes
from nas.search.pareto import Matrix, hypervolume
from nas.search.points import Points
from predictors.predictor import load_predictor
from supernet.space.space import Genomes, SearchSpace, unique_rows

MARKS: Mapping[str, tuple[int, ...]] = {
    "BERT SST-2": (50, 75, 100, 150, 200),
    "ResNet-50": (50, 75, 100, 150),
}
NEARLY = 0.99  # share of the hypervolume that counts as the whole front
REFERENCE = (1.0, 1.0)  # the worst of all rows in either objective
MAIN = "ours"


@dataclass(frozen=True, eq=False)
class Recorded:
    """Networks that were measured, the only ones that can be evaluated.

    Attributes:
        space: they are of.
        genomes: (n, g) different ones.
        objectives: (n, 2) less is better, from 0 for the best row to 1 for the worst.
        cost: (n, g) -> (n,) the second objective, where it follows from a table.
        rows: as published.
    """

    space: SearchSpace
    genomes: Genomes
    objectives: Matrix
    cost: Callable[[Genomes], np.ndarray] | None
    rows: PublishedRows

    def evaluate(self, genomes: Genomes) -> tuple[Matrix, np.ndarray]:
        """Objectives (n, 2) as recorded, and no violation (n,)."""
        hashes = row_hashes(self.genomes)
        order = np.argsort(hashes)
        at = order[np.searchsorted(hashes[order], row_hashes(genomes))]
        return self.objectives[at], np.zeros(len(genomes))

    def measure(self, genomes: Genomes) -> Matrix:
        """Accuracy in percent, negated, and the other objective as LINAS is told it, whose relative error is
        to mean something: it grows from 1, which the best row has, to 2.
        """
        loss, cost = self.evaluate(genomes)[0].T
        return np.column_stack((np.ptp(self.rows.targets) * loss - self.rows.targets.max(), 1 + cost))

    def shares(self, genomes: Genomes) -> np.ndarray:
        """(n,) of the hypervolume of all rows, after each of the genomes (n, g)."""
        objectives = self.evaluate(genomes)[0]
        reached = [hypervolume(objectives[: n + 1], REFERENCE) for n in range(len(genomes))]
        return np.array(reached) / hypervolume(self.objectives, REFERENCE)


def bert_rows(data: Path) -> Recorded:
    """Accuracy on SST-2 and multiply-adds of BERT with fewer layers, heads and feed-forward channels."""
    rows = bert(data)
    distinct = unique_rows(rows.genomes)
    genomes = rows.genomes[distinct]
    macs = rows.costs(genomes)[:, 0]

    def cost(candidates: Genomes) -> np.ndarray:
        return np.asarray((rows.costs(candidates)[:, 0] - macs.min()) / np.ptp(macs))

    objectives = np.column_stack((_scaled(-rows.targets[distinct]), cost(genomes)))
    return Recorded(rows.space, genomes, objectives, cost, rows)


def resnet_rows(data: Path) -> Recorded:
    """Top-1 and latency of ResNet-50 with int8 or fp32, and a rounding of weights, for every layer."""
    rows, latency = ofa_resnet(data, "top1"), ofa_resnet(data, "latency_norm").targets
    distinct = unique_rows(rows.genomes)
    objectives = np.column_stack((_scaled(-rows.targets[distinct]), _scaled(latency[distinct])))
    return Recorded(rows.space, rows.genomes[distinct], objectives, None, rows)


def _scaled(values: np.ndarray) -> np.ndarray:
    return np.asarray((values - values.min()) / np.ptp(values))


RECORDED: Mapping[str, Callable[[Path], Recorded]] = {"BERT SST-2": bert_rows, "ResNet-50": resnet_rows}


def our_loop(
    recorded: Recorded, plan: Plan, predictor: str, *, budget: int, seed: int, table: bool
) -> Genomes:
    """(budget, g) in the order of evaluation; `table` says whether known costs are taken from it."""

    def fit(points: Points) -> Predict:
        make = load_predictor(predictor)
        columns = range(1 if table and recorded.cost else 2)
        fitted = [
            make(recorded.space, seed=seed, costs=recorded.rows.costs).fit(
                points.genomes, points.objectives[:, j]
            )
            for j in columns
        ]

        def predict(genomes: Genomes) -> Posterior:
            predicted = [model.predict(genomes) for model in fitted]
            mean, std = ([getattr(prediction, part) for prediction in predicted] for part in ("mean", "std"))
            if len(fitted) == 1 and recorded.cost:
                mean, std = [*mean, recorded.cost(genomes)], [*std, np.zeros(len(genomes))]
            return Posterior(np.column_stack(mean), np.column_stack(std), np.zeros(len(genomes)))

        return predict

    learn: Fit = fit
    return search_expensive(
        recorded.space,
        learn,
        recorded.evaluate,
        budget=budget,
        reference=REFERENCE,
        seed=seed,
        plan=plan,
        pool=recorded.genomes,
    ).genomes


def searched(recorded: Recorded, name: str, *, budget: int, seed: int) -> Genomes:
    """(budget, g) in the order in which a method evaluates them."""
    match name:
        case "ours":
            return our_loop(recorded, DEFAULT, "gp", budget=budget, seed=seed, table=True)
        case "our loop as LINAS":
            return our_loop(recorded, LINAS, "ridge-svr", budget=budget, seed=seed, table=False)
        case "LINAS":
            return linas_in_order(recorded, budget=budget, seed=seed)
    return np.random.default_rng([seed, 3]).permutation(recorded.genomes)[:budget]


def linas_in_order(recorded: Recorded, *, budget: int, seed: int) -> Genomes:
    """(budget, g) that LINAS evaluates."""
    seen: list[Genomes] = []

    def evaluate(genomes: Genomes) -> Matrix:
        seen.append(genomes)
        return recorded.measure(genomes)

    linas(recorded.space, evaluate, budget=budget, seed=seed, pool=recorded.genomes)
    return np.concatenate(seen)


METHODS = (MAIN, "our loop as LINAS", "LINAS", "random")


Job = tuple[str, str, int]  # task, method, seed


@cache
def networks_of(task: str, data: Path) -> Recorded:
    """Networks of a task, read once by each process."""
    return RECORDED[task](data)


def curve(data: Path, budgets: Mapping[str, int], job: Job) -> np.ndarray:
    """(n,) share of the hypervolume after each evaluation of one method."""
    task, name, seed = job
    with threadpool_limits(1):
        known = networks_of(task, data)
        return known.shares(searched(known, name, budget=budgets[task], seed=seed))


def rows_of(task: str, count: int, marks: tuple[int, ...], shares: Mapping[str, np.ndarray]) -> list[Row]:
    """Hypervolume after so many evaluations, and evaluations for nearly all of it: means of the seeds.

    Args:
        count: networks that were recorded.
        shares: method -> (seeds, n) after each evaluation.
    """
    of, budget = f"{task}, {count} networks", max(marks)
    out = []
    for mark in marks:
        values = {name: curves[:, mark - 1] for name, curves in shares.items()}
        out.append(
            _row(f"{of}: after {mark} evaluations", "hypervolume", "of that of all rows", "higher", values)
        )
    needed = {name: np.array([_evaluations(curve) for curve in curves]) for name, curves in shares.items()}
    label = f"evaluations for {NEARLY:.0%} of the hypervolume, {budget + 1} where {budget} are too few"
    return [*out, _row(of, label, "evaluations", "lower", needed)]


def _row(
    task: str, metric: str, unit: str, better: Literal["higher", "lower"], values: Mapping[str, np.ndarray]
) -> Row:
    means = {name: float(samples.mean()) for name, samples in values.items()}
    ours = means.pop(MAIN)
    return Row(task, metric, unit, better, ours, interquartile_range(values[MAIN]), means)


def _evaluations(shares: np.ndarray) -> int:
    """How many were needed for nearly the whole front; one more than there were where none was enough."""
    reached = np.flatnonzero(shares >= NEARLY)
    return int(reached[0]) + 1 if len(reached) else len(shares) + 1


def main() -> None:
    """Run, print and write."""
    arguments = parse_arguments(__doc__, seeds=10)
    marks = {"BERT SST-2": (60,)} if arguments.quick else MARKS
    seeds = 1 if arguments.quick else arguments.seeds
    jobs = list(product(marks, METHODS, range(seeds)))
    run = partial(curve, arguments.data, {task: max(at) for task, at in marks.items()})
    with ProcessPoolExecutor() as pool:
        curves = dict(zip(jobs, pool.map(run, jobs), strict=True))
    rows = list[Row]()
    for task, at in marks.items():
        shares = {name: np.stack([curves[task, name, seed] for seed in range(seeds)]) for name in METHODS}
        rows += rows_of(task, len(networks_of(task, arguments.data).genomes), at, shares)
    report("simq", rows, arguments.json)


if __name__ == "__main__":
    main()
