"""Inverted-residual networks: MobileNetV2 blocks with MobileNetV3's elastic kernels (Cai et al. 2020,
arXiv:1908.09791).

Elastic are the input resolution, the depth of each stage, the kernel and the expanded channels of each block
(the pruning dimension, in multiples of 8), and the number format of every convolution and of the classifier.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, partial

import numpy as np
from torch import nn

from hw_profiles.graph.builder import WorkloadBuilder
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.workload import Workload
from supernet.families import choices
from supernet.families.family import CostTerm, PeakTerm
from supernet.families.mbconv_layers import PARTS as PARTS
from supernet.families.mbconv_layers import Block as Block
from supernet.families.mbconv_layers import (
    Entry,
    MBConvLayers,
    computed_as,
    conversion,
    conversions,
)
from supernet.families.mbconv_layers import Stage as Stage
from supernet.families.mbconv_net import MBConvNet
from supernet.formats.loading import QuantPolicy
from supernet.graph.subnet import Subnet
from supernet.space.space import Candidate, Choice, SearchSpace

DEFAULT_FORMATS = ("fp32", "int8")


@dataclass(frozen=True, slots=True)
class MBConvArch:
    """A decoded architecture: input resolution in pixels and the living blocks, stage by stage."""

    resolution: int
    stages: tuple[tuple[Block, ...], ...]


@dataclass(frozen=True)
class MBConvFamily:
    """The family: see `supernet.families.family.Family` for what its methods promise."""

    name: str
    resolutions: tuple[int, ...]
    stem_width: int
    stages: tuple[Stage, ...]
    head_width: int
    in_channels: int
    classes: int
    formats: tuple[str, ...] = DEFAULT_FORMATS
    stem_stride: int = 2

    @cached_property
    def _layers(self) -> MBConvLayers:
        widths = (self.stem_width, self.stages, self.head_width)
        return MBConvLayers(self.in_channels, *widths, self.classes, self.stem_stride)

    # -- the space ---------------------------------------------------------------------------------

    @cached_property
    def _space(self) -> SearchSpace:
        found = [Choice("resolution", self.resolutions), Choice("stem.format", self.formats, "precision")]
        for s, stage in enumerate(self.stages):
            found.append(Choice(f"s{s}.depth", stage.depths))
            for b in range(max(stage.depths)):
                deep_enough = tuple(depth for depth in stage.depths if depth > b)
                alive = () if b < min(stage.depths) else ((f"s{s}.depth", deep_enough),)
                block = f"s{s}.b{b}"
                found.append(Choice(f"{block}.kernel", stage.kernels, "architecture", alive))
                found.append(Choice(f"{block}.expanded", stage.expanded, "pruning", alive))
                found += [
                    Choice(f"{block}.{part}.format", self.formats, "precision", alive) for part in PARTS
                ]
        found += [Choice(f"{layer}.format", self.formats, "precision") for layer in ("head", "classifier")]
        return SearchSpace(self.name, tuple(found))

    def space(self) -> SearchSpace:
        return self._space

    def arch(self, candidate: Candidate) -> MBConvArch:
        decisions = self._space.decode(candidate)
        stages = tuple(
            tuple(
                Block(int(decisions[f"s{s}.b{b}.kernel"]), int(decisions[f"s{s}.b{b}.expanded"]))
                for b in range(int(decisions[f"s{s}.depth"]))
            )
            for s in range(len(self.stages))
        )
        return MBConvArch(int(decisions["resolution"]), stages)

    def policy(self, candidate: Candidate) -> QuantPolicy:
        return choices.policy(self._space, candidate)

    def resolution(self, candidate: Candidate) -> int:
        return self.arch(candidate).resolution

    def corners(self) -> Mapping[str, Candidate]:
        return choices.corners(self._space, self.formats)

    # -- cost ---------------------------------------------------------------------------------

    def workload(self, candidate: Candidate) -> Workload:
        return self._workload(self.arch(candidate), self.policy(candidate))

    def plain_workload(self, arch: MBConvArch) -> Workload:
        return self._workload(arch, {})

    def _workload(self, arch: MBConvArch, policy: QuantPolicy) -> Workload:
        def precision(name: str) -> str:
            return str(policy[name]) if name in policy else "fp32"

        net = WorkloadBuilder((self.in_channels, arch.resolution, arch.resolution))
        x = self._layers.append_stem(net, precision("stem"))
        for s, blocks in enumerate(arch.stages):
            for b, block in enumerate(blocks):
                formats = [precision(f"s{s}.b{b}.{part}") for part in PARTS]
                x = self._layers.append_block(net, x, s, b, block, formats)
        self._layers.append_tail(net, x, precision("head"), precision("classifier"))
        return net.build()

    def terms(self) -> tuple[CostTerm, ...]:
        terms = [self._stem_term()]
        for s, stage in enumerate(self.stages):
            for b in range(max(stage.depths)):
                terms += self._block_terms(s, b)
        return (*terms, *self._tail_terms())

    def _term(self, names: tuple[str, ...], layers: Callable[..., tuple[Layer, ...]]) -> CostTerm:
        """A term whose function takes the chosen options themselves, by position."""
        return CostTerm(*choices.of_options(self._space, names, layers))

    def _stem_term(self) -> CostTerm:
        layer = self._layers

        def stem(resolution: int, stem_format: str) -> tuple[Layer, ...]:
            boundary = conversion((self.in_channels, resolution, resolution), "fp32", stem_format)
            return (*boundary, layer.stem(resolution, stem_format))

        return self._term(("resolution", "stem.format"), stem)

    def _entries(self, s: int, b: int) -> list[Entry]:
        """The layers that the tensor entering a block (or the head, for `s` past the end) can come from."""
        if b > 0:
            return [Entry((f"s{s}.b{b - 1}.project.format",))]
        if s == 0:
            return [Entry(("stem.format",))]
        stage = f"s{s - 1}"
        depths = self.stages[s - 1].depths
        return [Entry((f"{stage}.b{d - 1}.project.format", f"{stage}.depth"), d) for d in depths]

    def _block_terms(self, s: int, b: int) -> list[CostTerm]:
        layer, block = self._layers, f"s{s}.b{b}"
        stride = self.stages[s].stride if b == 0 else 1
        shared = ("resolution", f"s{s}.depth", f"{block}.expanded")

        def boundaries(
            resolution: int, depth: int, expand: str, project: str, found: str, *before: int, entry: Entry
        ) -> tuple[Layer, ...]:
            if depth <= b or not entry.holds(before):
                return ()
            shape = layer.entry_shape(resolution, s, b)
            if not layer.has_residual(s, b):
                return conversion(shape, found, expand)
            return (layer.add(s, shape[1], found, project), *conversions(shape, found, expand, project))

        def expand(
            resolution: int, depth: int, expanded: int, expand: str, depthwise: str
        ) -> tuple[Layer, ...]:
            if depth <= b:
                return ()
            size = layer.entry_size(resolution, s, b)
            spec = layer.part("expand", s, b, size, Block(1, expanded), expand)
            return (spec, *conversion((expanded, size, size), expand, depthwise))

        def depthwise(
            resolution: int, depth: int, expanded: int, kernel: int, depthwise: str
        ) -> tuple[Layer, ...]:
            size = layer.entry_size(resolution, s, b)
            return (
                (layer.part("depthwise", s, b, size, Block(kernel, expanded), depthwise),)
                if depth > b
                else ()
            )

        def project(
            resolution: int, depth: int, expanded: int, depthwise: str, project: str
        ) -> tuple[Layer, ...]:
            if depth <= b:
                return ()
            size = -(-layer.entry_size(resolution, s, b) // stride)
            spec = layer.part("project", s, b, size, Block(1, expanded), project)
            return (*conversion((expanded, size, size), depthwise, project), spec)

        formats = {part: f"{block}.{part}.format" for part in PARTS}
        ends = ("resolution", f"s{s}.depth", formats["expand"], formats["project"])
        entries = self._entries(s, b)
        return [
            *(self._term((*ends, *entry.names), partial(boundaries, entry=entry)) for entry in entries),
            self._term((*shared, formats["expand"], formats["depthwise"]), expand),
            self._term((*shared, f"{block}.kernel", formats["depthwise"]), depthwise),
            self._term((*shared, formats["depthwise"], formats["project"]), project),
        ]

    def _tail_terms(self) -> list[CostTerm]:
        layer, s = self._layers, len(self.stages)

        def boundary(resolution: int, head: str, found: str, *before: int, entry: Entry) -> tuple[Layer, ...]:
            shape = layer.entry_shape(resolution, s, 0)
            return conversion(shape, found, head) if entry.holds(before) else ()

        def tail(resolution: int, head: str, classifier: str) -> tuple[Layer, ...]:
            size = layer.entry_size(resolution, s, 0)
            pooled = conversion((self.head_width, 1, 1), head, classifier)
            return (layer.head(size, head), layer.pool(size, head), *pooled, layer.classifier(classifier))

        ends = ("resolution", "head.format")
        return [
            *(self._term((*ends, *e.names), partial(boundary, entry=e)) for e in self._entries(s, 0)),
            self._term(("resolution", "head.format", "classifier.format"), tail),
        ]

    # -- memory ------------------------------------------------------------------------------------

    def peak_terms(self) -> tuple[PeakTerm, ...]:
        def stem(resolution: int, fmt: str) -> Workload:
            net = WorkloadBuilder((self.in_channels, resolution, resolution))
            self._layers.append_stem(net, fmt)
            return net.build()

        end, alone = len(self.stages), cache(self._layers.tail_alone)

        def tail(
            resolution: int, head: str, classifier: str, found: str, *before: int, entry: Entry
        ) -> Workload | None:
            if not entry.holds(before):
                return None
            return alone(resolution, *map(computed_as, (head, classifier, found)))

        ends = ("resolution", "head.format", "classifier.format")
        tails = [((*ends, *e.names), partial(tail, entry=e)) for e in self._entries(end, 0)]
        blocks = [(s, b) for s, stage in enumerate(self.stages) for b in range(max(stage.depths))]
        return (
            PeakTerm(*choices.of_options(self._space, ("resolution", "stem.format"), stem)),
            *(term for s, b in blocks for term in self._block_peaks(s, b)),
            *(PeakTerm(*choices.of_options(self._space, *each)) for each in tails),
        )

    def _block_peaks(self, s: int, b: int) -> list[PeakTerm]:
        """One block; its depthwise kernel and what its weights are stored in do not matter."""
        alone, name = cache(self._layers.block_alone), f"s{s}.b{b}"
        names = ("resolution", f"{name}.expanded", f"s{s}.depth", *(f"{name}.{p}.format" for p in PARTS))

        def block(
            resolution: int, expanded: int, depth: int, *rest: int | str, entry: Entry
        ) -> Workload | None:
            formats, before = rest[: len(PARTS) + 1], rest[len(PARTS) + 1 :]
            if depth <= b or not entry.holds(before):
                return None
            *chosen, found = (computed_as(str(fmt)) for fmt in formats)
            return alone(resolution, s, b, Block(1, expanded), tuple(chosen), found)

        options = [((*names, *entry.names), partial(block, entry=entry)) for entry in self._entries(s, b)]
        return [PeakTerm(*choices.of_options(self._space, *each)) for each in options]

    # -- networks ----------------------------------------------------------------------------------

    def supernet(self, *, rng: np.random.Generator) -> nn.Module:
        return MBConvNet(
            in_channels=self.in_channels,
            stem_width=self.stem_width,
            stem_stride=self.stem_stride,
            stages=[
                [
                    (
                        self._layers.entry_width(s, b),
                        max(st.expanded),
                        st.width,
                        max(st.kernels),
                        st.stride if b == 0 else 1,
                    )
                    for b in range(max(st.depths))
                ]
                for s, st in enumerate(self.stages)
            ],
            head_width=self.head_width,
            classes=self.classes,
            rng=rng,
        )

    def extract(self, net: nn.Module, candidate: Candidate) -> Subnet:
        if not isinstance(net, MBConvNet):
            raise TypeError(f"{self.name}: expected an MBConvNet, got {type(net).__name__}")
        arch = self.arch(candidate)
        return Subnet(self.plain_workload(arch), net.extract(arch))


def digits_mbconv(
    *, in_channels: int, classes: int, formats: tuple[str, ...] = DEFAULT_FORMATS
) -> MBConvFamily:
    """The embedded default: small enough that scanned digits show a trade-off, yet more than 10^12
    networks.
    """
    return MBConvFamily(
        name="digits-mbconv",
        resolutions=(6, 14, 28),
        stem_width=8,
        stages=(
            Stage(8, 1, (1, 2), (8, 16, 24, 32)),
            Stage(16, 2, (1, 2, 3, 4), (8, 24, 40, 64)),
            Stage(32, 2, (1, 2, 3, 4), (16, 48, 80, 128)),
        ),
        head_width=96,
        in_channels=in_channels,
        classes=classes,
        formats=formats,
    )


def cifar_mbconv(
    *, in_channels: int, classes: int, formats: tuple[str, ...] = DEFAULT_FORMATS
) -> MBConvFamily:
    """The CNN family at CIFAR size: 3 to 22 MMACs. Halving the map in the first block rather than in the stem
    keeps the one convolution that sees single pixels.
    """
    return MBConvFamily(
        name="cifar-mbconv",
        resolutions=(24, 28, 32),
        stem_width=16,
        stages=(
            Stage(24, 2, (2, 3), (32, 48, 64), (3, 5)),
            Stage(48, 2, (2, 3, 4), tuple(range(96, 193, 32))),
            Stage(96, 2, (2, 3, 4), tuple(range(192, 385, 64))),
        ),
        head_width=320,
        in_channels=in_channels,
        classes=classes,
        formats=formats,
        stem_stride=1,
    )
