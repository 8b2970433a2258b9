"""How well a block type can take the place of a teacher's stage: each (stage, type) is trained alone, between
two projections, to give what that stage gives: block-wise distillation (SpaceEvo section 4.2; the idea is Li
et al. 2020, arXiv:1911.13053).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import FP32
from hw_profiles.streams import Stream, open_stream
from nas.design.base import (
    Base,
    DistillationConfig,
    SubStage,
    draw_sub_stages,
    extreme_sub_stage,
    stage_workload,
)
from supernet.data.pixels import resize
from supernet.derive.network import ElasticNet, elastic_layer, extract, start_as_identities
from supernet.graph.simulate import simulate
from supernet.graph.subnet import Subnet, recalibrate
from supernet.layers.elastic import ElasticConvNorm
from supernet.layers.plain import ElasticConv
from supernet.ptq.calibrate import observe, quantize

FLAT = 0.1  # of a channel's variance over all images: the least that counts as its variance in one image
TRIED = 2  # random sub-stages in a step, beside the largest and the smallest (sandwich rule)
INT8 = "int8"


@dataclass(frozen=True, eq=False)
class StageTensors:
    """A teacher's input and output of one stage at one resolution, of the images to learn from and of
    held-out ones; channels have mean 0 and variance 1 over the former.

    Attributes:
        inputs, targets: (n, c, h, w).
        held_out_inputs, held_out_targets: of other images.
    """

    inputs: Tensor
    targets: Tensor
    held_out_inputs: Tensor
    held_out_targets: Tensor


@torch.no_grad()
def teacher_tensors(
    teacher: Subnet, images: Tensor, held_out: int, *, stages: int, resolutions: Sequence[int]
) -> Mapping[tuple[int, int], StageTensors]:
    """Return what there is to learn by (stage, resolution).

    Args:
        teacher: in evaluation mode; the layers of its stage `s` are called `s0.b0.expand` and so on.
        images: (n, c, h, w), of which the last `held_out` are to evaluate with.
    """
    stages_of = {}
    names = teacher.workload.names
    ends = [max(i for i, name in enumerate(names) if name.startswith(f"s{s}.")) for s in range(stages)]
    positions = [names.index("stem"), *ends]
    for resolution in resolutions:
        parts = [teacher.tensors(part) for part in torch.split(resize(images, resolution), 64)]
        tensors = [_normalised(torch.cat([part[i] for part in parts]), held_out) for i in positions]
        for s in range(stages):
            (inputs, held_out_inputs), (targets, held_out_targets) = tensors[s], tensors[s + 1]
            stages_of[s, resolution] = StageTensors(inputs, targets, held_out_inputs, held_out_targets)
    return stages_of


def _normalised(x: Tensor, held_out: int) -> tuple[Tensor, Tensor]:
    learned = x[: len(x) - held_out]
    mean, std = learned.mean((0, 2, 3), keepdim=True), learned.std((0, 2, 3), keepdim=True)
    y = ((x - mean) / std.clamp_min(1e-6)).contiguous(memory_format=torch.channels_last)
    return y[: len(y) - held_out], y[len(y) - held_out :]


def noise_to_signal(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean over images and channels of the squared error over the variance that the teacher's
    tensor has there; (n, c, h, w) of mean 0 and variance 1 per channel over all images.
    """
    error = (output - target).square().mean((2, 3))
    return (error / target.var((2, 3), correction=0).clamp_min(FLAT)).mean()


class StudentBlock(nn.Module):
    """An elastic stage between a projection from the teacher's channels and one to them.

    Args:
        teacher_widths: channels that the teacher's stage reads and gives.
    """

    def __init__(
        self, base: Base, s: int, block: str, teacher_widths: tuple[int, int], *, rng: np.random.Generator
    ) -> None:
        super().__init__()
        self._base = base
        largest = extreme_sub_stage(base, s, block, max(base.resolutions), max)
        work = stage_workload(base, largest, FP32)
        layers = zip(work.names, work.layers, strict=True)
        elastic = {name: elastic_layer([spec]) for name, spec in layers if spec.weighted}
        self.enter = ElasticConv(teacher_widths[0], largest.in_width)
        self.stage = ElasticNet(elastic)
        self.leave = ElasticConv(largest.blocks[0].width, teacher_widths[1])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        for module in self.modules():
            if isinstance(module, ElasticConvNorm | ElasticConv):
                fan_in = module.weight[0].numel()
                nn.init.normal_(module.weight, std=(2 / fan_in) ** 0.5, generator=generator)
        start_as_identities(self.stage, work)

    def forward(self, x: Tensor, part: SubStage) -> Tensor:
        """Return what takes the place of the teacher's output of the stage, from its input (n, c, h, w)."""
        y = self.stage(self.enter(x, part.in_width), stage_workload(self._base, part, FP32))
        out: Tensor = self.leave(y, self.leave.weight.shape[0])
        return out


@dataclass(frozen=True, eq=False)
class BlockDistillation:
    """Block-wise distillation (BlockwiseKD) of one (stage, type): how it is trained and evaluated.

    Attributes:
        tensors: of its stage, by resolution.
    """

    base: Base
    s: int
    block: str
    tensors: Mapping[int, StageTensors]
    practice: DistillationConfig
    seed: int

    def rng(self, *purpose: int) -> np.random.Generator:
        """Return the random numbers of this (stage, type) and purpose."""
        return open_stream(self.seed, Stream.IMITATION, self.s, self.base.types.index(self.block), *purpose)

    @cached_property
    def sub_stages(self) -> tuple[SubStage, ...]:
        """Those that are evaluated."""
        return draw_sub_stages(self.base, self.s, self.block, self.practice.samples, rng=self.rng(0))

    def new_student(self) -> StudentBlock:
        """Return a student that has learned nothing."""
        stage = next(iter(self.tensors.values()))
        widths = (stage.inputs.shape[1], stage.targets.shape[1])
        return StudentBlock(self.base, self.s, self.block, widths, rng=self.rng(1))

    def train(self, net: StudentBlock, *, steps: int | None = None) -> Iterator[float]:
        """Train it; gives the largest sub-stage's loss after every step.

        Raises:
            TrilobitError: the loss is no number.
        """
        steps = self.practice.steps if steps is None else steps
        optimizer = torch.optim.AdamW(net.parameters(), lr=self.practice.learning_rate, weight_decay=1e-4)
        total = max(2, steps)
        rising = max(0.1, 1.5 / total)  # torch divides by the length of the rise, 0 for a tenth of 10 steps
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.practice.learning_rate, total_steps=total, pct_start=rising
        )
        net.train()
        for step in range(steps):
            rng, losses = self.rng(2, step), []
            resolution = int(rng.choice([*self.tensors]))
            stage = self.tensors[resolution]
            rows = torch.from_numpy(rng.permutation(len(stage.inputs))[: self.practice.batch_size])
            inputs, targets = stage.inputs[rows], stage.targets[rows]
            optimizer.zero_grad()
            for part in self._sandwich(resolution, rng):
                loss = noise_to_signal(net(inputs, part), targets)
                loss.backward()  # type: ignore[no-untyped-call]
                losses.append(loss.item())
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if not np.isfinite(losses).all():
                raise TrilobitError(f"the distillation of stage {self.s} into {self.block} blocks diverged")
            yield losses[0]

    def _sandwich(self, resolution: int, rng: np.random.Generator) -> Iterator[SubStage]:
        """Yield the largest, the smallest and random ones (Yu & Huang 2019, arXiv:1903.05134)."""
        for of in (max, min):
            yield extreme_sub_stage(self.base, self.s, self.block, resolution, of)
        drawn = draw_sub_stages(self.base, self.s, self.block, 1, rng=rng)  # one of every window
        for i in rng.permutation(len(drawn))[:TRIED]:
            yield replace(drawn[i], resolution=resolution)

    def evaluate(self, net: StudentBlock) -> Iterator[float]:
        """Yield the loss of every one of `sub_stages` in int8, batch norm recalibrated and ranges observed on
        the images that were learned from.
        """
        for part in self.sub_stages:
            yield self._held_out_loss(net, part)

    @torch.no_grad()
    def _held_out_loss(self, net: StudentBlock, part: SubStage) -> float:
        stage, work = self.tensors[part.resolution], stage_workload(self.base, part, FP32)
        calibration = net.enter(stage.inputs[: 2 * self.practice.judged], part.in_width)
        shown = net.enter(stage.held_out_inputs, part.in_width)
        subnet = extract(net.stage, work)
        recalibrate(subnet, torch.split(calibration, self.practice.judged))
        rounded = quantize(subnet, stage_workload(self.base, part, INT8), observe(subnet, calibration))
        last = rounded.tensors[rounded.workload.names[-1]]
        y = (simulate(rounded, shown) - last.zero_point) * last.scale
        return float(noise_to_signal(net.leave(y, net.leave.weight.shape[0]), stage.held_out_targets))


def losses(distillation: BlockDistillation, callback: Callable[[], None]) -> NDArray[np.float64]:
    """Return the losses (n,) of a trained student's sub-stages; `callback` is called after every step and
    every evaluation.
    """
    net, values = distillation.new_student(), []
    for _ in distillation.train(net):
        callback()
    for loss in distillation.evaluate(net):
        values.append(loss)
        callback()
    return np.array(values)
