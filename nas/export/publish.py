"""A trained supernet as it is shipped: the compact checkpoint, and its model card beside it."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from torch import nn

from hw_profiles.documents import read_document
from hw_profiles.errors import TrilobitError
from hw_profiles.files import write_atomic
from hw_profiles.reference.integer_sums import IntegerSums
from hw_profiles.streams import Stream, open_stream
from nas.export.representatives import Representative, representatives, scored
from nas.export.supernet_card import COLUMNS, RECIPE, Row, supernet_card
from nas.run.config import RunConfig
from nas.run.documents import Environment, Timings, read_optional
from nas.run.reporting import Reporter, progress_bar
from nas.run.run import Run, find_run
from nas.search.objectives import objective
from nas.search.units import show
from supernet.families.family import Family, load_family
from supernet.space.space import Candidate, in_format
from supernet.tasks.evaluate import calibration_examples, network_builder, simulated_metric
from supernet.tasks.metric import main_metric
from supernet.tasks.task import reads, tokens_of
from supernet.train.checkpoint import (
    State,
    Weights,
    compact,
    content_hash,
    load_checkpoint,
    load_weights,
    save_weights,
)
from supernet.train.config import NONE
from supernet.train.cost import OPERATIONS, as_trained, forward_macs, images_per_s, plan_of
from supernet.train.initial import weights_path
from supernet.train.loop import load_supernet, steps_per_epoch
from supernet.train.parallel import World
from supernet.train.placement import choose_placement, machine_of
from supernet.train.quantized import load_quantized

FORMATS = ("fp32", "int8")  # each for all layers of a network
SUMS = {"exact": IntegerSums.EXACT, "saturating": IntegerSums.SATURATING}
RANDOM = 20  # architectures besides the two ends
POINTS = 24  # of the curve


def publish(
    run: Run, path: Path, reporter: Reporter, *, random: int = RANDOM, sizes: Sequence[float] = ()
) -> Weights:
    """Write the run's finished supernet to `path`, and its model card beside it: after the quantized phase,
    if there was one; learned scales are not part of it.

    Its accuracies are measured on the test part: of both ends of the space, of the best of some of each of
    `sizes` (multiply-adds), and of `random` random architectures, in fp32 and quantized by calibration alone.

    Raises:
        TrilobitError: there is no finished training, the card would be the checkpoint, or the space has no
            network of such a size.
    """
    card = path.with_suffix(".md")
    if card == path:
        raise TrilobitError(f"{path}: that is the model card's name; end it in .pt")
    net = _trained(run)
    net.load_state_dict(compact(net.state_dict()))  # what is measured is what is shipped
    state = load_checkpoint(run.checkpoint_path, fingerprint=run.family.space().fingerprint)
    data, described = run.task, _described(run, state)
    described["accuracies"] = _accuracies(run, net, random, sizes, reporter)
    tensors = net.state_dict()
    weights = Weights(tensors, run.config.space.name, data.classes, data.fingerprint, metadata=described)
    save_weights(path, weights)
    write_atomic(card, supernet_card(weights, path))
    reporter.say(f"{path}: {path.stat().st_size:,} bytes; model card: {card}")
    return weights


def _trained(run: Run) -> nn.Module:
    if run.config.quantized.epochs:
        return load_quantized(run.family, run.quantized_path)[0]
    return load_supernet(run.family, run.checkpoint_path)


# -- what was done --------------------------------------------------------------------------------


def _described(run: Run, state: State) -> dict[str, Any]:
    """Return what a reader of the weights should know, plain values only."""
    data, metric = run.task, main_metric(run.task)
    phase = run.config.quantized
    return {
        **_training(run, state),
        "earlier": list(_earlier(run, state)),
        "quantized": asdict(phase) if phase.epochs else {},
        "data": {
            "name": data.name,
            "fingerprint": data.fingerprint,
            "train": len(data.train),
            "test": len(data.test),
            "metric": metric.name,
            **_read(run),
        },
        "versions": dict(read_document(run.folder / "env.json", Environment).versions),
    }


def _read(run: Run) -> dict[str, Any]:
    """Return how examples become what networks read."""
    if reads(run.task) == "tokens":
        return {"tokens": tokens_of(run.task), "vocabulary": run.task.channels}
    return {"mean": list(run.images.mean), "std": list(run.images.std)}


def _training(run: Run, state: State) -> dict[str, Any]:
    """Return what one training was: one of several, where it began with what another left."""
    config, examples = run.config, len(run.task.train)
    kind, path, _ = config.data.source.partition(":")
    steps, plan = int(state["steps"]), plan_of(state)
    epochs = passes(run, state)
    pace = images_per_s(config.train, state, examples)
    rates = {}
    if pace is not None:
        macs = forward_macs(run.family, config.train, state)
        rates = {"images_per_s": pace, "flops": OPERATIONS * macs * pace}
    legs = plan.legs
    return {
        "command": f"nas train {RECIPE} --data {kind}{':PATH' if path else ''} -o RUN",
        "recipe": _recipe(config, state),
        "seed": config.seed,
        "epochs": epochs,
        "steps": steps,
        "hours": _hours(run, state),
        "threads": config.train.threads,
        "machines": _machines(config, state),
        **rates,
        "budget": {
            "time": config.train.budget,
            "planned": plan.steps,
            "corrections": len(legs),
            "slowness": [leg.slowness for leg in legs],
            "changes": dict(plan.changes),
        }
        if config.train.budget
        else {},
        "curve": _curve(state.get("losses"), epochs / max(1, steps)),
        "watched": [list(map(float, row)) for row in state.get("watched", ())],
    }


def _machines(config: RunConfig, state: State) -> list[dict[str, Any]]:
    """Return what computed the training; this machine, said to be assumed, where that was not recorded."""
    recorded = [dict(machine) for machine in state.get("machines", ())]
    this_machine = machine_of(choose_placement(config.train, World()), config.train.threads)
    return recorded or [{**this_machine, "assumed": True}]


def _earlier(run: Run, state: State) -> Iterator[dict[str, Any]]:
    """Yield the trainings whose weights this one began with, as far as files still tell."""
    init = run.config.train.init
    path = weights_path(init)
    if init == NONE or not path.is_file() or content_hash(path) != state["config"]["init"]:
        return
    known = load_weights(path).metadata
    yield from known.get("earlier", ())
    if known:
        kept = ("accuracies", "data", "versions", "earlier", "quantized")
        yield {name: value for name, value in known.items() if name not in kept}
    elif (path.parents[1] / "run.toml").is_file():
        before = find_run(path.parents[1])
        former = load_checkpoint(path, fingerprint=before.family.space().fingerprint)
        yield from _earlier(before, former)
        yield _training(before, former)


def passes(run: Run, state: State) -> float:
    """Return the passes over the training images; with a budget of time as many as there was time for."""
    config = run.config.train
    if not config.budget:
        return config.epochs
    parts = int(state["config"]["accumulate"])  # over all processes
    return round(int(state["steps"]) / steps_per_epoch(run.task, replace(config, accumulate=parts)), 1)


def _recipe(config: RunConfig, state: State) -> str:
    """Return all of the configuration that decides the weights, defaults and what a budget decided included:
    defaults may change.
    """
    space, train = {"name": config.space.name}, as_trained(config.train, state)
    return tomli_w.dumps({"seed": config.seed, "space": space, "train": asdict(train)})


def _hours(run: Run, state: State) -> float | None:
    """Return the hours spent training: what the checkpoint counted, else the stage; None where neither
    did.
    """
    seconds = state.get("seconds")
    if seconds is None and (timings := read_optional(run.folder / "timings.json", Timings)):
        seconds = timings.stages.get("train")
    return None if seconds is None else float(seconds) / 3600


def _curve(losses: Any, epochs_per_step: float) -> list[list[float]]:
    """Return rows of (epochs done, mean loss since the row before); steps that were not recorded are left
    out.
    """
    if losses is None or not len(losses):
        return []
    ends = np.unique(np.linspace(0, len(losses), POINTS + 1).round().astype(int))
    parts = zip(ends[1:], np.split(losses.numpy(), ends[1:-1]), strict=True)
    rows = [[float(end) * epochs_per_step, float(np.mean(part))] for end, part in parts]
    return [row for row in rows if math.isfinite(row[1])]


# -- accuracies -----------------------------------------------------------------------------------


def _accuracies(
    run: Run, net: nn.Module, random: int, sizes: Sequence[float], reporter: Reporter
) -> list[Row]:
    """Measure one row per architecture: `network`, `macs`, and the main metric on the test part in each of
    `COLUMNS`.
    """
    data, sign = run.task, 1 if main_metric(run.task).direction == "max" else -1
    family = load_family(
        run.family.name, in_channels=data.channels, classes=len(data.classes), formats=FORMATS
    )
    calibration = calibration_examples(data, seed=run.config.seed)
    few = scored(data.validation)

    def score(candidate: Candidate) -> float:
        build = network_builder(family, net, candidate, data, calibration)
        return sign * simulated_metric(build(candidate), few, data)

    rng = open_stream(run.config.seed, Stream.SHIPPED)
    shown = list(representatives(family, random=random, rng=rng, sizes=sizes, score=score))
    metric = objective(main_metric(data).name)
    words = metric.name.replace("_", " ")
    reporter.say(f"test {words} of {len(shown)} networks, each in {len(COLUMNS)} ways:")
    rows: list[Row] = []
    with progress_bar(reporter, "test", len(shown) * len(COLUMNS)) as update:
        for network in shown:
            rows.append({"network": network.name, "macs": network.macs})
            for name, value in _measured(family, net, network, run, calibration):
                rows[-1][name] = value
                done = len(COLUMNS) * (len(rows) - 1) + len(rows[-1]) - 2
                update(done, f"{network.name}, {name}: {show(metric, value)}")
    return rows


def _measured(
    family: Family, net: nn.Module, network: Representative, run: Run, calibration: Any
) -> Iterator[tuple[str, float]]:
    """Yield the name of each column, and the network's main metric on the test part there."""
    data, space = run.task, family.space()
    genes = np.array([network.candidate.genes], np.int16)
    for sums, columns in itertools.groupby(COLUMNS, key=lambda column: column.sums):
        build = network_builder(family, net, network.candidate, data, calibration, sums=SUMS[sums])
        for column in columns:
            candidate = space.candidate(in_format(space, genes, column.number_format)[0])
            yield column.name, simulated_metric(build(candidate), data.test, data)
