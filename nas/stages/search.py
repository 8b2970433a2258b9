"""Stage 5: search on predictions, measure the finalists, learn from them, search again; the front holds
measured values only.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.files import write_json
from hw_profiles.profiles.profile_json import load_profile
from hw_profiles.streams import Stream, open_stream
from nas.allocation.allocation import SEEDED, seeds
from nas.evaluation.evaluate import FAILED_S, Evaluator
from nas.problem.costs import Costs, compile_costs
from nas.problem.predicted import Predicted, check_confidence, imitated
from nas.problem.reachable import check_reachable, worst_costs
from nas.problem.reference_points import aims_of
from nas.problem.targets import Targets, largest_costs, limit_lines, predict_values, resolve_targets
from nas.run.progress import Update, tell_of_waiting
from nas.run.reporting import Reporter
from nas.run.run import Run
from nas.search.algorithms.expensive import Shortlist
from nas.search.loop import Progress, SearchResult, choose_finalists, search
from nas.search.objectives import Values, to_min
from nas.search.pareto import Evaluation, hypervolume, non_dominated, pareto_front
from nas.search.repair import TowardsAnchor
from nas.search.searcher import Aimed, make_searcher
from nas.search.units import show
from nas.stages.fit import fit_predictor, training_rows
from predictors.predictor import Prediction, Predictor
from supernet.space.space import Candidate, Genomes, row_keys

COUNTED = ("size", "macs", "memory", "energy")  # predicted costs without an expected error of their own
Foreseen = dict[Candidate, dict[str, float]]  # predicted accuracy, value and std, before it was measured
PATIENCE = 8  # generations without progress that end a round early


@dataclass(frozen=True, eq=False)
class Setting:
    """What every round of one search shares."""

    run: Run
    evaluator: Evaluator
    costs: Costs
    targets: Targets
    reference: Values  # (m,) minimised
    sampled: tuple[Genomes, np.ndarray]


def prepare(run: Run, sampled: tuple[Genomes, np.ndarray] | None = None) -> Setting:
    """Load profile and samples, resolve the limits and check that they can be met.

    Args:
        sampled: genomes and accuracies to take for those of the sample stage.

    Raises:
        TrilobitError: a stage before has not run, or a limit cannot be met.
    """
    if not run.profile_path.exists():
        raise TrilobitError(f"{run.profile_path}: no such profile; run `nas profile`")
    costs = compile_costs(run.family, load_profile(run.profile_path))
    evaluator = Evaluator(run)
    genomes, accuracies = training_rows(run, evaluator) if sampled is None else sampled
    largest = largest_costs(run.family, costs)
    targets = resolve_targets(run.config, largest)
    check_confidence(costs, targets, run.config.search.latency_confidence)
    check_reachable(run.family, costs, targets, seed=run.config.seed)
    most = worst_costs(run.family, costs, seed=run.config.seed)
    worst = {name: np.array([value * 1.1]) for name, value in most.items()}
    worst["accuracy"] = np.array([accuracies.min()])
    return Setting(run, evaluator, costs, targets, targets.minimised(worst)[0], (genomes, accuracies))


def run_search(run: Run, reporter: Reporter) -> dict[str, Any]:
    """Search, measure, and write `front.json`; gives its document.

    Raises:
        TrilobitError: no measured network meets the limits.
    """
    setting = prepare(run)
    config = run.config.search
    reference = run.family.corners()["largest/fp32"]
    measured: dict[Candidate, dict[str, float]] = {}
    foreseen: Foreseen = {}
    rounds, tried, rejected = [], 0, 0
    for line in limit_lines(run.config, setting.targets, largest_costs(run.family, setting.costs)):
        reporter.say(line)
    predictor = fit_predictor(run, *setting.sampled)
    with reporter.progress() as add:
        predict = add("predict", config.rounds * config.candidates)
        measure = add("measure", config.rounds * config.finalists + 1)
        for r in range(config.rounds):
            predicted = predictions(setting, predictor, measured, r)
            if r == 0 and predicted.imitation:
                reporter.say(predicted.imitation.in_words())
            show = partial(_show_search, predict, r * config.candidates)
            result, shortlist = search_round(setting, predicted, measured, r, show)
            predict((r + 1) * config.candidates, "")  # one that makes no more progress ends early
            tried, rejected = tried + result.evaluations, rejected + result.rejected
            wanted = pick_finalists(setting, predicted, result, shortlist, measured)
            wanted += [reference] if r == 0 else []
            foreseen |= foresee(predictor, wanted)
            measured |= measure_finalists(setting.evaluator, wanted, measure, done=len(measured))
            predictor = learn(setting, measured)
            rounds.append({**round_summary(setting, r, measured), "rejected": result.rejected})
    if rejected:
        device = run.backend.describe().name
        reporter.say(f"{rejected:,} of {tried:,} candidates were rejected: {device} cannot run them")
    document = front_document(setting, foreseen, measured, reference, rounds)
    write_json(run.front_path, document)
    return document


def _show_search(update: Update, done: int, found: Progress) -> None:
    update(done + found.evaluations, f"{found.front} on the predicted front")


def measure_finalists(
    evaluator: Evaluator, candidates: Sequence[Candidate], update: Update, *, done: int
) -> dict[Candidate, dict[str, float]]:
    """Return the measured values of candidates, and show how far that is."""
    measured: dict[Candidate, dict[str, float]] = {}
    update(done, "")
    with tell_of_waiting(lambda note: update(done + len(measured), note)):
        for candidate, values in evaluator.measure(candidates):
            measured[candidate] = values
            update(done + len(measured), f"finalists{evaluator.measuring.crowd()}")
    return measured


def search_round(
    setting: Setting,
    predicted: Predicted,
    measured: dict[Candidate, dict[str, float]],
    r: int,
    on_progress: Callable[[Progress], None],
) -> tuple[SearchResult, Shortlist]:
    """One search on predictions, started from what was measured so far; and the best that it came across.

    Raises:
        TrilobitError: nothing meets the limits even by prediction.
    """
    config, space = setting.run.config.search, setting.run.family.space()
    corners = [c.genes for c in setting.run.family.corners().values()]
    known = np.array([*corners, *(c.genes for c in measured)], np.int16)
    initial = np.concatenate([known, allocated(setting, predicted.predictor, measured)])
    repair = TowardsAnchor(space, predicted.excess, known) if predicted.repairable else None
    searcher = make_searcher(
        config.searcher, space, seed=setting.run.config.seed + 1000 * (r + 1), initial=initial, repair=repair
    )
    if isinstance(searcher, Aimed):
        largest = largest_costs(setting.run.family, setting.costs)
        searcher.aim(aims_of(setting.run.config, setting.targets, largest))

    shortlist = Shortlist(predicted)
    result = search(
        searcher,
        shortlist.evaluate,
        budget=config.candidates,
        batch=config.batch,
        reference=setting.reference.tolist(),
        patience=PATIENCE,
        on_progress=on_progress,
    )
    if not len(result.genomes):
        raise TrilobitError(_unreachable(setting, predicted.predictor, result))
    return result, shortlist


def allocated(setting: Setting, predictor: Predictor, measured: dict[Candidate, dict[str, float]]) -> Genomes:
    """(n, g) exact allocations of formats for the largest and the smallest architecture and, where there is
    one, for networks of the measured front.
    """
    targets, corners = setting.targets, setting.run.family.corners()
    rows = np.array([corners[f"{end}/fp32"].genes for end in ("largest", "smallest")], np.int16)
    if measured:
        values = measured_values(setting, measured)
        points = targets.minimised(values)
        points[targets.violation(values) > 0] = np.nan
        front = np.flatnonzero(non_dominated(points))
        chosen = front[choose_finalists(points[front], SEEDED)]
        rows = np.concatenate([np.array([c.genes for c in measured], np.int16)[chosen], rows])
    return seeds(setting.run.family.space(), setting.costs, targets, predictor, rows)


def _unreachable(setting: Setting, predictor: Predictor, result: SearchResult) -> str:
    values = predict_values(setting.costs, predictor, result.nearest.genomes)
    parts = [
        f"{o.name} {show(o, float(values[o.name][0]))} (limit {show(o, o.bound or 0)})"
        for o in setting.targets.bounded
    ]
    return (
        f"no network meets all limits; the nearest one has {', '.join(parts)}: loosen a "
        "limit, or search another space"
    )


def predictions(
    setting: Setting, predictor: Predictor, measured: dict[Candidate, dict[str, float]], r: int
) -> Predicted:
    """Return what a round goes by."""
    config, known = setting.run.config.search, [setting.sampled[0]]
    known += [np.array([candidate.genes for candidate in measured], np.int16)] if measured else []
    imitation = imitated(
        setting.run.family.space(),
        predictor,
        np.concatenate(known),
        config.candidates,
        rng=open_stream(setting.run.config.seed, Stream.DISTILLED, r),
    )
    return Predicted(
        setting.costs, predictor, setting.targets, config.latency_confidence, config.focus, imitation
    )


def pick_finalists(
    setting: Setting,
    predicted: Predicted,
    result: SearchResult,
    shortlist: Shortlist,
    measured: dict[Candidate, dict[str, float]],
) -> list[Candidate]:
    """Networks not measured yet that are expected to add most to the measured front; where nothing more is
    expected of any, well-spread points of the predicted front.
    """
    space, k = setting.run.family.space(), setting.run.config.search.finalists
    known, front = np.empty((0, len(space.choices)), np.int16), setting.reference[None][:0]
    if measured:
        known, values = np.array([c.genes for c in measured], np.int16), measured_values(setting, measured)
        front = predicted.focus(setting.targets.minimised(values))[setting.targets.violation(values) <= 0]
    chosen = shortlist.choose(known, front, setting.reference, k)
    taken = row_keys(np.concatenate([known, chosen]))
    fresh = np.flatnonzero(~np.isin(row_keys(result.genomes), taken))
    others = fresh[choose_finalists(result.objectives[fresh], k - len(chosen))]
    return [space.candidate(genome) for genome in (*chosen, *result.genomes[others])]


def learn(setting: Setting, measured: dict[Candidate, dict[str, float]]) -> Predictor:
    """The predictor refitted on samples and measured finalists."""
    genomes, accuracies = setting.sampled
    more = np.array([c.genes for c in measured], np.int16)
    known = np.array([values["accuracy"] for values in measured.values()])
    fresh = ~np.isin(row_keys(more), row_keys(genomes))
    return fit_predictor(
        setting.run, np.concatenate([genomes, more[fresh]]), np.concatenate([accuracies, known[fresh]])
    )


def measured_values(setting: Setting, measured: dict[Candidate, dict[str, float]]) -> dict[str, Values]:
    """Measured values (n,) by objective name; multiply-adds and memory are counted, and energy is what the
    profile predicts. A network that the device failed to run has an infinite latency.
    """
    genomes = np.array([c.genes for c in measured], np.int16)
    values = {
        name: np.array([v[name] for v in measured.values()]) for name in ("accuracy", "latency", "size")
    }
    values["latency"] = np.where(values["latency"] < FAILED_S, values["latency"], np.inf)
    return {**setting.costs.predict(genomes), **values}


def round_summary(setting: Setting, r: int, measured: dict[Candidate, dict[str, float]]) -> dict[str, Any]:
    """Real evaluations so far and the hypervolume they reach."""
    values = measured_values(setting, measured)
    feasible = setting.targets.violation(values) <= 0
    volume = hypervolume(setting.targets.minimised(values)[feasible], setting.reference)
    return {"round": r + 1, "evaluations": len(measured), "hypervolume": volume}


def foresee(predictor: Predictor, candidates: Sequence[Candidate]) -> Foreseen:
    """Return what is predicted of the accuracy of networks that are about to be measured: once they are, the
    predictor learns from them, and what it says of them tells nothing about others.
    """
    said = predictor.predict(np.array([c.genes for c in candidates], np.int16)) if candidates else None
    return {c: _predicted(said, i) for i, c in enumerate(candidates) if said is not None}


def front_document(
    setting: Setting,
    foreseen: Foreseen,
    measured: dict[Candidate, dict[str, float]],
    reference: Candidate,
    rounds: list[dict[str, Any]],
) -> dict[str, Any]:
    """`front/1`: the non-dominated measured networks that meet the limits, and all others that were measured.

    Raises:
        TrilobitError: no measured network meets the limits.
    """
    targets, space = setting.targets, setting.run.family.space()
    values = measured_values(setting, measured)
    evaluations = [
        Evaluation(candidate, {name: float(column[i]) for name, column in values.items()}, "measured")
        for i, candidate in enumerate(measured)
        if targets.violation(values)[i] <= 0
    ]
    point = tuple(to_min(targets.objectives, setting.reference[None])[0].tolist())  # back to people's signs
    front = pareto_front(targets.objectives, evaluations, point)
    if not front.evaluations:
        raise TrilobitError(
            f"none of {len(measured)} measured networks meets all limits, although some were predicted to; "
            "loosen a limit by a few percent"
        )
    entries = _entries(setting, foreseen, measured)
    on_front = {evaluation.candidate.id for evaluation in front.evaluations}
    by_latency = sorted(entries.values(), key=lambda entry: entry["measured"]["latency"]["value"])
    return {
        "schema": "front/1",
        "space": {"name": space.family, "fingerprint": space.fingerprint, "size": space.size},
        "device": setting.run.backend.describe().name,
        "objectives": [asdict(o) for o in (*targets.objectives, *targets.limited)],
        "reference_point": list(point),
        "hypervolume": front.hypervolume,
        "rounds": rounds,
        "foreseen": True,
        "reference": entries[reference],
        "candidates": [entry for entry in by_latency if entry["id"] in on_front],
        "evaluated": [
            {key: value for key, value in entry.items() if key != "layers"}
            for entry in by_latency
            if entry["id"] not in on_front
        ],
    }


def _entries(
    setting: Setting, foreseen: Foreseen, measured: dict[Candidate, dict[str, float]]
) -> dict[Candidate, dict[str, Any]]:
    family = setting.run.family
    genomes = np.array([c.genes for c in measured], np.int16)
    costs = setting.costs.predict(genomes)
    latency_std = setting.costs.latency_std(costs["latency"])
    n = len(setting.run.dataset.validation.labels)
    entries: dict[Candidate, dict[str, Any]] = {}
    for i, (candidate, values) in enumerate(measured.items()):
        work = family.workload(candidate)
        share = values["accuracy"]
        entries[candidate] = {
            "id": candidate.id,
            "genes": list(candidate.genes),
            "arch": asdict(family.arch(candidate)),
            "policy": {name: str(precision) for name, precision in family.policy(candidate).items()},
            "layers": [
                {"name": name, "key": layer.key()}
                for name, layer in zip(work.names, work.layers, strict=True)
            ],
            "predicted": {
                **({"accuracy": foreseen[candidate]} if candidate in foreseen else {}),
                "latency": {"value": _number(costs["latency"][i]), "std": float(latency_std[i])},
                **{name: {"value": _number(costs[name][i])} for name in COUNTED if name in costs},
            },
            "measured": {
                "accuracy": {"value": share, "std": float(np.sqrt(share * (1 - share) / n))},
                "latency": {"value": values["latency"], "iqr": values["iqr_s"], "load": values.get("load")},
                "size": {"value": values["size"]},
            },
        }
    return entries


def _predicted(accuracy: Prediction, row: int) -> dict[str, float]:
    return {"value": float(accuracy.mean[row]), "std": float(accuracy.std[row])}


def _number(value: float) -> float | None:
    """For JSON; None where the device cannot run the network."""
    return float(value) if np.isfinite(value) else None
