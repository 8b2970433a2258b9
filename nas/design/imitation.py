"""How well a block type can take the place of a teacher's stage: each (stage, type) is trained alone, between
two projections, to imitate that stage (SpaceEvo section 4.2; the idea is Li et al. 2020, arXiv:1911.13053).
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
    Practice,
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
class Lesson:
    """What a teacher's stage reads and gives at one resolution, of the images to learn from and of those to
    be judged by; channels have mean 0 and variance 1 over the former.

    Attributes:
        given, wanted: (n, c, h, w).
        judged_given, judged_wanted: of other images.
    """

    given: Tensor
    wanted: Tensor
    judged_given: Tensor
    judged_wanted: Tensor


@torch.no_grad()
def lessons(
    teacher: Subnet, images: Tensor, judged: int, *, stages: int, resolutions: Sequence[int]
) -> Mapping[tuple[int, int], Lesson]:
    """(stage, resolution) -> what there is to learn.

    Args:
        teacher: in evaluation mode; the layers of its stage `s` are called `s0.b0.expand` and so on.
        images: (n, c, h, w), of which the last `judged` are to be judged by.
    """
    found = {}
    names = teacher.workload.names
    ends = [max(i for i, name in enumerate(names) if name.startswith(f"s{s}.")) for s in range(stages)]
    positions = [names.index("stem"), *ends]
    for resolution in resolutions:
        parts = [teacher.tensors(part) for part in torch.split(resize(images, resolution), 64)]
        tensors = [_normalised(torch.cat([part[i] for part in parts]), judged) for i in positions]
        for s in range(stages):
            (given, judged_given), (wanted, judged_wanted) = tensors[s], tensors[s + 1]
            found[s, resolution] = Lesson(given, wanted, judged_given, judged_wanted)
    return found


def _normalised(x: Tensor, judged: int) -> tuple[Tensor, Tensor]:
    learned = x[: len(x) - judged]
    mean, std = learned.mean((0, 2, 3), keepdim=True), learned.std((0, 2, 3), keepdim=True)
    y = ((x - mean) / std.clamp_min(1e-6)).contiguous(memory_format=torch.channels_last)
    return y[: len(y) - judged], y[len(y) - judged :]


def noise_to_signal(found: Tensor, wanted: Tensor) -> Tensor:
    """The mean over images and channels of the squared error over the variance that the teacher's tensor has
    there; (n, c, h, w) of mean 0 and variance 1 per channel over all images.
    """
    error = (found - wanted).square().mean((2, 3))
    return (error / wanted.var((2, 3), correction=0).clamp_min(FLAT)).mean()


class Imitator(nn.Module):
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
        """(n, c, h, w) of what the teacher's stage reads -> an imitation of what it gives."""
        y = self.stage(self.enter(x, part.in_width), stage_workload(self._base, part, FP32))
        out: Tensor = self.leave(y, self.leave.weight.shape[0])
        return out


@dataclass(frozen=True, eq=False)
class Imitation:
    """One (stage, type): how it is trained and judged.

    Attributes:
        lessons: of its stage, by resolution.
    """

    base: Base
    s: int
    block: str
    lessons: Mapping[int, Lesson]
    practice: Practice
    seed: int

    def rng(self, *purpose: int) -> np.random.Generator:
        """Draws of this (stage, type) and purpose."""
        return open_stream(self.seed, Stream.IMITATION, self.s, self.base.types.index(self.block), *purpose)

    @cached_property
    def sub_stages(self) -> tuple[SubStage, ...]:
        """Those that are judged."""
        return draw_sub_stages(self.base, self.s, self.block, self.practice.samples, rng=self.rng(0))

    def fresh(self) -> Imitator:
        """An imitator that has learned nothing."""
        lesson = next(iter(self.lessons.values()))
        widths = (lesson.given.shape[1], lesson.wanted.shape[1])
        return Imitator(self.base, self.s, self.block, widths, rng=self.rng(1))

    def train(self, net: Imitator, *, steps: int | None = None) -> Iterator[float]:
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
            resolution = int(rng.choice([*self.lessons]))
            lesson = self.lessons[resolution]
            rows = torch.from_numpy(rng.permutation(len(lesson.given))[: self.practice.batch_size])
            given, wanted = lesson.given[rows], lesson.wanted[rows]
            optimizer.zero_grad()
            for part in self._sandwich(resolution, rng):
                loss = noise_to_signal(net(given, part), wanted)
                loss.backward()  # type: ignore[no-untyped-call]
                losses.append(loss.item())
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if not np.isfinite(losses).all():
                raise TrilobitError(f"imitating stage {self.s} by {self.block} blocks diverged")
            yield losses[0]

    def _sandwich(self, resolution: int, rng: np.random.Generator) -> Iterator[SubStage]:
        """Yield the largest, the smallest and random ones (Yu & Huang 2019, arXiv:1903.05134)."""
        for of in (max, min):
            yield extreme_sub_stage(self.base, self.s, self.block, resolution, of)
        drawn = draw_sub_stages(self.base, self.s, self.block, 1, rng=rng)  # one of every window
        for i in rng.permutation(len(drawn))[:TRIED]:
            yield replace(drawn[i], resolution=resolution)

    def judge(self, net: Imitator) -> Iterator[float]:
        """The loss of every one of `sub_stages` in int8, batch norm recalibrated and ranges observed on the
        images that were learned from.
        """
        for part in self.sub_stages:
            yield self._judge_one(net, part)

    @torch.no_grad()
    def _judge_one(self, net: Imitator, part: SubStage) -> float:
        lesson, work = self.lessons[part.resolution], stage_workload(self.base, part, FP32)
        seen = net.enter(lesson.given[: 2 * self.practice.judged], part.in_width)
        shown = net.enter(lesson.judged_given, part.in_width)
        subnet = extract(net.stage, work)
        recalibrate(subnet, torch.split(seen, self.practice.judged))
        rounded = quantize(subnet, stage_workload(self.base, part, INT8), observe(subnet, seen))
        last = rounded.tensors[rounded.workload.names[-1]]
        y = (simulate(rounded, shown) - last.zero_point) * last.scale
        return float(noise_to_signal(net.leave(y, net.leave.weight.shape[0]), lesson.judged_wanted))


def losses(imitation: Imitation, told: Callable[[], None]) -> NDArray[np.float64]:
    """(n,) of a trained imitator's sub-stages; `told` is called after every step and every judgement."""
    net, found = imitation.fresh(), []
    for _ in imitation.train(net):
        told()
    for loss in imitation.judge(net):
        found.append(loss)
        told()
    return np.array(found)
