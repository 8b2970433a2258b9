"""Stage 4: the accuracy predictor, and how good it is."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hw_profiles.documents import to_json
from hw_profiles.errors import TrilobitError
from hw_profiles.graph.counts import macs, params
from nas.allocation.sensitivity_file import run_sensitivity
from nas.evaluation.builder import NetworkBuilder
from nas.evaluation.on_supernet import SupernetEvaluator
from nas.run.reporting import Reporter
from nas.run.run import Run, find_run
from nas.stages.quality import (
    CROSS_VALIDATION,
    FINALISTS,
    cost_bands_of,
    finalist_rows,
    metric_noise,
    profile_rows,
    read_quality,
    row,
    write_quality,
)
from nas.stages.sample import sampled
from predictors.accuracy.warm_start import Prior, map_genomes, warm
from predictors.assessment.quality import assess
from predictors.predictor import MakePredictor, Predictor, load_predictor
from predictors.table import CostTable, beside, compile_table, gene_table
from supernet.space.space import Genomes


def training_rows(run: Run, evaluator: SupernetEvaluator) -> tuple[Genomes, np.ndarray]:
    """Return genomes (n, g) and main metrics (n,) of the sample stage.

    Raises:
        TrilobitError: it has not finished, or the storage has lost what it evaluated.
    """
    genomes, space = sampled(run), run.family.space()
    samples = [evaluator.samples.get(space.candidate(genome)) for genome in genomes]
    missing = sum(sample is None for sample in samples)
    if missing:
        raise TrilobitError(
            f"{missing} of {len(genomes)} sampled candidates are not evaluated; run `nas sample`"
        )
    return genomes, np.array(
        [sample[0][evaluator.builder.metric] for sample in samples if sample is not None]
    )


def free_features(run: Run) -> CostTable:
    """Return multiply-adds, parameters and the sensitivity to formats: inputs of the predictor that cost
    nothing to know, once the sensitivity of each choice was measured.
    """
    space = run.family.space()
    layers = compile_table(space, run.family.terms(), [macs, params])
    return beside(layers, gene_table(space, run_sensitivity(run).options))


def predictor_of(run: Run) -> MakePredictor:
    """Return how the configured predictor is made; with a prior, where one is configured.

    Raises:
        TrilobitError: unknown predictor, or a prior that has no samples or is of quite another space.
    """
    make = load_predictor(run.config.fit.predictor)
    return warm(make, run_prior(run)) if run.config.fit.prior else make


def prior_source(run: Run) -> tuple[Run, Callable[[Genomes], Genomes]]:
    """Return the run at `fit.prior`, and how this run's genomes read in its space.

    Raises:
        TrilobitError: it is this run itself, has no samples, or is of quite another space.
    """
    source = find_run(Path(run.config.fit.prior))
    if source.folder.resolve() == run.folder.resolve():
        raise TrilobitError(f"fit.prior {source.folder}: a run cannot be its own prior; name another run")
    sampled(source)
    return source, map_genomes(run.family.space(), source.family.space())


def run_prior(run: Run) -> Prior:
    """Return what the run at `fit.prior` predicts for networks of this run's space; a prior of its own is
    not followed.

    Raises:
        TrilobitError: as in `prior_source`.
    """
    source, mapped = prior_source(run)
    rows = training_rows(source, SupernetEvaluator(NetworkBuilder(source)))
    predictor = _made(source, load_predictor(source.config.fit.predictor)).fit(*rows)
    return lambda genomes: predictor.predict(mapped(genomes)).mean


def _made(run: Run, make: MakePredictor) -> Predictor:
    return make(run.family.space(), seed=run.config.seed, costs=free_features(run))


def fit_predictor(run: Run, genomes: Genomes, targets: np.ndarray) -> Predictor:
    """Fit the configured predictor. It is deterministic and takes seconds: it is fitted again rather than
    stored.
    """
    return _made(run, predictor_of(run)).fit(genomes, targets)


def run_fit(run: Run, reporter: Reporter) -> dict[str, Any]:
    """Cross-validate the predictor, hold the profile against whole networks, and write `quality.json`; return
    its document.

    Raises:
        TrilobitError: unknown predictor, samples are missing, or the prior is of no use.
    """
    evaluator = SupernetEvaluator(NetworkBuilder(run))
    genomes, targets = training_rows(run, evaluator)
    make, space = predictor_of(run), run.family.space()
    with reporter.status("cross-validating the accuracy predictor"):
        quality = assess(
            make,
            space,
            genomes,
            targets,
            seed=run.config.seed,
            costs=free_features(run),
            bands_of=cost_bands_of(run, genomes),
        )
        quality = replace(quality, noise=metric_noise(evaluator, genomes))
    shown = (
        ("tau", quality.kendall_tau, ".3g"),
        (f"tau at equal {quality.band_cost}", quality.kendall_tau_bands, ".3g"),
        ("RMSE", quality.rmse, ".2%"),
        ("noise", quality.noise, ".2%"),
        ("coverage of 90 %", quality.coverage, ".0%"),
    )
    figures = ", ".join(f"{name} {value:{written}}" for name, value, written in shown if value is not None)
    reporter.say(f"accuracy predictor, cross-validated: {figures}")
    return write_quality(run, [row(evaluator.builder.metric, CROSS_VALIDATION, quality), *profile_rows(run)])


def judge_finalists(run: Run) -> None:
    """Add to `quality.json` how well the finalists of the search had been predicted before it."""
    genomes, targets = training_rows(run, SupernetEvaluator(NetworkBuilder(run)))
    other_rows = [to_json(row) for row in read_quality(run).rows if row.source != FINALISTS]
    write_quality(run, [*other_rows, *finalist_rows(run, fit_predictor(run, genomes, targets), genomes)])
