"""Staged networks: in every stage one block type and one window of output widths (SpaceEvo, Wang et al. 2023,
arXiv:2303.08308).

Elastic are the input resolution, the depth and the width of each stage, the kernel and the middle channels of
each block, and the number format of every convolution and of the classifier. `nas spaces design` chooses
block types and windows for a device and writes the space as a file; `staged_file` reads it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import nn

from hw_profiles.graph.builder import WorkloadBuilder
from hw_profiles.graph.workload import Workload
from supernet.families import choices
from supernet.families.family import CostTerm, PeakTerm
from supernet.families.mbconv import DEFAULT_FORMATS
from supernet.families.staged_layers import Ends, Sizes, Stage, StagedArch, append_block, middle_channels
from supernet.families.staged_net import StagedNet
from supernet.families.staged_terms import Whole
from supernet.formats.loading import QuantPolicy
from supernet.graph.subnet import Subnet
from supernet.space.space import Candidate, Choice, SearchSpace


@dataclass(frozen=True)
class StagedFamily:
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

    @property
    def ends(self) -> Ends:
        """What comes before and after the stages."""
        return Ends(self.stem_width, self.stem_stride, self.head_width, self.classes)

    # -- the space ---------------------------------------------------------------------------------

    @cached_property
    def _space(self) -> SearchSpace:
        found = [Choice("resolution", self.resolutions), Choice("stem.format", self.formats, "precision")]
        for s, stage in enumerate(self.stages):
            found += [Choice(f"s{s}.depth", stage.depths), Choice(f"s{s}.width", stage.widths, "pruning")]
            for b in range(max(stage.depths)):
                found += self._block_choices(s, b)
        found += [Choice(f"{layer}.format", self.formats, "precision") for layer in ("head", "classifier")]
        return SearchSpace(self.name, tuple(found))

    def _block_choices(self, s: int, b: int) -> list[Choice]:
        stage, block = self.stages[s], f"s{s}.b{b}"
        deep_enough = tuple(depth for depth in stage.depths if depth > b)
        alive = () if b < min(stage.depths) else ((f"s{s}.depth", deep_enough),)
        middle = [Choice(f"{block}.expand", stage.percents, "pruning", alive)] if stage.type.expands else []
        names = [f"{block}.{part.name}.format" for part in stage.type.parts]
        return [
            Choice(f"{block}.kernel", stage.kernels, "architecture", alive),
            *middle,
            *(Choice(name, self.formats, "precision", alive) for name in names),
        ]

    def space(self) -> SearchSpace:
        return self._space

    def arch(self, candidate: Candidate) -> StagedArch:
        chosen = {
            name: int(option)
            for name, option in self._space.decode(candidate).items()
            if not name.endswith(".format")
        }
        stages = []
        for s in range(len(self.stages)):
            width, blocks = chosen[f"s{s}.width"], [f"s{s}.b{b}" for b in range(chosen[f"s{s}.depth"])]
            middle = [middle_channels(width, chosen.get(f"{block}.expand", 100)) for block in blocks]
            kernels = [chosen[f"{block}.kernel"] for block in blocks]
            stages.append(tuple(Sizes(width, m, k) for m, k in zip(middle, kernels, strict=True)))
        return StagedArch(chosen["resolution"], tuple(stages))

    def policy(self, candidate: Candidate) -> QuantPolicy:
        return choices.policy(self._space, candidate)

    def resolution(self, candidate: Candidate) -> int:
        return self.arch(candidate).resolution

    def corners(self) -> Mapping[str, Candidate]:
        return choices.corners(self._space, self.formats)

    # -- cost --------------------------------------------------------------------------------------

    def workload(self, candidate: Candidate) -> Workload:
        return self._workload(self.arch(candidate), self.policy(candidate))

    def plain_workload(self, arch: StagedArch) -> Workload:
        return self._workload(arch, {})

    def _workload(self, arch: StagedArch, policy: QuantPolicy) -> Workload:
        def precision(name: str) -> str:
            return str(policy[name]) if name in policy else "fp32"

        net = WorkloadBuilder((self.in_channels, arch.resolution, arch.resolution))
        x = self.ends.append_stem(net, precision("stem"))
        for s, (stage, blocks) in enumerate(zip(self.stages, arch.stages, strict=True)):
            for b, sizes in enumerate(blocks):
                name = f"s{s}.b{b}"
                formats = [precision(f"{name}.{part.name}") for part in stage.type.parts]
                x = append_block(net, x, name, stage, sizes, b, formats)
        self.ends.append_tail(net, x, precision("head"), precision("classifier"))
        return net.build()

    def terms(self) -> tuple[CostTerm, ...]:
        return self._whole.cost_terms()

    def peak_terms(self) -> tuple[PeakTerm, ...]:
        return self._whole.peak_terms()

    @property
    def _whole(self) -> Whole:
        return Whole(self._space, self.ends, self.stages, self.in_channels)

    # -- networks ----------------------------------------------------------------------------------

    def supernet(self, *, rng: np.random.Generator) -> nn.Module:
        return StagedNet(in_channels=self.in_channels, ends=self.ends, stages=self.stages, rng=rng)

    def extract(self, net: nn.Module, candidate: Candidate) -> Subnet:
        if not isinstance(net, StagedNet):
            raise TypeError(f"{self.name}: expected a StagedNet, got {type(net).__name__}")
        arch = self.arch(candidate)
        return Subnet(self.plain_workload(arch), net.extract(arch))


def digits_staged(
    *, in_channels: int, classes: int, formats: tuple[str, ...] = DEFAULT_FORMATS
) -> StagedFamily:
    """One stage of every block type, at the size of the embedded digits."""
    return StagedFamily(
        name="digits-staged",
        resolutions=(14, 28),
        stem_width=8,
        stages=(
            Stage("fused", (8, 16), 1, (1, 2), (3,), (100, 200)),
            Stage("inverted", (16, 24), 2, (1, 2), (3, 5), (100, 300)),
            Stage("bottleneck", (24, 32), 2, (1, 2), (3, 5), (50, 100)),
            Stage("separable", (32, 48), 1, (1, 2), (3, 5)),
        ),
        head_width=96,
        in_channels=in_channels,
        classes=classes,
        formats=formats,
    )
