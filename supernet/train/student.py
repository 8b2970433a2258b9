"""A network that is fine-tuned: what it computes meanwhile, and what is exported of it."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hw_profiles.graph.formats import element_types, needs_scale
from hw_profiles.graph.lowering import lower
from hw_profiles.graph.workload import Workload
from hw_profiles.reference.integer_sums import IntegerSums
from supernet.formats.loading import load_format
from supernet.graph.executor import forward
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.graph.subnet import Subnet, recalibrate
from supernet.ptq.calibrate import observe, quantize
from supernet.qat.deploy import deploy
from supernet.qat.learned import LearnedQuantizers, Structure, new_quantizers, tensor_kinds
from supernet.tasks.task import Task

CALIBRATED_BITS = 8  # formats as wide lose next to nothing by calibration alone
FIRST_EXAMPLES = 256  # that scales or ranges are found on
NORM_BATCH = 128  # examples that batch-norm statistics are averaged over at a time


class Student(nn.Module):
    """A network with weights of its own, which learns in real numbers or as its formats round.

    Args:
        id: of the candidate.
        workload: lowered, with its policy.
        quantizers: of its integer weights and tensors, where it learns with everything rounded; None where it
            learns in real numbers and is calibrated afterwards.
    """

    def __init__(
        self, id: str, subnet: Subnet, workload: Workload, task: Task, quantizers: LearnedQuantizers | None
    ) -> None:
        super().__init__()
        self.id, self.workload, self.task = id, workload, task
        self.subnet, self.quantizers = subnet, quantizers

    @property
    def resolution(self) -> int:
        """Height and width of its input in pixels, or tokens of it."""
        return self.workload.in_size

    def forward(self, examples: Tensor) -> Tensor:
        """Return (n, outputs) for inputs (n, c, h, w) of any size or tokens (n, t), batch norm by the
        batch.
        """
        inputs = self.task.sized(examples, self.resolution)
        if self.quantizers is not None:
            return forward(self.subnet, self.quantizers, self.workload, inputs)
        logits: Tensor = self.subnet(inputs)
        return logits.float()

    def deployed(self, examples: Tensor, sums: IntegerSums) -> QuantizedGraph:
        """Return the network in its formats, its batch norms recalibrated on `examples` of its resolution and
        folded. Moves it to the CPU.

        Args:
            sums: of the device that it is made for; learned scales know theirs.
        """
        self.to("cpu").eval()
        batches = torch.split(examples, NORM_BATCH)
        if self.quantizers is not None:
            return deploy(self.subnet, self.quantizers, self.workload, batches)
        recalibrate(self.subnet, batches)
        return quantize(self.subnet, self.workload, observe(self.subnet, examples[:FIRST_EXAMPLES]), sums)


def make_student(
    id: str,
    subnet: Subnet,
    workload: Workload,
    task: Task,
    examples: Callable[[int], Tensor],
    *,
    learned: LearnedQuantizers | None,
    sums: IntegerSums,
) -> Student:
    """Return a student: in real numbers where all its formats have `CALIBRATED_BITS` or more, and there are
    no learned scales.

    Args:
        examples: gives so many inputs of its resolution, for first scales.
        learned: scales of the supernet, which it takes over; becomes its own.
        sums: of the device that it is rounded for.
    """
    workload = lower(workload)
    if learned is None and not is_narrow(workload):
        return Student(id, subnet, workload, task, None)
    if learned is None:
        first = [(workload, examples(FIRST_EXAMPLES))]
        learned = new_quantizers(structure_of(workload), subnet, first, sums)
    return Student(id, subnet, workload, task, learned)


def is_narrow(workload: Workload) -> bool:
    """Return whether a lowered network rounds a weight or a tensor to fewer than `CALIBRATED_BITS`."""
    weights = {layer.weight_format for layer in workload.layers if layer.weighted}
    tensors = {layer.out_format for layer in workload.layers if needs_scale(layer.out_format)}
    elements = [element_types(name).weight for name in weights]
    elements += [types.tensor for types in map(element_types, tensors) if types.tensor is not None]
    return any(element.bits < CALIBRATED_BITS for element in elements)


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
