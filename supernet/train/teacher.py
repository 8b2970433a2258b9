"""A trained network that others learn from, instead of the largest subnet of the step."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from hw_profiles.errors import TrilobitError
from supernet.families.family import Family
from supernet.graph.subnet import Subnet, recalibrate
from supernet.tasks.evaluate import CALIBRATION_BATCH, calibration_examples
from supernet.tasks.task import Examples, Task, answers
from supernet.train.batches import Batches
from supernet.train.checkpoint import content_hash, load_weights
from supernet.train.initial import start_from, weights_path

IMAGES = 4  # dimensions of a batch of them
STORED_BYTES = 2**28  # of the answers to all training examples, at most; more are asked for in every step


@dataclass(frozen=True)
class Teacher:
    """The largest network of a trained supernet, frozen, in evaluation mode.

    Its batch-norm statistics are those of calibration images, not the batch's: what it says of an image then
    depends on no other image, and it is the very network whose accuracy was measured.
    """

    network: Subnet
    resolution: int
    task: Task

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Return (n, outputs) for inputs (n, c, h, w) of any size."""
        logits: Tensor = self.network(self.task.sized(images, self.resolution))
        return logits.float()


def can_store(batches: Batches) -> bool:
    """Return whether a teacher's answers to the training part can be kept: one for each example, of no
    mixtures.
    """
    task = batches.task
    return (
        answers(task) == "class"
        and not batches.config.mixup
        and 4 * len(task.train) * len(task.classes) <= STORED_BYTES
    )


@torch.no_grad()
def answers_to(teacher: Teacher, batches: Batches, examples: Examples) -> Tensor:
    """Return (n, classes) logarithms of the probabilities that a teacher gives examples, not augmented; the
    mean over both ways to see an image where the recipe mirrors.

    What learns from one answer per example, whatever was done to it, learns without a teacher in every step
    (Shen & Xing 2022, arXiv:2112.01528, keep one for each of several crops).
    """
    inputs = batches.task.inputs(examples, teacher.resolution).to(batches.device)
    views = [inputs, inputs.flip(-1)] if batches.config.flip and inputs.ndim == IMAGES else [inputs]
    said = torch.stack([torch.log_softmax(teacher.logits(view), 1) for view in views])
    return torch.logsumexp(said, 0) - math.log(len(views))


def load_teacher(name: str, family: Family, batches: Batches) -> Teacher:
    """Return the largest network of the checkpoint that `name` names, see `train.teacher`.

    Raises:
        TrilobitError: no such checkpoint, or one of another architecture, of other classes, or unfinished.
    """
    weights = load_weights(weights_path(name))
    if weights.unfinished:
        raise TrilobitError(
            f"{name}: a teacher's training must be finished, this one has {weights.unfinished} steps left"
        )
    net = family.supernet(rng=np.random.default_rng(0))
    if start_from(net, weights, batches.task.classes, origin=name).renewed:
        raise TrilobitError(f"{name}: a teacher must know the classes of this data, this one knows others")
    return largest_network(net, family, batches)


def largest_network(net: nn.Module, family: Family, batches: Batches) -> Teacher:
    """Return the largest network of a trained supernet, in fp32."""
    candidate = family.extreme("largest", family.formats[0])
    network, resolution = family.extract(net, candidate), family.resolution(candidate)
    task = batches.task
    calibration = task.inputs(calibration_examples(task, seed=batches.seed), resolution)
    recalibrate(network, torch.split(calibration, CALIBRATION_BATCH))
    network.requires_grad_(False)
    return Teacher(network.to(batches.device, memory_format=torch.channels_last), resolution, task)  # type: ignore[call-overload]


def teacher_identity(name: str) -> str:
    """Return what of `train.teacher` decides the result: the file's content, wherever it is.

    Raises:
        TrilobitError: no such checkpoint.
    """
    return content_hash(weights_path(name)) if name else ""
