"""The document of a tune, from everything that was measured."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nas.evaluation.micro import TOO_LARGE
from nas.run.front_document import Predicted
from nas.run.tuned_document import (
    Reference,
    TunedFront,
    TunedMetric,
    TunedModel,
    TunedNetwork,
    TunedObjective,
    TunedUnit,
    UnitShare,
)
from nas.search.objectives import Objective
from nas.tune.evaluation.context import TuneContext
from nas.tune.policies.costs import COSTS, LATENCY, TunedCosts
from nas.tune.policies.space import policy_of, single_genomes
from nas.tune.result.judge import Judged, Verdict
from nas.tune.result.references import ReferenceFile
from nas.tune.search.limits import Limits
from nas.tune.search.proposals import COST, ROOT, Beliefs
from nas.tune.search.rounds import SearchOutcome
from supernet.space.space import Genomes
from supernet.tasks.metric import Metric

Floats = NDArray[np.float64]


def make_front(
    context: TuneContext,
    outcome: SearchOutcome,
    verdict: Verdict,
    front: Sequence[int],
    references: Sequence[ReferenceFile],
    limits: Limits,
    *,
    evaluations: int,
    tau: float | None,
) -> TunedFront:
    """Return the document.

    Args:
        front: positions of the policies of the verdict on it, the fastest first.
        references: that there were to be, those without a file too.
        evaluations: policies whose quality was evaluated.
        tau: of predicted and measured quality of unseen random policies.
    """
    tuning, metrics = context.tuning, context.fidelity.metrics
    judged = {reference.name: reference for reference in verdict.references}
    stated = [_reference(context, reference, judged.get(reference.name)) for reference in references]
    networks = [_network(context, outcome, verdict, i) for i in range(len(verdict.policies))]
    on_front = {networks[i].id for i in front}
    others = [_measured(context, outcome, row) for row in range(len(outcome.known.genomes))]
    finals = {network.id for network in networks}
    return TunedFront(
        model=TunedModel(
            source=tuning.config.model.source,
            digest=hashlib.sha256(tuning.original).hexdigest(),
            size_bytes=float(len(tuning.original)),
            bound=dict(tuning.model.bound),
            fixed=dict(tuning.model.fixed),
        ),
        device=(device := tuning.device.describe()).name,
        instruction_set=device.instructions,
        fingerprint=context.space.fingerprint,
        metrics=tuple(TunedMetric(m.name, m.unit, m.direction, m.meaning) for m in metrics),
        objectives=_objectives(metrics[0], limits, context.costs),
        units=_units(context),
        original=stated[0],
        references=tuple(stated[1:]),
        candidates=tuple(networks[i] for i in front),
        evaluated=tuple(
            network
            for network in (*networks, *(o for o in others if o.id not in finals))
            if network.id not in on_front
        ),
        rounds=outcome.rounds,
        evaluations=evaluations,
        quality_tau=tau,
    )


def _objectives(main: Metric, limits: Limits, costs: TunedCosts) -> tuple[TunedObjective, ...]:
    sought = (
        Objective(main.name, main.unit, main.direction, meaning=main.meaning),
        *(COSTS[name] for name in costs.sought),
    )
    limited = {o.name: o for o in limits.objectives}
    bounded = [limited.pop(o.name, o) for o in sought]
    traded = [TunedObjective(o.name, o.unit, o.direction, o.bound) for o in bounded]
    others = [TunedObjective(o.name, o.unit, o.direction, o.bound, False) for o in limited.values()]
    return (*traded, *others)


def _reference(context: TuneContext, file: ReferenceFile, judged: Judged | None) -> Reference:
    if judged is None:
        return Reference(file.name, file.title, error=file.error)
    parts = context.tuning.parts
    return Reference(
        file.name,
        file.title,
        judged.size_bytes,
        judged.latency.latency,
        judged.choosing.part(len(parts.choosing)) if judged.choosing.metrics else None,
        judged.judging.part(len(parts.judging)) if judged.judging.metrics else None,
        judged.latency.error or judged.judging.failed or judged.choosing.failed,
        memory=_fitting(judged.memory),
    )


def _network(context: TuneContext, outcome: SearchOutcome, verdict: Verdict, row: int) -> TunedNetwork:
    """Return one policy that was judged."""
    judged, genome = verdict.policies[row], verdict.genomes[row]
    parts = context.tuning.parts
    return TunedNetwork(
        id=judged.name,
        genes=tuple(map(int, genome)),
        policy=dict(policy_of(context.space, genome)),
        size_bytes=judged.size_bytes,
        predicted=_predicted(context, outcome, genome),
        choosing=judged.choosing.part(len(parts.choosing)),
        latency=judged.latency.latency,
        judging=judged.judging.part(len(parts.judging)),
        units=_unit_shares(context, outcome.beliefs, genome),
        left=_left_shares(context, outcome.beliefs, genome),
        memory=_fitting(judged.memory),
    )


def _measured(context: TuneContext, outcome: SearchOutcome, row: int) -> TunedNetwork:
    """Return one policy that was measured in the rounds only."""
    genome, quality = outcome.known.genomes[row], outcome.known.qualities[row]
    return TunedNetwork(
        id=context.space.candidate(genome).id,
        genes=tuple(map(int, genome)),
        policy=dict(policy_of(context.space, genome)),
        size_bytes=quality.size_bytes,
        predicted=_predicted(context, outcome, genome),
        choosing=quality.part(len(context.tuning.parts.choosing)),
        seconds=_finite(outcome.known.seconds[row]),
        memory=_fitting(quality.memory),
    )


def _fitting(memory: Mapping[str, float]) -> dict[str, float]:
    """Return what a file needs on a microcontroller; nothing of one that does not run there."""
    return {name: value for name, value in memory.items() if value < TOO_LARGE}


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _predicted(context: TuneContext, outcome: SearchOutcome, genome: Genomes) -> dict[str, Predicted]:
    """Return what was believed of a policy before it was measured; nothing of what was measured first."""
    [row] = np.flatnonzero((outcome.known.genomes == genome).all(axis=1))[:1].tolist() or [None]
    if row is None or not np.isfinite(outcome.predicted[row]).all():
        return {}
    root, *costs = outcome.predicted[row].tolist()
    error = outcome.beliefs.latency_error
    return {
        "divergence": Predicted(root**2),
        **{
            name: Predicted(value, error * value if name == LATENCY else None)
            for name, value in zip(context.costs.sought, costs, strict=True)
        },
    }


def _units(context: TuneContext) -> tuple[TunedUnit, ...]:
    """Return what each unit could be, why not what else, and what it did alone."""
    space, alone = context.space, _alone(context)
    units = []
    for unit in context.tuning.model.units:
        choice = space.choices[space.columns[unit.name]] if unit.name in space.columns else None
        formats = context.tuning.unit_formats.get(unit.name)
        units.append(
            TunedUnit(
                unit.name,
                unit.op,
                tuple(map(str, choice.options)) if choice else ("fp32",),
                dict(formats.refused) if formats else {},
                alone.get(unit.name, {}),
            )
        )
    return tuple(units)


def _alone(context: TuneContext) -> dict[str, dict[str, float]]:
    """Return the divergence of policies in which one unit alone has a format, where they were evaluated."""
    alone: dict[str, dict[str, float]] = {}
    for genome in single_genomes(context.space):
        quality = context.choosing.known(genome)
        if quality is not None and quality.metrics:
            [(name, fmt)] = policy_of(context.space, genome).items()
            alone.setdefault(name, {})[fmt] = quality.metrics[context.proxy.name]
    return alone


def _unit_shares(context: TuneContext, beliefs: Beliefs, genome: Genomes) -> dict[str, UnitShare]:
    """Return what the format of each unit of a policy does: how the network would change if that unit alone
    went back to fp32.
    """
    columns = np.flatnonzero(genome)
    if not len(columns):
        return {}
    others = np.tile(genome, (len(columns) + 1, 1))
    others[np.arange(len(columns)), columns] = 0
    believed = beliefs(others).mean
    saved = believed[:-1, COST] - believed[-1, COST]
    cost = believed[-1, ROOT] ** 2 - believed[:-1, ROOT] ** 2
    choices = context.space.choices
    return {
        choices[column].name: _share(context, str(choices[column].options[genome[column]]), s, c)
        for column, s, c in zip(columns, saved.tolist(), cost.tolist(), strict=True)
    }


def _share(context: TuneContext, name: str, saved: float, cost: float) -> UnitShare:
    """Return what a format does, that saves so much of the first cost."""
    if context.costs.sought[0] == LATENCY:
        return UnitShare(name, saved, cost)
    return UnitShare(name, None, cost, saved)


def _left_shares(context: TuneContext, beliefs: Beliefs, genome: Genomes) -> dict[str, UnitShare]:
    """Return, of each unit of a policy that is fp32 and could be something else, the format that would save
    most if that unit alone took it, and what it would cost; of formats on the same kernel the one that
    costs least.
    """
    choices = context.space.choices
    options = [
        (column, gene)
        for column in np.flatnonzero(genome == 0).tolist()
        for gene in range(1, len(choices[column].options))
    ]
    if not options:
        return {}
    others = np.tile(genome, (len(options) + 1, 1))
    for row, (column, gene) in enumerate(options):
        others[row, column] = gene
    believed = beliefs(others).mean
    saved = believed[-1, COST] - believed[:-1, COST]
    cost = believed[:-1, ROOT] ** 2 - believed[-1, ROOT] ** 2
    left: dict[str, UnitShare] = {}
    for row in np.lexsort((-cost, saved)).tolist():  # the best one stays
        column, gene = options[row]
        name = str(choices[column].options[gene])
        left[choices[column].name] = _share(context, name, float(saved[row]), float(cost[row]))
    return left
