"""One step of training: some subnets on the same images, one change of the weights."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from hw_profiles.graph.counts import macs as layer_macs
from supernet.train.first_weights import stem_of
from supernet.train.parallel import add_up
from supernet.train.sampling import step_archs
from supernet.train.schedule import warmed
from supernet.train.training import Training


@dataclass(frozen=True)
class Taken:
    """What a step did.

    Attributes:
        loss: of the largest subnet.
        stops: whether one of the processes was asked to stop.
        macs: multiply-adds of the subnets' forward passes, over all images and processes; backward passes
            take twice as many again.
    """

    loss: float
    stops: bool
    macs: int


def take_step(training: Training, step: int, stop: Callable[[], bool]) -> Taken:
    """Take one optimiser step."""
    config, batches, optimiser, scaler = (
        training.config,
        training.batches,
        training.optimiser,
        training.scaler,
    )
    plan = training.plan
    position = plan.position(step)
    done = position / plan.steps
    training.optimisation.set_rate(warmed(position, plan.steps, config.warmup, config.decay))
    if config.whitening:
        learns = step < config.stem_epochs * batches.steps_per_epoch
        stem_of(training.net).norm.requires_grad_(learns)
    training.net.train()
    optimiser.zero_grad(set_to_none=True)
    archs = step_archs(training.family, config, step, done, seed=batches.seed)
    losses = [_backward(training, archs, images, targets) for images, targets in batches.of(step)]
    parameters = list(training.net.parameters())
    total, stops = add_up(training.world, parameters, (math.fsum(losses), float(stop())))
    scaler.unscale_(optimiser)
    nn.utils.clip_grad_norm_(parameters, config.clip_norm)
    scaler.step(optimiser)
    scaler.update()
    if training.ema is not None and done >= config.ema_from:
        training.ema.update_parameters(training.net)
    macs = batches.images * sum(_macs(arch) for arch in archs)
    return Taken(total / batches.parts, stops > 0, macs)


def _macs(arch: Any) -> int:
    return sum(map(layer_macs, arch.workload.layers))


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
