"""The training loop: several subnets a step, in-place distillation, exactly resumable.

Everything random in step k comes from (seed, k), so a run that was killed and resumed ends with the very
same weights. On a GPU that holds up to the order in which its kernels add.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hw_profiles.errors import TrilobitError
from hw_profiles.streams import Stream, open_stream
from supernet.families.family import Family
from supernet.tasks.task import Task
from supernet.train.batches import Batches
from supernet.train.batches import steps_per_epoch as steps_per_epoch
from supernet.train.checkpoint import load_checkpoint, load_weights, save_checkpoint
from supernet.train.checkpoint import trained_weights as trained_weights
from supernet.train.config import HOST_ONLY as HOST_ONLY
from supernet.train.config import TrainConfig as TrainConfig
from supernet.train.initial import NONE, start_from, weights_path
from supernet.train.initial import identity as init_identity
from supernet.train.parallel import World, add_up, check_same, meet
from supernet.train.periodic_validation import validation_metrics
from supernet.train.placement import Placement, choose_placement
from supernet.train.sampling import step_archs
from supernet.train.schedule import warmed_cosine
from supernet.train.teacher import Teacher, load_teacher, teacher_identity

ALONE = World()


@dataclass(frozen=True)
class Progress:
    """Where training is.

    Attributes:
        step, steps: done, and of the whole training.
        loss: the last step's, of the largest subnet.
        learning_rate: of the last step.
        images: what the last step saw, over all processes.
        accuracies: of the `largest` and the `smallest` network on search-validation, in 0..1; empty unless
            it was time to look.
    """

    step: int
    steps: int
    loss: float
    learning_rate: float = math.nan
    images: int = 0
    accuracies: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Training:
    """What a step reads and changes.

    Attributes:
        scaler: of fp16 gradients; does nothing for other types.
        ema: the averaged weights; None without averaging.
        teacher: None where the largest subnet of the step teaches.
    """

    family: Family
    batches: Batches
    placement: Placement
    net: nn.Module
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: AveragedModel | None = None
    teacher: Teacher | None = None

    @property
    def config(self) -> TrainConfig:
        return self.batches.config

    @property
    def world(self) -> World:
        return self.batches.world

    @property
    def steps(self) -> int:
        """Of the whole training."""
        return self.config.epochs * self.batches.steps_per_epoch

    def state(self) -> dict[str, Any]:
        """Return what it takes to go on exactly here."""
        state = {"model": self.net.state_dict(), "optimiser": self.optimiser.state_dict()}
        if self.ema is not None:
            state["ema"] = self.ema.state_dict()
        if self.scaler.is_enabled():
            state["scaler"] = self.scaler.state_dict()
        return state

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.net.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        if self.scaler.is_enabled() and "scaler" in state:
            self.scaler.load_state_dict(state["scaler"])


def _never() -> bool:
    return False


def train(
    family: Family,
    task: Task,
    config: TrainConfig,
    path: Path,
    *,
    seed: int,
    world: World = ALONE,
    stop: Callable[[], bool] = _never,
) -> Iterator[Progress]:
    """Train, or resume from `path`, or find there that it is done. Gives the progress after every step.

    Args:
        world: the processes that train together; all call this with the same arguments, the first writes.
        stop: asked in every step. Once it says so, in any of the processes, the step is finished and saved,
            and no other follows.

    Raises:
        TrilobitError: the checkpoint there is damaged, of another space, or of another training
            configuration or data; or another process is gone.
    """
    resumes = path.exists()
    training = start(family, task, config, seed=seed, world=world, resumes=resumes)
    identity = _identity(training)
    past = _resume(path, training, identity) if resumes else {}
    step, steps = int(past.get("step", 0)), training.steps
    check_same(world, "what they train", _number({**identity, "step": step}))
    began, saved_at = time.monotonic() - float(past.get("seconds", 0.0)), time.monotonic()
    losses = past.get("losses", torch.full((step,), math.nan, dtype=torch.float64)).tolist()
    watched = list(past.get("watched", ()))

    def save() -> None:
        if not world.writes:
            return
        curves = {"losses": torch.tensor(losses, dtype=torch.float64), "watched": watched}
        record = {"seconds": time.monotonic() - began, **curves}
        described = {"name": family.name, "classes": list(task.classes)}
        progress = {"step": step, "steps": steps}
        save_checkpoint(path, {**identity, **described, **progress, **record, **training.state()})

    if step == steps:
        if not resumes:  # no epochs: the first weights are the result
            save()
        yield Progress(steps, steps, math.nan)
    stopping = False
    while step < steps and not stopping:
        loss, stopping = _step(training, step, stop)
        losses.append(loss)
        step += 1
        accuracies = _validated(training, step)
        if accuracies:
            epochs = step / training.batches.steps_per_epoch
            watched.append([epochs, accuracies["largest"], accuracies["smallest"]])
        if step == steps or stopping or time.monotonic() - saved_at > config.checkpoint_s:
            save()
            saved_at = time.monotonic()
        if stopping:
            meet(world)  # torchrun ends all processes as soon as one has left: not before all is saved
        rate = float(training.optimiser.param_groups[0]["lr"])
        yield Progress(step, steps, loss, rate, training.batches.images, accuracies)


def start(
    family: Family,
    task: Task,
    config: TrainConfig,
    *,
    seed: int,
    world: World = ALONE,
    resumes: bool = False,
) -> Training:
    """Return a training whose network has its first weights; `resumes` says that those of a checkpoint
    follow.

    Raises:
        TrilobitError: `config.init` is no checkpoint, or of another architecture; or without epochs, of other
            classes; the device or the teacher is not there.
    """
    placement = choose_placement(config, world)
    batches = Batches(task, config, seed, world, placement.device)
    net = family.supernet(rng=open_stream(seed, Stream.WEIGHTS)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.init != NONE and not resumes:
        path = weights_path(config.init)
        begun = start_from(net, load_weights(path), task.classes, origin=config.init)
        begun.require_usable(config.epochs, config.init)
    net = net.to(placement.device)
    ema = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(config.ema)) if config.ema else None  # type: ignore[no-untyped-call]
    teacher = load_teacher(config.teacher, family, batches) if config.teacher else None
    optimiser, scaler = _optimiser(net, config), placement.scaler()
    return Training(family, batches, placement, net, optimiser, scaler, ema, teacher)


def load_supernet(family: Family, path: Path) -> nn.Module:
    """Return the trained supernet in evaluation mode, with the averaged weights where there are any.

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


def _identity(training: Training) -> dict[str, Any]:
    """Return what decides the result. How forwards are divided between processes does not, nor where files
    are.
    """
    config = {name: value for name, value in asdict(training.config).items() if name not in HOST_ONLY}
    config["init"] = init_identity(training.config.init)
    config["teacher"] = teacher_identity(training.config.teacher)
    config["accumulate"] = training.batches.parts
    space, data = training.family.space().fingerprint, training.batches.task.fingerprint
    return {"space": space, "data": data, "config": config, "seed": training.batches.seed}


def _number(identity: Mapping[str, Any]) -> int:
    """Return 52 bits that differ where the identity does."""
    return int(hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:13], 16)


def _resume(path: Path, training: Training, identity: dict[str, Any]) -> dict[str, Any]:
    """Return the state to go on from; settings that an older checkpoint does not know had their defaults
    then.
    """
    state = load_checkpoint(path, fingerprint=identity["space"])
    defaults = {name: value for name, value in asdict(TrainConfig()).items() if name not in HOST_ONLY}
    configured = {name: value for name, value in state.get("config", {}).items() if name not in HOST_ONLY}
    stored = {**state, "config": {**defaults, **configured}}
    if identity["config"]["init"] is None:  # that file is not needed any more
        identity["config"]["init"] = stored["config"]["init"]
    changed = [name for name, value in identity.items() if stored.get(name) != value]
    if changed:
        raise TrilobitError(
            f"{path}: was trained with another {' and '.join(changed)}"
            f"{_differences(stored['config'], identity['config'])}; "
            "use another run folder, or delete it to train anew"
        )
    training.load(state)
    return state


def _differences(former: Mapping[str, Any], current: Mapping[str, Any]) -> str:
    """Return what differs between two configurations, in brackets; nothing where there are none."""
    names = [name for name in {**former, **current} if former.get(name) != current.get(name)]
    shown = {"accumulate": "accumulate x processes"}
    listed = [f"{shown.get(name, name)} {former.get(name)!r}, not {current.get(name)!r}" for name in names]
    return f" ({'; '.join(listed)})" if listed else ""


def _optimiser(net: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimiser, with weight decay only where there are more than one dimension: not on biases
    and batch norm.
    """
    weights = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": weights, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if config.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum, nesterov=True)
    return torch.optim.AdamW(groups, lr=config.learning_rate)


def _step(training: Training, step: int, stop: Callable[[], bool]) -> tuple[float, bool]:
    """Take one optimiser step; returns the loss of the largest subnet, and whether to stop after this
    step.
    """
    config, batches, optimiser, scaler = (
        training.config,
        training.batches,
        training.optimiser,
        training.scaler,
    )
    for group in optimiser.param_groups:
        group["lr"] = config.learning_rate * warmed_cosine(step, training.steps, config.warmup)
    training.net.train()
    optimiser.zero_grad(set_to_none=True)
    rng, done = open_stream(batches.seed, Stream.STEP, step), step / training.steps
    archs = step_archs(training.family, config.schedule, config.random_subnets, done, rng=rng)
    losses = [_backward(training, archs, images, targets) for images, targets in batches.of(step)]
    parameters = list(training.net.parameters())
    total, stops = add_up(training.world, parameters, (math.fsum(losses), float(stop())))
    scaler.unscale_(optimiser)
    nn.utils.clip_grad_norm_(parameters, config.clip_norm)
    scaler.step(optimiser)
    scaler.update()
    if training.ema is not None:
        training.ema.update_parameters(training.net)
    return total / batches.parts, stops > 0


def _backward(training: Training, archs: list[Any], images: Tensor, targets: Tensor) -> float:
    """Add the gradients of one forward of every subnet; gives the loss of the first, the largest."""
    task = training.batches.task
    with training.placement.autocast():
        teacher = training.teacher.logits(images) if training.teacher else None
    first_loss: float | None = None
    for arch in archs:
        with training.placement.autocast():
            logits = training.net(task.sized(images, arch.resolution), arch).float()
        if first_loss is None:
            loss = task.loss(logits, targets, smoothing=training.config.smoothing)
            first_loss = float(loss.detach())
            teacher = logits.detach() if teacher is None else teacher
        else:
            assert teacher is not None
            loss = task.distillation_loss(logits, teacher)
        training.scaler.scale(loss / training.batches.parts).backward()  # type: ignore[no-untyped-call]
    assert first_loss is not None
    return first_loss


def _validated(training: Training, step: int) -> dict[str, float]:
    """Return the accuracies after `step` steps, where it is time to look: the averaged weights' where there
    are any.
    """
    every = training.config.evaluate_every * training.batches.steps_per_epoch
    if not every or not training.world.writes or (step % every and step < training.steps):
        return {}
    net, batches = training.net if training.ema is None else training.ema.module, training.batches
    return validation_metrics(training.family, net, batches.task, seed=batches.seed, device=batches.device)
