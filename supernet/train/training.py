"""What a step of training reads and changes, with its first weights."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hw_profiles.streams import Stream, open_stream
from supernet.families.family import Family
from supernet.tasks.task import Task
from supernet.train.batches import Batches
from supernet.train.checkpoint import load_weights
from supernet.train.config import TrainConfig
from supernet.train.first_weights import pass_on, stem_of, whiten
from supernet.train.initial import NONE, start_from, weights_path
from supernet.train.optimiser import Optimisation, make_optimisation
from supernet.train.parallel import World
from supernet.train.placement import Placement, choose_placement
from supernet.train.plan import Plan
from supernet.train.teacher import Teacher, load_teacher

ALONE = World()


@dataclass(frozen=True)
class Training:
    """What a step reads and changes.

    Attributes:
        scaler: of fp16 gradients; does nothing for other types.
        ema: the averaged weights; None without averaging.
        plan: how many steps there are, and where in the schedule each is.
        teacher: None where the largest subnet of the step teaches.
    """

    family: Family
    batches: Batches
    placement: Placement
    net: nn.Module
    optimisation: Optimisation
    scaler: torch.amp.GradScaler
    plan: Plan
    ema: AveragedModel | None = None
    teacher: Teacher | None = None

    @property
    def config(self) -> TrainConfig:
        return self.batches.config

    @property
    def world(self) -> World:
        return self.batches.world

    @property
    def optimiser(self) -> torch.optim.Optimizer:
        """What changes the weights."""
        return self.optimisation.optimiser

    @property
    def result(self) -> nn.Module:
        """The weights to use so far: the averaged ones once averaging has begun."""
        return self.net if self.ema is None or not self.ema.n_averaged else self.ema.module

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

    def by(self, plan: Plan) -> "Training":
        """Return the same training with the steps, and the settings, of `plan`."""
        config = replace(self.config, **plan.changes)
        placement = choose_placement(config, self.world)
        return replace(self, plan=plan, placement=placement, batches=replace(self.batches, config=config))


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
    if not resumes:
        _set_first_weights(net, family, batches)
    if config.whitening:
        stem_of(net).weight.requires_grad_(False)
    net = net.to(placement.device)
    ema = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(config.ema)) if config.ema else None  # type: ignore[no-untyped-call]
    teacher = load_teacher(config.teacher, family, batches) if config.teacher else None
    optimisation, scaler = make_optimisation(net, config), placement.scaler()
    plan = Plan(config.epochs * batches.steps_per_epoch)
    return Training(family, batches, placement, net, optimisation, scaler, plan, ema, teacher)


def _set_first_weights(net: nn.Module, family: Family, batches: Batches) -> None:
    config = batches.config
    if config.initial == "identity":
        pass_on(net)
    if config.whitening:
        resolution = family.resolution(family.extreme("largest"))
        whiten(net, batches.task, resolution, seed=batches.seed)
