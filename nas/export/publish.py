"""A trained supernet as it is shipped: the compact checkpoint, and its model card beside it."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from torch import nn

from hw_profiles.documents import read_document
from hw_profiles.errors import TrilobitError
from hw_profiles.files import write_atomic
from hw_profiles.graph.counts import macs
from hw_profiles.streams import Stream, open_stream
from nas.export.markdown import escaped
from nas.run.config import RunConfig
from nas.run.documents import Environment, Timings, read_optional
from nas.run.reporting import Reporter, progress_bar
from nas.run.run import Run
from supernet.families.family import Family, load_family
from supernet.space.space import Candidate
from supernet.tasks.evaluate import build_network, calibration_examples, simulated_metric
from supernet.train.checkpoint import State, Weights, compact, load_checkpoint, save_weights
from supernet.train.loop import load_supernet, steps_per_epoch
from supernet.train.periodic_validation import IMAGES

FORMATS = ("fp32", "int8")  # each for all layers of a network
RANDOM = 20  # architectures besides the two ends
POINTS = 24  # of the curve
RECIPE = "recipe.toml"

Row = dict[str, Any]


def publish(run: Run, path: Path, reporter: Reporter, *, random: int = RANDOM) -> Weights:
    """Write the run's finished supernet to `path`, and its model card beside it.

    Its accuracies are measured on the test part: of both ends of the space and of `random` random
    architectures, in fp32 and quantized by calibration alone.

    Raises:
        TrilobitError: there is no finished training, or the card would be the checkpoint.
    """
    card = path.with_suffix(".md")
    if card == path:
        raise TrilobitError(f"{path}: that is the model card's name; end it in .pt")
    net = load_supernet(run.family, run.checkpoint_path)
    net.load_state_dict(compact(net.state_dict()))  # what is measured is what is shipped
    state = load_checkpoint(run.checkpoint_path, fingerprint=run.family.space().fingerprint)
    data, described = run.images, _described(run, state)
    described["accuracies"] = _accuracies(run, net, random, reporter)
    tensors = net.state_dict()
    weights = Weights(tensors, run.config.space.name, data.classes, data.fingerprint, metadata=described)
    save_weights(path, weights)
    write_atomic(card, _card(weights, path))
    reporter.say(f"{path}: {path.stat().st_size:,} bytes; model card: {card}")
    return weights


def _described(run: Run, state: State) -> dict[str, Any]:
    """Return what a reader of the weights should know, plain values only."""
    data, config = run.images, _as_trained(run, state)
    kind, path, _ = config.data.source.partition(":")
    steps = max(1, int(state["steps"]))
    epochs = _epochs(run, state)
    return {
        "command": f"nas train {RECIPE} --data {kind}{':PATH' if path else ''} -o RUN",
        "recipe": _recipe(config),
        "seed": config.seed,
        "epochs": epochs,
        "hours": _hours(run, state),
        "curve": _curve(state.get("losses"), epochs / steps),
        "watched": [list(map(float, row)) for row in state.get("watched", ())],
        "data": {
            "name": data.name,
            "fingerprint": data.fingerprint,
            "train": len(data.train.labels),
            "test": len(data.test.labels),
            "mean": list(data.mean),
            "std": list(data.std),
        },
        "versions": dict(read_document(run.folder / "env.json", Environment).versions),
    }


def _as_trained(run: Run, state: State) -> RunConfig:
    """Return the configuration with what a budget of time decided."""
    changes = dict(state.get("plan", {}).get("changes", {}))
    return replace(run.config, train=replace(run.config.train, **changes))


def _epochs(run: Run, state: State) -> float:
    """Return the passes over the training images; with a budget of time as many as there was time for."""
    config = run.config.train
    if not config.budget:
        return config.epochs
    parts = int(state["config"]["accumulate"])  # over all processes
    return round(int(state["steps"]) / steps_per_epoch(run.task, replace(config, accumulate=parts)), 1)


def _recipe(config: RunConfig) -> str:
    """Return all of the configuration that decides the weights, defaults included: they may change."""
    space = {"name": config.space.name}
    return tomli_w.dumps({"seed": config.seed, "space": space, "train": asdict(config.train)})


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


def _accuracies(run: Run, net: nn.Module, random: int, reporter: Reporter) -> list[Row]:
    """Measure one row per architecture: `network`, `macs`, and the test accuracy in each format."""
    data = run.images
    family = load_family(
        run.family.name, in_channels=data.channels, classes=len(data.classes), formats=FORMATS
    )
    space = family.space()
    ends = {"largest": family.extreme("largest"), "smallest": family.extreme("smallest")}
    drawn = space.sample(random, rng=open_stream(run.config.seed, Stream.SHIPPED))
    others = {f"random {i}": space.candidate(genes) for i, genes in enumerate(drawn)}
    architectures = {**ends, **others}
    reporter.say(f"test accuracy of {len(architectures)} networks, each in {' and '.join(FORMATS)}:")
    rows: list[Row] = [
        {"network": name, "macs": sum(map(macs, family.workload(candidate).layers))}
        for name, candidate in architectures.items()
    ]
    calibration = calibration_examples(data, seed=run.config.seed)
    jobs = list(itertools.product(zip(rows, architectures.values(), strict=True), FORMATS))
    with progress_bar(reporter, "test", len(jobs)) as update:
        for done, ((row, candidate), number_format) in enumerate(jobs, 1):
            uniform = _uniform(family, candidate, number_format)
            network = build_network(family, net, uniform, data, calibration)
            row[number_format] = simulated_metric(network, data.test, data)
            update(done, f"{row['network']}, {number_format}: {100 * row[number_format]:.2f} %")
    return rows


def _uniform(family: Family, candidate: Candidate, number_format: str) -> Candidate:
    """Return the same architecture with every layer in one format."""
    space, genes = family.space(), np.array(candidate.genes, np.int16)
    for column, choice in enumerate(space.choices):
        if choice.kind == "precision":
            genes[column] = choice.options.index(number_format)
    return space.candidate(genes)


# -- the card -------------------------------------------------------------------------------------


def _card(weights: Weights, path: Path) -> str:
    """Render the model card in Markdown."""
    metadata = weights.metadata
    data, hours = metadata["data"], metadata["hours"]
    parameters = sum(t.numel() for t in weights.tensors.values() if t.is_floating_point())
    facts = {
        "Space": f"`{weights.space}`",
        "Weights": f"{parameters:,}, filters and matrices in fp16, vectors in fp32; "
        f"{path.stat().st_size:,} bytes",
        "Data": f"{escaped(data['name'])} (fingerprint `{data['fingerprint']}`), "
        f"{data['train']:,} training images, {len(weights.classes)} classes: "
        f"{', '.join(map(escaped, weights.classes))}",
        "Normalisation": f"pixels / 255, minus {_numbers(data['mean'])}, divided by {_numbers(data['std'])}",
        "Seed": metadata["seed"],
        "Training time": "not recorded"
        if hours is None
        else f"{hours:.2f} hours, {metadata['epochs']} epochs",
        "Versions": ", ".join(f"{name} {version}" for name, version in metadata["versions"].items()),
    }
    parts = [
        f"# {escaped(path.stem)}",
        f"A supernet: `nas train --init {path.name}` starts from it, and every subnet of `{weights.space}` "
        "can be taken out of it. Batch norm is recalibrated on the subnet before it is used.",
        _table(("", ""), facts.items()),
        "## Command",
        f"```sh\n{metadata['command']}\n```",
        f"with `{RECIPE}`:",
        f"```toml\n{metadata['recipe'].strip()}\n```",
        "## Accuracy",
        f"On the {data['test']:,} test images, which training has not seen; int8 by calibration alone.",
        _accuracy_table(metadata["accuracies"]),
        "## Curve",
        _curves(metadata),
    ]
    return "\n\n".join(parts) + "\n"


def _numbers(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.4f}" for value in values) + ")"


def _table(head: Sequence[str], rows: Any) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _accuracy_table(rows: Sequence[Row]) -> str:
    percent = [
        (row["network"], f"{row['macs'] / 1e6:.1f}", *(f"{100 * row[fmt]:.2f}" for fmt in FORMATS))
        for row in rows
    ]
    return _table(("network", "MMACs", *(f"{fmt}, %" for fmt in FORMATS)), percent)


def _curves(metadata: Mapping[str, Any]) -> str:
    parts = []
    if metadata["curve"]:
        rows = ((f"{epochs:.1f}", f"{loss:.3f}") for epochs, loss in metadata["curve"])
        parts += ["Of the largest subnet, mean since the row before.", _table(("epochs", "loss"), rows)]
    if metadata["watched"]:
        shown = (
            (f"{epochs:.1f}", *(f"{100 * share:.1f}" for share in shares))
            for epochs, *shares in metadata["watched"]
        )
        head = ("epochs", "largest, %", "smallest, %")
        parts += [f"Accuracy on up to {IMAGES:,} images of search-validation, fp32.", _table(head, shown)]
    return "\n\n".join(parts) or "Not recorded."
