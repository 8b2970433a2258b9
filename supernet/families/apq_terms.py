"""Costs and memory of APQ's networks, each by the few genes that decide it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TypeVar

from hw_profiles.graph.builder import WorkloadBuilder, conversion, conversions
from hw_profiles.graph.layer import FP32, Layer
from hw_profiles.graph.workload import Workload
from supernet.families.apq_layers import FIXED_FORMAT, RESOLUTION, ApqLayers
from supernet.families.choices import of_options
from supernet.families.family import CostTerm, PeakTerm
from supernet.families.mbconv_layers import Block, Entry
from supernet.formats.loading import Precision
from supernet.space.space import SearchSpace

INTEGER = "integer"  # what the choice `policy` is in a quantized network; else `fp32`
Layers = tuple[Layer, ...]
Result = TypeVar("Result")


def precision(policy: str, weight: str, activation: str) -> str:
    """A layer's formats as `supernet.families.family.parse_precision` reads them."""
    return str(Precision(weight, activation)) if policy == INTEGER else FP32


def end_precision(policy: str) -> str:
    """The formats of a layer that never changes."""
    return precision(policy, FIXED_FORMAT, FIXED_FORMAT)


@dataclass(frozen=True)
class Position:
    """One of the positions, or the head for `s` past the end: what its terms have in common."""

    space: SearchSpace
    layers: ApqLayers
    s: int
    b: int

    @property
    def name(self) -> str:
        return f"s{self.s}.b{self.b}"

    @property
    def mortal(self) -> bool:
        """Whether some networks do without it."""
        return self.s < len(self.layers.stages) and self.b >= min(self.layers.stages[self.s].depths)

    def entries(self) -> list[Entry]:
        """The layers that its input can come from, by the choices of their activations."""
        if self.b > 0:
            return [Entry((f"s{self.s}.b{self.b - 1}.pointwise.activation",))]
        if self.s == 0:
            return [Entry(())]
        stage, depths = f"s{self.s - 1}", self.layers.stages[self.s - 1].depths
        last = [f"{stage}.b{depth - 1}.pointwise.activation" for depth in depths]
        if len(depths) == 1:
            return [Entry((last[0],))]
        return [Entry((name, f"{stage}.depth"), depth) for name, depth in zip(last, depths, strict=True)]

    def of_options(
        self, names: Sequence[str], function: Callable[..., Result], absent: Result
    ) -> tuple[tuple[int, ...], Callable[[tuple[int, ...]], Result]]:
        """Columns and a function of their genes, from one of the options of `policy` and of the position's
        choices called `names`; `absent` where the network does without the position.
        """
        if not self.mortal:
            return of_options(self.space, ("policy", *names), function)

        def living(depth: int, *options: int | str) -> Result:
            return function(*options) if depth > self.b else absent

        return of_options(self.space, (f"s{self.s}.depth", "policy", *names), living)

    def found(self, policy: str, options: Sequence[int | str], entry: Entry) -> str | None:
        """The format of its input, from the options of `entry.names`; None where it does not come from
        there.
        """
        found = _tensor(policy, str(options[0]) if options else FIXED_FORMAT)
        return found if entry.holds(options[1:]) else None

    # -- cost --------------------------------------------------------------------------------------

    def term(self, names: Sequence[str], layers: Callable[..., Layers]) -> CostTerm:
        """The layers that the options of `policy` and of the position's choices called `names` give."""
        absent: Layers = ()
        return CostTerm(*self.of_options(names, layers, absent))

    def cost_terms(self) -> list[CostTerm]:
        """The position's layers, with the conversions before and within it."""
        block = self.name
        pointwise = [f"{block}.pointwise.{of}" for of in ("weight", "activation")]
        depthwise = [f"{block}.depthwise.{of}" for of in ("weight", "activation")]
        return [
            *(self.entry_term(entry) for entry in self.entries()),
            self.term((f"{block}.expanded", *pointwise, depthwise[1]), self._expand),
            self.term((f"{block}.expanded", f"{block}.kernel", *depthwise), self._depthwise),
            self.term((f"{block}.expanded", *pointwise, depthwise[1]), self._project),
        ]

    def entry_term(self, entry: Entry) -> CostTerm:
        """The conversions of the input where it comes from `entry`, and the sum where there is one."""
        s, b, shape = self.s, self.b, self.layers.entry_shape(RESOLUTION, self.s, self.b)

        def entered(policy: str, activation: str, *before: int | str) -> Layers:
            wanted, found = _tensor(policy, activation), self.found(policy, before, entry)
            if found is None:
                return ()
            if not self.layers.has_residual(s, b):
                return conversion(shape, found, wanted)
            add = self.layers.add(s, shape[1], *(str(Precision(fmt, fmt)) for fmt in (found, wanted)))
            return (add, *conversions(shape, found, (wanted, wanted)))

        return self.term((f"{self.name}.pointwise.activation", *entry.names), entered)

    @property
    def _size(self) -> int:
        return self.layers.entry_size(RESOLUTION, self.s, self.b)

    def _expand(self, policy: str, expanded: int, weight: str, activation: str, reader: str) -> Layers:
        formats = precision(policy, weight, activation)
        layer = self.layers.part("expand", self.s, self.b, self._size, Block(1, expanded), formats)
        return (layer, *conversion(layer.out_shape, layer.out_format, _tensor(policy, reader)))

    def _depthwise(self, policy: str, expanded: int, kernel: int, weight: str, activation: str) -> Layers:
        formats = precision(policy, weight, activation)
        return (self.layers.part("depthwise", self.s, self.b, self._size, Block(kernel, expanded), formats),)

    def _project(self, policy: str, expanded: int, weight: str, activation: str, found: str) -> Layers:
        stride = self.layers.stages[self.s].stride if self.b == 0 else 1
        size, formats = -(-self._size // stride), precision(policy, weight, activation)
        layer = self.layers.part("project", self.s, self.b, size, Block(1, expanded), formats)
        return (*conversion(layer.in_shape, _tensor(policy, found), layer.in_format), layer)

    # -- memory ------------------------------------------------------------------------------------

    def peak_terms(self) -> list[PeakTerm]:
        """The position as a network by itself; its kernel and the formats of its weights do not matter."""
        alone, absent = cache(self.layers.block_alone), None
        names = [
            f"{self.name}.{gene}" for gene in ("expanded", "pointwise.activation", "depthwise.activation")
        ]

        def of(entry: Entry) -> Callable[..., Workload | None]:
            def part(
                policy: str, expanded: int, pointwise: str, depthwise: str, *before: int | str
            ) -> Workload | None:
                found = self.found(policy, before, entry)
                formats = tuple(precision(policy, fmt, fmt) for fmt in (pointwise, depthwise, pointwise))
                block, where = Block(1, expanded), (RESOLUTION, self.s, self.b)
                return None if found is None else alone(*where, block, formats, str(Precision(found, found)))

            return part

        return [
            PeakTerm(*self.of_options((*names, *entry.names), of(entry), absent)) for entry in self.entries()
        ]


def _tensor(policy: str, activation: str) -> str:
    """The format of a tensor that a layer of this activation format gives or reads."""
    return activation if policy == INTEGER else FP32


def positions(space: SearchSpace, layers: ApqLayers) -> list[Position]:
    """All of them, in order."""
    return [
        Position(space, layers, s, b)
        for s, stage in enumerate(layers.stages)
        for b in range(max(stage.depths))
    ]


def cost_terms(space: SearchSpace, layers: ApqLayers) -> tuple[CostTerm, ...]:
    """The terms of a whole network: stem and first block, positions, head."""

    def beginning(policy: str) -> Layers:
        formats = end_precision(policy)
        stem = layers.stem(RESOLUTION, formats)
        first = layers.first_block(RESOLUTION, formats).values()
        return (*conversion(stem.in_shape, FP32, stem.in_format), stem, *first)

    end = Position(space, layers, len(layers.stages), 0)

    def entered(policy: str, *before: int | str, entry: Entry) -> Layers:
        found = end.found(policy, before, entry)
        wanted = layers.head(1, end_precision(policy)).in_format
        return () if found is None else conversion(layers.entry_shape(RESOLUTION, end.s, 0), found, wanted)

    def tail(policy: str) -> Layers:
        size, formats = layers.entry_size(RESOLUTION, end.s, 0), end_precision(policy)
        return (layers.head(size, formats), layers.pool(size, formats), layers.classifier(formats))

    return (
        end.term((), beginning),
        *(term for position in positions(space, layers) for term in position.cost_terms()),
        *(end.term(entry.names, partial(entered, entry=entry)) for entry in end.entries()),
        end.term((), tail),
    )


def peak_terms(space: SearchSpace, layers: ApqLayers) -> tuple[PeakTerm, ...]:
    """The parts of a whole network between single tensors: stem and first block, positions, head."""

    def beginning(policy: str) -> Workload:
        net = WorkloadBuilder((layers.in_channels, RESOLUTION, RESOLUTION))
        layers.append_stem(net, end_precision(policy))
        return net.build()

    end = Position(space, layers, len(layers.stages), 0)

    def tail(policy: str, *before: int | str, entry: Entry) -> Workload | None:
        found, formats = end.found(policy, before, entry), end_precision(policy)
        if found is None:
            return None
        return layers.tail_alone(RESOLUTION, formats, formats, str(Precision(found, found)))

    return (
        PeakTerm(*of_options(space, ("policy",), beginning)),
        *(term for position in positions(space, layers) for term in position.peak_terms()),
        *(
            PeakTerm(*of_options(space, ("policy", *entry.names), partial(tail, entry=entry)))
            for entry in end.entries()
        ),
    )
