"""Inverted-residual networks: MobileNetV2 blocks with MobileNetV3's elastic kernels (Cai et al. 2020,
arXiv:1908.09791).

Elastic are the input resolution, the depth of each stage, the kernel and the expanded channels of each block
(the pruning dimension, in multiples of 8), and the number format of every convolution and of the classifier.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TypeVar

import numpy as np
from torch import nn

from hw_profiles.workload import LayerSpec, Workload, WorkloadBuilder
from supernet.families.mbconv_layers import PARTS as PARTS
from supernet.families.mbconv_layers import Block as Block
from supernet.families.mbconv_layers import MBConvLayers, conversion, conversions, stored_and_computed
from supernet.families.mbconv_layers import Stage as Stage
from supernet.families.mbconv_net import MBConvNet
from supernet.family import CostTerm, PeakTerm
from supernet.policy import Precision, QuantPolicy
from supernet.space import Candidate, Choice, SearchSpace
from supernet.subnet import Subnet

DEFAULT_FORMATS = ("fp32", "int8")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class MBConvArch:
    """A decoded architecture: input resolution in pixels and the living blocks, stage by stage."""

    resolution: int
    stages: tuple[tuple[Block, ...], ...]


@dataclass(frozen=True)
class MBConvFamily:
    """The family: see `supernet.family.Family` for what its methods promise."""

    name: str
    resolutions: tuple[int, ...]
    stem_width: int
    stages: tuple[Stage, ...]
    head_width: int
    in_channels: int
    classes: int
    formats: tuple[str, ...] = DEFAULT_FORMATS

    @cached_property
    def _layers(self) -> MBConvLayers:
        return MBConvLayers(self.in_channels, self.stem_width, self.stages, self.head_width, self.classes)

    # -- the space ---------------------------------------------------------------------------------

    @cached_property
    def _space(self) -> SearchSpace:
        choices = [Choice("resolution", self.resolutions), Choice("stem.format", self.formats, "precision")]
        for s, stage in enumerate(self.stages):
            choices.append(Choice(f"s{s}.depth", stage.depths))
            for b in range(max(stage.depths)):
                deep_enough = tuple(depth for depth in stage.depths if depth > b)
                alive = () if b < min(stage.depths) else ((f"s{s}.depth", deep_enough),)
                block = f"s{s}.b{b}"
                choices.append(Choice(f"{block}.kernel", stage.kernels, "architecture", alive))
                choices.append(Choice(f"{block}.expanded", stage.expanded, "pruning", alive))
                choices += [
                    Choice(f"{block}.{part}.format", self.formats, "precision", alive) for part in PARTS
                ]
        choices += [Choice(f"{layer}.format", self.formats, "precision") for layer in ("head", "classifier")]
        return SearchSpace(self.name, tuple(choices))

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
        decisions = self._space.decode(candidate)
        return {
            name.removesuffix(".format"): Precision(*stored_and_computed(str(option)))
            for name, option in decisions.items()
            if name.endswith(".format")
        }

    def resolution(self, candidate: Candidate) -> int:
        return self.arch(candidate).resolution

    def corners(self) -> Mapping[str, Candidate]:
        space, out = self._space, {}
        for (size, end), (i, number_format) in itertools.product(
            (("smallest", 0), ("largest", -1)), enumerate(self.formats)
        ):
            genome = [i if c.kind == "precision" else end % len(c.options) for c in space.choices]
            out[f"{size}/{number_format}"] = space.candidate(np.array(genome, np.int16))
        return out

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

    def _term(self, names: tuple[str, ...], layers: Callable[..., tuple[LayerSpec, ...]]) -> CostTerm:
        """A term whose function takes the chosen options themselves, by position."""
        return CostTerm(*self._of_options(names, layers))

    def _of_options(
        self, names: tuple[str, ...], function: Callable[..., Result]
    ) -> tuple[tuple[int, ...], Callable[[tuple[int, ...]], Result]]:
        """Columns of the named choices, and a function of options as one of the genes there."""
        columns = tuple(self._space.columns[name] for name in names)
        options = [self._space.choices[column].options for column in columns]

        def of_genes(genes: tuple[int, ...]) -> Result:
            return function(*(choice[gene] for choice, gene in zip(options, genes, strict=True)))

        return columns, of_genes

    def _stem_term(self) -> CostTerm:
        layer = self._layers

        def stem(resolution: int, stem_format: str) -> tuple[LayerSpec, ...]:
            boundary = conversion((self.in_channels, resolution, resolution), "fp32", stem_format)
            return (*boundary, layer.stem(resolution, stem_format))

        return self._term(("resolution", "stem.format"), stem)

    def _entry_formats(self, s: int, b: int) -> tuple[str, ...]:
        """Names of the choices that decide the format of the tensor entering a block (or the head, for `s`
        past the end).
        """
        if b > 0:
            return (f"s{s}.b{b - 1}.project.format",)
        if s == 0:
            return ("stem.format",)
        before = self.stages[s - 1]
        return (f"s{s - 1}.depth", *(f"s{s - 1}.b{depth - 1}.project.format" for depth in before.depths))

    def _entry_format(self, s: int, b: int, chosen: tuple[int | str, ...]) -> str:
        """The format itself, from the options of `_entry_formats`."""
        if b > 0 or s == 0:
            return str(chosen[0])
        return str(chosen[1 + self.stages[s - 1].depths.index(int(chosen[0]))])

    def _block_terms(self, s: int, b: int) -> list[CostTerm]:
        layer, block, entry = self._layers, f"s{s}.b{b}", self._entry_formats(s, b)
        stride = self.stages[s].stride if b == 0 else 1
        shared = ("resolution", f"s{s}.depth", f"{block}.expanded")

        def boundaries(
            resolution: int, depth: int, expand: str, project: str, *before: int | str
        ) -> tuple[LayerSpec, ...]:
            if depth <= b:
                return ()
            shape, found = layer.entry_shape(resolution, s, b), self._entry_format(s, b, before)
            if not layer.has_residual(s, b):
                return conversion(shape, found, expand)
            return (layer.add(s, shape[1], found, project), *conversions(shape, found, expand, project))

        def expand(
            resolution: int, depth: int, expanded: int, expand: str, depthwise: str
        ) -> tuple[LayerSpec, ...]:
            if depth <= b:
                return ()
            size = layer.entry_size(resolution, s, b)
            spec = layer.part("expand", s, b, size, Block(1, expanded), expand)
            return (spec, *conversion((expanded, size, size), expand, depthwise))

        def depthwise(
            resolution: int, depth: int, expanded: int, kernel: int, depthwise: str
        ) -> tuple[LayerSpec, ...]:
            size = layer.entry_size(resolution, s, b)
            return (
                (layer.part("depthwise", s, b, size, Block(kernel, expanded), depthwise),)
                if depth > b
                else ()
            )

        def project(
            resolution: int, depth: int, expanded: int, depthwise: str, project: str
        ) -> tuple[LayerSpec, ...]:
            if depth <= b:
                return ()
            size = -(-layer.entry_size(resolution, s, b) // stride)
            spec = layer.part("project", s, b, size, Block(1, expanded), project)
            return (*conversion((expanded, size, size), depthwise, project), spec)

        formats = {part: f"{block}.{part}.format" for part in PARTS}
        return [
            self._term(
                ("resolution", f"s{s}.depth", formats["expand"], formats["project"], *entry), boundaries
            ),
            self._term((*shared, formats["expand"], formats["depthwise"]), expand),
            self._term((*shared, f"{block}.kernel", formats["depthwise"]), depthwise),
            self._term((*shared, formats["depthwise"], formats["project"]), project),
        ]

    def _tail_terms(self) -> list[CostTerm]:
        layer, s = self._layers, len(self.stages)

        def boundary(resolution: int, head: str, *before: int | str) -> tuple[LayerSpec, ...]:
            return conversion(layer.entry_shape(resolution, s, 0), self._entry_format(s, 0, before), head)

        def tail(resolution: int, head: str, classifier: str) -> tuple[LayerSpec, ...]:
            size = layer.entry_size(resolution, s, 0)
            pooled = conversion((self.head_width, 1, 1), head, classifier)
            return (layer.head(size, head), layer.pool(size, head), *pooled, layer.classifier(classifier))

        return [
            self._term(("resolution", "head.format", *self._entry_formats(s, 0)), boundary),
            self._term(("resolution", "head.format", "classifier.format"), tail),
        ]

    # -- memory ------------------------------------------------------------------------------------

    def peak_terms(self) -> tuple[PeakTerm, ...]:
        def stem(resolution: int, fmt: str) -> Workload:
            net = WorkloadBuilder((self.in_channels, resolution, resolution))
            self._layers.append_stem(net, fmt)
            return net.build()

        end, alone = len(self.stages), cache(self._layers.tail_alone)

        def tail(resolution: int, head: str, classifier: str, *before: int | str) -> Workload:
            return alone(resolution, head, classifier, self._entry_format(end, 0, before))

        ends = ("resolution", "head.format", "classifier.format", *self._entry_formats(end, 0))
        return (
            PeakTerm(*self._of_options(("resolution", "stem.format"), stem)),
            *(self._block_peak(s, b) for s, st in enumerate(self.stages) for b in range(max(st.depths))),
            PeakTerm(*self._of_options(ends, tail)),
        )

    def _block_peak(self, s: int, b: int) -> PeakTerm:
        """One block; its depthwise kernel does not matter."""
        alone, name, mortal = cache(self._layers.block_alone), f"s{s}.b{b}", b >= min(self.stages[s].depths)
        formats = tuple(f"{name}.{part}.format" for part in PARTS)

        def block(resolution: int, expanded: int, *rest: int | str) -> Workload | None:
            chosen, before = (str(fmt) for fmt in rest[: len(PARTS)]), rest[len(PARTS) :]
            if mortal and int(before[0]) <= b:
                return None
            found = self._entry_format(s, b, before[mortal:])
            return alone(resolution, s, b, Block(1, expanded), tuple(chosen), found)

        depth = (f"s{s}.depth",) * mortal
        names = ("resolution", f"{name}.expanded", *formats, *depth, *self._entry_formats(s, b))
        return PeakTerm(*self._of_options(names, block))

    # -- networks ----------------------------------------------------------------------------------

    def supernet(self, *, rng: np.random.Generator) -> nn.Module:
        return MBConvNet(
            in_channels=self.in_channels,
            stem_width=self.stem_width,
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
    """The CNN family at CIFAR size: the largest subnet has about 20 MMACs."""
    return MBConvFamily(
        name="cifar-mbconv",
        resolutions=(24, 28, 32),
        stem_width=16,
        stages=(
            Stage(24, 1, (1, 2, 3), tuple(range(32, 97, 16))),
            Stage(40, 2, (1, 2, 3), tuple(range(64, 161, 16))),
            Stage(64, 2, (1, 2, 3), tuple(range(128, 257, 32))),
        ),
        head_width=256,
        in_channels=in_channels,
        classes=classes,
        formats=formats,
    )
