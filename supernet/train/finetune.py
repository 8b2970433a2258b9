"""Fine-tuning of one network after the search: its own weights, its own policy, the scales of its formats.

Quantization-aware where the policy rounds: what runs in training is what the file will do, see
`supernet.graph.executor`. It learns from the labels and, as much, from the largest network of the supernet.
Everything random in step k comes from (seed, k): killed and resumed, it ends with the same weights.
"""

import copy
import hashlib
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from hw_profiles.graph.formats import needs_scale
from hw_profiles.graph.lowering import lower
from hw_profiles.graph.workload import Workload
from hw_profiles.options import Range, check
from hw_profiles.reference.integer_sums import IntegerSums
from hw_profiles.streams import Stream, open_stream
from supernet.families.family import Family
from supernet.formats.loading import load_format
from supernet.graph.executor import forward
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.graph.subnet import Subnet
from supernet.qat.deploy import deploy
from supernet.qat.learned import LearnedQuantizers, Structure, new_quantizers, tensor_kinds
from supernet.space.space import Candidate
from supernet.tasks.task import Task
from supernet.train.batches import Batches
from supernet.train.checkpoint import load_checkpoint, save_checkpoint
from supernet.train.config import TrainConfig
from supernet.train.loop import Progress
from supernet.train.parallel import World
from supernet.train.placement import choose_placement
from supernet.train.schedule import warmed_cosine
from supernet.train.teacher import Teacher, largest_network

FIRST_IMAGES = 256  # that the first scales are found on
NORM_IMAGES = 2_048  # that the batch-norm statistics of the result come from
NORM_BATCH = 128
TIMED_STEPS = 2


@dataclass(frozen=True)
class FineTuning:
    """How to fine-tune.

    Attributes:
        epochs: passes over the training part.
        learning_rate: peak, of Adam, for weights and for logarithms of scales.
        weight_decay: on convolution and linear weights only.
        warmup: share of the steps that warm up.
        clip_norm: largest norm of the gradients of a step.
        teacher: share of the loss that is the teacher's; the labels have the rest.
        checkpoint_s: seconds between checkpoints.

    Raises:
        TrilobitError: a value that cannot train, which names what is allowed.
    """

    epochs: Annotated[int, Range(1, 10_000)] = 5
    learning_rate: Annotated[float, Range(0, 100, above=True)] = 5e-4
    weight_decay: Annotated[float, Range(0, 100)] = 1e-5
    warmup: Annotated[float, Range(0, 1, share=True)] = 0.1
    clip_norm: Annotated[float, Range(0, 1e6, above=True)] = 5.0
    teacher: Annotated[float, Range(0, 1, share=True)] = 0.5
    checkpoint_s: Annotated[float, Range(0, 1e9, besides=math.inf)] = 15.0

    def __post_init__(self) -> None:
        check(self, "finetune")


@dataclass(frozen=True, eq=False)
class Student:
    """A network that is fine-tuned, in place.

    Attributes:
        workload: lowered, with its policy.
        quantizers: of its integer weights and tensors; empty where all is floating point.
    """

    id: str
    subnet: Subnet
    workload: Workload
    quantizers: LearnedQuantizers
    task: Task

    @property
    def resolution(self) -> int:
        """Height and width of its input in pixels, or tokens of it."""
        return self.workload.in_size

    def logits(self, images: Tensor) -> Tensor:
        """Return (n, outputs) for inputs (n, c, h, w) of any size, rounded as the policy says, batch norm by
        the batch.
        """
        return forward(self.subnet, self.quantizers, self.workload, self.task.sized(images, self.resolution))


@dataclass(frozen=True)
class FineTuningContext:
    """What the fine-tuning of all networks of a supernet shares.

    Attributes:
        net: the trained supernet, only read.
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

    @property
    def steps(self) -> int:
        """Of one network."""
        return self.config.epochs * self.batches.steps_per_epoch

    def student(self, candidate: Candidate) -> Student:
        """Return the candidate with copies of the supernet's weights, and with its learned scales or new
        ones.
        """
        subnet = self.family.extract(self.net, candidate)
        workload = lower(self.family.workload(candidate))
        if self.learned is not None:
            return Student(candidate.id, subnet, workload, copy.deepcopy(self.learned), self.batches.task)
        images = _unchanged(self.batches, FIRST_IMAGES, workload.in_size)
        quantizers = new_quantizers(structure_of(workload), subnet, [(workload, images)], self.sums)
        return Student(candidate.id, subnet, workload, quantizers, self.batches.task)


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
        recipe: how images are changed and labels smoothed, batch size and device: as in the training before.
        sums: of the device that networks are rounded for.
    """
    world = World()
    device = choose_placement(recipe, world).device
    batches = Batches(task, replace(recipe, accumulate=1), seed, world, device)
    return FineTuningContext(
        family, net, batches, largest_network(net, family, batches), config, learned, sums
    )


def structure_of(workload: Workload) -> Structure:
    """Return what has scales in one network."""
    work = lower(workload)
    weights = {
        name: layer
        for name, layer in zip(work.names, work.layers, strict=True)
        if layer.weighted and load_format(layer.weight_format).weight.needs_scale
    }
    formats = set(filter(needs_scale, (layer.out_format for layer in work.layers)))
    return Structure(weights, tensor_kinds(work), tuple(sorted(formats)))


def finetune(context: FineTuningContext, student: Student, path: Path) -> Iterator[Progress]:
    """Fine-tune `student`, or go on from `path`, or find there that it is done. Gives the progress after
    every step. What is in `path` of another start, configuration or data is written over.

    Raises:
        TrilobitError: the checkpoint there is damaged, or of another space.
    """
    identity = _identity(context, student)
    student.subnet.to(context.batches.device)
    student.quantizers.to(context.batches.device)
    parameters, optimiser = _optimiser(context.config, student)
    state = _matching(path, identity) if path.exists() else None
    step, steps, saved_at = 0, context.steps, time.monotonic()
    if state is not None:
        step = int(state["step"])
        student.subnet.load_state_dict(state["model"])
        student.quantizers.load_state_dict(state["quantizers"])
        if step < steps:
            optimiser.load_state_dict(state["optimiser"])
    if step == steps:
        yield Progress(steps, steps, math.nan)
    while step < steps:
        loss = _step(context, student, optimiser, parameters, step)
        step += 1
        if step == steps or time.monotonic() - saved_at > context.config.checkpoint_s:
            left = {"optimiser": optimiser.state_dict()} if step < steps else {}
            learned = {
                "model": student.subnet.state_dict(),
                "quantizers": student.quantizers.state_dict(),
            }
            save_checkpoint(path, {**identity, "step": step, "steps": steps, **learned, **left})
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
    """Return the student as it is exported: batch norm recalibrated on unchanged training images and
    folded.
    """
    student.subnet.to("cpu").eval()
    images = _unchanged(context.batches, NORM_IMAGES, student.resolution)
    batches = torch.split(images, NORM_BATCH)
    return deploy(student.subnet, student.quantizers.to("cpu"), student.workload, batches)


def seconds_per_step(context: FineTuningContext, candidate: Candidate) -> float:
    """Return the seconds of a step of fine-tuning this network here, from a few steps of a throw-away
    copy.
    """
    student = context.student(candidate)
    student.subnet.to(context.batches.device)
    student.quantizers.to(context.batches.device)
    parameters, optimiser = _optimiser(context.config, student)
    spent = []
    for step in range(TIMED_STEPS):
        start = time.perf_counter()
        _step(context, student, optimiser, parameters, step)
        spent.append(time.perf_counter() - start)
    return min(spent)


def _unchanged(batches: Batches, count: int, resolution: int) -> Tensor:
    """Return some images (n, c, r, r) of the training part, not augmented, on the CPU."""
    part = batches.task.train
    rows = open_stream(batches.seed, Stream.FINETUNED_NORM).permutation(len(part))[:count]
    return batches.task.inputs(part[rows], resolution)


def _identity(context: FineTuningContext, student: Student) -> dict[str, Any]:
    """Return what decides the result: also the weights and scales that it begins with, and the teacher's."""
    digest = hashlib.sha256()
    for module in (student.subnet, student.quantizers, context.teacher.network):
        for tensor in module.state_dict().values():
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    config = {name: value for name, value in asdict(context.config).items() if name != "checkpoint_s"}
    recipe = context.batches.config
    changes = ("batch_size", "smoothing", "pad", "flip", "cutout", "mixup", "randaugment")
    alternate = {"alternate": True} if recipe.alternate else {}
    return {
        "space": context.family.space().fingerprint,
        "data": context.batches.task.fingerprint,
        "config": {**config, **{name: getattr(recipe, name) for name in changes}, **alternate},
        "seed": context.batches.seed,
        "candidate": student.id,
        "initial": digest.hexdigest()[:16],
        **context.sums.identity,
    }


def _matching(path: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """Return the checkpoint in `path`; None where something that decides the result has changed since."""
    state = load_checkpoint(path, fingerprint=identity["space"])
    return state if all(state.get(name) == value for name, value in identity.items()) else None


def _optimiser(config: FineTuning, student: Student) -> tuple[list[nn.Parameter], torch.optim.Optimizer]:
    """Return the optimiser; weights decay where they have more than one dimension; vectors and scales do
    not.
    """
    weights, scales = list(student.subnet.parameters()), list(student.quantizers.parameters())
    groups: list[dict[str, Any]] = [
        {"params": [p for p in weights if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [*(p for p in weights if p.ndim <= 1), *scales], "weight_decay": 0.0},
    ]
    return weights, torch.optim.AdamW(groups, lr=config.learning_rate)


def _step(
    context: FineTuningContext,
    student: Student,
    optimiser: torch.optim.Optimizer,
    parameters: list[nn.Parameter],
    step: int,
) -> float:
    """Take one optimiser step; returns its loss."""
    config, smoothing, task = context.config, context.batches.config.smoothing, context.batches.task
    for group in optimiser.param_groups:
        group["lr"] = config.learning_rate * warmed_cosine(step, context.steps, config.warmup)
    [(images, targets)] = context.batches.of(step)
    logits = student.logits(images)
    loss = (1 - config.teacher) * task.loss(logits, targets, smoothing=smoothing)
    loss = loss + config.teacher * task.distillation_loss(logits, context.teacher.logits(images))
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(parameters, config.clip_norm)
    optimiser.step()
    return float(loss.detach())
