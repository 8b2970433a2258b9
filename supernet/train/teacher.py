"""A trained network that the subnets learn from, instead of the largest subnet of the step."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from hw_profiles.errors import TrilobitError
from supernet.families.family import Family
from supernet.graph.subnet import Subnet, recalibrate
from supernet.tasks.evaluate import CALIBRATION_BATCH, calibration_examples
from supernet.tasks.task import Task
from supernet.train.batches import Batches
from supernet.train.checkpoint import content_hash, load_weights
from supernet.train.initial import start_from, weights_path


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
