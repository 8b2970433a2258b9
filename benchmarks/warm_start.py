"""What a prior from another task is worth where few networks of this one were evaluated.

NAS-Bench-201: a predictor of accuracy on CIFAR-10, learned from 200 networks, starts those for CIFAR-100 and
ImageNet16-120. Once-for-all's MobileNetV3: the predictor that its authors released starts one for the subnets
that others measured; and, half of the way between the two, made-up accuracies on the same subnets, of which a
predictor of the measured ones is a good prior. Judged by Kendall's tau and error among networks that were not
learned from, beside the same predictor without a prior and the prior's affine map to the rows learned from,
which should never be better. And a prior that knows nothing, which should cost nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from active_sampling import nas_bench, tau
from harness import Row, argument_parser, interquartile_range, one_core, report
from latency_spaces import nas_bench_201
from ofa_mbv3 import AccuracyModel, ofa_space, published_weights
from published_rows import PublishedRows, ofa_mobilenet

from predictors.accuracy.warm_start import AffinePrior, Prior, fit_line, map_genomes, warm
from predictors.predictor import MakePredictor, load_predictor
from supernet.space.space import Genomes, unique_rows

COUNTS = (10, 20, 50, 100, 200)
OF_PRIOR = 200  # networks that the prior learns from
TESTED = 2_000
HALF_WAY = 0.3  # of the released predictor, in the made-up accuracies
NOISE = 0.02  # of an accuracy, in percent: what measuring a subnet again gives


@dataclass(frozen=True, eq=False)
class Task:
    """Rows to learn, and how to make the prior of one draw: (rows to learn it from, seed) -> prior."""

    name: str
    rows: PublishedRows
    prior: Callable[[np.ndarray, int], Prior]


def nas_bench_tasks(data: Path, make: MakePredictor) -> list[Task]:
    """From CIFAR-10 to the two other data sets."""
    rows = nas_bench(data)
    accuracy = np.load(data / "latency" / "nb201.npz")["acc"]
    accuracy = accuracy[unique_rows(nas_bench_201(data).readings[1].genomes)].astype(np.float64)

    def prior(learned: np.ndarray, seed: int) -> Prior:
        predictor = make(rows.space, seed=seed, costs=rows.costs)
        fitted = predictor.fit(rows.genomes[learned], accuracy[learned, 0])
        return lambda genomes: fitted.predict(genomes).mean

    return [
        Task(
            f"NAS-Bench-201, CIFAR-10 to {name}",
            PublishedRows(name, rows.space, rows.genomes, accuracy[:, column], rows.costs),
            prior,
        )
        for column, name in ((1, "CIFAR-100"), (2, "ImageNet16-120"))
    ]


def ofa_task(data: Path) -> Task:
    """From the published predictor to the published measurements."""
    rows = ofa_mobilenet(data)
    mapped, model = map_genomes(rows.space, ofa_space()), AccuracyModel(ofa_space(), published_weights(data))

    def prior(genomes: Genomes) -> np.ndarray:
        return model(mapped(genomes)).astype(np.float64)

    return Task("OFA-MBv3, released predictor to measured subnets", rows, lambda learned, seed: prior)


def half_way_task(data: Path, make: MakePredictor) -> Task:
    """From measured subnets to made-up accuracies that a predictor of theirs is nearly right about."""
    released = ofa_task(data)
    rows, said = released.rows, released.prior(np.empty(0), 0)(released.rows.genomes)
    slope, intercept = fit_line(said, rows.targets)
    noise = np.random.default_rng(0).normal(0, NOISE, len(said))
    mixed = (1 - HALF_WAY) * rows.targets + HALF_WAY * (slope * said + intercept) + noise

    def prior(learned: np.ndarray, seed: int) -> Prior:
        fitted = make(rows.space, seed=seed, costs=rows.costs).fit(
            rows.genomes[learned], rows.targets[learned]
        )
        return lambda genomes: fitted.predict(genomes).mean

    return Task("OFA-MBv3, measured subnets to made-up ones half way", replace(rows, targets=mixed), prior)


def nonsense(seed: int) -> Prior:
    """Ranks networks at random, always in the same way."""

    def prior(genomes: Genomes) -> np.ndarray:
        weights = np.random.default_rng(seed).normal(size=genomes.shape[1])
        return np.sin(1e3 * (genomes @ weights))

    return prior


def one_draw(task: Task, make: MakePredictor, seed: int) -> dict[int, Mapping[str, tuple[float, float]]]:
    """Count -> way -> tau and root mean square error."""
    order = np.random.default_rng([seed, 2]).permutation(len(task.rows.targets))
    count = max(COUNTS)
    of_prior, tested = order[count : count + OF_PRIOR], order[count + OF_PRIOR :][:TESTED]
    prior = task.prior(of_prior, seed)
    asked, truth = task.rows.genomes[tested], task.rows.targets[tested]
    ways: Mapping[str, MakePredictor] = {
        "ours": warm(make, prior),
        "affine map of the prior": lambda *_, **__: AffinePrior(prior),
        "without prior": make,
        "with a prior that knows nothing": warm(make, nonsense(seed)),
    }
    results = {}
    for n in COUNTS:
        genomes, targets = task.rows.genomes[order[:n]], task.rows.targets[order[:n]]
        figures = {}
        for name, way in ways.items():
            fitted = way(task.rows.space, seed=seed, costs=task.rows.costs).fit(genomes, targets)
            said = fitted.predict(asked).mean
            figures[name] = tau(said, truth), float(np.sqrt(np.mean((said - truth) ** 2)))
        results[n] = figures
    return results


def main() -> None:
    """All tasks."""
    parser = argument_parser(__doc__, seeds=3)
    parser.add_argument("--predictor", default="ridge", help="what is started (default: %(default)s)")
    arguments = parser.parse_args()
    make, rows = load_predictor("ridge" if arguments.quick else arguments.predictor), []
    tasks = [*nas_bench_tasks(arguments.data, make), ofa_task(arguments.data)]
    with one_core():
        for task in [*tasks, half_way_task(arguments.data, make)]:
            draws = [one_draw(task, make, seed) for seed in range(1 if arguments.quick else arguments.seeds)]
            for n in COUNTS:
                rows += task_rows(task.name, n, [draw[n] for draw in draws])
    report("warm_start", rows, arguments.json)


def task_rows(task: str, n: int, draws: Sequence[Mapping[str, tuple[float, float]]]) -> list[Row]:
    """Mean over draws of both figures."""
    rows = []
    for i, (metric, better) in enumerate((("Kendall's tau", "higher"), ("RMSE", "lower"))):
        values = {name: np.array([draw[name][i] for draw in draws]) for name in draws[0]}
        ours = values.pop("ours")
        peers = {name: float(each.mean()) for name, each in values.items()}
        unit = "%" if metric == "RMSE" else ""
        title = f"{metric} from {n} networks"
        rows.append(Row(task, title, unit, better, float(ours.mean()), interquartile_range(ours), peers))
    return rows


if __name__ == "__main__":
    main()
