"""The training loop: sandwich rule with in-place distillation, exactly resumable.

Everything random in step k comes from (seed, k), so a run that was killed and resumed ends with the very
same weights.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hw_profiles.errors import TrilobitError
from supernet.family import Family
from supernet.train.checkpoint import load_checkpoint, save_checkpoint
from supernet.train.data import Dataset, augment, to_batch
from supernet.train.images import Images
from supernet.train.losses import distillation_loss, label_loss
from supernet.train.sampling import sandwich

CLIP_NORM = 5.0


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes:
        epochs: passes over the training part.
        batch_size: images per step; every subnet of the step sees the same ones.
        learning_rate: peak; linear warm-up, then cosine to 0.
        weight_decay: on convolution and linear weights only.
        warmup: share of the steps that warm up.
        smoothing: label smoothing for the largest subnet.
        random_subnets: subnets per step besides the largest and the smallest.
        pad: random shift in pixels.
        flip: mirror half of the images.
        checkpoint_s: seconds between checkpoints.
        threads: of torch, set by the command line. Small networks gain little from a second one, and lose ten
            times as much as soon as anything else wants its core.
    """

    epochs: int = 36
    batch_size: int = 64
    learning_rate: float = 5e-3
    weight_decay: float = 1e-4
    warmup: float = 0.1
    smoothing: float = 0.1
    random_subnets: int = 2
    pad: int = 2
    flip: bool = False
    checkpoint_s: float = 15.0
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate", "threads"):
            if getattr(self, name) <= 0:
                raise TrilobitError(f"train.{name} must be above 0, got {getattr(self, name)}")


@dataclass(frozen=True)
class Progress:
    """Where training is: `step` of `steps` done, and the last step's loss of the largest subnet."""

    step: int
    steps: int
    loss: float


def steps_per_epoch(dataset: Dataset, config: TrainConfig) -> int:
    """Optimiser steps per pass; the last, smaller batch of a pass is dropped unless it is the only one."""
    return max(1, len(dataset.train.labels) // config.batch_size)


def train(
    family: Family, dataset: Dataset, config: TrainConfig, path: Path, *, seed: int
) -> Iterator[Progress]:
    """Train, or resume from `path`, or find there that it is done. Gives the progress after every step.

    Raises:
        TrilobitError: the checkpoint there is damaged, of another space, or of another training
            configuration or data.
    """
    net = family.supernet(rng=np.random.default_rng([seed, 0])).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(_parameter_groups(net, config), lr=config.learning_rate)
    identity = _identity(family, dataset, config, seed)
    steps = config.epochs * steps_per_epoch(dataset, config)
    step = _resume(path, family, identity, net, optimiser) if path.exists() else 0
    saved_at = time.monotonic()
    if step == steps:
        yield Progress(steps, steps, math.nan)
    while step < steps:
        loss = _step(family, dataset, config, net, optimiser, step, steps, seed)
        step += 1
        if step == steps or time.monotonic() - saved_at > config.checkpoint_s:
            state = {"model": net.state_dict(), "optimiser": optimiser.state_dict()}
            save_checkpoint(path, {**identity, "step": step, "steps": steps, **state})
            saved_at = time.monotonic()
        yield Progress(step, steps, loss)


def load_supernet(family: Family, path: Path) -> nn.Module:
    """The trained supernet in evaluation mode.

    Raises:
        TrilobitError: the checkpoint is missing, damaged, of another space, or its training is not finished.
    """
    state = load_checkpoint(path, fingerprint=family.space().fingerprint)
    if state["step"] < state["steps"]:
        raise TrilobitError(
            f"{path}: training stopped at step {state['step']} of {state['steps']}; run `nas "
            "train` to finish it"
        )
    net = family.supernet(rng=np.random.default_rng(0))
    net.load_state_dict(state["model"])
    return net.eval()


def _identity(family: Family, dataset: Dataset, config: TrainConfig, seed: int) -> dict[str, Any]:
    plain = {name: value for name, value in asdict(config).items() if name != "checkpoint_s"}
    return {"space": family.space().fingerprint, "data": dataset.fingerprint, "config": plain, "seed": seed}


def _resume(
    path: Path, family: Family, identity: dict[str, Any], net: nn.Module, optimiser: torch.optim.Optimizer
) -> int:
    state = load_checkpoint(path, fingerprint=family.space().fingerprint)
    changed = [name for name, value in identity.items() if state.get(name) != value]
    if changed:
        raise TrilobitError(
            f"{path}: was trained with another {' and '.join(changed)}; "
            "use another run folder, or delete it to train anew"
        )
    net.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])


def _parameter_groups(net: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Weight decay only where there are more than one dimension: not on biases and batch norm."""
    weights = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim <= 1]
    return [{"params": weights, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]


def _step(
    family: Family,
    dataset: Dataset,
    config: TrainConfig,
    net: nn.Module,
    optimiser: torch.optim.Optimizer,
    step: int,
    steps: int,
    seed: int,
) -> float:
    images, labels = _batch(dataset, config, step, seed)
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    for group in optimiser.param_groups:
        group["lr"] = config.learning_rate * _schedule(step, steps, config.warmup)
    net.train()
    optimiser.zero_grad(set_to_none=True)
    teacher: Tensor | None = None
    first_loss = 0.0
    shifted = augment(
        to_batch(images, dataset, images.pixels.shape[1]),
        generator=generator,
        flip=config.flip,
        pad=config.pad,
    )
    for arch in sandwich(family, config.random_subnets, rng=np.random.default_rng([seed, 1, step])):
        logits = net(resize(shifted, arch.resolution), arch)
        if teacher is None:
            loss = label_loss(logits, labels, config.smoothing)
            teacher, first_loss = logits, float(loss.detach())
        else:
            loss = distillation_loss(logits, teacher)
        loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(net.parameters(), CLIP_NORM)
    optimiser.step()
    return first_loss


def resize(x: Tensor, resolution: int) -> Tensor:
    """(n, c, h, w) -> (n, c, r, r), channels last; the same filter as for evaluation."""
    if x.shape[2] != resolution:
        x = nn.functional.interpolate(x, (resolution, resolution), mode="bilinear", antialias=True)
    return x.contiguous(memory_format=torch.channels_last)


def _batch(dataset: Dataset, config: TrainConfig, step: int, seed: int) -> tuple[Images, Tensor]:
    per_epoch = steps_per_epoch(dataset, config)
    epoch, position = divmod(step, per_epoch)
    order = np.random.default_rng([seed, 2, epoch]).permutation(len(dataset.train.labels))
    rows = order[position * config.batch_size : (position + 1) * config.batch_size]
    part = dataset.train
    return Images(part.pixels[rows], part.labels[rows]), torch.from_numpy(part.labels[rows])


def _schedule(step: int, steps: int, warmup: float) -> float:
    """Factor of the peak learning rate: linear warm-up, then half a cosine."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))
