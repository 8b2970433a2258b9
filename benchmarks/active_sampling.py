"""How many evaluations the strategies of `nas sample` need, choosing from published measurements as a pool.

Every strategy chooses from the same pool, batch by batch, with the code that a run uses; what it learned is
judged on rows that are never chosen: Kendall's tau among all of them, and among the quarter nearest to their
front of accuracy and multiply-adds, which is what a search will look at. Judged by the sampler's own Gaussian
process after every batch, and by `--predictor` (ridge, unless given) after 50, 100 and 200.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from harness import Row, argument_parser, interquartile_range, one_core, report
from latency_spaces import nas_bench_201
from published_rows import PublishedRows, bert, ofa_mobilenet
from scipy.stats import kendalltau

from nas.sampling.sampling import BATCH, DEFAULT_STRATEGY, STRATEGIES, Sampling, SamplingGroup, sample
from nas.search.pareto import rank
from predictors.design.surrogate import (
    embed,
    learn_kernel,
    posterior_mean,
    rank_normalised,
    squared_distances,
)
from predictors.predictor import load_predictor
from predictors.table import gene_table
from supernet.space.space import Genomes, row_keys, unique_rows

POOL, MOST = 800, 200  # rows to choose from, and to choose; all others are tested, up to...
TESTED = 1_000
JUDGED = (50, 100, 200)  # rows after which the predictor is fitted
REFERENCES = (60, 100, 150)  # of random rows, whose tau the others shall reach with fewer
CONV_3X3 = 9.0  # multiply-adds of NAS-Bench-201's operations, in those of its 1x1 convolution
NEAR = 0.25  # share of the tested rows that counts as near the front

Floats = np.ndarray


@dataclass(frozen=True, eq=False)
class Learned:
    """One strategy, one draw.

    Attributes:
        n: (b,) rows after each batch.
        taus, near: (b,) of the sampler's own model, among all tested rows and among those near the front.
        judged: rows -> tau of the predictor.
    """

    n: Floats
    taus: Floats
    near: Floats
    judged: Mapping[int, float]


def nas_bench(data: Path) -> PublishedRows:
    """Accuracy in percent on CIFAR-10 of NAS-Bench-201, operations that lead nowhere left out; and the
    multiply-adds of the others.
    """
    reading = nas_bench_201(data).readings[1]
    accuracy = np.load(data / "latency" / "nb201.npz")["acc"][:, 0].astype(np.float64)
    work = {"nor_conv_1x1": 1.0, "nor_conv_3x3": CONV_3X3}
    costs = gene_table(
        reading.space,
        {c.name: [work.get(str(o), 0.0) for o in c.options] for c in reading.space.choices[1:]},
    )
    first = unique_rows(reading.genomes)  # networks that differ where nothing leads are the same
    return PublishedRows("NAS-Bench-201", reading.space, reading.genomes[first], accuracy[first], costs)


POOLS: Mapping[str, Callable[[Path], PublishedRows]] = {
    "OFA-MBv3": ofa_mobilenet,
    "BERT SST-2": bert,
    "NAS-Bench-201": nas_bench,
}


def learn(rows: PublishedRows, strategy: str, seed: int, predictor: str | None) -> Learned:
    """Let a strategy choose from one random pool, and judge what it chose."""
    distinct = unique_rows(rows.genomes)
    order = np.random.default_rng([seed, 1]).permutation(distinct)
    pool, tested = order[:POOL], order[POOL:][:TESTED]
    answers = dict(zip(row_keys(rows.genomes[pool]).tolist(), rows.targets[pool], strict=True))
    samples = sample(
        sampling_of(rows, pool, strategy, seed),
        lambda genomes: np.array([answers[key] for key in row_keys(genomes).tolist()]),
    )
    asked, truth = rows.genomes[tested], rows.targets[tested]
    cost = rows.costs(asked)[:, 0]
    ranks = rank(np.stack([-truth, cost], axis=1))
    near = np.argsort(ranks, kind="stable")[: round(NEAR * len(tested))]
    counts = np.arange(BATCH, MOST + 1, BATCH)
    taus = [
        [tau(said, truth), tau(said[near], truth[near])]
        for said in (own_model(rows, samples.genomes[:n], samples.answers[:n], asked) for n in counts)
    ]
    judged = {}
    for n in JUDGED if predictor else ():
        fitted = load_predictor(str(predictor))(rows.space, seed=seed, costs=rows.costs)
        said = fitted.fit(samples.genomes[:n], samples.answers[:n]).predict(asked).mean
        judged[n] = tau(said, truth)
    among_all, among_near = np.array(taus).T
    return Learned(counts, among_all, among_near, judged)


def sampling_of(rows: PublishedRows, pool: Floats, strategy: str, seed: int) -> Sampling:
    """A run's sampling, but every network is one of the pool."""
    embedding = embed(rows.space, rows.costs, rng=np.random.default_rng(seed))
    genomes = rows.genomes[pool]
    points = embedding(genomes)

    def draw(n: int, *, rng: np.random.Generator) -> Genomes:
        return rng.permutation(genomes)[:n]

    def nearest(others: Genomes) -> Genomes:
        return genomes[squared_distances(embedding(others), points).sum(axis=0).argmin(axis=1)]

    group = SamplingGroup("pool", draw, nearest, MOST - 1, MOST)
    return Sampling(strategy, embedding, genomes[:1], (group,), lambda g: rows.costs(g)[:, 0], seed)


def own_model(rows: PublishedRows, genomes: Genomes, answers: Floats, asked: Genomes) -> Floats:
    """What the sampler's own model says of genomes (m, g)."""
    rng = np.random.default_rng(0)
    embedding = embed(rows.space, rows.costs, rng=rng)
    known, targets = embedding(genomes), rank_normalised(answers)
    return posterior_mean(learn_kernel(known, targets, rng=rng), known, targets, embedding(asked))


def tau(said: Floats, truth: Floats) -> float:
    """Kendall's tau, 0 where all are equal."""
    return float(kendalltau(said, truth).statistic) if np.ptp(said) > 0 else 0.0


def needed(n: Floats, taus: Floats, target_tau: float) -> float:
    """Rows at which a curve first reaches `target_tau`, between its points; infinite where it never does."""
    reached = np.flatnonzero(taus >= target_tau)
    if not len(reached):
        return float("inf")
    at = int(reached[0])
    if at == 0:
        return float(n[0])
    share = (target_tau - taus[at - 1]) / (taus[at] - taus[at - 1])
    return float(n[at - 1] + share * (n[at] - n[at - 1]))


def rows_of(pool: str, learned: Mapping[str, Sequence[Learned]]) -> list[Row]:
    """The figures of one pool."""
    curves = {name: np.mean([draw.taus for draw in draws], axis=0) for name, draws in learned.items()}
    n = learned["random"][0].n
    others = [name for name in learned if name != "random"]
    out = []
    for reference in REFERENCES:
        target_tau = float(np.interp(reference, n, curves["random"]))
        for name in others:
            single = [
                needed(n, draw.taus, float(np.interp(reference, n, base.taus)))
                for draw, base in zip(learned[name], learned["random"], strict=True)
            ]
            finite = [value for value in single if np.isfinite(value)]
            spread = interquartile_range(np.array(finite)) if finite else 0.0
            count = min(needed(n, curves[name], target_tau), MOST + 1.0)  # "more than all" as a number
            metric = f"to the tau of {reference} random ones ({target_tau:.3f})"
            peers = {"random": float(reference)}
            out.append(Row(f"{pool}, {name}", metric, "evaluations", "lower", count, spread, peers))
    for name in others:
        out += [tau_row(pool, name, learned, "tau", lambda draw: float(draw.taus[4]), f"{n[4]}")]
        out += [
            tau_row(pool, name, learned, "tau near the front", lambda draw: float(draw.near[4]), f"{n[4]}")
        ]
        for count in learned[name][0].judged:
            metric = "tau of the predictor"
            out += [tau_row(pool, name, learned, metric, lambda draw, m=count: draw.judged[m], f"{count}")]
    return out


def tau_row(
    pool: str,
    name: str,
    learned: Mapping[str, Sequence[Learned]],
    metric: str,
    value: Callable[[Learned], float],
    after: str,
) -> Row:
    """One tau beside that of random rows."""
    values, base = ([value(draw) for draw in learned[which]] for which in (name, "random"))
    metric, peers = f"{metric} after {after}", {"random": float(np.mean(base))}
    spread = interquartile_range(np.array(values))
    return Row(f"{pool}, {name}", metric, "", "higher", float(np.mean(values)), spread, peers)


def main() -> None:
    """All pools, all strategies."""
    parser = argument_parser(__doc__, seeds=6)
    parser.add_argument("--predictor", help="also judge by this one; `none` leaves it out")
    parser.add_argument("--pool", action="append", choices=list(POOLS), help="only this one; may be repeated")
    arguments = parser.parse_args()
    predictor = None if arguments.predictor == "none" or arguments.quick else arguments.predictor or "ridge"
    seeds, out = 1 if arguments.quick else arguments.seeds, []
    with one_core():
        for pool in arguments.pool or POOLS:
            rows = POOLS[pool](arguments.data)
            strategies = ("random", DEFAULT_STRATEGY) if arguments.quick else STRATEGIES
            learned = {
                name: [learn(rows, name, seed, predictor) for seed in range(seeds)] for name in strategies
            }
            out += rows_of(pool, learned)
    report("active_sampling", out, arguments.json)


if __name__ == "__main__":
    main()
