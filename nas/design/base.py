"""What spaces are designed from: stages with all widths and block types they could have, and random parts of
them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.builder import GraphBuilder
from hw_profiles.graph.layer import FP32
from hw_profiles.graph.workload import Workload
from nas.run.design_settings import DistillationConfig as DistillationConfig
from supernet.families.cifar_resnet import WIDTHS, CifarResNet
from supernet.families.family import Family
from supernet.families.mbconv import MBConvFamily
from supernet.families.parts import append_stem, append_tail
from supernet.families.staged import BLOCKS, Sizes, Stage, StagedFamily, append_block, middle_channels
from supernet.families.staged_file import StagedSpace

STEPS_ABOVE = 2  # widths above the teacher's widest, and one below its narrowest
WINDOW = 2  # widths that a stage of a designed space chooses from
SMALLEST_MAP = 3  # pixels high
KERNELS = (3, 5)
PERCENTS = {
    "inverted": (100, 200, 400),
    "fused": (50, 100, 200),
    "fused-relu": (50, 100, 200),
    "basic": (50, 100),
    "pooled": (50, 100),
    "bottleneck": (50, 100),
    "separable": (100,),
}


@dataclass(frozen=True)
class BaseStage:
    """One stage before its type and its window are chosen.

    Attributes:
        widths: all output channels it could have, ascending.
        stride, depths: as in a `Stage`.
    """

    widths: tuple[int, ...]
    stride: int
    depths: tuple[int, ...]

    @property
    def windows(self) -> tuple[tuple[int, ...], ...]:
        """Contiguous runs of the widths, from the narrowest."""
        length = min(WINDOW, len(self.widths))
        starts = range(len(self.widths) - length + 1)
        return tuple(self.widths[start : start + length] for start in starts)


@dataclass(frozen=True)
class Base:
    """Everything that a design does not change, and what it chooses from.

    Attributes:
        resolutions: of the input in pixels.
        stem_width, stem_stride, head_width: of what surrounds the stages.
        types: names of block types, see `BLOCKS`.
    """

    resolutions: tuple[int, ...]
    stem_width: int
    stem_stride: int
    head_width: int
    stages: tuple[BaseStage, ...]
    types: tuple[str, ...]

    @property
    def distilled_resolutions(self) -> tuple[int, ...]:
        """Resolutions at which stages are distilled: those whose last maps have a variance to speak of."""
        return tuple(r for r in self.resolutions if self.entry_size(r, len(self.stages)) >= SMALLEST_MAP)

    def stage(self, s: int, block: str, widths: tuple[int, ...] | None = None) -> Stage:
        """Return stage `s` of that block type, with some of its widths or all."""
        base = self.stages[s]
        return Stage(block, widths or base.widths, base.stride, base.depths, KERNELS, PERCENTS[block])

    def entry_widths(self, s: int) -> tuple[int, ...]:
        """Return the channels that stage `s` can be given."""
        return self.stages[s - 1].widths if s else (self.stem_width,)

    def entry_size(self, resolution: int, s: int) -> int:
        """Return height and width of what stage `s` is given."""
        size = -(-resolution // self.stem_stride)
        for stage in self.stages[:s]:
            size = -(-size // stage.stride)
        return size

    def space(self, title: str, genes: NDArray[np.int16]) -> StagedSpace:
        """Return the space with the types and windows of (2 s,) genes."""
        n = len(self.stages)
        stages = tuple(
            self.stage(s, self.types[genes[s]], base.windows[genes[n + s]])
            for s, base in enumerate(self.stages)
        )
        ends = (self.stem_width, self.stem_stride, self.head_width)
        return StagedSpace(title, self.resolutions, *ends, stages)


def base_of(teacher: Family, types: Sequence[str]) -> Base:
    """Return the base around a teacher's family: its stages, with widths from a step below its narrowest to
    two above its widest; stem and head are those of its largest network.

    Raises:
        TrilobitError: not a family whose stages blocks can take the place of, or not block types.
    """
    match teacher:
        case MBConvFamily():
            stages = [BaseStage(_widths([s.width]), s.stride, s.depths) for s in teacher.stages]
            ends = (teacher.stem_width, teacher.stem_stride, teacher.head_width)
        case StagedFamily():
            stages = [BaseStage(_widths(s.widths), s.stride, s.depths) for s in teacher.stages]
            ends = (teacher.stem_widths[-1], teacher.stem_stride, teacher.head_width)
        case CifarResNet():
            depths = (teacher.depth,)
            stages = [BaseStage(_widths([w]), 2 if s else 1, depths) for s, w in enumerate(WIDTHS)]
            ends = (WIDTHS[0], 1, WIDTHS[-1])  # it has no head: one that gives as much as it reads
        case _:
            raise TrilobitError(
                f"space {teacher.name!r} cannot be distilled block by block; give a --teacher of one of the "
                "cifar- or digits- spaces, or of a space in a file"
            )
    unknown = [name for name in types if name not in BLOCKS]
    if unknown or not types or len(set(types)) < len(types):
        raise TrilobitError(f"--types {','.join(types)!r}: write some of {', '.join(BLOCKS)}, each once")
    sizes = next(choice.options for choice in teacher.choices() if choice.name == "resolution")
    return Base(tuple(map(int, sizes)), *ends, tuple(stages), tuple(types))


def _widths(own: Sequence[int]) -> tuple[int, ...]:
    """Return multiples of 8 around ascending widths, as far apart as the first two are.

    >>> _widths([8]), _widths([24]), _widths([96])
    ((8, 16, 24, 32), (16, 24, 32, 40), (72, 96, 120, 144))
    >>> _widths([64, 96, 128]), _widths([16, 32])
    ((32, 64, 96, 128, 160, 192), (16, 32, 48, 64, 80))
    """
    step = own[1] - own[0] if len(own) > 1 else max(8, round(own[0] / 32) * 8)
    lowest = own[0] - step if own[0] - step >= 8 else own[0]
    steps = (own[-1] - own[0]) // step + 1 + STEPS_ABOVE
    return tuple(sorted({*own, *range(lowest, lowest + steps * step + 1, step)}))


# -- parts of the networks -------------------------------------------------------------------------


@dataclass(frozen=True)
class SubStage:
    """One stage of one network.

    Attributes:
        s: which stage.
        block: its type.
        window: which of the stage's windows its width is in.
        resolution: of the network's input.
        in_width: channels that it is given.
        blocks: its blocks' sizes, in order.
    """

    s: int
    block: str
    window: int
    resolution: int
    in_width: int
    blocks: tuple[Sizes, ...]


def draw_sub_stages(
    base: Base, s: int, block: str, count: int, *, rng: np.random.Generator
) -> tuple[SubStage, ...]:
    """Draw `count` random sub-stages of every window, as many of every resolution."""
    stage, sub_stages = base.stage(s, block), []
    for window, widths in enumerate(base.stages[s].windows):
        for i in range(count):
            width = int(rng.choice(widths))
            blocks = tuple(
                Sizes(
                    width,
                    middle_channels(width, int(rng.choice(stage.percents))),
                    int(rng.choice(stage.kernels)),
                )
                for _ in range(int(rng.choice(stage.depths)))
            )
            resolution = base.distilled_resolutions[i % len(base.distilled_resolutions)]
            in_width = int(rng.choice(base.entry_widths(s)))
            sub_stages.append(SubStage(s, block, window, resolution, in_width, blocks))
    return tuple(sub_stages)


def extreme_sub_stage(
    base: Base, s: int, block: str, resolution: int, of: Callable[[Sequence[int]], int]
) -> SubStage:
    """Return the largest (`max`) or the smallest (`min`) sub-stage; its window says nothing."""
    stage = base.stage(s, block)
    width = of(stage.widths)
    sizes = Sizes(width, middle_channels(width, of(stage.percents)), of(stage.kernels))
    return SubStage(s, block, 0, resolution, of(base.entry_widths(s)), (sizes,) * of(stage.depths))


def stage_workload(base: Base, part: SubStage, fmt: str, *, source_format: str = FP32) -> Workload:
    """Return a sub-stage as a network by itself, in one number format; its input is in `source_format`."""
    size, stage = base.entry_size(part.resolution, part.s), base.stage(part.s, part.block)
    net = GraphBuilder((part.in_width, size, size), source_format)
    x = net.input
    for b, sizes in enumerate(part.blocks):
        x = append_block(net, x, f"s{part.s}.b{b}", stage, b, sizes, [fmt] * len(stage.type.parts))
    return net.build()


def ends_workloads(
    base: Base, resolution: int, *, in_channels: int, classes: int, fmt: str
) -> tuple[Workload, Workload]:
    """Return what is before the stages and what is after them, where the last stage is the narrowest."""
    size, width = base.entry_size(resolution, len(base.stages)), base.stages[-1].widths[0]
    stem, tail = GraphBuilder((in_channels, resolution, resolution)), GraphBuilder((width, size, size), fmt)
    append_stem(stem, base.stem_width, base.stem_stride, lambda layer: fmt)
    append_tail(tail, tail.input, base.head_width, classes, lambda layer: fmt)
    return stem.build(), tail.build()
