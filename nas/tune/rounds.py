"""The search: rounds of predicting, measuring what is expected to add most, and learning from it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from nas.run.front_document import Round
from nas.run.progress import Update
from nas.run.reporting import Reporter
from nas.search.pareto import hypervolume
from nas.search.points import Points
from nas.tune.context import Known, Timed, TuneContext, believe, bounds_of, look_up
from nas.tune.limits import Limits
from nas.tune.search import Beliefs, missed, propose
from nas.tune.space import uniform_genomes
from nas.tune.stopwatch import timed_ratios
from supernet.space.space import Genomes, row_keys

Floats = NDArray[np.float64]
WORSE = 1.1  # times the worst of all that was measured: hypervolume is counted from there


@dataclass(frozen=True, eq=False)
class SearchOutcome:
    """What the rounds found.

    Attributes:
        known: policies whose quality and time were measured, those of the rounds last.
        beliefs: after the last round.
        predicted: (n, 3) what was believed of each of the policies before it was measured; NaN of those that
            were measured before anything was believed.
        rounds: of the search.
    """

    known: Known
    beliefs: Beliefs
    predicted: Floats
    rounds: tuple[Round, ...]


def run_rounds(
    context: TuneContext, sampled: Genomes, profiled: Genomes, limits: Limits, reporter: Reporter
) -> SearchOutcome:
    """Search, measure the finalists of every round, and return all that was measured.

    Args:
        sampled: (n, g) policies whose quality was evaluated.
        profiled: (m, g) policies that were timed.
        limits: that files must keep.
    """
    section = context.tuning.config.tune
    start = uniform_genomes(context.space)
    finalists, predicted = start, np.full((len(start), 3), np.nan)
    rounds: list[Round] = []
    with reporter.progress() as add:
        update = add("measure finalists", section.rounds * section.finalists)
        for r in range(section.rounds):
            outcome = _known(context, sampled, profiled, finalists, limits)
            known, beliefs, points = outcome
            rounds.append(_round(r, points))
            new = propose(
                context.space,
                beliefs,
                points,
                _reference(points),
                section.finalists,
                seed=context.tuning.config.seed + 1000 * (r + 1),
                start=known.genomes[:0],
            )
            predicted = np.concatenate([predicted, beliefs(new).mean])
            _measure(context, new, partial(_advance, update, r * section.finalists))
            finalists = np.concatenate([finalists, new])
    known, beliefs, points = _known(context, sampled, profiled, finalists, limits)
    rounds.append(_round(section.rounds, points))
    return SearchOutcome(known, beliefs, predicted, tuple(rounds))


def _advance(update: Update, earlier: int, done: float) -> None:
    update(earlier + done, "finalists")


def _measure(context: TuneContext, genomes: Genomes, on_done: Callable[[float], None]) -> None:
    """Evaluate and time policies; what is measured is kept."""
    context.evaluate(genomes, lambda done: on_done(done / 2))
    waiting_s = context.tuning.plan.waiting_s / (4 * context.tuning.config.tune.rounds)
    context.stopwatch.time(genomes, lambda done: on_done((len(genomes) + done) / 2), waiting_s=waiting_s)


def _known(
    context: TuneContext, sampled: Genomes, profiled: Genomes, finalists: Genomes, limits: Limits
) -> tuple[Known, Beliefs, Points]:
    """Return what is known of finalists, what is believed of all, and the finalists as points."""
    timed = context.stopwatch.time(_unique(np.concatenate([profiled, finalists])))
    learned = look_up(context, _unique(np.concatenate([sampled, finalists])), timed)
    known = look_up(context, finalists, timed)
    every = _unique(np.concatenate([profiled, finalists]))
    bounds = bounds_of(context, learned, limits, timed.original_s[0])
    beliefs = believe(context, learned, Timed(every, timed_ratios(timed, every)), bounds)
    objectives = np.where(np.isfinite(known.objectives), known.objectives, np.inf)
    return known, beliefs, Points(known.genomes, objectives, missed(objectives, bounds))


def _unique(genomes: Genomes) -> Genomes:
    _, first = np.unique(row_keys(genomes), return_index=True)
    return genomes[np.sort(first)]


def _reference(points: Points) -> Floats:
    whole = points.objectives[np.isfinite(points.objectives).all(axis=1)]
    return np.asarray(whole.max(axis=0) * WORSE + 1e-12, np.float64)


def _round(r: int, points: Points) -> Round:
    """Return how far the search is: hypervolume as a share of the box of all that was measured."""
    reference = _reference(points)
    inside = points.objectives[points.violation <= 0] / reference
    return Round(r, len(points), hypervolume(inside, np.ones(3)))
