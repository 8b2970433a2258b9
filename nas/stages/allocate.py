"""Stage 5 by exact allocation: the number formats of one architecture under the run's limits, measured like
any finalist. It needs a profile and a trained supernet, and no samples.
"""

from typing import Any

import numpy as np

from hw_profiles.files import write_json
from nas.allocation.allocation import allocator
from nas.allocation.sensitivity import known_candidate, sensitivity
from nas.run.reporting import Reporter, progress_bar
from nas.run.run import Run
from nas.stages.fit import fit_predictor
from nas.stages.search import Setting, foresee, front_document, measure_finalists, prepare, round_summary
from predictors.predictor import Predictor
from supernet.space.space import Candidate, Genomes


def run_allocation(run: Run, reporter: Reporter) -> dict[str, Any]:
    """Allocate, measure, and write `front.json`; gives its document.

    The first network measured has the least sensitivity within the limits, the others are as good as can be
    at less of each cost that is an objective.

    Raises:
        TrilobitError: a stage before has not run, there is no such architecture or sensitivity, or nothing
            meets the limits.
    """
    config, space = run.config.search, run.family.space()
    architecture = np.array(known_candidate(run, config.architecture).genes, np.int16)
    setting, predictor = _prepared(run)
    one = allocator(space, setting.costs, setting.targets, architecture, confidence=config.latency_confidence)
    with reporter.status(f"{config.sensitivity} sensitivity of {len(one.names)} choices of formats"):
        damage = sensitivity(run, config.sensitivity, one.formats.genome, one.formats.columns)
        genomes = one.allocate(damage, config.finalists)
    measured = _measured(setting, genomes, reporter)
    rounds = [{**round_summary(setting, 0, measured), "rejected": 0}]
    reference = run.family.corners()["largest/fp32"]
    foreseen = foresee(predictor, [*measured]) if predictor else {}  # it has learned from none of them
    document = front_document(setting, foreseen, measured, reference, rounds)
    write_json(run.front_path, document)
    return document


def _prepared(run: Run) -> tuple[Setting, Predictor | None]:
    """Accuracy is predicted where the samples are there."""
    if run.is_done("sample"):
        setting = prepare(run)
        return setting, fit_predictor(run, *setting.sampled)
    chance = np.array([1 / len(run.dataset.classes)])
    return prepare(run, (np.zeros((1, len(run.family.space().choices)), np.int16), chance)), None


def _measured(setting: Setting, genomes: Genomes, reporter: Reporter) -> dict[Candidate, dict[str, float]]:
    """Values of these networks and of the largest in fp32."""
    space, family = setting.run.family.space(), setting.run.family
    wanted = [*(space.candidate(genome) for genome in genomes), family.corners()["largest/fp32"]]
    with progress_bar(reporter, "measure", len(wanted)) as update:
        return measure_finalists(setting.evaluator, wanted, update, done=0)
