"""What a run will search and what that will take, said before the work starts."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from hw_profiles.backend import Job
from hw_profiles.errors import TrilobitError
from hw_profiles.profiler import probe_networks, reference_network
from nas.costs import STATIC, compile_costs
from nas.objectives import OBJECTIVES
from nas.run import Run
from nas.search.searcher import SLOWER, USUAL, check_engine
from nas.stages.finetune import finetune_seconds
from nas.stages.fit import prior_source
from nas.stages.profile import estimate_batches, random_emitter
from nas.stages.sample import most_samples
from nas.stages.start import check_start
from nas.storage import open_storage
from nas.targets import check_reachable, resolve_targets, show
from predictors.predictor import load_predictor
from predictors.table import distinct_layers
from supernet.evaluate import build_network, calibration_images, simulated_accuracy
from supernet.train.loop import steps_per_epoch, train
from supernet.train.quantized import phase_steps, train_quantized

# Before profiling, only limits below this share of the cheapest corner are refused: mixtures may be cheaper.
CERTAIN = 0.5
SESSION_S = 0.008  # to emit one probe network and open a session on it


@dataclass(frozen=True)
class Preflight:
    """What is known before the work.

    Attributes:
        costs: corner name -> objective name -> value; latency measured now, size and multiply-adds exact.
        seconds: stage -> estimated seconds of what is left to do.
    """

    costs: Mapping[str, Mapping[str, float]]
    seconds: Mapping[str, float]


def preflight(run: Run, console: Console) -> Preflight:
    """Measure the corners of the space, check the limits as far as that can be done, estimate the time, and
    print all of it.

    Raises:
        TrilobitError: a limit that nothing can meet, a searcher or predictor that does not exist, or a
            storage that cannot be used.
    """
    check_start(run)
    if run.shared:
        open_storage(run.storage_url, grace_s=run.config.storage.grace_s)
    load_predictor(run.config.fit.predictor)
    if run.config.fit.prior:
        prior_source(run)
    check_engine(run.config.search.searcher)
    corners = _corner_costs(run)
    _check_limits(run, corners)
    seconds = _estimate(run)
    found = Preflight(corners, seconds)
    _print(run, found, console)
    return found


def _corner_costs(run: Run) -> dict[str, dict[str, float]]:
    family = run.family
    corners = family.corners()
    static = compile_costs(family, None).predict(np.array([c.genes for c in corners.values()], np.int16))
    emit = random_emitter(run)
    works = [family.workload(candidate) for candidate in corners.values()]
    measured = run.backend.measure([Job(work, partial(emit, work)) for work in works], run.plan)
    return {
        name: {"latency": m.median_s, **{cost: float(static[cost][i]) for cost in STATIC}}
        for i, (name, m) in enumerate(zip(corners, measured, strict=True))
    }


def _check_limits(run: Run, corners: Mapping[str, Mapping[str, float]]) -> None:
    targets = resolve_targets(run.config, corners["largest/fp32"])
    for limited in targets.bounded:
        if limited.name not in corners["largest/fp32"] or limited.bound is None:
            continue
        least = min(values[limited.name] for values in corners.values())
        if limited.bound < CERTAIN * least:
            raise TrilobitError(
                f"{limited.name} <= {show(limited, limited.bound)} cannot be met on this device; "
                f"the nearest reachable value is about {show(limited, least)}"
            )
    static = replace(targets, limited=(), objectives=tuple(o for o in targets.bounded if o.name in STATIC))
    check_reachable(run.family, compile_costs(run.family, None), static, seed=run.config.seed)


def _estimate(run: Run) -> dict[str, float]:
    """Seconds per stage that is not done, from timing a little of each."""
    left = {stage: 0.0 for stage in ("profile", "train", "sample", "fit", "search", "export")}
    search, plan = run.config.search, run.config.measure
    per_network = SESSION_S + plan.rounds * (plan.window_s + 2e-4)
    if not run.is_done("profile") and not run.recorded:
        layers = distinct_layers(run.family.space(), run.family.terms())
        reference, batches = reference_network(run.backend, layers), estimate_batches(run, layers)
        seconds = per_network * probe_networks(run.backend, batches, reference)
        left["profile"] = min(seconds, run.config.profile.budget_s())
    if not run.is_done("train"):
        left["train"] = _train_seconds(run) + _quantized_seconds(run)
    evaluation = _evaluation_seconds(run)
    if not run.is_done("sample"):
        left["sample"] = most_samples(run) * evaluation
    if not run.is_done("search"):
        measured = search.rounds * search.finalists
        predicted_s = search.rounds * search.candidates * SLOWER.get(search.searcher, USUAL).candidate_s
        left["search"] = measured * (evaluation + 2 * per_network) + predicted_s
    if not run.is_done("export"):
        left["export"] = run.config.export.count * 3 * evaluation + finetune_seconds(run)
    return left


def _train_seconds(run: Run) -> float:
    """From two steps of a throw-away supernet."""
    if run.config.train.epochs == 0:
        return 0.0
    config = replace(run.config.train, epochs=1, evaluate_every=0, checkpoint_s=float("inf"))
    steps = train(
        run.family, run.dataset, config, run.folder / "supernet" / "estimate.pt", seed=run.config.seed
    )
    next(steps)
    start = time.perf_counter()
    next(steps, None)
    per_step = time.perf_counter() - start
    steps.close()  # type: ignore[attr-defined]
    return per_step * run.config.train.epochs * steps_per_epoch(run.dataset, run.config.train)


def _quantized_seconds(run: Run) -> float:
    """From the second step of a throw-away quantized phase."""
    phase = run.config.quantized.phase()
    if phase is None:
        return 0.0
    net = run.family.supernet(rng=np.random.default_rng(0))
    path, little = (
        run.folder / "supernet" / "estimate.pt",
        replace(phase, probes=1, checkpoint_s=float("inf")),
    )
    steps = train_quantized(run.family, net, run.dataset, little, path, seed=run.config.seed)
    next(steps)
    start = time.perf_counter()
    next(steps, None)
    return (time.perf_counter() - start) * phase_steps(run.dataset, phase)


def _evaluation_seconds(run: Run) -> float:
    """From the largest and the smallest network of an untrained supernet."""
    net = run.family.supernet(rng=np.random.default_rng(0)).eval()
    calibration = calibration_images(run.dataset, seed=run.config.seed)
    ends = run.family.corners()
    corners = [ends["smallest/fp32"], list(ends.values())[-1]]  # the last one is in the narrowest format
    start = time.perf_counter()
    with torch.no_grad():
        for candidate in corners:
            network = build_network(run.family, net, candidate, run.dataset, calibration, sums=run.sums)
            simulated_accuracy(network, run.dataset.validation, run.dataset)
    return (time.perf_counter() - start) / len(corners)


def _print(run: Run, found: Preflight, console: Console) -> None:
    space = run.family.space()
    data = run.dataset
    parts = ", ".join(
        f"{len(getattr(data, part).labels):,} {part}" for part in ("train", "validation", "test")
    )
    console.print(
        f"[bold]{run.config.space.name}[/]: {space.size:.3g} networks; data {data.name}: {parts} images"
    )
    table = Table("", *found.costs, title=f"the ends of the space on {run.backend.describe().name}")
    for name in ("latency", "size", "macs"):
        known = OBJECTIVES[name]
        table.add_row(name, *(show(known, values[name]) for values in found.costs.values()))
    console.print(table)
    for limited in resolve_targets(run.config, found.costs["largest/fp32"]).bounded:
        sign = "<=" if limited.direction == "min" else ">="
        console.print(f"limit: {limited.name} {sign} {show(limited, limited.bound or 0.0)}")
    parts = ", ".join(
        f"{stage} {seconds:.0f} s" for stage, seconds in found.seconds.items() if seconds >= 0.5
    )
    console.print(
        f"estimated time: {sum(found.seconds.values()) / 60:.1f} min ({parts or 'everything is there'})"
    )
    if found.seconds["sample"] and None in (run.config.sample.fp32, run.config.sample.quantized):
        console.print("at most: sampling stops where more networks would hardly teach the predictor more")
