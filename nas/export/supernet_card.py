"""The model card of a supernet, in Markdown."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nas.export.markdown import escaped
from nas.search.objectives import Objective, objective
from supernet.data.kinds import examples_called
from supernet.tasks.metric import ACCURACY
from supernet.train.checkpoint import Weights
from supernet.train.config import FOR_RANDOM_WEIGHTS
from supernet.train.periodic_validation import IMAGES
from supernet.zoo import PREFIX, ZOO

RECIPE = "recipe.toml"
INIT = re.compile(r"^init = .*$", re.MULTILINE)  # of a recipe: the weights that it begins with
SHOWN_CLASSES = 100

Row = dict[str, Any]
Training = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """One way in which all networks are measured.

    Attributes:
        name: in the rows.
        number_format: of all layers.
        sums: what the device does with large integer sums.
        head: of the table.
    """

    name: str
    number_format: str
    sums: str
    head: str


COLUMNS = (
    Column("fp32", "fp32", "exact", "fp32, %"),
    Column("int8", "int8", "exact", "int8 on AVX512-VNNI, %"),
    Column("int8 of 7 bits", "int8", "saturating", "int8 on AVX2, %"),
)


def supernet_card(weights: Weights, path: Path) -> str:
    """Return the card of weights that are written to `path`."""
    metadata = weights.metadata
    trainings = training_parts(metadata)
    parts = [
        f"# {escaped(path.stem)}",
        f"A supernet: `nas train --init {_called(path)}` starts from it, and every subnet of "
        f"`{weights.space}` can be taken out of it. Batch norm is recalibrated on the subnet before it is "
        "used.",
        _table(("", ""), _facts(weights, path).items()),
        f"## {_metric(metadata).name.replace('_', ' ').capitalize()}",
        *_accuracies(metadata),
        "## Training",
        *_trainings(trainings, metadata),
        "## Command",
        *_commands(metadata, trainings, path),
        *_curves(trainings, metadata),
    ]
    return "\n\n".join(parts) + "\n"


def training_parts(metadata: Mapping[str, Any]) -> list[Training]:
    """Return the trainings behind the weights, in their order; where weights were used as they are, there was
    none.
    """
    return [part for part in (*metadata.get("earlier", ()), metadata) if part.get("steps", 1)]


def _called(path: Path) -> str:
    """Return what `--init` calls the file."""
    return f"{PREFIX}{path.stem}" if ZOO.get(path.stem) == path.name else path.name


def _facts(weights: Weights, path: Path) -> dict[str, Any]:
    metadata, data = weights.metadata, weights.metadata["data"]
    parameters = sum(t.numel() for t in weights.tensors.values() if t.is_floating_point())
    return {
        "Space": f"`{weights.space}`",
        "Weights": f"{parameters:,}, filters and matrices in fp16, vectors in fp32; "
        f"{path.stat().st_size:,} bytes",
        "Data": f"{escaped(data['name'])} (fingerprint `{data['fingerprint']}`), "
        f"{data['train']:,} training {_examples(metadata)}, {len(weights.classes)} classes: "
        f"{', '.join(map(escaped, weights.classes[:SHOWN_CLASSES]))}"
        f"{', ...' if len(weights.classes) > SHOWN_CLASSES else ''}",
        **_input(data),
        "Seed": metadata["seed"],
        "Training time": _time(training_parts(metadata)),
        "Versions": ", ".join(f"{name} {version}" for name, version in metadata["versions"].items()),
    }


def _input(data: Mapping[str, Any]) -> dict[str, str]:
    if "tokens" in data:
        return {"Input": f"{data['tokens']} tokens of a vocabulary of {data['vocabulary']}: bytes"}
    mean, std = (_numbers(data[name]) for name in ("mean", "std"))
    return {"Normalisation": f"pixels / 255, minus {mean}, divided by {std}"}


def _examples(metadata: Mapping[str, Any]) -> str:
    return examples_called("tokens" if "tokens" in metadata["data"] else "images")


def _shown(metadata: Mapping[str, Any], value: float, decimals: int) -> str:
    """Return a value of the main metric: shares in percent."""
    if _is_share(metadata):
        return f"{100 * value:.{decimals}f}"
    return f"{value:.{decimals + 1}f}"


def _metric(metadata: Mapping[str, Any]) -> Objective:
    return objective(metadata["data"].get("metric", ACCURACY.name))


def _is_share(metadata: Mapping[str, Any]) -> bool:
    return _metric(metadata).unit == "fraction"


# -- accuracy -------------------------------------------------------------------------------------


def _accuracies(metadata: Mapping[str, Any]) -> Iterator[str]:
    rows: Sequence[Row] = metadata["accuracies"]
    shown = [column for column in COLUMNS if all(column.name in row for row in rows)]
    yield (
        f"On the {metadata['data']['test']:,} test {_examples(metadata)}, which training has not seen; int8 "
        "by calibration alone: with 8 bits, as on processors whose integer sums are exact, AVX512-VNNI among "
        "them, and with 7, as where they saturate, on AVX2."
    )
    if any(row["network"].startswith("about") for row in rows):
        yield (
            "`about N`: of the random networks of about N million multiply-adds that were tried, the best on "
            "search-validation."
        )
    percent = (
        (
            row["network"],
            f"{row['macs'] / 1e6:.1f}",
            *(_shown(metadata, row[column.name], 2) for column in shown),
        )
        for row in rows
    )
    unit = "%" if _is_share(metadata) else _metric(metadata).unit
    heads = (column.head.replace("%", unit) for column in shown)
    yield _table(("network", "MMACs", *heads), percent)
    yield from _summary(rows, shown, metadata)


def _summary(rows: Sequence[Row], shown: Sequence[Column], metadata: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the random networks have in common."""
    random = [row for row in rows if row["network"].startswith("random")]
    if len(random) < 2:
        return
    metric, share = _metric(metadata), _is_share(metadata)
    unit, points = ("%", "points") if share else (metric.unit, metric.unit)
    sign = 1 if metric.direction == "max" else -1
    medians = (
        f"{_shown(metadata, float(np.median([row[c.name] for row in random])), 2)} {unit} in {c.name}"
        for c in shown
    )
    yield f"Median of the {len(random)} random ones: {', '.join(medians)}."
    for column in shown[1:]:
        lost = [sign * (row["fp32"] - row[column.name]) for row in rows]
        mean, most = (_shown(metadata, float(value), 2) for value in (np.mean(lost), max(lost)))
        yield f"Of all {len(rows)}, {column.name} costs {mean} {points} in the mean, {most} at most."


# -- training -------------------------------------------------------------------------------------


def _trainings(trainings: Sequence[Training], metadata: Mapping[str, Any]) -> Iterator[str]:
    rate = f"{_examples(metadata)}/s"
    head = ("", "passes", "steps", "hours", "core-hours", rate, "GFLOP/s", "machine")
    yield _table(head, (_training_row(i, part) for i, part in enumerate(trainings, 1)))
    if any("flops" in part for part in trainings):
        yield (
            f"{rate}: those that steps see, each through several subnets. GFLOP/s: of convolutions and "
            "linear layers, forward and backward. Measuring and saving count, waiting does not."
        )
    for i, part in enumerate(trainings, 1):
        if budget := part.get("budget"):
            yield _budget(budget, part["steps"], f"Training {i}" if len(trainings) > 1 else "The training")
    if phase := metadata.get("quantized"):
        yield (
            f"Then a quantized phase of {phase['epochs']:g} passes (learning rate "
            f"{phase['learning_rate']:g}): these are its weights; scales are found by calibration, not taken "
            "from it."
        )


def _training_row(number: int, part: Training) -> tuple[Any, ...]:
    hours, threads = part["hours"], part.get("threads")
    return (
        number,
        f"{part['epochs']:g}",
        f"{part['steps']:,}" if "steps" in part else "",
        "not recorded" if hours is None else f"{hours:.2f}",
        "" if hours is None or threads is None else f"{hours * threads:.2f}",
        f"{part['images_per_s']:,.0f}" if "images_per_s" in part else "",
        f"{part['flops'] / 1e9:,.0f}" if "flops" in part else "",
        "; ".join(map(_machine, part.get("machines", ()))) or "not recorded",
    )


def _machine(machine: Mapping[str, Any]) -> str:
    threads = machine.get("threads")
    counted = f"{threads} thread{'' if threads == 1 else 's'}" if threads else ""
    words = [machine.get("processor"), machine.get("instruction_set"), counted]
    caveat = " (it was shipped there; where it was trained is not recorded)" if machine.get("assumed") else ""
    return ", ".join(escaped(word) for word in words if word) + caveat


def _budget(budget: Mapping[str, Any], steps: int, which: str) -> str:
    slowness = budget["slowness"]
    pace = ""
    if slowness:
        pace = f", which was {min(slowness):.2f} to {max(slowness):.2f} x as slow as calibrated"
    decided = ", ".join(f"`{name} = {value!r}`" for name, value in budget["changes"].items()) or "nothing"
    return (
        f"{which} had a budget of {budget['time']}: {budget['planned']:,} steps were planned and {steps:,} "
        f"taken, after {budget['corrections']} corrections to the machine's pace{pace}. It decided {decided}."
    )


def _time(trainings: Sequence[Training]) -> str:
    if not trainings or any(part["hours"] is None for part in trainings):
        return "not recorded"
    hours, epochs = sum(part["hours"] for part in trainings), [f"{part['epochs']:g}" for part in trainings]
    return f"{hours:.2f} hours, {' + '.join(epochs)} epochs"


def _commands(metadata: Mapping[str, Any], trainings: Sequence[Training], path: Path) -> Iterator[str]:
    for i, part in enumerate(trainings, 1):
        name, command, recipe = RECIPE, part["command"], part["recipe"].strip()
        if len(trainings) > 1:
            name = f"{i}-{RECIPE}"
            command = command.replace(RECIPE, name).replace("-o RUN", f"-o RUN{i}")
        if i > 1:  # where the one before it was trained is of no use to others
            recipe = INIT.sub(f'init = "RUN{i - 1}/supernet/last.pt"', recipe)
        yield f"```sh\n{command}\n```"
        yield f"with `{name}`:"
        yield f"```toml\n{recipe}\n```"
    source = metadata["command"].partition("--data ")[2].partition(" ")[0]
    yield (
        "To go on from here, for better weights (a recipe's "
        f"{' and '.join(f'`{name}`' for name in FOR_RANDOM_WEIGHTS)} are for random ones, and left out then):"
    )
    yield f"```sh\nnas train {RECIPE} --data {source} --init {_called(path)} -o RUN\n```"


def _curves(trainings: Sequence[Training], metadata: Mapping[str, Any]) -> Iterator[str]:
    for i, part in enumerate(trainings, 1):
        yield "## Curve" if len(trainings) == 1 else f"## Curve of training {i}"
        yield _curve(part, metadata)
    if not trainings:
        yield "## Curve"
        yield "Not recorded."


def _curve(part: Training, metadata: Mapping[str, Any]) -> str:
    parts = []
    if part["curve"]:
        rows = ((f"{epochs:.1f}", f"{loss:.3f}") for epochs, loss in part["curve"])
        parts += ["Of the largest subnet, mean since the row before.", _table(("epochs", "loss"), rows)]
    if part["watched"]:
        shown = (
            (f"{epochs:.1f}", *(_shown(metadata, value, 1) for value in values))
            for epochs, *values in part["watched"]
        )
        unit = "%" if _is_share(metadata) else _metric(metadata).unit
        head, name = ("epochs", f"largest, {unit}", f"smallest, {unit}"), _metric(metadata).name
        watched = f"on up to {IMAGES:,} {_examples(metadata)} of search-validation, fp32."
        parts += [f"{name.replace('_', ' ').capitalize()} {watched}", _table(head, shown)]
    return "\n\n".join(parts) or "Not recorded."


def _numbers(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.4f}" for value in values) + ")"


def _table(head: Sequence[str], rows: Any) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
