"""The training loop: several subnets a step, in-place distillation, exactly resumable.

Everything random in step k comes from (seed, k), so a run that was killed and resumed ends with the very
same weights. On a GPU that holds up to the order in which its kernels add; with a budget of time, for the
steps that there was time for.
"""

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hw_profiles.errors import TrilobitError
from supernet.families.family import Family
from supernet.tasks.task import Task
from supernet.train.batches import steps_per_epoch as steps_per_epoch
from supernet.train.budget import described, make_plan
from supernet.train.checkpoint import load_checkpoint, save_checkpoint
from supernet.train.checkpoint import trained_weights as trained_weights
from supernet.train.config import HOST_ONLY as HOST_ONLY
from supernet.train.config import TrainConfig as TrainConfig
from supernet.train.initial import identity as init_identity
from supernet.train.optimiser import make_optimisation
from supernet.train.parallel import World, check_same, mean_over, meet
from supernet.train.periodic_validation import validation_metrics
from supernet.train.placement import machine_of
from supernet.train.plan import Plan, corrected, read_plan
from supernet.train.step import take_step
from supernet.train.teacher import teacher_identity
from supernet.train.training import ALONE, Training
from supernet.train.training import start as start

TIMED_STEPS = 2  # of each kind, for a budget: in every second step other subnets take part


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
        macs: multiply-adds of the step's forward passes; training takes three times as many.
        share: of the training that is over, in 0..1: of its time where it has a budget, else of its steps.
    """

    step: int
    steps: int
    loss: float
    learning_rate: float = math.nan
    images: int = 0
    accuracies: Mapping[str, float] = field(default_factory=dict)
    macs: int = 0
    share: float = 1.0


@dataclass
class _Course:
    """A training under way.

    Attributes:
        identity: what decides the result.
        began: when, on the clock, it would have begun had it not been interrupted.
        step: done.
        losses, watched: the curves so far.
        machines: that computed it, in their order.
    """

    training: Training
    identity: Mapping[str, Any]
    began: float
    step: int
    losses: list[float]
    watched: list[list[float]]
    machines: list[dict[str, Any]]

    @property
    def is_over(self) -> bool:
        """Whether no step is left."""
        return self.step == self.training.plan.total

    def elapsed_s(self) -> float:
        """Return the seconds of training so far, the same in all processes."""
        return mean_over(self.training.world, time.monotonic() - self.began)

    def save(self, path: Path) -> None:
        """Write all it takes to go on from here, in the first process."""
        training = self.training
        if not training.world.writes:
            return
        curves = {"losses": torch.tensor(self.losses, dtype=torch.float64), "watched": self.watched}
        record = {"seconds": time.monotonic() - self.began, "machines": self.machines, **curves}
        described = {"name": training.family.name, "classes": list(training.batches.task.classes)}
        progress: dict[str, Any] = {"step": self.step, "steps": training.plan.total}
        if training.plan.costs:
            progress["plan"] = training.plan.document()
        save_checkpoint(path, {**self.identity, **described, **progress, **record, **training.state()})

    def advance(self, stop: Callable[[], bool]) -> tuple[Progress, bool]:
        """Take one step; returns where training is then, and whether to stop there."""
        if self.training.plan.is_due(self.step):
            self.training = self.training.by(corrected(self.training.plan, self.step, self.elapsed_s()))
        training = self.training
        taken = take_step(training, self.step, stop)
        self.losses.append(taken.loss)
        self.step += 1
        accuracies = _validated(training, self.step)
        if accuracies:
            epochs = self.step / training.batches.steps_per_epoch
            self.watched.append([epochs, accuracies["largest"], accuracies["smallest"]])
        rate, images = float(training.optimiser.param_groups[0]["lr"]), training.batches.images
        total = training.plan.total
        progress = Progress(self.step, total, taken.loss, rate, images, accuracies, taken.macs, self._share())
        return progress, taken.stops

    def _share(self) -> float:
        """Return how much is over: early steps are cheaper than late ones, so that a budget goes by time."""
        plan = self.training.plan
        if self.is_over or math.isinf(plan.budget_s):
            return self.step / max(1, plan.total)
        return min(1.0, (time.monotonic() - self.began) / plan.budget_s)


def _never() -> bool:
    return False


def _mute(line: str) -> None:
    pass


def train(
    family: Family,
    task: Task,
    config: TrainConfig,
    path: Path,
    *,
    seed: int,
    world: World = ALONE,
    stop: Callable[[], bool] = _never,
    say: Callable[[str], None] = _mute,
) -> Iterator[Progress]:
    """Train, or resume from `path`, or find there that it is done. Gives the progress after every step.

    Args:
        world: the processes that train together; all call this with the same arguments, the first writes.
        stop: asked in every step. Once it says so, in any of the processes, the step is finished and saved,
            and no other follows.
        say: told what a budget is used for, before the first step.

    Raises:
        TrilobitError: the checkpoint there is damaged, of another space, or of another training
            configuration or data; or another process is gone; or the budget is too short for anything.
    """
    resumes = path.exists()
    course = _begin(start(family, task, config, seed=seed, world=world, resumes=resumes), path, resumes)
    if config.budget and not resumes:
        course.training = course.training.by(_budgeted(course, stop, say))
    if course.is_over:
        if not resumes:  # no epochs: the first weights are the result
            course.save(path)
        yield Progress(course.step, course.step, math.nan)
    saved_at, stopping = time.monotonic(), False
    while not course.is_over and not stopping:
        progress, stopping = course.advance(stop)
        if course.is_over or stopping or time.monotonic() - saved_at > config.checkpoint_s:
            course.save(path)
            saved_at = time.monotonic()
        if stopping:
            meet(world)  # torchrun ends all processes as soon as one has left: not before all is saved
        yield progress


def _begin(training: Training, path: Path, resumes: bool) -> _Course:
    """Return the course of a training, from where the checkpoint in `path` left it if it `resumes`."""
    identity = _identity(training)
    past = _resume(path, training, identity) if resumes else {}
    step = int(past.get("step", 0))
    check_same(training.world, "what they train", _number({**identity, "step": step}))
    if "plan" in past:
        training = training.by(read_plan(past["plan"]))
    losses = past.get("losses", torch.full((step,), math.nan, dtype=torch.float64)).tolist()
    began = time.monotonic() - float(past.get("seconds", 0.0))
    machines = [*past.get("machines", ())]
    if (machine := machine_of(training.placement, training.config.threads)) not in machines:
        machines.append(machine)
    return _Course(training, identity, began, step, losses, list(past.get("watched", ())), machines)


def _budgeted(course: _Course, stop: Callable[[], bool], say: Callable[[str], None]) -> Plan:
    """Return what there is time for, from steps of a throw-away copy of the training.

    Raises:
        KeyboardInterrupt: a process was asked to stop; there is nothing to save yet.
    """
    training, config = course.training, course.training.config
    scratch = copy.deepcopy(training.net)
    optimisation, scaler = make_optimisation(scratch, config), training.placement.scaler()
    copied = replace(training, net=scratch, optimisation=optimisation, scaler=scaler, ema=None)

    def measure(changes: Mapping[str, Any], share: float) -> float:
        trial = copied.by(Plan(1_000, changes=changes))
        first, ends = int(share * trial.plan.steps), []
        for step in range(first, first + 1 + TIMED_STEPS):  # the first warms up
            if take_step(trial, step, stop).stops:
                raise KeyboardInterrupt
            ends.append(time.monotonic())
        return mean_over(training.world, (ends[-1] - ends[0]) / TIMED_STEPS)

    epoch = training.batches.steps_per_epoch
    plan = make_plan(training.family, config, epoch, measure, course.elapsed_s)
    for line in described(plan, config, epoch, training.family.reads):
        say(line)
    return plan


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


def _validated(training: Training, step: int) -> dict[str, float]:
    """Return the accuracies after `step` steps, where it is time to look: the averaged weights' where there
    are any.
    """
    every = training.config.evaluate_every * training.batches.steps_per_epoch
    if not every or not training.world.writes or (step % every and step < training.plan.total):
        return {}
    family, batches = training.family, training.batches
    return validation_metrics(family, training.result, batches.task, seed=batches.seed, device=batches.device)
