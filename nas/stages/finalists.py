"""The finalists of a round: which networks are measured, what was predicted of them before, and measuring
them.
"""

from collections.abc import Sequence

import numpy as np

from nas.evaluation.on_device import DeviceEvaluator
from nas.problem.predicted import Predicted
from nas.run.progress import Update, tell_of_waiting
from nas.search.algorithms.expensive import Shortlist
from nas.search.front import Evaluation
from nas.search.loop import SearchResult, choose_finalists
from nas.stages.search_context import Measurements, SearchContext, genomes_of_measured, measured_values
from predictors.predictor import Predictor
from supernet.space.space import Candidate, row_keys

Foreseen = dict[Candidate, Evaluation]  # the predicted accuracy, before it was measured


def pick_finalists(
    context: SearchContext,
    predicted: Predicted,
    result: SearchResult,
    shortlist: Shortlist,
    measured: Measurements,
) -> list[Candidate]:
    """Choose networks not measured yet that are expected to add most to the measured front; where nothing
    more is expected of any, well-spread points of the predicted front.
    """
    space, k = context.run.family.space(), context.run.config.search.finalists
    evaluated, front = np.empty((0, len(space.choices)), np.int16), context.reference[None][:0]
    if measured:
        evaluated, values = genomes_of_measured(measured), measured_values(context, measured)
        front = predicted.focus(context.targets.minimised(values))[context.targets.violation(values) <= 0]
    expected_best = shortlist.choose(evaluated, front, context.reference, k)
    taken = row_keys(np.concatenate([evaluated, expected_best]))
    fresh = np.flatnonzero(~np.isin(row_keys(result.genomes), taken))
    others = fresh[choose_finalists(result.objectives[fresh], k - len(expected_best))]
    return [space.candidate(genome) for genome in (*expected_best, *result.genomes[others])]


def measure_finalists(
    evaluator: DeviceEvaluator, candidates: Sequence[Candidate], update: Update, *, done: int
) -> Measurements:
    """Return the measured values of candidates, and show how far that is."""
    measured = 0

    def tell(count: int) -> None:
        nonlocal measured
        measured = count
        update(done + count, "finalists")

    update(done, "")
    with tell_of_waiting(lambda note: update(done + measured, note)):
        return {evaluation.candidate: evaluation for evaluation in evaluator.measure(candidates, tell)}


def foresee(context: SearchContext, predictor: Predictor, candidates: Sequence[Candidate]) -> Foreseen:
    """Return what is predicted of the accuracy of networks that are about to be measured: once they are, the
    predictor learns from them, and what it predicts of them tells nothing about others.
    """
    if not candidates:
        return {}
    predicted = predictor.predict(np.array([c.genes for c in candidates], np.int16))
    return {
        candidate: Evaluation(
            candidate,
            {context.metric: float(predicted.mean[i])},
            "predicted",
            {context.metric: float(predicted.std[i])},
        )
        for i, candidate in enumerate(candidates)
    }
