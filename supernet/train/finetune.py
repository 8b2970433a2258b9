"""Fine-tuning of one network after the search: its own weights, its own policy.

A network of formats that calibration suffices for, those of 8 bits and more, learns in real numbers by the
supernet's own recipe at a part of its rates, and is rounded afterwards. One with a narrower format, or of a
supernet with learned scales, learns quantization-aware: what runs in training is what the file will do, see
`supernet.graph.executor`. Either learns from the labels and, as much, from the largest network of the
supernet, which is asked once about each example. Everything random in step k comes from (seed, k): killed and
resumed, it ends with the same weights.
"""

import copy
import hashlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from hw_profiles.graph.workload import Workload
from hw_profiles.options import Range, check
from hw_profiles.reference.integer_sums import IntegerSums
from hw_profiles.streams import Stream, open_stream
from supernet.families.family import Family
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.qat.learned import LearnedQuantizers
from supernet.space.space import Candidate
from supernet.tasks.task import Task
from supernet.train.batches import Batches
from supernet.train.checkpoint import load_checkpoint, save_checkpoint
from supernet.train.config import TrainConfig
from supernet.train.loop import Progress
from supernet.train.optimiser import Optimisation, make_optimisation
from supernet.train.parallel import World
from supernet.train.placement import choose_placement, prefers_bf16
from supernet.train.schedule import warmed
from supernet.train.student import Student, make_student
from supernet.train.teacher import Teacher, answers_to, can_store, largest_network

LAST_EXAMPLES = 2_048  # that the batch-norm statistics and ranges of the result come from
ANSWERED = 256  # examples that the teacher is asked about at a time
TIMED_STEPS = 2
# of the recipe, what decides the examples that are seen
SEEN = ("batch_size", "smoothing", "pad", "flip", "alternate", "cutout", "mixup", "randaugment")
# of the recipe at the rates of a student, what decides its steps
STEPS_BY = (
    *("optimiser", "learning_rate", "momentum", "filter_momentum", "rest_rate", "bias_factor"),
    *("weight_decay", "warmup", "decay", "clip_norm", "amp"),
)


@dataclass(frozen=True)
class FineTuning:
    """How to fine-tune.

    Attributes:
        epochs: passes over the training part.
        rate_share: of a network in real numbers: peak learning rates, as a share of the recipe's.
        learning_rate: of a quantization-aware one: peak, of Adam, for weights and for logarithms of scales.
        weight_decay: of a quantization-aware one, on convolution and linear weights only.
        clip_norm: of a quantization-aware one, largest norm of the gradients of a step.
        warmup: share of the steps that warm up.
        teacher: share of the loss that is the teacher's; the labels have the rest.
        checkpoint_s: seconds between checkpoints.

    Raises:
        TrilobitError: a value that cannot train, which names what is allowed.
    """

    epochs: Annotated[int, Range(1, 10_000)] = 5
    rate_share: Annotated[float, Range(0, 100, above=True)] = 0.2
    learning_rate: Annotated[float, Range(0, 100, above=True)] = 5e-4
    weight_decay: Annotated[float, Range(0, 100)] = 1e-5
    clip_norm: Annotated[float, Range(0, 1e6, above=True)] = 5.0
    warmup: Annotated[float, Range(0, 1, below=True, share=True)] = 0.1
    teacher: Annotated[float, Range(0, 1, share=True)] = 0.5
    checkpoint_s: Annotated[float, Range(0, 1e9, besides=math.inf)] = 15.0

    def __post_init__(self) -> None:
        check(self, "finetune")

    def in_real_numbers(self, recipe: TrainConfig, workload: Workload) -> TrainConfig:
        """Return the recipe as it is for a network that learns in real numbers: at a part of its rates, in
        bf16 where the recipe leaves numbers open, or has others than this processor, and steps are faster so.
        """
        rates = {name: self.rate_share * getattr(recipe, name) for name in ("learning_rate", "rest_rate")}
        settings = replace(recipe, warmup=self.warmup, decay="cosine", **rates)
        if settings.amp == "off" or choose_placement(settings, World()).device.type != "cpu":
            return settings
        return replace(settings, amp="bf16" if prefers_bf16(workload) else "off")

    def as_rounded(self, recipe: TrainConfig) -> TrainConfig:
        """Return the recipe as it is for a network that learns quantization-aware: by Adam, in fp32."""
        own = {name: getattr(self, name) for name in ("learning_rate", "weight_decay", "clip_norm", "warmup")}
        return replace(recipe, optimiser="adamw", bias_factor=1.0, decay="cosine", amp="off", **own)


@dataclass(frozen=True)
class FineTuningContext:
    """What the fine-tuning of all networks of a supernet shares.

    Attributes:
        net: the trained supernet, only read.
        batches: by the recipe of the supernet.
        answers: (n, classes) what the teacher says of each training example, see `with_answers`; None where
            it is asked in every step.
        learned: its learned scales; None where it has none.
        sums: of the device that networks are rounded for.
    """

    family: Family
    net: nn.Module
    batches: Batches
    teacher: Teacher
    config: FineTuning
    learned: LearnedQuantizers | None = None
    sums: IntegerSums = IntegerSums.EXACT
    answers: Tensor | None = None

    @property
    def steps(self) -> int:
        """Of one network."""
        return self.config.epochs * self.batches.steps_per_epoch

    def student(self, candidate: Candidate) -> Student:
        """Return the candidate with copies of the supernet's weights; with its learned scales, or new ones,
        if it learns quantization-aware.
        """
        subnet, workload = self.family.extract(self.net, candidate), self.family.workload(candidate)
        student = make_student(
            candidate.id,
            subnet,
            workload,
            self.batches.task,
            lambda count: _unchanged(self.batches, count, workload.in_size),
            learned=copy.deepcopy(self.learned),
            sums=self.sums,
        )
        return student.to(self.batches.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    @property
    def of_the_teacher(self) -> TrainConfig:
        """What of the recipe holds for the teacher's answers."""
        return self.config.in_real_numbers(self.batches.config, self.teacher.network.workload)

    def settings(self, student: Student) -> TrainConfig:
        """Return what of the recipe holds for its steps, at its rates."""
        recipe = self.batches.config
        if student.quantizers is not None:
            return self.config.as_rounded(recipe)
        return self.config.in_real_numbers(recipe, student.workload)


def prepare_finetuning(
    family: Family,
    net: nn.Module,
    task: Task,
    config: FineTuning,
    recipe: TrainConfig,
    *,
    seed: int,
    learned: LearnedQuantizers | None = None,
    sums: IntegerSums = IntegerSums.EXACT,
) -> FineTuningContext:
    """Return everything that fine-tuning needs, the teacher included.

    Args:
        recipe: of the training before: its images, batch size and device, and in real numbers its optimiser.
        sums: of the device that networks are rounded for.
    """
    world = World()
    device = choose_placement(recipe, world).device
    batches = Batches(task, replace(recipe, accumulate=1), seed, world, device)
    return FineTuningContext(
        family, net, batches, largest_network(net, family, batches), config, learned, sums
    )


def with_answers(
    context: FineTuningContext, path: Path, update: Callable[[float, str], None] = lambda done, note: None
) -> FineTuningContext:
    """Return the context with the teacher's answers to all training examples, from `path` or left there,
    where they can be kept at all.

    Args:
        update: told how many examples are done, and an empty note.

    Raises:
        TrilobitError: the file there is damaged, or of another space.
    """
    if not can_store(context.batches):
        return context
    settings, batches = context.of_the_teacher, context.batches
    identity = {
        "space": context.family.space().fingerprint,
        "data": batches.task.fingerprint,
        "teacher": _digest(context.teacher.network),
        "mirrored": settings.flip,
        "amp": settings.amp,
    }
    state = _matching(path, identity) if path.exists() else None
    if state is None:
        train, parts = batches.task.train, list[Tensor]()
        for begin in range(0, len(train), ANSWERED):
            with choose_placement(settings, batches.world).autocast():
                parts.append(answers_to(context.teacher, batches, train[begin : begin + ANSWERED]))
            update(min(begin + ANSWERED, len(train)), "")
        state = {**identity, "answers": torch.cat(parts)}
        save_checkpoint(path, state)
    return replace(context, answers=state["answers"].to(batches.device))


def finetune(context: FineTuningContext, student: Student, path: Path) -> Iterator[Progress]:
    """Fine-tune `student`, or go on from `path`, or find there that it is done. Gives the progress after
    every step. What is in `path` of another start, configuration or data is written over.

    Raises:
        TrilobitError: the checkpoint there is damaged, or of another space.
    """
    identity = _identity(context, student)
    course = _Course.of(context, student)
    optimiser = course.optimisation.optimiser
    state = _matching(path, identity) if path.exists() else None
    step, steps, saved_at = 0, context.steps, time.monotonic()
    if state is not None:
        step = int(state["step"])
        student.load_state_dict(state["model"])
        if step < steps:
            optimiser.load_state_dict(state["optimiser"])
    if step == steps:
        yield Progress(steps, steps, math.nan)
    while step < steps:
        loss = course.take(step)
        step += 1
        if step == steps or time.monotonic() - saved_at > context.config.checkpoint_s:
            left = {"optimiser": optimiser.state_dict()} if step < steps else {}
            progress = {"step": step, "steps": steps, "model": student.state_dict()}
            save_checkpoint(path, {**identity, **progress, **left})
            saved_at = time.monotonic()
        rate, images = optimiser.param_groups[0]["lr"], len(context.batches.rows(step - 1))
        yield Progress(step, steps, loss, rate, images)


def steps_left(context: FineTuningContext, student: Student, path: Path) -> int:
    """Return the steps that are left of fine-tuning a student that is as `FineTuningContext.student` gives
    it.

    Raises:
        TrilobitError: the checkpoint in `path` is damaged, or of another space.
    """
    state = _matching(path, _identity(context, student)) if path.exists() else None
    return context.steps - (0 if state is None else int(state["step"]))


def tuned_network(context: FineTuningContext, student: Student) -> QuantizedGraph:
    """Return the student as it is exported: batch norm recalibrated on unchanged training examples and
    folded, everything in its formats.
    """
    return student.deployed(_unchanged(context.batches, LAST_EXAMPLES, student.resolution), context.sums)


def seconds_for_answers(context: FineTuningContext) -> float:
    """Return the seconds that `with_answers` takes here, from one batch; 0 where it does nothing."""
    batches, start = context.batches, time.perf_counter()
    if not can_store(batches):
        return 0.0
    with choose_placement(context.of_the_teacher, batches.world).autocast():
        count = len(answers_to(context.teacher, batches, batches.task.train[:ANSWERED]))
    return (time.perf_counter() - start) * len(batches.task.train) / count


def seconds_per_step(context: FineTuningContext, candidate: Candidate) -> float:
    """Return the seconds of a step of fine-tuning this network here, from a few steps of a throw-away
    copy.
    """
    task = context.batches.task
    if context.answers is None and can_store(context.batches):
        context = replace(context, answers=torch.zeros(len(task.train), len(task.classes)))
    course = _Course.of(context, context.student(candidate))
    spent = []
    for step in range(TIMED_STEPS):
        start = time.perf_counter()
        course.take(step)
        spent.append(time.perf_counter() - start)
    return min(spent)


@dataclass(frozen=True)
class _Course:
    """What a step reads and changes."""

    context: FineTuningContext
    student: Student
    settings: TrainConfig
    optimisation: Optimisation
    scaler: torch.amp.GradScaler

    @classmethod
    def of(cls, context: FineTuningContext, student: Student) -> "_Course":
        settings = context.settings(student)
        scaler = choose_placement(settings, context.batches.world).scaler()
        return cls(context, student.train(), settings, make_optimisation(student, settings), scaler)

    def take(self, step: int) -> float:
        """Take one optimiser step; returns its loss."""
        context, settings, scaler = self.context, self.settings, self.scaler
        batches, share, optimiser = context.batches, context.config.teacher, self.optimisation.optimiser
        self.optimisation.set_rate(warmed(step, context.steps, settings.warmup, settings.decay))
        [(images, targets)] = batches.of(step)
        with choose_placement(settings, batches.world).autocast():
            said = context.teacher.logits(images) if context.answers is None else self._answers(step)
            logits = self.student(images)
        loss = (1 - share) * batches.task.loss(logits, targets, smoothing=settings.smoothing)
        loss = loss + share * batches.task.distillation_loss(logits, said)
        optimiser.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.unscale_(optimiser)
        nn.utils.clip_grad_norm_(self.student.subnet.parameters(), settings.clip_norm)
        scaler.step(optimiser)
        scaler.update()
        return float(loss.detach())

    def _answers(self, step: int) -> Tensor:
        answers = self.context.answers
        assert answers is not None
        return answers[torch.tensor(self.context.batches.rows(step), device=answers.device)]


def _unchanged(batches: Batches, count: int, resolution: int) -> Tensor:
    """Return some examples (n, c, r, r) or (n, t) of the training part, not augmented, on the CPU."""
    part = batches.task.train
    rows = open_stream(batches.seed, Stream.FINETUNED_NORM).permutation(len(part))[:count]
    return batches.task.inputs(part[rows], resolution)


def _identity(context: FineTuningContext, student: Student) -> dict[str, Any]:
    """Return what decides the result: also the weights and scales that it begins with, and the teacher's."""
    recipe, settings = context.batches.config, context.settings(student)
    seen = {name: getattr(recipe, name) for name in SEEN}
    steps = {name: getattr(settings, name) for name in STEPS_BY}
    return {
        "space": context.family.space().fingerprint,
        "data": context.batches.task.fingerprint,
        "config": {"epochs": context.config.epochs, "teacher": context.config.teacher, **seen, **steps},
        "seed": context.batches.seed,
        "candidate": student.id,
        "initial": _digest(student, context.teacher.network),
        "stored": can_store(context.batches),
        **context.sums.identity,
    }


def _digest(*modules: nn.Module) -> str:
    """Return what tells weights apart."""
    digest = hashlib.sha256()
    for module in modules:
        for tensor in module.state_dict().values():
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _matching(path: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """Return the checkpoint in `path`; None where something that decides the result has changed since."""
    state = load_checkpoint(path, fingerprint=identity["space"])
    return state if all(state.get(name) == value for name, value in identity.items()) else None
