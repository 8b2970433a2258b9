"""The space of once-for-all's ResNet50 as published (`ofa_resnet50`; Cai et al. 2020, arXiv:1908.09791).

Elastic are the input resolution, the residual convolution of the stem, the depth of each stage, the channels
of the stem and of each stage, the middle channels of each block, and the number format of every convolution
and of the classifier.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import nn

from hw_profiles.graph.blocks import divisible
from hw_profiles.graph.builder import WorkloadBuilder
from hw_profiles.graph.workload import Workload
from supernet.families import choices
from supernet.families import ofa_resnet_layers as layers
from supernet.families.family import CostTerm, PeakTerm
from supernet.families.mbconv import DEFAULT_FORMATS
from supernet.families.ofa_resnet_layers import (
    STEM,
    Bottleneck,
    ResNetArch,
    Stage,
    Stem,
    StemSizes,
    expanded_channels,
)
from supernet.families.ofa_resnet_net import OfaResNet
from supernet.families.ofa_resnet_terms import cost_terms, peak_terms
from supernet.formats.loading import QuantPolicy
from supernet.graph.subnet import Subnet
from supernet.space.space import Candidate, Choice, SearchSpace

RESOLUTIONS = tuple(range(128, 225, 16))
PERCENTS = (20, 25, 35)  # middle channels of a block as a share of its output channels
MULTIPLIERS = (0.65, 0.8, 1.0)  # of the widths below
STEM_WIDTHS = tuple(divisible(64 * multiplier) for multiplier in MULTIPLIERS)
STEM_INNER = tuple(divisible(width // 2) for width in STEM_WIDTHS)  # the first two are equal
STAGE_WIDTHS = (256, 512, 1024, 2048)
BASE_DEPTHS, EXTRA_DEPTHS = (2, 2, 4, 2), (0, 1, 2)


@dataclass(frozen=True)
class OfaResNetFamily:
    """The family: see `supernet.families.family.Family` for what its methods promise."""

    name: str
    resolutions: tuple[int, ...]
    stem: Stem
    stages: tuple[Stage, ...]
    percents: tuple[int, ...]
    in_channels: int
    classes: int
    formats: tuple[str, ...] = DEFAULT_FORMATS

    # -- the space ---------------------------------------------------------------------------------

    @cached_property
    def _space(self) -> SearchSpace:
        deep = (("stem.depth", (1,)),)
        first, middle, last = (f"{name}.format" for name in STEM)
        options = [
            Choice("resolution", self.resolutions),
            Choice("stem.depth", (0, 1)),  # residual convolutions
            Choice("stem.inner", self.stem.inner, "pruning"),
            Choice("stem.width", self.stem.widths, "pruning"),
            Choice(first, self.formats, "precision"),
            Choice(middle, self.formats, "precision", deep),
            Choice(last, self.formats, "precision"),
        ]
        for s, stage in enumerate(self.stages):
            options += [Choice(f"s{s}.depth", stage.depths), Choice(f"s{s}.width", stage.widths, "pruning")]
            for b in range(max(stage.depths)):
                options += self._block_choices(s, b)
        return SearchSpace(self.name, (*options, Choice("classifier.format", self.formats, "precision")))

    def _block_choices(self, s: int, b: int) -> list[Choice]:
        depths = self.stages[s].depths
        deep_enough = tuple(depth for depth in depths if depth > b)
        alive = () if b < min(depths) else ((f"s{s}.depth", deep_enough),)
        names = [f"s{s}.b{b}.{part}.format" for part in layers.parts(b)]
        return [
            Choice(f"s{s}.b{b}.expand", self.percents, "pruning", alive),
            *(Choice(name, self.formats, "precision", alive) for name in names),
        ]

    def space(self) -> SearchSpace:
        return self._space

    def arch(self, candidate: Candidate) -> ResNetArch:
        chosen = {
            name: int(option)
            for name, option in self._space.decode(candidate).items()
            if not name.endswith(".format")
        }
        stem = StemSizes(chosen["stem.inner"], chosen["stem.width"], chosen["stem.depth"] > 0)
        blocks = []
        for s in range(len(self.stages)):
            width = chosen[f"s{s}.width"]
            percents = [chosen[f"s{s}.b{b}.expand"] for b in range(chosen[f"s{s}.depth"])]
            blocks.append(tuple(Bottleneck(width, expanded_channels(width, each)) for each in percents))
        return ResNetArch(chosen["resolution"], stem, tuple(blocks))

    def policy(self, candidate: Candidate) -> QuantPolicy:
        return choices.policy(self._space, candidate)

    def resolution(self, candidate: Candidate) -> int:
        return self.arch(candidate).resolution

    def corners(self) -> Mapping[str, Candidate]:
        return choices.corners(self._space, self.formats)

    # -- cost --------------------------------------------------------------------------------------

    def workload(self, candidate: Candidate) -> Workload:
        return self._workload(self.arch(candidate), self.policy(candidate))

    def plain_workload(self, arch: ResNetArch) -> Workload:
        return self._workload(arch, {})

    def _workload(self, arch: ResNetArch, policy: QuantPolicy) -> Workload:
        def precision(name: str) -> str:
            return str(policy[name]) if name in policy else "fp32"

        net = WorkloadBuilder((self.in_channels, arch.resolution, arch.resolution))
        x = layers.append_stem(net, arch.stem, [precision(name) for name in STEM])
        for s, blocks in enumerate(arch.stages):
            for b, block in enumerate(blocks):
                formats = [precision(f"s{s}.b{b}.{part}") for part in layers.parts(b)]
                stride = 1 if b else self.stages[s].stride
                x = layers.append_block(net, x, f"s{s}.b{b}", block, stride, formats)
        layers.append_tail(net, x, self.classes, precision("classifier"))
        return net.build()

    def terms(self) -> tuple[CostTerm, ...]:
        return cost_terms(self._space, self.stages, self.in_channels, self.classes)

    def peak_terms(self) -> tuple[PeakTerm, ...]:
        return peak_terms(self._space, self.stages, self.in_channels, self.classes)

    # -- networks ----------------------------------------------------------------------------------

    def supernet(self, *, rng: np.random.Generator) -> nn.Module:
        return OfaResNet(
            in_channels=self.in_channels,
            stem=self.stem,
            stages=self.stages,
            percent=max(self.percents),
            classes=self.classes,
            rng=rng,
        )

    def extract(self, net: nn.Module, candidate: Candidate) -> Subnet:
        if not isinstance(net, OfaResNet):
            raise TypeError(f"{self.name}: expected an OfaResNet, got {type(net).__name__}")
        arch = self.arch(candidate)
        return Subnet(self.plain_workload(arch), net.extract(arch))


def ofa_resnet50(
    *, in_channels: int, classes: int, formats: tuple[str, ...] = DEFAULT_FORMATS
) -> OfaResNetFamily:
    """The published space, where networks that are one and the same are one: the first two multipliers of the
    stem's inner channels give the same number.
    """
    return OfaResNetFamily(
        name="ofa-resnet50",
        resolutions=RESOLUTIONS,
        stem=Stem(tuple(sorted(set(STEM_INNER))), STEM_WIDTHS),
        stages=tuple(
            Stage(
                tuple(divisible(width * multiplier) for multiplier in MULTIPLIERS),
                1 if s == 0 else 2,
                tuple(base + extra for extra in EXTRA_DEPTHS),
            )
            for s, (width, base) in enumerate(zip(STAGE_WIDTHS, BASE_DEPTHS, strict=True))
        ),
        percents=PERCENTS,
        in_channels=in_channels,
        classes=classes,
        formats=formats,
    )
