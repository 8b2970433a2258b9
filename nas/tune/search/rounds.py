"""The search: rounds of predicting, measuring what is expected to add most, and learning from it."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hw_profiles.documents import write_document
from nas.run.documents import Genes, read_optional
from nas.run.front_document import Round
from nas.run.progress import Update
from nas.run.reporting import Reporter
from nas.search.pareto import hypervolume
from nas.search.points import Points
from nas.tune.evaluation.context import TuneContext
from nas.tune.policies.space import uniform_genomes
from nas.tune.search.allocate import allocated
from nas.tune.search.knowledge import Known, believe, bounds_of, look_up
from nas.tune.search.limits import Limits
from nas.tune.search.proposals import ROOT, Beliefs, missed, propose
from supernet.space.space import Genomes, unique_rows

Floats = NDArray[np.float64]
BAD, WORST = 0.05**0.5, 0.2**0.5  # errors, of divergences of .05 and .2: few use such answers, and nobody
WORSE = 1.1  # times the worst of all that was measured: hypervolume is counted from there


@dataclass(frozen=True)
class Finalists:
    """Policies that one round chose to measure.

    Attributes:
        genes: of each.
        predicted: root of the divergence, and the costs that were believed of each.
    """

    genes: tuple[Genes, ...]
    predicted: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class RoundsFile:
    """`rounds.json`: what the rounds of a search chose, so that a killed one goes on.

    Attributes:
        fingerprint: of what the search depends on.
        rounds: in order; the last one may not be measured yet.
    """

    SCHEMA: ClassVar[str] = "rounds/1"
    REMEDY: ClassVar[str] = "delete it; the search begins again, what is measured stays"

    fingerprint: str
    rounds: tuple[Finalists, ...] = ()

    def genomes(self, first: Genomes) -> Genomes:
        """Return (n, g) the policies of all rounds after the `first` ones."""
        rows = [np.array(chosen.genes, np.int16).reshape(-1, first.shape[1]) for chosen in self.rounds]
        return np.concatenate([first, *rows])

    def predicted(self, first: int, width: int) -> Floats:
        """Return (n, width) what was believed of them; NaN of the `first` ones."""
        rows = [np.array(chosen.predicted, np.float64).reshape(-1, width) for chosen in self.rounds]
        return np.concatenate([np.full((first, width), np.nan), *rows])


@dataclass(frozen=True, eq=False)
class SearchOutcome:
    """What the rounds found.

    Attributes:
        known: policies whose quality and time were measured, those of the rounds last.
        beliefs: after the last round.
        predicted: (n, m) what was believed of each of the policies before it was measured; NaN of those that
            were measured before anything was believed.
        rounds: of the search.
    """

    known: Known
    beliefs: Beliefs
    predicted: Floats
    rounds: tuple[Round, ...]


def run_rounds(context: TuneContext, sampled: Genomes, limits: Limits, reporter: Reporter) -> SearchOutcome:
    """Search, measure the finalists of every round, and return all that was measured.

    Args:
        sampled: (n, g) policies whose quality was evaluated.
        limits: that files must keep.
    """
    section, path = context.tuning.config.tune, context.tuning.rounds_path
    first, chosen = uniform_genomes(context.space), _read(context)
    summaries: list[Round] = []
    with reporter.progress() as add:
        update = add("measure finalists", section.rounds * section.finalists)
        for r in range(section.rounds + 1):
            done = RoundsFile(chosen.fingerprint, chosen.rounds[:r])
            finalists = done.genomes(first)
            known, beliefs, points = _known(context, sampled, finalists, limits, update)
            summaries.append(_round(r, points))
            if r < section.rounds and len(chosen.rounds) <= r:
                chosen = _next_round(context, chosen, beliefs, points, r)
                write_document(path, chosen)
    predicted = chosen.predicted(len(first), 1 + len(context.costs.sought))
    return SearchOutcome(known, beliefs, predicted, tuple(summaries))


def _read(context: TuneContext) -> RoundsFile:
    fingerprint = context.tuning.fingerprint("search")
    stored = read_optional(context.tuning.rounds_path, RoundsFile)
    return stored if stored and stored.fingerprint == fingerprint else RoundsFile(fingerprint)


def _next_round(
    context: TuneContext, chosen: RoundsFile, beliefs: Beliefs, points: Points, r: int
) -> RoundsFile:
    """Return the rounds with one more, chosen by what is believed."""
    config = context.tuning.config
    genomes = propose(
        context.space,
        beliefs,
        points,
        _reference(points),
        config.tune.finalists,
        seed=config.seed + 1000 * (r + 1),
        start=allocated(context.space, beliefs),
    )
    genes = tuple(tuple(row) for row in genomes.tolist())
    predicted = tuple(tuple(row) for row in beliefs(genomes).mean.tolist())
    return RoundsFile(chosen.fingerprint, (*chosen.rounds, Finalists(genes, predicted)))


def _known(
    context: TuneContext, sampled: Genomes, finalists: Genomes, limits: Limits, update: Update
) -> tuple[Known, Beliefs, Points]:
    """Return what is known of finalists, what is believed of all, and the finalists as points; what was not
    measured of them is.
    """
    first = len(uniform_genomes(context.space))
    context.evaluate(finalists, partial(_advance, update, first))
    times = None
    if context.costs.timed:
        times = context.clock.time(finalists, lambda what, share: update(len(finalists) - first, what))
    every = np.concatenate([sampled, finalists])
    learned = look_up(context, every[unique_rows(every)], times)
    known = look_up(context, finalists, times)
    bounds = bounds_of(context, learned, limits)
    beliefs = believe(context, learned, times, bounds)
    values = known.objectives(context.costs.names)
    values = np.where(np.isfinite(values), values, np.inf)
    sought = values[:, : 1 + len(context.costs.sought)]
    return known, beliefs, Points(known.genomes, sought, missed(values, bounds))


def _advance(update: Update, first: int, done: int) -> None:
    update(max(0, done - first), "quality")


def _reference(points: Points) -> Floats:
    """Return (m,) what hypervolume is counted from: answers that are bad, and worse than those of all in the
    first format, the second policy, are not worth a measurement.
    """
    whole = points.objectives[np.isfinite(points.objectives).all(axis=1)]
    reference = whole.max(axis=0) * WORSE + 1e-12
    usual = points.objectives[1:2, ROOT]
    if len(usual) and 0 < usual[0] < np.inf:
        reference[ROOT] = min(reference[ROOT], np.clip(WORSE * usual[0], BAD, WORST))
    return np.asarray(reference, np.float64)


def _round(r: int, points: Points) -> Round:
    """Return how far the search is: hypervolume as a share of the box of all that was measured."""
    reference = _reference(points)
    inside = points.objectives[points.violation <= 0] / reference
    return Round(r, len(points), hypervolume(inside, np.ones(len(reference))))
