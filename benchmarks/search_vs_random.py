"""Trilobit's search against random search at equal numbers of real evaluations.

Takes the trained supernet and the profile of a finished run (`--run`, made by `make search`); the run itself
is left as it is. For each seed it goes through the stages `sample` and `search` anew: accuracies of sampled
networks on the supernet, a predictor, evolution on predictions in rounds, finalists measured through their
files (accuracy on search-validation, latency on this machine, bytes). Then random search measures as many
networks in the same way as Trilobit evaluated in all. The samples count in full, although they cost Trilobit
less than a measurement and, having no latency, add nothing to its front: random search measures all of its
networks.

Hypervolume is counted from one reference point for both, as a share of the box between that point and a
network that is always right, takes no time and no space.
"""

import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from harness import Row, argument_parser, interquartile_range, one_core, report

from nas.run.config import RunConfig, SampleSection
from nas.run.reporting import QUIET
from nas.run.run import Run, find_run
from nas.search.objectives import to_min
from nas.search.pareto import hypervolume
from nas.search.searcher import make_searcher
from nas.stages.sample import run_sample, sampled
from nas.stages.search import run_search
from nas.stages.search_context import Measurements, SearchContext, measured_values, prepare_search
from supernet.tasks.image_classification import ImageClassification

QUICK = (SampleSection(fp32=30, quantized=30), {"rounds": 2, "finalists": 8, "budget": 5_000})
FULL = (SampleSection(fp32=50, quantized=40), {"rounds": 3, "finalists": 12, "budget": 20_000})


@dataclass(frozen=True)
class SeededRun(Run):
    """A run with another seed for samples, predictor and search, on the data that its supernet was trained
    with.
    """

    split: ImageClassification = field(kw_only=True)

    @cached_property
    def task(self) -> ImageClassification:
        return self.split


@dataclass(frozen=True)
class Outcome:
    """Of one seed.

    Attributes:
        measured: networks that Trilobit measured through their files.
        evaluated: those, and the samples: what random search measured.
        ours, random: hypervolume of each.
        random_measured: hypervolume of random search after `measured` networks.
    """

    measured: int
    evaluated: int
    ours: float
    random: float
    random_measured: float


def seeded(run: Run, folder: Path, config: RunConfig) -> SeededRun:
    """A run in `folder` that has copies of the profile and the supernet of `run`, and nothing else."""
    again = SeededRun(folder, config, split=run.images)
    for source, target in (
        (run.profile_path, again.profile_path),
        (run.checkpoint_path, again.checkpoint_path),
    ):
        target.parent.mkdir(parents=True)
        shutil.copy(source, target)
    return again


def share(setting: SearchContext, measured: Measurements) -> float:
    """Hypervolume in 0..1 of measured networks."""
    objectives = setting.targets.minimised(measured_values(setting, measured))
    ideal = np.array([[float(o.direction == "max") for o in setting.targets.objectives]])
    box = np.prod(setting.reference - to_min(setting.targets.objectives, ideal))
    return hypervolume(objectives, setting.reference) / float(box)


def compare(run: Run, seed: int) -> Outcome:
    """Both searches with `seed`."""
    run_sample(run, QUIET)
    front, setting = run_search(run, QUIET), prepare_search(run)
    evaluator, space = setting.evaluator, run.family.space()
    genomes = [entry.genes for entry in (*front.candidates, *front.evaluated)]
    ours = {
        e.candidate: e for e in evaluator.measure([space.candidate(np.array(genes)) for genes in genomes])
    }
    total = len(ours) + len(sampled(run))
    drawn = make_searcher("random", space, seed=seed).ask(total)
    random = {e.candidate: e for e in evaluator.measure([space.candidate(genome) for genome in drawn])}
    few = dict(list(random.items())[: len(ours)])
    return Outcome(len(ours), total, share(setting, ours), share(setting, random), share(setting, few))


def rows(run: Run, seeds: int, *, quick: bool) -> list[Row]:
    """Hypervolume of both, and in how many seeds Trilobit's is higher."""
    sample, search = QUICK if quick else FULL
    config = replace(run.config, sample=sample, search=replace(run.config.search, **search), constraints={})
    outcomes = []
    for seed in range(1, seeds + 1):
        with tempfile.TemporaryDirectory() as folder:
            outcomes.append(compare(seeded(run, Path(folder), replace(config, seed=seed)), seed))
            print(f"seed {seed}: {outcomes[-1]}", file=sys.stderr)
    return summary(run.config.space.name, outcomes)


def summary(space: str, outcomes: Sequence[Outcome]) -> list[Row]:
    """The figures."""
    ours, random, few = (
        np.array([getattr(outcome, name) for outcome in outcomes])
        for name in ("ours", "random", "random_measured")
    )
    most = max(outcome.evaluated for outcome in outcomes)
    peers = {
        "random search, as many evaluations": float(np.median(random)),
        "random search, as many measurements": float(np.median(few)),
    }
    ratio = ours / random
    return [
        Row(
            f"{space}, {most} evaluations",
            "hypervolume",
            "share",
            "higher",
            float(np.median(ours)),
            interquartile_range(ours),
            peers,
        ),
        Row(
            f"{space}, {most} evaluations",
            "hypervolume, ours / random",
            "ratio",
            "higher",
            float(np.median(ratio)),
            interquartile_range(ratio),
            {"worst seed": float(ratio.min())},
            1.0,
        ),
        Row(
            space,
            "seeds with more hypervolume than random search",
            f"of {len(outcomes)}",
            "higher",
            float((ratio > 1).sum()),
            0.0,
            {},
            float(len(outcomes)),
        ),
    ]


def main() -> None:
    """Print the table, write the JSON."""
    parser = argument_parser(__doc__, seeds=5)
    folder = Path(__file__).parents[1] / "runs" / "default"
    parser.add_argument(
        "--run", type=Path, default=folder, metavar="DIR", help="a finished run (default: %(default)s)"
    )
    arguments = parser.parse_args()
    if not (arguments.run / "front.json").exists():
        print(f"{arguments.run}: no finished run; make one with `make search`", file=sys.stderr)
        sys.exit(2)
    with one_core():
        figures = rows(find_run(arguments.run), arguments.seeds, quick=arguments.quick)
    report("search_vs_random", figures, arguments.json)


if __name__ == "__main__":
    main()
