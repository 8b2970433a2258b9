"""What many fp32 samples are worth to a predictor that has seen few quantized ones.

On the samples that a run stored (`--run`, after `nas sample`; as many as are there): k quantized samples and
all in fp32, tested on quantized samples of other architectures. `scratch` is the same predictor without the
samples in fp32. `APQ` is that paper's recipe (Wang et al. 2020, arXiv:2006.08509): one-hot features, three
hidden layers of 400, fitted in fp32, then one linear map of the policy added at the first, zero at the start,
and all of it fitted to the quantized samples. `without sensitivity` is ours without that of the formats.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from harness import Row, argument_parser, interquartile_range, report
from numpy.typing import NDArray
from optuna.trial import TrialState
from torch import Tensor, nn

from hw_profiles.graph.counts import macs, params
from nas.allocation.sensitivity_file import run_sensitivity
from nas.evaluation.builder import NetworkBuilder
from nas.evaluation.on_supernet import SupernetEvaluator
from nas.run.run import Run, find_run
from predictors.assessment.quality import pairwise_accuracy, tau
from predictors.features import ARCHITECTURE, policy
from predictors.predictor import DEFAULT, load_predictor
from predictors.table import CostTable, beside, compile_table, gene_table
from supernet.space.space import Genomes, SearchSpace, row_keys

SAMPLES = (50, 100, 200, 500)  # quantized; then as many as there are
QUICK = (50, 100)
TEST_SHARE = 0.2  # of the quantized samples
GAIN = 0.02  # of pairwise accuracy over scratch
GAIN_AT = 100  # quantized samples
HIDDEN, STEPS, LEARNING_RATE = 400, 300, 1e-3  # of APQ's recipe; full batches

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Samples:
    """Genomes (n, g) and accuracies (n,)."""

    genomes: Genomes
    targets: Floats

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> "Samples":
        return Samples(self.genomes[rows], self.targets[rows])

    def __or__(self, other: "Samples") -> "Samples":
        genomes = np.concatenate((self.genomes, other.genomes))
        return Samples(genomes, np.concatenate((self.targets, other.targets)))


Fit = Callable[[Samples, Samples], Callable[[Genomes], Floats]]  # fp32, quantized -> predicted accuracy


@dataclass(frozen=True)
class Task:
    """One space's samples.

    Attributes:
        plain: multiply-adds and parameters.
        costs: these and the sensitivity to formats.
        fp32, quantized: samples; no architecture is in both, or twice among the quantized.
    """

    space: SearchSpace
    plain: CostTable
    costs: CostTable
    fp32: Samples
    quantized: Samples


def load_task(run: Run) -> Task:
    """What the run has stored by now."""
    space, terms = run.family.space(), run.family.terms()
    trials = [
        t for t in SupernetEvaluator(NetworkBuilder(run)).samples.trials() if t.state == TrialState.COMPLETE
    ]
    genomes = np.array([t.user_attrs["genes"] for t in trials], np.int16)
    every = Samples(genomes, np.array([t.values[0] for t in trials]))
    in_fp32 = ~policy(space)(genomes).any(axis=1)
    columns = [column for column, choice in enumerate(space.choices) if choice.kind in ARCHITECTURE]
    architectures = row_keys(genomes[:, columns])
    _, group, count = np.unique(architectures, return_inverse=True, return_counts=True)
    plain = compile_table(space, terms, [macs, params])
    costs = beside(plain, gene_table(space, run_sensitivity(run).options))
    return Task(space, plain, costs, every[in_fp32], every[~in_fp32 & (count[group] == 1)])


# -- ours ------------------------------------------------------------------------------------------------


def transferred(task: Task, name: str, seed: int) -> Fit:
    """Our predictor on all samples."""

    def fit(fp32: Samples, quantized: Samples) -> Callable[[Genomes], Floats]:
        rows = fp32 | quantized
        made = load_predictor(name)(task.space, seed=seed, costs=task.costs)
        fitted = made.fit(rows.genomes, rows.targets)
        return lambda genomes: fitted.predict(genomes).mean

    return fit


def from_scratch(task: Task, name: str, seed: int) -> Fit:
    """Our predictor on the quantized samples alone."""
    fit = transferred(task, name, seed)
    return lambda fp32, quantized: fit(fp32[np.zeros(len(fp32), bool)], quantized)


# -- APQ's -----------------------------------------------------------------------------------------------


class ApqNet(nn.Module):
    """Accuracy of one-hot architectures (n, a) and policies (n, p)."""

    def __init__(self, a: int, p: int) -> None:
        super().__init__()
        self.first, self.policy = nn.Linear(a, HIDDEN), nn.Linear(p, HIDDEN, bias=False)
        self.rest = nn.Sequential(
            *(nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU()),
            nn.Linear(HIDDEN, 1),
        )
        nn.init.zeros_(self.policy.weight)

    def forward(self, architecture: Tensor, formats: Tensor) -> Tensor:
        hidden = torch.relu(self.first(architecture)) + self.policy(formats)
        return torch.as_tensor(self.rest(hidden)).squeeze(1)


def apq(task: Task, seed: int) -> Fit:
    """APQ's transfer; the part in fp32 is fitted once."""
    space = task.space
    mean, scale = task.fp32.targets.mean(), task.fp32.targets.std()

    def inputs(genomes: Genomes) -> tuple[Tensor, Tensor]:
        kinds = (ARCHITECTURE, ("precision",))
        architecture, formats = (torch.from_numpy(space.one_hot(genomes, kind)) for kind in kinds)
        return architecture, formats

    def train(net: ApqNet, samples: Samples) -> None:
        optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
        x, y = inputs(samples.genomes), torch.from_numpy((samples.targets - mean) / scale).float()
        for _ in range(STEPS):
            optimizer.zero_grad()
            nn.functional.mse_loss(net(*x), y).backward()
            optimizer.step()

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        first = ApqNet(*(part.shape[1] for part in inputs(task.fp32.genomes)))
    first.policy.weight.requires_grad_(False)
    train(first, task.fp32)

    def fit(fp32: Samples, quantized: Samples) -> Callable[[Genomes], Floats]:
        net = ApqNet(*(part.shape[1] for part in inputs(fp32.genomes)))
        net.load_state_dict(first.state_dict())
        train(net, quantized)
        return lambda genomes: net(*inputs(genomes)).detach().double().numpy()

    return fit


# -- figures ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Score:
    """On the test rows."""

    pairwise: float
    tau: float


Scores = list[tuple[int, str, Score]]  # number of quantized samples, method, score


def methods(task: Task, names: tuple[str, ...], seed: int) -> dict[str, Fit]:
    """Everything to compare, by name."""
    bare = replace(task, costs=task.plain)
    fits: dict[str, Fit] = {"APQ": apq(task, seed)}
    for name in names:
        fits[name] = transferred(task, name, seed)
        fits[f"{name} from scratch"] = from_scratch(task, name, seed)
    fits[f"{names[0]} without damage"] = transferred(bare, names[0], seed)
    return fits


def scores(
    task: Task, names: tuple[str, ...], sizes: tuple[int, ...], seed: int
) -> Iterator[tuple[int, str, Score]]:
    """Number of quantized samples, method, score; the smaller sets are parts of the larger."""
    order = np.random.default_rng(seed).permutation(len(task.quantized))
    held = round(TEST_SHARE * len(order))
    test, rest = task.quantized[order[:held]], task.quantized[order[held:]]
    for name, fit in methods(task, names, seed).items():
        for k in sizes:
            predicted = fit(task.fp32, rest[np.arange(k)])(test.genomes)
            right, rank = pairwise_accuracy(predicted, test.targets), tau(predicted, test.targets)
            assert right is not None
            assert rank is not None
            yield k, name, Score(right, rank)


def rows(
    all_scores: Mapping[tuple[int, str], list[Score]],
    names: tuple[str, ...],
    sizes: tuple[int, ...],
    n_fp32: int,
    n_test: int,
) -> Iterator[Row]:
    """Ours is the first of `names`; what the others of them gain over scratch is given too."""
    predictor, scratch = names[0], f"{names[0]} from scratch"
    every = list(dict.fromkeys(name for _, name in all_scores))
    for k in sizes:
        task = f"{k} quantized samples, {n_fp32} in fp32, {n_test} to test on: {predictor}"
        for metric in ("pairwise", "tau"):
            values = {name: np.array([getattr(s, metric) for s in all_scores[k, name]]) for name in every}
            peers = {name: float(np.median(values[name])) for name in every if name != predictor}
            spread, median = interquartile_range(values[predictor]), float(np.median(values[predictor]))
            title = "pairwise accuracy" if metric == "pairwise" else "Kendall tau"
            yield Row(task, title, "", "higher", median, spread, peers)
        gains = {name: gains_over_scratch(all_scores, name, k) for name in names}
        peers = {f"{name}, median": float(np.median(gains[name])) for name in names[1:]}
        peers |= {f"{name}, worst seed": float(gains[name].min()) for name in names}
        gained, spread = float(np.median(gains[predictor])), interquartile_range(gains[predictor])
        target = GAIN if k == GAIN_AT else 0.0
        yield Row(task, "gain over scratch in pairwise accuracy", "", "higher", gained, spread, peers, target)
    few, most = all_scores[GAIN_AT, predictor], all_scores[sizes[-1], scratch]
    task = f"{GAIN_AT} quantized samples with {n_fp32} in fp32, against {sizes[-1]} without: {predictor}"
    values, without = (np.array([score.pairwise for score in scores]) for scores in (few, most))
    median, spread, target = float(np.median(values)), interquartile_range(values), float(np.median(without))
    yield Row(task, "pairwise accuracy", "", "higher", median, spread, {scratch: target}, target)


def gains_over_scratch(all_scores: Mapping[tuple[int, str], list[Score]], name: str, k: int) -> Floats:
    """(seeds,) of pairwise accuracy."""
    pairs = zip(all_scores[k, name], all_scores[k, f"{name} from scratch"], strict=True)
    return np.array([score.pairwise - scratch.pairwise for score, scratch in pairs])


def one_seed(folder: Path, names: tuple[str, ...], sizes: tuple[int, ...], seed: int) -> Scores:
    """In a process of its own."""
    torch.set_num_threads(1)
    return list(scores(load_task(find_run(folder)), names, sizes, seed))


def main() -> None:
    """How many quantized samples there are decides which sizes are compared."""
    parser = argument_parser(__doc__, seeds=5)
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="folder of a sampled run")
    parser.add_argument(
        "--predictors", nargs="+", default=[DEFAULT, "gp", "mlp"], metavar="NAME", help="ours"
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="seeds at a time (default: 1)")
    arguments = parser.parse_args()
    task, names = load_task(find_run(arguments.run)), tuple(dict.fromkeys(arguments.predictors))
    n = len(task.quantized)
    left = n - round(TEST_SHARE * n)
    if left < GAIN_AT:
        raise SystemExit(f"{n} quantized samples; wanted {GAIN_AT / (1 - TEST_SHARE):.0f}: run `nas sample`")
    sizes = tuple(k for k in SAMPLES if k < left)
    sizes = QUICK if arguments.quick else (*sizes, left)
    all_scores: dict[tuple[int, str], list[Score]] = {}
    with ProcessPoolExecutor(arguments.jobs, get_context("spawn")) as pool:
        seeds = range(1 if arguments.quick else arguments.seeds)
        for every in pool.map(partial(one_seed, arguments.run, names, sizes), seeds):
            for k, name, score in every:
                all_scores.setdefault((k, name), []).append(score)
    n_test = n - left
    report("quantized_transfer", list(rows(all_scores, names, sizes, len(task.fp32), n_test)), arguments.json)


if __name__ == "__main__":
    main()
