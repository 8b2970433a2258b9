"""The document of a search, from its evaluations."""

import numpy as np

from hw_profiles.errors import TrilobitError
from nas.problem.costs import LATENCY, SIZE
from nas.run.front_document import (
    Entry,
    Front,
    Layer,
    Measured,
    Predicted,
    Round,
    SpaceReference,
    StatedObjective,
)
from nas.search.front import Evaluation, pareto_front
from nas.search.objectives import to_min
from nas.stages.finalists import Foreseen
from nas.stages.search_context import Measurements, SearchContext, genomes_of_measured, measured_values
from supernet.space.space import Candidate


def make_front(
    context: SearchContext,
    foreseen: Foreseen,
    measured: Measurements,
    reference: Candidate,
    rounds: tuple[Round, ...],
) -> Front:
    """Return the non-dominated measured networks that meet the limits, and all others that were measured.

    Raises:
        TrilobitError: no measured network meets the limits.
    """
    targets, space = context.targets, context.run.family.space()
    values = measured_values(context, measured)
    feasible = targets.violation(values) <= 0
    evaluations = [
        Evaluation(candidate, {name: float(column[i]) for name, column in values.items()}, "measured")
        for i, candidate in enumerate(measured)
        if feasible[i]
    ]
    point = tuple(to_min(targets.objectives, context.reference[None])[0].tolist())  # back to people's signs
    front = pareto_front(targets.objectives, evaluations, point)
    if not front.evaluations:
        raise TrilobitError(
            f"none of {len(measured)} measured networks meets all limits, although some were predicted to; "
            "loosen a limit by a few percent"
        )
    predicted = predict_evaluations(context, foreseen, measured)
    entries = [_entry(context, predicted[c], measured[c]) for c in _in_order(context, measured)]
    on_front = {evaluation.candidate.id for evaluation in front.evaluations}
    return Front(
        space=SpaceReference(space.family, space.fingerprint, space.size),
        device=context.run.device.describe().name,
        objectives=tuple(
            StatedObjective(o.name, o.bound, o.unit, o.direction, o.origin)
            for o in (*targets.objectives, *targets.limited)
        ),
        metric=context.metric,
        reference_point=point,
        hypervolume=front.hypervolume,
        rounds=rounds,
        foreseen=True,
        reference=next(entry for entry in entries if entry.id == reference.id),
        candidates=tuple(entry for entry in entries if entry.id in on_front),
        evaluated=tuple(entry for entry in entries if entry.id not in on_front),
    )


def predict_evaluations(
    context: SearchContext, foreseen: Foreseen, measured: Measurements
) -> dict[Candidate, Evaluation]:
    """Return what was predicted of measured networks: the metric before they were measured, and costs."""
    costs = context.costs.predict(genomes_of_measured(measured))
    std = context.costs.std(costs)
    predicted = {}
    for i, candidate in enumerate(measured):
        quality = foreseen.get(candidate)
        values = dict(quality.values) if quality else {}
        values |= {name: float(column[i]) for name, column in costs.items()}
        spread = dict(quality.spread) if quality else {}
        spread |= {name: float(column[i]) for name, column in std.items()}
        predicted[candidate] = Evaluation(candidate, values, "predicted", spread)
    return predicted


def _in_order(context: SearchContext, measured: Measurements) -> list[Candidate]:
    """Return networks, the quickest first; without times those that need least of the first cost."""
    costs = (o.name for o in context.targets.objectives if o.origin != "metric")
    name = next(costs, SIZE) if context.run.timeless else LATENCY
    return sorted(measured, key=lambda candidate: measured[candidate].values.get(name, np.inf))


def _entry(context: SearchContext, predicted: Evaluation, measured: Evaluation) -> Entry:
    family, candidate = context.run.family, measured.candidate
    work = family.workload(candidate)
    return Entry(
        id=candidate.id,
        genes=candidate.genes,
        arch=family.arch(candidate).document(),
        policy={name: str(precision) for name, precision in family.policy(candidate).items()},
        layers=tuple(Layer(name, layer.key()) for name, layer in zip(work.names, work.layers, strict=True)),
        predicted={
            name: Predicted(value if np.isfinite(value) else None, predicted.spread.get(name))
            for name, value in predicted.values.items()
        },
        measured={name: _measured(name, measured) for name in measured.values},
        error=measured.error,
    )


def _measured(name: str, evaluation: Evaluation) -> Measured:
    value, spread = evaluation.values[name], evaluation.spread.get(name)
    if name.partition(".")[0] == LATENCY:
        return Measured(value, iqr=spread, load=evaluation.load)
    return Measured(value, std=spread)
