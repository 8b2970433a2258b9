"""How good searches are: best network within a limit, hypervolume per evaluation, and CPU time.

Three tasks on published data. `ofa`: once-for-all's tutorial, its published predictor and Note10 table: the
most accurate network within a limit, each limit in a run of its own, and the whole front in one run.
`surrogate`: every evaluation counts; a surrogate of measured subnets stands for them. `whole`: NAS-Bench-201,
of which all 15,625 networks were measured. Peers are the libraries themselves, or re-implemented as their
authors describe them (benchmarks/published_searches.py).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gaussian_fit import GaussianFit
from harness import Row, argument_parser, interquartile_range, one_core, report
from nb201 import MeasuredSpace
from ofa_mbv3 import AccuracyModel, latency_table, ofa_space, published_profiles, published_weights
from ofa_surrogate import REFERENCE, Surrogate, volume
from published_searches import linas, ofa_evolution
from scipy.stats import kendalltau

from nas.search.algorithms.expensive import Fit, Posterior, Predict, search_expensive
from nas.search.loop import search
from nas.search.pareto import Matrix
from nas.search.points import Points
from nas.search.repair import TowardsAnchor
from nas.search.searcher import make_searcher
from supernet.space.space import Genomes

LIMITS_MS = {15: 78.79, 20: 80.75, 25: 82.20, 30: 83.03}  # and the top-1 in percent to reach there
BUDGET, GENERATION = 80_000, 500  # of one limit
WINDOW = 0.9  # of a limit, below which a network counts as fast as one there
FRONT_BUDGET, FRONT_GENERATION = 300_000, 2_000
FRONT_MS = (10.0, 60.0)
LIMIT_S, FRONT_S = 1.5, 10.0  # CPU seconds allowed

VOLUMES = {250: 0.803, 500: 0.813, 1000: 0.817, 5000: 0.820}
TIMED, ALLOWED_S = 1000, 60.0
SLOW, SLOW_SEEDS = 1000, 2  # evaluations and seeds of peers that need a minute for that

WHOLE_BUDGET, WHOLE_SHARE, WHOLE_TAU = 250, 0.95, 0.8
WHOLE_TAU_AT = 200


# -- the most accurate network within a limit ---------------------------------------------------


@dataclass(frozen=True, eq=False)
class Tutorial:
    """Once-for-all's tutorial."""

    accuracy: AccuracyModel
    latency_ms: Callable[[Genomes], np.ndarray]

    @classmethod
    def load(cls, data: Path) -> "Tutorial":
        """From the published files."""
        space = ofa_space()
        table = latency_table(space, published_profiles(data))
        model = AccuracyModel(space, published_weights(data))
        return cls(model, lambda genomes: table(genomes)[:, 0] * 1e3)

    def percent(self, genomes: Genomes) -> np.ndarray:
        """(n,) predicted top-1."""
        return np.asarray(self.accuracy(genomes), np.float64) * 100

    def best_within(self, limit: float, seed: int, budget: int) -> tuple[float, float]:
        """Top-1 of the best network found, and CPU seconds."""

        def evaluate(genomes: Genomes) -> tuple[Matrix, np.ndarray]:
            latency = self.latency_ms(genomes)
            objectives = np.column_stack((-self.percent(genomes), np.maximum(latency, WINDOW * limit)))
            return objectives, np.maximum(latency / limit - 1, 0)

        start, space = time.process_time(), self.accuracy.space
        repair = TowardsAnchor(space, lambda genomes: self.latency_ms(genomes)[:, None] / limit - 1)
        searcher = make_searcher("evolution", space, seed=seed, repair=repair)
        result = search(searcher, evaluate, budget=budget, batch=GENERATION, reference=(0.0, limit))
        return -float(result.objectives[:, 0].min()), time.process_time() - start

    def front(self, seed: int, budget: int) -> tuple[Matrix, float]:
        """Everything from 10 to 60 ms in one run: (f, 2) top-1 negated and ms, and CPU seconds."""
        low, high = FRONT_MS

        def evaluate(genomes: Genomes) -> tuple[Matrix, np.ndarray]:
            latency = self.latency_ms(genomes)
            objectives = np.column_stack((-self.percent(genomes), np.maximum(latency, low)))
            return objectives, np.maximum(latency / high - 1, 0)

        start, space = time.process_time(), self.accuracy.space
        repair = TowardsAnchor(space, lambda genomes: self.latency_ms(genomes)[:, None] / high - 1)
        searcher = make_searcher("evolution", space, seed=seed, repair=repair)
        result = search(searcher, evaluate, budget=budget, batch=FRONT_GENERATION, reference=(-70.0, high))
        return result.objectives, time.process_time() - start


def ofa_rows(data: Path, seeds: int, *, quick: bool) -> list[Row]:
    """Each limit alone, and the whole front."""
    tutorial, out = Tutorial.load(data), []
    budget, iterations = (4_000, 20) if quick else (BUDGET, 500)
    seconds = []
    for limit, target in LIMITS_MS.items():
        runs = [tutorial.best_within(limit, seed, budget) for seed in range(seeds)]
        top1 = np.array([best for best, _ in runs])
        seconds += [spent for _, spent in runs]
        peer = [
            ofa_evolution(
                tutorial.accuracy.space,
                tutorial.percent,
                tutorial.latency_ms,
                limit,
                seed=seed,
                iterations=iterations,
            )
            for seed in range(seeds)
        ]
        peer_top1 = np.array([best for best, _ in peer])
        peers = {
            "ours, mean": float(top1.mean()),
            f"OFA evolution, mean of {peer[0][1]:,} evaluations": float(peer_top1.mean()),
            "OFA evolution, best seed": float(peer_top1.max()),
        }
        task = f"best top-1 within {limit} ms, {budget:,} evaluations, worst of {seeds} seeds"
        out.append(
            Row(task, "top-1", "%", "higher", float(top1.min()), interquartile_range(top1), peers, target)
        )
    task = f"best top-1 within a limit, {budget:,} evaluations, slowest run"
    out.append(Row(task, "CPU time", "s", "lower", max(seconds), interquartile_range(np.array(seconds)), {},
                   LIMIT_S))  # fmt: skip
    return out + _front_rows(tutorial, seeds, 8_000 if quick else FRONT_BUDGET)


def _front_rows(tutorial: Tutorial, seeds: int, budget: int) -> list[Row]:
    fronts = [tutorial.front(seed, budget) for seed in range(seeds)]
    task = f"front from {FRONT_MS[0]:g} to {FRONT_MS[1]:g} ms in one run of {budget:,} evaluations"
    seconds = np.array([spent for _, spent in fronts])
    out = [Row(f"{task}, slowest", "CPU time", "s", "lower", float(seconds.max()),
               interquartile_range(seconds), {}, FRONT_S)]  # fmt: skip
    for limit in LIMITS_MS:
        best = np.array([-front[front[:, 1] <= limit, 0].min() for front, _ in fronts])
        out.append(Row(f"{task}: best within {limit} ms, mean", "top-1", "%", "higher", float(best.mean()),
                       interquartile_range(best)))  # fmt: skip
    return out


# -- hypervolume per evaluation ------------------------------------------------------------------


def surrogate_rows(data: Path, seeds: int, *, quick: bool) -> list[Row]:
    """Mean hypervolume after so many evaluations, and the time that a thousand take."""
    surrogate = Surrogate(data)
    surrogate.check(data / "subnets" / "surrogate_check.json")
    marks = [250] if quick else list(VOLUMES)
    few, slow = min(SLOW_SEEDS, seeds), min(SLOW, max(marks))
    runs = {
        "ours": [_ours(surrogate, seed, max(marks)) for seed in range(seeds)],
        "our evolution alone": [_plain(surrogate, "evolution", seed, max(marks)) for seed in range(seeds)],
        "random": [_plain(surrogate, "random", seed, max(marks)) for seed in range(seeds)],
        "NSGA-II (pymoo)": [_plain(surrogate, "nsga2", seed, max(marks)) for seed in range(seeds)],
        f"NSGA-II (Optuna), {few} seeds": [_plain(surrogate, "optuna-nsga2", s, slow) for s in range(few)],
        f"LINAS, {few} seeds": [_linas(surrogate, seed, slow) for seed in range(few)],
    }
    out = []
    for mark in marks:
        volumes = {
            name: np.array([volume(values[:mark]) for values, _ in searches])
            for name, searches in runs.items()
            if len(searches[0][0]) >= mark
        }
        ours = volumes.pop("ours")
        peers = {name: float(values.mean()) for name, values in volumes.items()}
        out.append(Row(f"surrogate of OFA-MBv3, {mark} evaluations, mean of {seeds} seeds", "hypervolume",
                       "share", "higher", float(ours.mean()), interquartile_range(ours), peers,
                       VOLUMES[mark]))  # fmt: skip
    if max(marks) >= TIMED:
        seconds = np.array([spent[TIMED] for _, spent in runs["ours"]])
        peers = {"LINAS": float(np.median([s[TIMED] for _, s in runs[f"LINAS, {few} seeds"]]))}
        out.append(Row(f"surrogate of OFA-MBv3, {TIMED} evaluations, slowest run", "CPU time", "s", "lower",
                       float(seconds.max()), interquartile_range(seconds), peers, ALLOWED_S))  # fmt: skip
    return out


Spent = dict[int, float]  # evaluations -> CPU seconds until then


def _ours(surrogate: Surrogate, seed: int, budget: int) -> tuple[Matrix, Spent]:
    """(n, 2) normalised objectives in the order of evaluation."""
    start, spent, count = time.process_time(), Spent(), 0
    gaussian = GaussianFit(surrogate.space, surrogate.table, seed=seed)

    def evaluate(genomes: Genomes) -> tuple[Matrix, np.ndarray]:
        nonlocal count
        if count < TIMED:
            spent[TIMED] = time.process_time() - start
        count += len(genomes)
        return surrogate.normalised(surrogate(genomes), genomes), np.zeros(len(genomes))

    def fit(points: Points) -> Predict:
        accuracy = gaussian(points.genomes, points.objectives, 0)

        def predict(genomes: Genomes) -> Posterior:
            mean, std = accuracy(genomes)
            known = surrogate.normalised(np.zeros(len(genomes)), genomes)[:, 1]
            nothing = np.zeros(len(genomes))
            return Posterior(np.column_stack((mean, known)), np.column_stack((std, nothing)), nothing)

        return predict

    evaluated = search_expensive(
        surrogate.space, fit, evaluate, budget=budget, reference=REFERENCE, seed=seed
    )
    return evaluated.objectives, spent


def _plain(surrogate: Surrogate, engine: str, seed: int, budget: int) -> tuple[Matrix, Spent]:
    seen: list[Matrix] = []

    def evaluate(genomes: Genomes) -> tuple[Matrix, np.ndarray]:
        seen.append(surrogate.normalised(surrogate(genomes), genomes))
        return seen[-1], np.zeros(len(genomes))

    searcher = make_searcher(engine, surrogate.space, seed=seed)
    search(searcher, evaluate, budget=budget, batch=50, reference=REFERENCE)
    return np.concatenate(seen), {}


def _linas(surrogate: Surrogate, seed: int, budget: int) -> tuple[Matrix, Spent]:
    start = time.process_time()
    values = linas(
        surrogate.space,
        lambda genomes: surrogate.normalised(surrogate(genomes), genomes),
        budget=budget,
        seed=seed,
    )
    return values, {TIMED: time.process_time() - start}


# -- a space that is known whole ------------------------------------------------------------------


def whole_rows(data: Path, seeds: int, *, quick: bool) -> list[Row]:
    """SimQ-NAS's acceptance, where the true front is known: 250 measurements of 15,625, both objectives to be
    predicted. No joint space that was measured whole is public.
    """
    known = MeasuredSpace(data)
    names, seeds = ("ours", "random", "nsga2"), 1 if quick else 2 * seeds
    volumes = {name: np.zeros(seeds) for name in names}
    taus = np.zeros((seeds, 2))
    for seed in range(seeds):
        for name in names:
            genomes = _whole(known, name, seed)
            volumes[name][seed] = known.share(genomes)
            if name == "ours":
                taus[seed] = _whole_tau(known, genomes[:WHOLE_TAU_AT], seed)
    peers = {"random": volumes["random"].mean(), "NSGA-II (pymoo)": volumes["nsga2"].mean()}
    wins = sum((volumes["ours"] > volumes["random"]) & (volumes["ours"] > volumes["nsga2"]))
    task = f"NAS-Bench-201, {WHOLE_BUDGET} of 15,625 measured"
    ours = volumes["ours"]
    return [
        Row(task, "hypervolume, mean", "of the true front's", "higher", float(ours.mean()),
            interquartile_range(ours), {name: float(v) for name, v in peers.items()}, WHOLE_SHARE),
        Row(task, "seeds above random and NSGA-II", f"of {len(ours)}", "higher", float(wins), 0.0, {},
            0.8 * len(ours)),
        Row(f"{task}: predictors after {WHOLE_TAU_AT}", "Kendall tau of latency, mean", "", "higher",
            float(taus[:, 1].mean()), interquartile_range(taus[:, 1]), {}, WHOLE_TAU),
        Row(f"{task}: predictors after {WHOLE_TAU_AT}", "Kendall tau of accuracy, mean", "", "higher",
            float(taus[:, 0].mean()), interquartile_range(taus[:, 0]), {}, WHOLE_TAU),
    ]  # fmt: skip


def _whole(known: MeasuredSpace, name: str, seed: int) -> Genomes:
    """(250, g) in the order of measurement."""
    seen: list[Genomes] = []

    def evaluate(genomes: Genomes) -> tuple[Matrix, np.ndarray]:
        seen.append(genomes)
        return known.measure(genomes), np.zeros(len(genomes))

    if name == "ours":
        search_expensive(
            known.space,
            _whole_fit(known, seed),
            evaluate,
            budget=WHOLE_BUDGET,
            reference=known.reference,
            seed=seed,
        )
    else:
        searcher = make_searcher(name, known.space, seed=seed)
        search(searcher, evaluate, budget=WHOLE_BUDGET, batch=25, reference=known.reference)
    return np.concatenate(seen)


def _whole_fit(known: MeasuredSpace, seed: int) -> Fit:
    gaussian = GaussianFit(known.space, None, seed=seed)

    def fit(points: Points) -> Predict:
        each = [gaussian(points.genomes, points.objectives, column) for column in range(2)]

        def predict(genomes: Genomes) -> Posterior:
            mean, std = (
                np.stack(parts, axis=1) for parts in zip(*(model(genomes) for model in each), strict=True)
            )
            return Posterior(mean, std, np.zeros(len(genomes)))

        return predict

    return fit


def _whole_tau(known: MeasuredSpace, genomes: Genomes, seed: int) -> np.ndarray:
    """(2,) of both predictors, on random networks."""
    measured = known.measure(genomes)
    others = known.space.sample(2000, rng=np.random.default_rng([seed, 1]))
    predicted = _whole_fit(known, seed)(Points(genomes, measured, np.zeros(len(genomes))))(others).mean
    truth = known.measure(others)
    return np.array([kendalltau(predicted[:, j], truth[:, j])[0] for j in range(2)])


TASKS = {"ofa": ofa_rows, "surrogate": surrogate_rows, "whole": whole_rows}


def main(words: Sequence[str] | None = None) -> None:
    """Run, print and write."""
    parser = argument_parser(__doc__, seeds=5)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="default: all")
    arguments = parser.parse_args(words)
    with one_core():
        rows = [
            row
            for task in arguments.tasks
            for row in TASKS[task](arguments.data, arguments.seeds, quick=arguments.quick)
        ]
    report("search_quality", rows, arguments.json)


if __name__ == "__main__":
    main()
