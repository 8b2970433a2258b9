"""Stage 5: search on predictions, measure the finalists, learn from them, search again; the front holds
measured values only.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from hw_profiles.documents import write_document
from hw_profiles.errors import TrilobitError
from hw_profiles.streams import Stream, open_stream
from nas.problem.predicted import Predicted, distilled_predictor
from nas.problem.reference_points import reference_points_of
from nas.problem.targets import largest_costs, limit_lines, predict_values
from nas.run.front_document import Front
from nas.run.progress import Update
from nas.run.reporting import Reporter
from nas.run.run import Run
from nas.search.algorithms.expensive import Shortlist
from nas.search.loop import Progress, SearchResult, search
from nas.search.repair import TowardsAnchor
from nas.search.searcher import ReferencePointSearcher, make_searcher
from nas.search.units import show
from nas.stages.finalists import Foreseen, foresee, measure_finalists, pick_finalists
from nas.stages.fit import fit_predictor
from nas.stages.front import make_front
from nas.stages.search_context import (
    Measurements,
    SearchContext,
    genomes_of_measured,
    prepare_search,
    round_summary,
)
from nas.stages.search_start import allocated
from predictors.predictor import Predictor
from supernet.space.space import row_keys

PATIENCE = 8  # generations without progress that end a round early


def run_search(run: Run, reporter: Reporter) -> Front:
    """Search, measure, write `front.json` and return it.

    Raises:
        TrilobitError: no measured network meets the limits.
    """
    context = prepare_search(run)
    config = run.config.search
    reference = run.family.extreme("largest")
    measured: Measurements = {}
    foreseen: Foreseen = {}
    rounds, tried, rejected = [], 0, 0
    for line in limit_lines(run.config, context.targets, largest_costs(run.family, context.costs)):
        reporter.say(line)
    predictor = fit_predictor(run, *context.sampled)
    with reporter.progress() as add:
        predict = add("predict", config.rounds * config.candidates)
        measure = add("measure", config.rounds * config.finalists + 1)
        for r in range(config.rounds):
            predicted = predictions(context, predictor, measured, r)
            if r == 0 and predicted.distilled:
                reporter.say(predicted.distilled.in_words())
            show = partial(_show_search, predict, r * config.candidates)
            result, shortlist = search_round(context, predicted, measured, r, show)
            predict((r + 1) * config.candidates, "")  # one that makes no more progress ends early
            tried, rejected = tried + result.evaluations, rejected + result.rejected
            finalists = pick_finalists(context, predicted, result, shortlist, measured)
            finalists += [reference] if r == 0 else []
            foreseen |= foresee(context, predictor, finalists)
            measured |= measure_finalists(context.evaluator, finalists, measure, done=len(measured))
            predictor = learn(context, measured)
            rounds.append(round_summary(context, r, measured, rejected=result.rejected))
    if rejected:
        device = run.device.describe().name
        reporter.say(f"{rejected:,} of {tried:,} candidates were rejected: {device} cannot run them")
    if failed := [evaluation for evaluation in measured.values() if evaluation.error is not None]:
        device = run.device.describe().name
        reporter.say(
            f"{len(failed)} of {len(measured)} finalists are not on the front, as {device} cannot run them; "
            f"for example {failed[0].candidate.id}: {failed[0].error}"
        )
    front = make_front(context, foreseen, measured, reference, tuple(rounds))
    write_document(run.front_path, front)
    return front


def _show_search(update: Update, done: int, progress: Progress) -> None:
    update(done + progress.evaluations, f"{progress.front} on the predicted front")


def search_round(
    context: SearchContext,
    predicted: Predicted,
    measured: Measurements,
    r: int,
    on_progress: Callable[[Progress], None],
) -> tuple[SearchResult, Shortlist]:
    """Search on predictions, from what was measured so far on; return that and the best that came across.

    Raises:
        TrilobitError: nothing meets the limits even by prediction.
    """
    config, space = context.run.config.search, context.run.family.space()
    extremes = [c.genes for c in context.run.family.extremes().values()]
    start = np.array([*extremes, *(c.genes for c in measured)], np.int16)
    initial = np.concatenate([start, allocated(context, predicted.predictor, measured)])
    repair = TowardsAnchor(space, predicted.excess, start) if predicted.repairable else None
    searcher = make_searcher(
        config.searcher, space, seed=context.run.config.seed + 1000 * (r + 1), initial=initial, repair=repair
    )
    if isinstance(searcher, ReferencePointSearcher):
        largest = largest_costs(context.run.family, context.costs)
        searcher.set_reference_points(reference_points_of(context.run.config, context.targets, largest))

    shortlist = Shortlist(predicted, config.exploration)
    result = search(
        searcher,
        shortlist.evaluate,
        budget=config.candidates,
        batch=config.batch,
        reference=context.reference.tolist(),
        patience=PATIENCE,
        on_progress=on_progress,
    )
    if not len(result.genomes):
        raise TrilobitError(_unreachable(context, predicted.predictor, result))
    return result, shortlist


def _unreachable(context: SearchContext, predictor: Predictor, result: SearchResult) -> str:
    values = predict_values(context.costs, predictor, result.nearest.genomes, context.targets.metric)
    parts = [
        f"{o.name} {show(o, float(values[o.name][0]))} (limit {show(o, o.bound or 0)})"
        for o in context.targets.bounded
        if not context.targets.is_only_measured(o)
    ]
    return (
        f"no network meets all limits; the nearest one has {', '.join(parts)}: loosen a "
        "limit, or search another space"
    )


def predictions(context: SearchContext, predictor: Predictor, measured: Measurements, r: int) -> Predicted:
    """Return what a round goes by."""
    config, learned = context.run.config.search, [context.sampled[0]]
    learned += [np.array([candidate.genes for candidate in measured], np.int16)] if measured else []
    distilled = distilled_predictor(
        context.run.family.space(),
        predictor,
        np.concatenate(learned),
        config.candidates,
        rng=open_stream(context.run.config.seed, Stream.DISTILLED, r),
    )
    return Predicted(
        context.costs, predictor, context.targets, config.latency_confidence, config.focus, distilled
    )


def learn(context: SearchContext, measured: Measurements) -> Predictor:
    """Return the predictor refitted on samples and measured finalists."""
    genomes, accuracies = context.sampled
    ran = {candidate: evaluation for candidate, evaluation in measured.items() if evaluation.error is None}
    if not ran:
        return fit_predictor(context.run, genomes, accuracies)
    more = genomes_of_measured(ran)
    measured_accuracies = np.array([evaluation.values[context.metric] for evaluation in ran.values()])
    fresh = ~np.isin(row_keys(more), row_keys(genomes))
    return fit_predictor(
        context.run,
        np.concatenate([genomes, more[fresh]]),
        np.concatenate([accuracies, measured_accuracies[fresh]]),
    )
