"""The training loop: several subnets a step, in-place distillation, exactly resumable.

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
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hw_profiles.errors import TrilobitError
from supernet.family import Family
from supernet.train.augment import cutout, mixup, shift_and_flip
from supernet.train.checkpoint import load_checkpoint, load_weights, save_checkpoint
from supernet.train.checkpoint import trained_weights as trained_weights
from supernet.train.config import TrainConfig as TrainConfig
from supernet.train.data import Dataset, to_batch
from supernet.train.initial import NONE, start_from, weights_path
from supernet.train.initial import identity as init_identity
from supernet.train.losses import distillation_loss, label_loss
from supernet.train.sampling import step_archs

HOST_ONLY = ("checkpoint_s", "threads")  # settings that say how to compute, not what


@dataclass(frozen=True)
class Progress:
    """Where training is: `step` of `steps` done, and the last step's loss of the largest subnet."""

    step: int
    steps: int
    loss: float


@dataclass(frozen=True)
class Training:
    """What a step reads and changes.

    Attributes:
        ema: the averaged weights; None without averaging.
    """

    family: Family
    dataset: Dataset
    config: TrainConfig
    seed: int
    net: nn.Module
    optimiser: torch.optim.Optimizer
    ema: AveragedModel | None

    @property
    def steps(self) -> int:
        """Of the whole training."""
        return self.config.epochs * steps_per_epoch(self.dataset, self.config)

    def state(self) -> dict[str, Any]:
        """What it takes to go on exactly here."""
        state = {"model": self.net.state_dict(), "optimiser": self.optimiser.state_dict()}
        return state if self.ema is None else {**state, "ema": self.ema.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.net.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])


def steps_per_epoch(dataset: Dataset, config: TrainConfig) -> int:
    """Optimiser steps per pass; the last, smaller batch of a pass is dropped unless it is the only one."""
    return max(1, len(dataset.train.labels) // (config.batch_size * config.accumulate))


def train(
    family: Family, dataset: Dataset, config: TrainConfig, path: Path, *, seed: int
) -> Iterator[Progress]:
    """Train, or resume from `path`, or find there that it is done. Gives the progress after every step.

    Raises:
        TrilobitError: the checkpoint there is damaged, of another space, or of another training
            configuration or data.
    """
    resumes = path.exists()
    training = start(family, dataset, config, seed=seed, resumes=resumes)
    identity = _identity(training)
    past = _resume(path, training, identity) if resumes else {}
    step, steps = int(past.get("step", 0)), training.steps
    began, saved_at = time.monotonic() - float(past.get("seconds", 0.0)), time.monotonic()
    losses = past.get("losses", torch.full((step,), math.nan, dtype=torch.float64)).tolist()

    def save() -> None:
        record = {"seconds": time.monotonic() - began, "losses": torch.tensor(losses, dtype=torch.float64)}
        described = {"name": family.name, "classes": list(dataset.classes)}
        progress = {"step": step, "steps": steps}
        save_checkpoint(path, {**identity, **described, **progress, **record, **training.state()})

    if step == steps:
        if not resumes:  # no epochs: the first weights are the result
            save()
        yield Progress(steps, steps, math.nan)
    while step < steps:
        losses.append(_step(training, step))
        step += 1
        if step == steps or time.monotonic() - saved_at > config.checkpoint_s:
            save()
            saved_at = time.monotonic()
        yield Progress(step, steps, losses[-1])


def start(
    family: Family, dataset: Dataset, config: TrainConfig, *, seed: int, resumes: bool = False
) -> Training:
    """A training whose network has its first weights; `resumes` says that those of a checkpoint follow.

    Raises:
        TrilobitError: `config.init` is no checkpoint, or of another architecture; or without epochs, of other
            classes.
    """
    net = family.supernet(rng=np.random.default_rng([seed, 0])).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.init != NONE and not resumes:
        path = weights_path(config.init)
        begun = start_from(net, load_weights(path), dataset.classes, origin=config.init)
        begun.require_usable(config.epochs, config.init)
    ema = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(config.ema)) if config.ema else None  # type: ignore[no-untyped-call]
    return Training(family, dataset, config, seed, net, _optimiser(net, config), ema)


def load_supernet(family: Family, path: Path) -> nn.Module:
    """The trained supernet in evaluation mode, with the averaged weights where there are any.

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
    net.load_state_dict(trained_weights(state))
    return net.eval()


def resize(x: Tensor, resolution: int) -> Tensor:
    """(n, c, h, w) -> (n, c, r, r), channels last; the same filter as for evaluation."""
    if x.shape[2] != resolution:
        x = nn.functional.interpolate(x, (resolution, resolution), mode="bilinear", antialias=True)
    return x.contiguous(memory_format=torch.channels_last)


def _identity(training: Training) -> dict[str, Any]:
    config = {name: value for name, value in asdict(training.config).items() if name not in HOST_ONLY}
    config["init"] = init_identity(training.config.init)
    space, data = training.family.space().fingerprint, training.dataset.fingerprint
    return {"space": space, "data": data, "config": config, "seed": training.seed}


def _resume(path: Path, training: Training, identity: dict[str, Any]) -> dict[str, Any]:
    """The state to go on from; settings that an older checkpoint does not know had their defaults then."""
    state = load_checkpoint(path, fingerprint=identity["space"])
    defaults = {name: value for name, value in asdict(TrainConfig()).items() if name not in HOST_ONLY}
    found = {**state, "config": {**defaults, **state.get("config", {})}}
    if identity["config"]["init"] is None:  # that file is not needed any more
        identity["config"]["init"] = found["config"]["init"]
    changed = [name for name, value in identity.items() if found.get(name) != value]
    if changed:
        raise TrilobitError(
            f"{path}: was trained with another {' and '.join(changed)}; "
            "use another run folder, or delete it to train anew"
        )
    training.load(state)
    return state


def _optimiser(net: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Weight decay only where there are more than one dimension: not on biases and batch norm."""
    weights = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": weights, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if config.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum, nesterov=True)
    return torch.optim.AdamW(groups, lr=config.learning_rate)


def _step(training: Training, step: int) -> float:
    """One optimiser step; gives the loss of the largest subnet."""
    config, optimiser = training.config, training.optimiser
    for group in optimiser.param_groups:
        group["lr"] = config.learning_rate * _schedule(step, training.steps, config.warmup)
    training.net.train()
    optimiser.zero_grad(set_to_none=True)
    rng, rows = np.random.default_rng([training.seed, 1, step]), _rows(training, step)
    done = step / training.steps
    archs = step_archs(training.family, config.schedule, config.random_subnets, done, rng=rng)
    losses = [
        _backward(training, archs, part, generator_seed)
        for generator_seed, part in enumerate(
            np.array_split(rows, config.accumulate), (training.seed * 1_000_003 + step) * config.accumulate
        )
    ]
    nn.utils.clip_grad_norm_(training.net.parameters(), config.clip_norm)
    optimiser.step()
    if training.ema is not None:
        training.ema.update_parameters(training.net)
    return float(np.mean(losses))


def _backward(training: Training, archs: list[Any], rows: np.ndarray, seed: int) -> float:
    """Add the gradients of one forward of every subnet; gives the loss of the first, the largest."""
    config = training.config
    images, targets = _augmented(training, rows, seed)
    teacher: Tensor | None = None
    first_loss = 0.0
    for arch in archs:
        logits = training.net(resize(images, arch.resolution), arch)
        if teacher is None:
            loss = label_loss(logits, targets, config.smoothing)
            teacher, first_loss = logits.detach(), float(loss.detach())
        else:
            loss = distillation_loss(logits, teacher)
        (loss / config.accumulate).backward()  # type: ignore[no-untyped-call]
    return first_loss


def _augmented(training: Training, rows: np.ndarray, seed: int) -> tuple[Tensor, Tensor]:
    """Images (n, c, h, w) of these rows of the training part, and labels (n,) or mixed ones (n, classes)."""
    config, generator = training.config, torch.Generator().manual_seed(seed)
    part = training.dataset.train[rows]
    x = to_batch(part, training.dataset, part.pixels.shape[1])
    x = shift_and_flip(x, generator=generator, flip=config.flip, pad=config.pad)
    if config.cutout:
        x = cutout(x, config.cutout, generator=generator)
    targets = torch.from_numpy(part.labels)
    if config.mixup:
        soft = nn.functional.one_hot(targets, len(training.dataset.classes)).float()
        x, targets = mixup(x, soft, config.mixup, rng=np.random.default_rng([seed, 5]))
    return x, targets


def _rows(training: Training, step: int) -> np.ndarray:
    """Rows of the training part that a step sees; every pass sees each once, in an order of its own."""
    epoch, position = divmod(step, steps_per_epoch(training.dataset, training.config))
    order = np.random.default_rng([training.seed, 2, epoch]).permutation(len(training.dataset.train.labels))
    size = training.config.batch_size * training.config.accumulate
    return order[position * size : (position + 1) * size]


def _schedule(step: int, steps: int, warmup: float) -> float:
    """Factor of the peak learning rate: linear warm-up, then half a cosine."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))
