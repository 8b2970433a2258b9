"""Stage 5 by exact allocation: the number formats of one architecture under the run's limits, measured like
any finalist. It needs a profile and a trained supernet, and no samples.
"""

import numpy as np

from hw_profiles.documents import write_document
from nas.allocation.allocation import allocator
from nas.allocation.sensitivity import known_candidate, sensitivity
from nas.run.front_document import Front
from nas.run.reporting import Reporter, progress_bar
from nas.run.run import Run
from nas.stages.finalists import foresee, measure_finalists
from nas.stages.fit import fit_predictor
from nas.stages.front import make_front
from nas.stages.search_context import Measurements, SearchContext, prepare_search, round_summary
from predictors.predictor import Predictor
from supernet.space.space import Genomes


def run_allocation(run: Run, reporter: Reporter) -> Front:
    """Allocate, measure, write `front.json` and return it.

    The first network measured has the least sensitivity within the limits, the others are as good as can be
    at less of each cost that is an objective.

    Raises:
        TrilobitError: a stage before has not run, there is no such architecture or sensitivity, or nothing
            meets the limits.
    """
    config, space = run.config.search, run.family.space()
    architecture = np.array(known_candidate(run, config.architecture).genes, np.int16)
    context, predictor = _prepared(run)
    allocation = allocator(
        space, context.costs, context.targets, architecture, confidence=config.latency_confidence
    )
    with reporter.status(f"{config.sensitivity} sensitivity of {len(allocation.names)} choices of formats"):
        sensitivities = sensitivity(
            run, config.sensitivity, allocation.formats.genome, allocation.formats.columns
        )
        genomes = allocation.allocate(sensitivities, config.finalists)
    measured = _measured(context, genomes, reporter)
    reference = run.family.extreme("largest")
    # the predictor has learned from none of them
    foreseen = foresee(context, predictor, [*measured]) if predictor else {}
    front = make_front(context, foreseen, measured, reference, (round_summary(context, 0, measured),))
    write_document(run.front_path, front)
    return front


def _prepared(run: Run) -> tuple[SearchContext, Predictor | None]:
    """Return the context of a search, and a predictor of accuracy where there are samples."""
    if run.is_done("sample"):
        context = prepare_search(run)
        return context, fit_predictor(run, *context.sampled)
    chance = np.array([1 / len(run.task.classes)])
    return prepare_search(run, (np.zeros((1, len(run.family.space().choices)), np.int16), chance)), None


def _measured(context: SearchContext, genomes: Genomes, reporter: Reporter) -> Measurements:
    """Return values of these networks and of the largest in fp32."""
    space, family = context.run.family.space(), context.run.family
    candidates = [*(space.candidate(genome) for genome in genomes), family.extreme("largest")]
    with progress_bar(reporter, "measure", len(candidates)) as update:
        return measure_finalists(context.evaluator, candidates, update, done=0)
