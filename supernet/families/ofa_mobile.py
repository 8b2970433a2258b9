"""Once-for-all's mobile spaces, as published: MobileNetV3 at two widths and ProxylessNAS (Cai et al. 2020,
arXiv:1908.09791).

Elastic are the input resolution (25 of them, section 4.1: 128 to 224 with a stride of 4), the depth of each
stage, and the kernel and the expansion of each block. A unit of cost is a whole block, since that is what the
published latency tables measured, and it has one number format, as have the convolutions outside the blocks.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from torch import nn

from hw_profiles.graph.blocks import divisible
from hw_profiles.graph.builder import conversion
from hw_profiles.graph.layer import FP32, Layer
from hw_profiles.graph.workload import Workload
from supernet.families.choices import corners, of_options
from supernet.families.family import CostTerm, PeakTerm
from supernet.families.mbconv_layers import Block, stored_and_computed
from supernet.families.ofa_mobile_layers import EXPANDS, KERNELS, MobileLayers, MobileStage, chain
from supernet.families.ofa_mobile_net import MobileNet
from supernet.formats.loading import Precision, QuantPolicy
from supernet.graph.subnet import Subnet
from supernet.space.space import Candidate, Choice, SearchSpace

DEFAULT_FORMATS = ("fp32", "int8")
RESOLUTIONS = tuple(range(128, 225, 4))
FORMAT = ".format"


@dataclass(frozen=True, slots=True)
class MobileArch:
    """A decoded architecture: input resolution in pixels and the living elastic blocks, stage by stage."""

    resolution: int
    stages: tuple[tuple[Block, ...], ...]


@dataclass(frozen=True)
class MobileFamily:
    """The family: see `supernet.families.family.Family` for what its methods promise.

    Attributes:
        layers: the widths.
        eps: of all batch norms.
    """

    name: str
    layers: MobileLayers
    eps: float
    formats: tuple[str, ...] = DEFAULT_FORMATS
    resolutions: tuple[int, ...] = RESOLUTIONS

    @property
    def in_channels(self) -> int:
        return self.layers.in_channels

    @property
    def classes(self) -> int:
        return self.layers.classes

    # -- the space ---------------------------------------------------------------------------------

    @cached_property
    def _space(self) -> SearchSpace:
        def precision(unit: str, alive: tuple[tuple[str, tuple[int, ...]], ...] = ()) -> Choice:
            return Choice(unit + FORMAT, self.formats, "precision", alive)

        choices = [Choice("resolution", self.resolutions), precision("stem"), precision("first")]
        for s, stage in enumerate(self.layers.stages):
            choices.append(Choice(f"s{s}.depth", stage.depths))
            for b in range(max(stage.depths)):
                deep_enough = tuple(depth for depth in stage.depths if depth > b)
                alive = () if b < min(stage.depths) else ((f"s{s}.depth", deep_enough),)
                choices.append(Choice(f"s{s}.b{b}.kernel", KERNELS, "architecture", alive))
                choices.append(Choice(f"s{s}.b{b}.expand", EXPANDS, "pruning", alive))
                choices.append(precision(f"s{s}.b{b}", alive))
        return SearchSpace(self.name, (*choices, *map(precision, self.layers.tail)))

    def space(self) -> SearchSpace:
        return self._space

    def arch(self, candidate: Candidate) -> MobileArch:
        decisions = self._space.decode(candidate)

        def block(s: int, b: int) -> Block:
            name = f"s{s}.b{b}"
            expanded = self.layers.expanded(s, b, int(decisions[f"{name}.expand"]))
            return Block(int(decisions[f"{name}.kernel"]), expanded)

        stages = tuple(
            tuple(block(s, b) for b in range(int(decisions[f"s{s}.depth"])))
            for s in range(len(self.layers.stages))
        )
        return MobileArch(int(decisions["resolution"]), stages)

    def policy(self, candidate: Candidate) -> QuantPolicy:
        return {
            name.removesuffix(FORMAT): Precision(*stored_and_computed(str(option)))
            for name, option in self._space.decode(candidate).items()
            if name.endswith(FORMAT)
        }

    def resolution(self, candidate: Candidate) -> int:
        return self.arch(candidate).resolution

    def corners(self) -> Mapping[str, Candidate]:
        return corners(self._space, self.formats)

    # -- cost --------------------------------------------------------------------------------------

    def workload(self, candidate: Candidate) -> Workload:
        formats = {
            name.removesuffix(FORMAT): str(option)
            for name, option in self._space.decode(candidate).items()
            if name.endswith(FORMAT)
        }
        return self._workload(self.arch(candidate), formats)

    def plain_workload(self, arch: MobileArch) -> Workload:
        return self._workload(arch, {})

    def _workload(self, arch: MobileArch, formats: Mapping[str, str]) -> Workload:
        layers, resolution = self.layers, arch.resolution
        units = {
            "stem": layers.stem(resolution, formats.get("stem", FP32)),
            "first": layers.first(resolution, formats.get("first", FP32)),
        }
        for s, blocks in enumerate(arch.stages):
            for b, block in enumerate(blocks):
                name = f"s{s}.b{b}"
                units[name] = layers.block(resolution, s, b, block, formats.get(name, FP32))
        ends = {name: formats.get(name, FP32) for name in layers.tail}
        return chain(units | layers.ends(resolution, ends))

    def terms(self) -> tuple[CostTerm, ...]:
        units = [self._unit_term(s, b) for s, b in self._positions()]
        return (*self._first_terms(), *units, *self._boundary_terms(), self._tail_term())

    def _term(self, names: tuple[str, ...], layers: Callable[..., tuple[Layer, ...]]) -> CostTerm:
        return CostTerm(*of_options(self._space, names, layers))

    def _positions(self) -> Iterator[tuple[int, int]]:
        """Every elastic block there can be, as stage and position in it."""
        for s, stage in enumerate(self.layers.stages):
            yield from ((s, b) for b in range(max(stage.depths)))

    def _mortal(self, s: int, b: int) -> bool:
        """Whether some networks lack a block."""
        return s < len(self.layers.stages) and b >= min(self.layers.stages[s].depths)

    def _sources(self, s: int, b: int) -> list[tuple[str, int]]:
        """The units that the tensor entering a block (or the head, for `s` past the end) can come from, each
        with the depth of the stage before for which it does; 0 where that does not matter.
        """
        if b > 0:
            return [(f"s{s}.b{b - 1}", 0)]
        if s == 0:
            return [("first", 0)]
        depths = self.layers.stages[s - 1].depths
        return [(f"s{s - 1}.b{depth - 1}", depth if len(depths) > 1 else 0) for depth in depths]

    def _first_terms(self) -> tuple[CostTerm, CostTerm]:
        layers = self.layers

        def stem(resolution: int, fmt: str) -> tuple[Layer, ...]:
            return chain({"stem": layers.stem(resolution, fmt)}).layers

        def first(resolution: int, found: str, fmt: str) -> tuple[Layer, ...]:
            return chain({"first": layers.first(resolution, fmt)}, stored_and_computed(found)[1]).layers

        return (
            self._term(("resolution", "stem" + FORMAT), stem),
            self._term(("resolution", "stem" + FORMAT, "first" + FORMAT), first),
        )

    def _unit_term(self, s: int, b: int) -> CostTerm:
        """A block without the conversion before it."""
        name, mortal = f"s{s}.b{b}", self._mortal(s, b)

        def block(resolution: int, kernel: int, expand: int, fmt: str, *depth: int) -> tuple[Layer, ...]:
            if mortal and depth[0] <= b:
                return ()
            sizes = Block(kernel, self.layers.expanded(s, b, expand))
            return (self.layers.block(resolution, s, b, sizes, fmt),)

        own = (f"{name}.kernel", f"{name}.expand", name + FORMAT)
        return self._term(("resolution", *own, *(f"s{s}.depth",) * mortal), block)

    def _boundary_terms(self) -> Iterator[CostTerm]:
        """What stands before each block and before the head: one term for each unit that can come before."""
        for s, b in (*self._positions(), (len(self.layers.stages), 0)):
            for source, depth in self._sources(s, b):
                yield self._boundary_term(s, b, source, depth)

    def _boundary_term(self, s: int, b: int, source: str, depth: int) -> CostTerm:
        reader = f"s{s}.b{b}" if s < len(self.layers.stages) else "head"
        mortal = self._mortal(s, b)

        def boundary(resolution: int, found: str, fmt: str, *depths: int) -> tuple[Layer, ...]:
            if not self._lives(s, b, depth, depths):
                return ()
            shape = self.layers.entry_shape(resolution, s, b)
            return conversion(shape, stored_and_computed(found)[1], stored_and_computed(fmt)[1])

        names = ("resolution", source + FORMAT, reader + FORMAT, *self._depths(s, depth, mortal))
        return self._term(names, boundary)

    def _depths(self, s: int, depth: int, mortal: bool) -> tuple[str, ...]:
        """The depth choices that a term needs: the stage's own, then that of the stage before."""
        return (f"s{s}.depth",) * mortal + (f"s{s - 1}.depth",) * (depth > 0)

    def _lives(self, s: int, b: int, depth: int, chosen: tuple[int, ...]) -> bool:
        """Whether there is a block, and a tensor entering it from where `depth` says, by the options of
        `_depths`.
        """
        own = chosen[:1] if self._mortal(s, b) else ()
        before = chosen[len(own) :]
        return all(found > b for found in own) and all(found == depth for found in before)

    def _tail_term(self) -> CostTerm:
        def tail(resolution: int, *formats: str) -> tuple[Layer, ...]:
            ends = self.layers.ends(resolution, dict(zip(self.layers.tail, formats, strict=True)))
            return chain(ends, ends["head"].in_format).layers

        return self._term(("resolution", *(name + FORMAT for name in self.layers.tail)), tail)

    # -- memory ------------------------------------------------------------------------------------

    def peak_terms(self) -> tuple[PeakTerm, ...]:
        layers = self.layers

        def stem(resolution: int, fmt: str) -> Workload:
            return chain({"stem": layers.stem(resolution, fmt)})

        def first(resolution: int, found: str, fmt: str) -> Workload:
            return chain({"first": layers.first(resolution, fmt)}, stored_and_computed(found)[1])

        blocks = (
            self._block_peak(s, b, source, depth)
            for s, b in self._positions()
            for source, depth in self._sources(s, b)
        )
        ends = (self._tail_peak(source, depth) for source, depth in self._sources(len(layers.stages), 0))
        return (
            self._peak(("resolution", "stem" + FORMAT), stem),
            self._peak(("resolution", "stem" + FORMAT, "first" + FORMAT), first),
            *blocks,
            *ends,
        )

    def _peak(self, names: tuple[str, ...], part: Callable[..., Workload | None]) -> PeakTerm:
        return PeakTerm(*of_options(self._space, names, part))

    def _block_peak(self, s: int, b: int, source: str, depth: int) -> PeakTerm:
        """One block; its depthwise kernel does not matter."""
        name = f"s{s}.b{b}"

        def block(resolution: int, expand: int, found: str, fmt: str, *depths: int) -> Workload | None:
            if not self._lives(s, b, depth, depths):
                return None
            return alone(resolution, expand, stored_and_computed(found)[1], fmt)

        @cache
        def alone(resolution: int, expand: int, found: str, fmt: str) -> Workload:
            sizes = Block(KERNELS[0], self.layers.expanded(s, b, expand))
            return chain({name: self.layers.block(resolution, s, b, sizes, fmt)}, found)

        own = ("resolution", f"{name}.expand", source + FORMAT, name + FORMAT)
        return self._peak((*own, *self._depths(s, depth, self._mortal(s, b))), block)

    def _tail_peak(self, source: str, depth: int) -> PeakTerm:
        names, end = self.layers.tail, len(self.layers.stages)

        def tail(resolution: int, found: str, *rest: int | str) -> Workload | None:
            if any(chosen != depth for chosen in rest[len(names) :]):
                return None
            ends = self.layers.ends(
                resolution, {name: str(fmt) for name, fmt in zip(names, rest, strict=False)}
            )
            return chain(ends, stored_and_computed(found)[1])

        formats = (source + FORMAT, *(name + FORMAT for name in names))
        return self._peak(("resolution", *formats, *self._depths(end, depth, mortal=False)), tail)

    # -- networks ----------------------------------------------------------------------------------

    def supernet(self, *, rng: np.random.Generator) -> nn.Module:
        return MobileNet(self.layers, eps=self.eps, rng=rng)

    def extract(self, net: nn.Module, candidate: Candidate) -> Subnet:
        if not isinstance(net, MobileNet):
            raise TypeError(f"{self.name}: expected a MobileNet, got {type(net).__name__}")
        arch = self.arch(candidate)
        return Subnet(self.plain_workload(arch), net.extract(arch))


def _mobilenet_v3(
    name: str, width: float, in_channels: int, classes: int, formats: tuple[str, ...]
) -> MobileFamily:
    """MobileNetV3-Large's stages (Howard et al. 2019, arXiv:1905.02244), each up to four blocks deep."""
    stem, first, *widths, head, mix = (
        divisible(base * width) for base in (16, 16, 24, 40, 80, 112, 160, 960, 1280)
    )
    stages = (
        MobileStage(widths[0], 2, "relu"),
        MobileStage(widths[1], 2, "relu", squeeze=True),
        MobileStage(widths[2], 2, "hswish"),
        MobileStage(widths[3], 1, "hswish", squeeze=True),
        MobileStage(widths[4], 2, "hswish", squeeze=True),
    )
    layers = MobileLayers(in_channels, stem, first, stages, head, mix, classes, "hswish", "relu")
    return MobileFamily(name, layers, 1e-5, formats)


def ofa_mbv3(*, in_channels: int, classes: int, formats: tuple[str, ...] = DEFAULT_FORMATS) -> MobileFamily:
    """`ofa_mbv3_d234_e346_k357_w1.0`."""
    return _mobilenet_v3("ofa-mbv3", 1.0, in_channels, classes, formats)


def ofa_mbv3_wide(
    *, in_channels: int, classes: int, formats: tuple[str, ...] = DEFAULT_FORMATS
) -> MobileFamily:
    """`ofa_mbv3_d234_e346_k357_w1.2`."""
    return _mobilenet_v3("ofa-mbv3-w1.2", 1.2, in_channels, classes, formats)


def ofa_proxyless(
    *, in_channels: int, classes: int, formats: tuple[str, ...] = DEFAULT_FORMATS
) -> MobileFamily:
    """`ofa_proxyless_d234_e346_k357_w1.3`: ProxylessNAS's stages (Cai et al. 2019, arXiv:1812.00332), the
    last always one block deep.
    """
    stem, first, *widths, head = (divisible(base * 1.3) for base in (32, 16, 24, 40, 80, 96, 192, 320, 1280))
    strides, depths = (2, 2, 2, 1, 2, 1), ((2, 3, 4),) * 5 + ((1,),)
    stages = tuple(
        MobileStage(width, stride, "relu6", depths=depth)
        for width, stride, depth in zip(widths, strides, depths, strict=True)
    )
    layers = MobileLayers(in_channels, stem, first, stages, head, 0, classes, "relu6", "relu6")
    return MobileFamily("ofa-proxyless", layers, 1e-3, formats)
