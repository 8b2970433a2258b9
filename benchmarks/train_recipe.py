"""What each part of the fast recipe buys: a supernet trained with all of it, and with one part at a time
taken out or put in, over the same number of passes.

Reads `examples/cifar-fast.toml`. Accuracy is that of the fp32 networks on all of search-validation; hours are
of one core. Every training has a folder in `--folder` and goes on where it was stopped: the same command
again. There are as many trainings as `VARIANTS`; `--only` names some of them.
"""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import Row, argument_parser, report

from nas.run.config_file import read_config
from supernet.families.family import Family, load_family
from supernet.space.space import in_fp32
from supernet.tasks.evaluate import build_network, calibration_examples, simulated_metric
from supernet.tasks.image_classification import ImageClassification
from supernet.tasks.loading import load_images
from supernet.train.checkpoint import load_checkpoint
from supernet.train.config import TrainConfig
from supernet.train.loop import load_supernet, train
from supernet.train.malloc import keep_freed_memory

EXAMPLE = Path(__file__).parents[1] / "examples" / "cifar-fast.toml"
ARCHIVE = "cifar10-images.tar.xz"
WHOLE = "all of it"
# name -> what differs from the recipe
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    WHOLE: {},
    "a random stem that learns": {"whitening": False},
    "random filters": {"initial": "random"},
    "AdamW": {"optimiser": "adamw", "learning_rate": 5e-3, "bias_factor": 1.0},
    "SGD": {"optimiser": "sgd", "learning_rate": 0.1, "clip_norm": 5.0},
    "half the learning rate": {"learning_rate": 0.05},
    "twice the learning rate": {"learning_rate": 0.2},
    "no faster biases": {"bias_factor": 1.0},
    "a cosine": {"decay": "cosine"},
    "no smoothing": {"smoothing": 0.0},
    "random mirroring": {"alternate": False},
    "no shifts": {"pad": 0},
    "no cutout": {"cutout": 0},
    "no average": {"ema": 0.0},
    "an average all along": {"ema_from": 0.0},
    "others from the first step": {"alone": 0.0},
    "one random network a step": {"random_subnets": 1},
    "the smallest in every second step": {"schedule": "alternating", "random_subnets": 1},
    "large images all along": {"first_resolution": 0},
    "the largest alone": {"schedule": "largest"},
    "activations in fp32": {"amp": "off"},
}
RANDOM = 4  # networks between the ends


@dataclass(frozen=True)
class Setting:
    """What all trainings have in common."""

    family: Family
    data: ImageClassification
    recipe: TrainConfig
    seed: int
    folder: Path


def trained(setting: Setting, name: str) -> Path:
    """Train by a variant, or find it trained; returns the checkpoint."""
    config = replace(setting.recipe, **VARIANTS[name])
    path = setting.folder / name.replace(" ", "-") / "last.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    said = time.monotonic()
    for progress in train(setting.family, setting.data, config, path, seed=setting.seed):
        if time.monotonic() - said > 30:
            print(
                f"{name}: step {progress.step} of {progress.steps}, loss {progress.loss:.3f}", file=sys.stderr
            )
            said = time.monotonic()
    return path


def accuracies(setting: Setting, path: Path) -> tuple[float, float, float]:
    """Of the largest and the smallest network, and the mean of some random ones, on search-validation."""
    family, data = setting.family, setting.data
    net, calibration = load_supernet(family, path), calibration_examples(data, seed=setting.seed)
    drawn = family.space().sample(RANDOM, rng=np.random.default_rng(0))
    random = [family.space().candidate(row) for row in in_fp32(family.space(), drawn)]
    values = []
    for candidate in (family.extreme("largest"), family.extreme("smallest"), *random):
        network = build_network(family, net, candidate, data, calibration)
        values.append(simulated_metric(network, data.validation, data))
    return values[0], values[1], float(np.mean(values[2:]))


def rows_of(setting: Setting, names: list[str]) -> list[Row]:
    """Accuracies and hours of each variant, and how far it is behind the whole recipe."""
    rows, whole = [], (0.0, 0.0, 0.0)
    for name in names:
        path = trained(setting, name)
        state = load_checkpoint(path, fingerprint=setting.family.space().fingerprint)
        fp32_accuracies = accuracies(setting, path)
        whole = fp32_accuracies if name == WHOLE else whole
        hours = float(state["seconds"]) * setting.recipe.threads / 3600
        peers = {WHOLE: 100 * whole[0]} if name != WHOLE and WHOLE in names else {}
        values = zip(("largest", "smallest", "random"), fp32_accuracies, strict=True)
        rows += [
            Row(name, f"{kind}, fp32", "%", "higher", 100 * v, 0.0, peers if kind == "largest" else {})
            for kind, v in values
        ]
        rows.append(Row(name, "time", "core-hours", "lower", hours, 0.0))
        print(
            f"| {name} | {' | '.join(f'{100 * v:.2f}' for v in fp32_accuracies)} | {hours:.2f} |",
            file=sys.stderr,
        )
    return rows


def few(data: ImageClassification, train: int, validation: int) -> ImageClassification:
    """Return so many of the images, of all classes."""
    trained, validated = (
        np.linspace(0, len(part) - 1, min(n, len(part))).astype(int)
        for part, n in ((data.train, train), (data.validation, validation))
    )
    return replace(data, train=data.train[trained], validation=data.validation[validated])


def main() -> None:
    parser = argument_parser(__doc__, seeds=1)
    parser.add_argument("--space", default="", metavar="NAME", help="instead of the example's")
    parser.add_argument("--epochs", type=int, default=6, metavar="N", help="passes (default: %(default)s)")
    parser.add_argument(
        "--images", type=int, default=15_000, metavar="N", help="of training (default: %(default)s)"
    )
    parser.add_argument(
        "--amp", choices=("bf16", "off"), default="bf16", help="activations (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="of torch (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("runs/train_recipe"), metavar="DIR")
    parser.add_argument("--only", nargs="+", choices=[*VARIANTS], default=[*VARIANTS], metavar="NAME")
    arguments = parser.parse_args()
    config = read_config(EXAMPLE)
    data = load_images(f"cifar10:{arguments.data / ARCHIVE}", seed=config.seed)
    epochs = 1 if arguments.quick else arguments.epochs
    recipe = replace(config.train, budget="", epochs=epochs, threads=arguments.threads, amp=arguments.amp)
    data = few(data, arguments.images, len(data.validation))
    if arguments.quick:
        data, recipe = few(data, 256, 100), replace(recipe, batch_size=64)
    name = arguments.space or config.space.name
    family = load_family(name, in_channels=data.channels, classes=len(data.classes))
    torch.set_num_threads(recipe.threads)
    keep_freed_memory()
    setting = Setting(family, data, recipe, config.seed, arguments.folder / name)
    report("train_recipe", rows_of(setting, arguments.only), arguments.json)


if __name__ == "__main__":
    main()
