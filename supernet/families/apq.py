"""APQ's space: ProxylessNAS's networks with elastic depths, kernels and expanded channels, and four
bit-widths at every position (Wang et al. 2020, arXiv:2006.08509).

Of each of the 21 positions, the two pointwise convolutions share a format of weights and one of activations,
and the depthwise convolution has two of its own. Stem, first block, head and classifier are 8-bit. A tensor
has the activation format of the layer that gives it, and is converted where the next one reads another.

Besides the published, integer networks the space holds every architecture in fp32: that is what the
supernet is trained in, what percentages refer to, and what the accuracy predictor transfers from. One choice,
`policy`, switches between the two, and the formats of the positions are alive in an integer network only; so
no network mixes fp32 layers with integer ones, as none of the published does.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import nn

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.builder import WorkloadBuilder
from hw_profiles.graph.layer import FP32
from hw_profiles.graph.workload import Workload
from supernet.families.apq_layers import ENDS, RESOLUTION, ApqLayers, apq_layers, expanded_widths
from supernet.families.apq_net import ApqNet
from supernet.families.apq_terms import INTEGER, cost_terms, end_precision, peak_terms, precision
from supernet.families.family import CostTerm, PeakTerm
from supernet.families.mbconv import MBConvArch
from supernet.families.mbconv_layers import PARTS, Block
from supernet.formats.loading import QuantPolicy, parse_precision
from supernet.graph.subnet import Subnet
from supernet.space.space import Candidate, Choice, SearchSpace

INTEGER_FORMATS = ("int8", "int6", "int4")  # of weights and of activations, 4, 6 and 8 bits in APQ
DEFAULT_FORMATS = (FP32, *INTEGER_FORMATS)
GENES = ("pointwise.weight", "pointwise.activation", "depthwise.weight", "depthwise.activation")


@dataclass(frozen=True)
class ApqFamily:
    """The family: see `supernet.families.family.Family` for what its methods promise.

    Attributes:
        formats: what networks can be in: `fp32` throughout, and the integer formats of weights and of
            activations. Without fp32 the space is the published one and nothing else.
    """

    name: str
    in_channels: int
    classes: int
    formats: tuple[str, ...] = DEFAULT_FORMATS

    def __post_init__(self) -> None:
        unknown = [fmt for fmt in self.formats if fmt not in DEFAULT_FORMATS]
        if unknown or set(self.formats) <= {FP32}:
            given = ", ".join(unknown or self.formats)
            raise TrilobitError(
                f"{self.name} cannot be searched in {given}: it chooses the formats of weights and of "
                f"activations, of {', '.join(INTEGER_FORMATS)} at least one; fp32 is of whole networks"
            )

    @cached_property
    def _layers(self) -> ApqLayers:
        return apq_layers(self.in_channels, self.classes)

    @cached_property
    def _integers(self) -> tuple[str, ...]:
        return tuple(fmt for fmt in self.formats if fmt != FP32)

    # -- the space ---------------------------------------------------------------------------------

    @cached_property
    def _space(self) -> SearchSpace:
        policies = (FP32, INTEGER) if FP32 in self.formats else (INTEGER,)
        choices = [Choice("policy", policies, "precision")]
        for s, stage in enumerate(self._layers.stages):
            if len(stage.depths) > 1:
                choices.append(Choice(f"s{s}.depth", stage.depths))
            for b in range(max(stage.depths)):
                deep_enough = tuple(depth for depth in stage.depths if depth > b)
                alive = () if b < min(stage.depths) else ((f"s{s}.depth", deep_enough),)
                block, widths = f"s{s}.b{b}", expanded_widths(self._layers.entry_width(s, b))
                choices.append(Choice(f"{block}.kernel", stage.kernels, "architecture", alive))
                choices.append(Choice(f"{block}.expanded", widths, "pruning", alive))
                quantized = (("policy", (INTEGER,)), *alive)
                choices += [
                    Choice(f"{block}.{gene}", self._integers, "precision", quantized) for gene in GENES
                ]
        return SearchSpace(self.name, tuple(choices))

    def space(self) -> SearchSpace:
        return self._space

    def arch(self, candidate: Candidate) -> MBConvArch:
        decisions, stages = self._space.decode(candidate), self._layers.stages
        return MBConvArch(
            RESOLUTION,
            tuple(
                tuple(
                    Block(int(decisions[f"s{s}.b{b}.kernel"]), int(decisions[f"s{s}.b{b}.expanded"]))
                    for b in range(int(decisions.get(f"s{s}.depth", stage.depths[0])))
                )
                for s, stage in enumerate(stages)
            ),
        )

    def policy(self, candidate: Candidate) -> QuantPolicy:
        decisions = self._space.decode(candidate)
        policy = str(decisions["policy"])
        out = {name: parse_precision(end_precision(policy)) for name in ENDS}
        for s, blocks in enumerate(self.arch(candidate).stages):
            for b in range(len(blocks)):
                genes = [str(decisions.get(f"s{s}.b{b}.{gene}", FP32)) for gene in GENES]
                pointwise, depthwise = precision(policy, *genes[:2]), precision(policy, *genes[2:])
                parts = zip(PARTS, (pointwise, depthwise, pointwise), strict=True)
                out |= {f"s{s}.b{b}.{part}": parse_precision(fmt) for part, fmt in parts}
        return out

    def resolution(self, candidate: Candidate) -> int:
        return RESOLUTION

    def corners(self) -> Mapping[str, Candidate]:
        out = {}
        for (size, end), fmt in itertools.product((("smallest", 0), ("largest", -1)), self.formats):
            genome = [
                end % len(choice.options) if choice.kind != "precision" else self._uniform(choice, fmt)
                for choice in self._space.choices
            ]
            out[f"{size}/{fmt}"] = self._space.candidate(np.array(genome, np.int16))
        return out

    def _uniform(self, choice: Choice, fmt: str) -> int:
        """The gene of a precision choice in a network of one format."""
        wanted = (INTEGER if fmt != FP32 else FP32) if choice.name == "policy" else fmt
        return choice.options.index(wanted) if wanted in choice.options else 0

    # -- cost ---------------------------------------------------------------------------------

    def workload(self, candidate: Candidate) -> Workload:
        return self._workload(self.arch(candidate), self.policy(candidate))

    def plain_workload(self, arch: MBConvArch) -> Workload:
        return self._workload(arch, {})

    def _workload(self, arch: MBConvArch, policy: QuantPolicy) -> Workload:
        def formats(name: str) -> str:
            return str(policy[name]) if name in policy else FP32

        net = WorkloadBuilder((self.in_channels, arch.resolution, arch.resolution))
        x = self._layers.append_stem(net, formats("stem"))
        for s, blocks in enumerate(arch.stages):
            for b, block in enumerate(blocks):
                parts = [formats(f"s{s}.b{b}.{part}") for part in PARTS]
                x = self._layers.append_block(net, x, s, b, block, parts)
        self._layers.append_tail(net, x, formats("head"), formats("classifier"))
        return net.build()

    def terms(self) -> tuple[CostTerm, ...]:
        return cost_terms(self._space, self._layers)

    def peak_terms(self) -> tuple[PeakTerm, ...]:
        return peak_terms(self._space, self._layers)

    # -- networks ----------------------------------------------------------------------------------

    def supernet(self, *, rng: np.random.Generator) -> nn.Module:
        layers = self._layers
        stages = [
            [
                (
                    layers.entry_width(s, b),
                    max(expanded_widths(layers.entry_width(s, b))),
                    stage.width,
                    max(stage.kernels),
                    stage.stride if b == 0 else 1,
                )
                for b in range(max(stage.depths))
            ]
            for s, stage in enumerate(layers.stages)
        ]
        return ApqNet(
            in_channels=self.in_channels,
            first_width=layers.stem_width,
            stages=stages,
            classes=self.classes,
            rng=rng,
        )

    def extract(self, net: nn.Module, candidate: Candidate) -> Subnet:
        if not isinstance(net, ApqNet):
            raise TypeError(f"{self.name}: expected an ApqNet, got {type(net).__name__}")
        arch = self.arch(candidate)
        return Subnet(self.plain_workload(arch), net.extract(arch))


def apq_proxyless(*, in_channels: int, classes: int, formats: tuple[str, ...] = DEFAULT_FORMATS) -> ApqFamily:
    """The published space: 21 positions in six stages at 224 px, 4, 6 or 8 bits."""
    return ApqFamily("apq-proxyless", in_channels, classes, formats)
