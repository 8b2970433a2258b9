"""Stage 3: accuracies of sampled candidates, many in fp32 and fewer quantized."""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial

import numpy as np

from hw_profiles.documents import read_document
from hw_profiles.errors import TrilobitError
from hw_profiles.files import write_json
from hw_profiles.graph.counts import macs, params
from hw_profiles.profiles.profile_json import load_profile
from hw_profiles.streams import Stream, open_stream
from nas.evaluation.builder import NetworkBuilder
from nas.evaluation.on_supernet import SupernetEvaluator
from nas.problem.costs import compile_costs
from nas.run.documents import SamplesFile, StoppingDecision, genomes_of
from nas.run.reporting import Reporter, progress_bar
from nas.run.run import Run
from nas.sampling.sampling import Samples, Sampling, SamplingGroup, sample
from nas.search.objectives import objective
from nas.search.units import show
from predictors.design.surrogate import embed
from predictors.table import compile_table
from supernet.space.space import Genomes, SearchSpace, in_fp32

MOST_FP32, MOST_QUANTIZED = 200, 140  # where the learning curve decides


def plan(run: Run) -> Sampling:
    """Return what to evaluate: the corners, candidates in fp32, and candidates of random policies."""
    family, config = run.family, run.config.sample
    space = family.space()
    searched = any(choice.kind == "precision" and len(choice.options) > 1 for choice in space.choices)
    groups = (
        SamplingGroup("fp32", partial(_plain, space), partial(in_fp32, space), config.fp32, MOST_FP32),
        SamplingGroup("quantized", partial(_mixed, space), space.canonical, config.quantized, MOST_QUANTIZED),
    )
    table = compile_table(space, family.terms(), [macs, params])
    return Sampling(
        strategy=config.strategy,
        embedding=embed(space, table, rng=open_stream(run.config.seed, Stream.SAMPLE_EMBEDDING)),
        first=np.array([corner.genes for corner in family.extremes().values()], np.int16),
        groups=groups if searched or config.quantized else groups[:1],
        cost=_cheap_cost(run),
        seed=run.config.seed,
    )


def _plain(space: SearchSpace, n: int, *, rng: np.random.Generator) -> Genomes:
    return in_fp32(space, space.sample(n, rng=rng))


def _mixed(space: SearchSpace, n: int, *, rng: np.random.Generator) -> Genomes:
    return vary_share(space, space.sample(n, rng=rng), rng=rng)


def _cheap_cost(run: Run) -> Callable[[Genomes], np.ndarray]:
    """Return a function (n, g) -> (n,) of seconds where there is a profile already, else multiply-adds."""
    if run.config.sample.strategy != "front":
        return lambda genomes: np.zeros(len(genomes))
    profile = load_profile(run.profile_path) if run.is_done("profile") else None
    costs = compile_costs(run.family, profile)
    name = "latency" if profile and not run.timeless else "macs"
    return lambda genomes: costs.predict(run.family.space().canonical(genomes))[name]


def most_samples(run: Run) -> int:
    """Return how many candidates will be evaluated at most."""
    return len(run.family.extremes()) + sum(group.limit for group in plan(run).groups)


def vary_share(space: SearchSpace, genomes: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """Draw policies whose share of fp32 layers varies from network to network: uniform genes alone would all
    have about half.

    Where one choice switches a whole network to fp32, it stays on quantized, and what varies is the share of
    the first format.
    """
    columns = [column for column, choice in enumerate(space.choices) if choice.kind == "precision"]
    parents = {parent for column in columns for parent, _ in space.choices[column].active_if}
    switches = [column for column in columns if space.choices[column].name in parents]
    share = rng.random((len(genomes), 1))
    genomes = genomes.copy()
    if switches:  # genes that a switch had put to 0 are drawn again
        shape = (len(genomes), len(columns))
        genomes[:, columns] = rng.integers(0, space.cardinalities[columns], size=shape)
    genomes[:, columns] = np.where(rng.random((len(genomes), len(columns))) < share, 0, genomes[:, columns])
    genomes[:, switches] = space.cardinalities[switches] - 1
    return space.canonical(genomes)


def run_sample(run: Run, reporter: Reporter) -> None:
    """Evaluate what is not in the store yet, say why no more was evaluated, and write `samples.json`."""
    evaluator, space = SupernetEvaluator(NetworkBuilder(run)), run.family.space()
    metric = objective(evaluator.builder.metric)
    with progress_bar(reporter, "sample", most_samples(run)) as update:
        done = 0

        def evaluate(genomes: Genomes) -> np.ndarray:
            nonlocal done

            def tell(count: int, value: float, before: int = done) -> None:
                update(before + count, f"{metric.name} {show(metric, value)}")

            answers = list(evaluator.sample([space.candidate(genome) for genome in genomes], tell))
            done += len(answers)
            return -metric.to_min(np.array(answers))  # more is better

        samples = sample(plan(run), evaluate)
    for decision in samples.decisions:
        reporter.say(in_words(decision))
    write_samples(run, samples)


def in_words(decision: StoppingDecision) -> str:
    """Return why sampling one group of networks ended, in one line."""
    line = f"{decision.name}: {decision.n} networks of at most {decision.most}; {decision.why}"
    if decision.curve:
        curve = ", ".join(f"{point.kendall_tau:.3f} from {point.n}" for point in decision.curve)
        line += f" (Kendall's tau, cross-validated: {curve})"
    return line


def write_samples(run: Run, samples: Samples) -> None:
    """Write `samples.json`: what was evaluated, and why no more; the accuracies are in the storage."""
    document = {
        "schema": SamplesFile.SCHEMA,
        "fingerprint": run.fingerprint("sample"),
        "strategy": run.config.sample.strategy,
        "kinds": [asdict(decision) for decision in samples.decisions],
        "genes": samples.genomes.tolist(),
    }
    write_json(run.samples_path, document)


def sampled(run: Run) -> Genomes:
    """Return (n, g) what the sample stage evaluated, in order.

    Raises:
        TrilobitError: it has not finished with this configuration.
    """
    if run.samples_path.exists():
        samples = read_document(run.samples_path, SamplesFile)
        if samples.fingerprint == run.fingerprint("sample"):
            return genomes_of(run.samples_path, samples.genes, run.family.space())
    raise TrilobitError(f"{run.samples_path}: no samples of this configuration; run `nas sample`")
