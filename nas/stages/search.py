"""Stage 5: search on predictions, measure the finalists, learn from them, search again; the front holds
measured values only.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from rich.console import Console

from hw_profiles.errors import TrilobitError
from hw_profiles.files import write_json
from hw_profiles.profile import load_profile
from nas.costs import Costs, compile_costs
from nas.evaluate import FAILED_S, Evaluator
from nas.objectives import Values, to_min
from nas.pareto import Evaluation, hypervolume, pareto_front
from nas.progress import progress_bar
from nas.run import Run
from nas.search.loop import Progress, SearchResult, choose_finalists, search
from nas.search.searcher import make_searcher
from nas.stages.fit import fit_predictor, training_rows
from nas.targets import (
    Targets,
    check_reachable,
    largest_costs,
    predict_values,
    resolve_targets,
    show,
    worst_costs,
)
from predictors.predictor import Predictor
from supernet.space import Candidate, Genomes, row_keys

COUNTED = ("size", "macs", "memory", "energy")  # predicted costs without an expected error of their own
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


def prepare(run: Run) -> Setting:
    """Load profile and samples, resolve the limits and check that they can be met.

    Raises:
        TrilobitError: a stage before has not run, or a limit cannot be met.
    """
    if not run.profile_path.exists():
        raise TrilobitError(f"{run.profile_path}: no such profile; run `nas profile`")
    costs = compile_costs(run.family, load_profile(run.profile_path))
    evaluator = Evaluator(run)
    genomes, accuracies = training_rows(run, evaluator)
    largest = largest_costs(run.family, costs)
    targets = resolve_targets(run.config, largest)
    check_reachable(run.family, costs, targets, seed=run.config.seed)
    most = worst_costs(run.family, costs, seed=run.config.seed)
    worst = {name: np.array([value * 1.1]) for name, value in most.items()}
    worst["accuracy"] = np.array([accuracies.min()])
    return Setting(run, evaluator, costs, targets, targets.minimised(worst)[0], (genomes, accuracies))


def run_search(run: Run, console: Console) -> dict[str, Any]:
    """Search, measure, and write `front.json`; gives its document.

    Raises:
        TrilobitError: no measured network meets the limits.
    """
    setting = prepare(run)
    config = run.config.search
    reference = run.family.corners()["largest/fp32"]
    measured: dict[Candidate, dict[str, float]] = {}
    rounds, tried, rejected = [], 0, 0
    predictor = fit_predictor(run, *setting.sampled)
    with progress_bar(console, "search", config.rounds * (config.budget + config.finalists)) as update:
        for r in range(config.rounds):
            done = r * (config.budget + config.finalists)
            result = search_round(setting, predictor, measured, r, partial(_show_search, update, done))
            tried, rejected = tried + result.evaluations, rejected + result.rejected
            wanted = pick_finalists(setting, result, measured) + ([reference] if r == 0 else [])
            for i, (candidate, values) in enumerate(setting.evaluator.measure(wanted), 1):
                measured[candidate] = values
                crowd = setting.evaluator.measuring.crowd()
                update(done + config.budget + i, f"round {r + 1}: measuring finalists{crowd}")
            predictor = learn(setting, measured)
            rounds.append({**round_summary(setting, r, measured), "rejected": result.rejected})
    if rejected:
        device = run.backend.describe().name
        console.print(f"{rejected:,} of {tried:,} candidates were rejected: {device} cannot run them")
    document = front_document(setting, predictor, measured, reference, rounds)
    write_json(run.front_path, document)
    return document


def _show_search(update: Callable[[int, str], None], done: int, progress: Progress) -> None:
    update(done + progress.evaluations, f"{progress.front} on the predicted front")


def search_round(
    setting: Setting,
    predictor: Predictor,
    measured: dict[Candidate, dict[str, float]],
    r: int,
    on_progress: Callable[[Progress], None],
) -> SearchResult:
    """One search on predictions, started from what was measured so far.

    Raises:
        TrilobitError: nothing meets the limits even by prediction.
    """
    config, space = setting.run.config.search, setting.run.family.space()
    corners = [c.genes for c in setting.run.family.corners().values()]
    initial = np.array([*corners, *(c.genes for c in measured)], np.int16)
    searcher = make_searcher(
        config.searcher, space, seed=setting.run.config.seed + 1000 * (r + 1), initial=initial
    )

    def evaluate(genomes: Genomes) -> tuple[Values, Values]:
        values = predict_values(setting.costs, predictor, genomes)
        return setting.targets.minimised(values), setting.targets.violation(values)

    result = search(
        searcher,
        evaluate,
        budget=config.budget,
        batch=config.batch,
        reference=setting.reference.tolist(),
        patience=PATIENCE,
        on_progress=on_progress,
    )
    if not len(result.genomes):
        raise TrilobitError(_unreachable(setting, predictor, result))
    return result


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


def pick_finalists(
    setting: Setting, result: SearchResult, measured: dict[Candidate, dict[str, float]]
) -> list[Candidate]:
    """Well-spread points of the predicted front that are not measured yet."""
    space = setting.run.family.space()
    known = (
        row_keys(np.array([c.genes for c in measured], np.int16))
        if measured
        else row_keys(result.genomes[:0])
    )
    fresh = ~np.isin(row_keys(result.genomes), known)
    chosen = choose_finalists(result.objectives[fresh], setting.run.config.search.finalists)
    return [space.candidate(genome) for genome in result.genomes[fresh][chosen]]


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


def front_document(
    setting: Setting,
    predictor: Predictor,
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
    entries = _entries(setting, predictor, measured)
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
        "reference": entries[reference],
        "candidates": [entry for entry in by_latency if entry["id"] in on_front],
        "evaluated": [
            {key: value for key, value in entry.items() if key != "layers"}
            for entry in by_latency
            if entry["id"] not in on_front
        ],
    }


def _entries(
    setting: Setting, predictor: Predictor, measured: dict[Candidate, dict[str, float]]
) -> dict[Candidate, dict[str, Any]]:
    family = setting.run.family
    genomes = np.array([c.genes for c in measured], np.int16)
    costs, accuracy = setting.costs.predict(genomes), predictor.predict(genomes)
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
                "accuracy": {"value": float(accuracy.mean[i]), "std": float(accuracy.std[i])},
                "latency": {"value": _number(costs["latency"][i]), "std": float(latency_std[i])},
                **{name: {"value": _number(costs[name][i])} for name in COUNTED if name in costs},
            },
            "measured": {
                "accuracy": {"value": share, "std": float(np.sqrt(share * (1 - share) / n))},
                "latency": {"value": values["latency"], "iqr": values["iqr_s"]},
                "size": {"value": values["size"]},
            },
        }
    return entries


def _number(value: float) -> float | None:
    """For JSON; None where the device cannot run the network."""
    return float(value) if np.isfinite(value) else None
