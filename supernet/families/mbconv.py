"""Inverted-residual networks: MobileNetV2 blocks with MobileNetV3's elastic kernels (Cai et al. 2020,
arXiv:1908.09791).

Elastic are the input resolution, the depth of each stage, the kernel and the expanded channels of each block
(the pruning dimension, in multiples of 8), and the number format of every convolution and of the classifier.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from torch import nn

from hw_profiles.workload import INPUT, LayerSpec, Workload, WorkloadBuilder
from hw_profiles.workload import conversion as boundary_layers
from supernet.families.mbconv_net import MBConvNet
from supernet.family import CostTerm, load_format
from supernet.policy import Precision, QuantPolicy
from supernet.space import Candidate, Choice, SearchSpace
from supernet.subnet import Subnet

PARTS = ("expand", "depthwise", "project")
DEFAULT_FORMATS = ("fp32", "int8")


@dataclass(frozen=True)
class Stage:
    """One stage: its output width, stride of its first block, and what is elastic in it.

    Attributes:
        width: output channels of every block.
        stride: stride of the first block's depthwise convolution.
        depths: allowed numbers of blocks, ascending.
        expanded: allowed expanded channels, ascending, multiples of 8.
        kernels: allowed depthwise kernels, ascending and odd.
    """

    width: int
    stride: int
    depths: tuple[int, ...]
    expanded: tuple[int, ...]
    kernels: tuple[int, ...] = (3, 5, 7)


@dataclass(frozen=True, slots=True)
class Block:
    """One inverted residual: depthwise kernel and expanded channels."""

    kernel: int
    expanded: int


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
            name.removesuffix(".format"): Precision(*_stored_and_computed(str(option)))
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
        layer = _LayerFactory(self)

        def precision(name: str) -> str:
            return policy[name].weight if name in policy else "fp32"

        net = WorkloadBuilder((self.in_channels, arch.resolution, arch.resolution))
        x = net.add("stem", layer.stem(arch.resolution, precision("stem")), INPUT)
        for s, blocks in enumerate(arch.stages):
            for b, block in enumerate(blocks):
                name, entry = f"s{s}.b{b}", x
                for part in PARTS:
                    spec = layer.part(part, s, b, net.shape(x)[1], block, precision(f"{name}.{part}"))
                    x = net.add(f"{name}.{part}", spec, x)
                if self._has_residual(s, b):
                    spec = layer.add(s, net.shape(x)[1], net.format(entry), precision(f"{name}.project"))
                    x = net.add(f"{name}.add", spec, x, entry)
        size = net.shape(x)[1]
        x = net.add("head", layer.head(size, precision("head")), x)
        x = net.add("pool", layer.pool(size, precision("head")), x)
        net.add("classifier", layer.classifier(precision("classifier")), x)
        return net.build()

    def _has_residual(self, s: int, b: int) -> bool:
        stage = self.stages[s]
        return b > 0 or (stage.stride == 1 and self._entry_width(s, b) == stage.width)

    def _entry_width(self, s: int, b: int) -> int:
        if b > 0:
            return self.stages[s].width
        return self.stages[s - 1].width if s > 0 else self.stem_width

    def _entry_size(self, resolution: int, s: int, b: int) -> int:
        """Height and width of the map that block `b` of stage `s` reads."""
        size = -(-resolution // 2)
        for stage in self.stages[: s + (b > 0)]:
            size = -(-size // stage.stride)
        return size

    def terms(self) -> tuple[CostTerm, ...]:
        terms = [self._stem_term()]
        for s, stage in enumerate(self.stages):
            for b in range(max(stage.depths)):
                terms += self._block_terms(s, b)
        return (*terms, *self._tail_terms())

    def _term(self, names: tuple[str, ...], layers: Callable[..., tuple[LayerSpec, ...]]) -> CostTerm:
        """A term whose function takes the chosen options themselves, by position."""
        columns = tuple(self._space.columns[name] for name in names)
        options = [self._space.choices[column].options for column in columns]

        def of_genes(genes: tuple[int, ...]) -> tuple[LayerSpec, ...]:
            return layers(*(choice[gene] for choice, gene in zip(options, genes, strict=True)))

        return CostTerm(columns, of_genes)

    def _stem_term(self) -> CostTerm:
        layer = _LayerFactory(self)

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
        layer, block, entry = _LayerFactory(self), f"s{s}.b{b}", self._entry_formats(s, b)
        stride = self.stages[s].stride if b == 0 else 1
        shared = ("resolution", f"s{s}.depth", f"{block}.expanded")

        def boundaries(
            resolution: int, depth: int, expand: str, project: str, *before: int | str
        ) -> tuple[LayerSpec, ...]:
            if depth <= b:
                return ()
            size = self._entry_size(resolution, s, b)
            found = self._entry_format(s, b, before)
            shape = (self._entry_width(s, b), size, size)
            if not self._has_residual(s, b):
                return conversion(shape, found, expand)
            converted = [*conversion(shape, found, expand), *conversion(shape, found, project)]
            if converted and converted[0].op == "quantize":
                converted = converted[:1]  # quantized once for both
            return (layer.add(s, size, found, project), *converted)

        def expand(
            resolution: int, depth: int, expanded: int, expand: str, depthwise: str
        ) -> tuple[LayerSpec, ...]:
            if depth <= b:
                return ()
            size = self._entry_size(resolution, s, b)
            spec = layer.part("expand", s, b, size, Block(1, expanded), expand)
            return (spec, *conversion((expanded, size, size), expand, depthwise))

        def depthwise(
            resolution: int, depth: int, expanded: int, kernel: int, depthwise: str
        ) -> tuple[LayerSpec, ...]:
            size = self._entry_size(resolution, s, b)
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
            size = -(-self._entry_size(resolution, s, b) // stride)
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
        layer, s = _LayerFactory(self), len(self.stages)
        width = self.stages[-1].width

        def boundary(resolution: int, head: str, *before: int | str) -> tuple[LayerSpec, ...]:
            size = self._entry_size(resolution, s, 0)
            return conversion((width, size, size), self._entry_format(s, 0, before), head)

        def tail(resolution: int, head: str, classifier: str) -> tuple[LayerSpec, ...]:
            size = self._entry_size(resolution, s, 0)
            pooled = conversion((self.head_width, 1, 1), head, classifier)
            return (layer.head(size, head), layer.pool(size, head), *pooled, layer.classifier(classifier))

        return [
            self._term(("resolution", "head.format", *self._entry_formats(s, 0)), boundary),
            self._term(("resolution", "head.format", "classifier.format"), tail),
        ]

    # -- networks ----------------------------------------------------------------------------------

    def supernet(self, *, rng: np.random.Generator) -> nn.Module:
        return MBConvNet(
            in_channels=self.in_channels,
            stem_width=self.stem_width,
            stages=[
                [
                    (
                        self._entry_width(s, b),
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


@cache
def _stored_and_computed(fmt: str) -> tuple[str, str]:
    """Formats of a layer's weights and of its activations, by the one choice that sets both."""
    return fmt, load_format(fmt).activation_format


def conversion(shape: tuple[int, int, int], found: str, wanted: str) -> tuple[LayerSpec, ...]:
    """What stands between two layers of these choices."""
    return boundary_layers(shape, _stored_and_computed(found)[1], _stored_and_computed(wanted)[1])


@dataclass(frozen=True)
class _LayerFactory:
    """The layer specs of the family, by position: the one place that `workload` and `terms` take them
    from.
    """

    family: MBConvFamily

    def stem(self, resolution: int, fmt: str) -> LayerSpec:
        family = self.family
        shape = (family.in_channels, resolution, resolution)
        return LayerSpec("stem", shape, family.stem_width, 3, 2, 1, "relu", *_stored_and_computed(fmt))

    def part(self, part: str, s: int, b: int, size: int, block: Block, fmt: str) -> LayerSpec:
        stage, mid = self.family.stages[s], block.expanded
        if part == "expand":
            return LayerSpec(
                "conv",
                (self.family._entry_width(s, b), size, size),
                mid,
                1,
                1,
                1,
                "relu",
                *_stored_and_computed(fmt),
            )
        if part == "project":
            return LayerSpec(
                "conv", (mid, size, size), stage.width, 1, 1, 1, "none", *_stored_and_computed(fmt)
            )
        stride = stage.stride if b == 0 else 1
        return LayerSpec(
            "conv", (mid, size, size), mid, block.kernel, stride, mid, "relu", *_stored_and_computed(fmt)
        )

    def add(self, s: int, size: int, shortcut: str, fmt: str) -> LayerSpec:
        (_, found), (_, computed) = _stored_and_computed(shortcut), _stored_and_computed(fmt)
        width, op = self.family.stages[s].width, "add" if found == computed else "add_converted"
        return LayerSpec(op, (width, size, size), width, activation_format=computed)

    def head(self, size: int, fmt: str) -> LayerSpec:
        shape = (self.family.stages[-1].width, size, size)
        return LayerSpec("conv", shape, self.family.head_width, 1, 1, 1, "relu", *_stored_and_computed(fmt))

    def pool(self, size: int, fmt: str) -> LayerSpec:
        width = self.family.head_width
        return LayerSpec("pool", (width, size, size), width, activation_format=_stored_and_computed(fmt)[1])

    def classifier(self, fmt: str) -> LayerSpec:
        family = self.family
        weight, activation = _stored_and_computed(fmt)
        return LayerSpec(
            "linear",
            (family.head_width, 1, 1),
            family.classes,
            weight_format=weight,
            activation_format=activation,
        )


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
