"""Stage 4: the accuracy predictor, and how good it is."""

from dataclasses import asdict

import numpy as np
from rich.console import Console

from hw_profiles.errors import TrilobitError
from hw_profiles.files import write_json
from hw_profiles.workload import macs, params
from nas.evaluate import Evaluator
from nas.run import Run
from nas.stages.sample import sample_plan
from predictors.predictor import Predictor, load_predictor
from predictors.quality import Quality, assess
from predictors.table import CostTable, compile_table
from supernet.space import Genomes


def training_rows(run: Run, evaluator: Evaluator) -> tuple[Genomes, np.ndarray]:
    """Genomes (n, g) and accuracies (n,) of the sample stage.

    Raises:
        TrilobitError: a sampled candidate has no evaluation yet.
    """
    plan = sample_plan(run)
    known = [evaluator.samples.get(candidate) for candidate in plan]
    missing = sum(found is None for found in known)
    if missing:
        raise TrilobitError(
            f"{missing} of {len(plan)} sampled candidates are not evaluated; run `nas sample`"
        )
    accuracies = [found[0]["accuracy"] for found in known if found is not None]
    return np.array([candidate.genes for candidate in plan], np.int16), np.array(accuracies)


def free_features(run: Run) -> CostTable:
    """Multiply-adds and parameters: inputs of the predictor that cost nothing to know."""
    return compile_table(run.family.space(), run.family.terms(), [macs, params])


def fit_predictor(run: Run, genomes: Genomes, targets: np.ndarray) -> Predictor:
    """The configured predictor, fitted. Deterministic, and takes seconds: it is refitted rather than
    stored.
    """
    make = load_predictor(run.config.fit.predictor)
    return make(run.family.space(), seed=run.config.seed, costs=free_features(run)).fit(genomes, targets)


def run_fit(run: Run, console: Console) -> Quality:
    """Cross-validate the predictor and write `quality.json`.

    Raises:
        TrilobitError: unknown predictor, or samples are missing.
    """
    genomes, targets = training_rows(run, Evaluator(run))
    make = load_predictor(run.config.fit.predictor)
    with console.status("cross-validating the accuracy predictor"):
        quality = assess(
            make, run.family.space(), genomes, targets, seed=run.config.seed, costs=free_features(run)
        )
    document = {
        "schema": "quality/1",
        "predictor": run.config.fit.predictor,
        "objectives": {"accuracy": asdict(quality)},
    }
    write_json(run.quality_path, document)
    known = [(name, value) for name, value in asdict(quality).items() if value is not None]
    console.print(
        "accuracy predictor, cross-validated: " + ", ".join(f"{name} {value:.3g}" for name, value in known)
    )
    return quality
