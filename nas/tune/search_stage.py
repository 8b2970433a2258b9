"""The search of a tune and its end, as one stage that writes `front.json`."""

from dataclasses import replace

import numpy as np
from scipy.stats import kendalltau

from hw_profiles.runtimes.plugin import device_kind
from nas.run.reporting import Reporter
from nas.run.tuned_document import TunedFront
from nas.tune.evaluation.context import TuneContext
from nas.tune.policies.space import all_int8, policy_of
from nas.tune.result.front import make_front
from nas.tune.result.judge import front_of, judge, pick_for_judging
from nas.tune.result.references import ReferenceFile, recipes_of, reference_files
from nas.tune.search.knowledge import FLOOR, Known, learned_quality, look_up
from nas.tune.search.limits import resolve_limits
from nas.tune.search.rounds import run_rounds
from supernet.space.space import Genomes

FOLDS = 5  # that predictions are judged by: each is predicted from the others
FEWEST = 16  # random policies below which a rank correlation says nothing


def run_search(context: TuneContext, sampled: Genomes, reporter: Reporter) -> TunedFront:
    """Search, measure, judge, and return the front.

    Args:
        sampled: (n, g) policies whose quality was evaluated.

    Raises:
        TrilobitError: nothing meets the limits; says what is nearest.
    """
    tuning, metrics = context.tuning, context.fidelity.metrics
    times = context.clock.measured() if context.costs.timed else None
    original = {"size": float(len(tuning.original))}
    if times is not None:  # limits refer to the file that was given, times to the policy in fp32
        original["latency"] = times.original_s / context.files.unchanged_ratio
    if tuning.count is not None:
        original |= tuning.count(tuning.original)
    limits = resolve_limits(tuning.config.constraints, metrics, original)
    for line in limits.lines(original):
        reporter.say(f"  {line}")
    outcome = run_rounds(context, sampled, limits, reporter)
    references = make_references(context, reporter)
    verdict = judge(context, pick_for_judging(context, outcome, limits), references, reporter)
    front = front_of(verdict, metrics[0], limits, context.costs)
    known = look_up(context, sampled, times)
    return make_front(
        context,
        outcome,
        verdict,
        front,
        references,
        limits,
        evaluations=len(context.choosing.store),
        tau=unseen_tau(context, known),
    )


def make_references(context: TuneContext, reporter: Reporter) -> tuple[ReferenceFile, ...]:
    """Return what the front is compared with, the original first."""
    tuning = context.tuning
    everything = all_int8(context.space)
    with reporter.status("make the references") as change:
        files = reference_files(
            context.files.original,
            lambda: tuning.write(context.quantization, policy_of(context.space, everything)),
            tuning.parts.calibration,
            # recipes make files, which a board that runs libraries does not
            recipes_of(device_kind(tuning.config.device.choice.name)) if tuning.times_original else (),
            on_done=lambda title: change(f"make the references: {title}"),
        )
    if tuning.times_original:
        return files
    return (replace(files[0], title=f"{files[0].title}, as a library"), *files[1:])


def unseen_tau(context: TuneContext, known: Known) -> float | None:
    """Return the rank correlation of predicted and measured divergence of random policies, each predicted
    from folds that it is not in; None of too few.
    """
    random = (known.genomes > 0).sum(axis=1) > 1
    whole = np.isfinite(known.divergences)
    rows = np.flatnonzero(random & whole)
    if len(rows) < FEWEST:
        return None
    logs = np.log(np.maximum(known.divergences, FLOOR))
    predicted = np.full(len(logs), np.nan)
    for fold in range(FOLDS):
        held = rows[fold::FOLDS]
        learned = np.setdiff1d(np.flatnonzero(whole), held)
        predicted[held] = learned_quality(context, known, learned).predict(known.genomes[held]).mean
    return float(kendalltau(predicted[rows], logs[rows]).statistic)
