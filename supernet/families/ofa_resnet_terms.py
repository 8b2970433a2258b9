"""Costs and memory of once-for-all's ResNet50, each by the few genes that decide it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

from hw_profiles.graph.layer import Layer
from hw_profiles.graph.workload import Workload
from supernet.families import ofa_resnet_layers as net
from supernet.families.choices import of_options
from supernet.families.family import CostTerm, PeakTerm
from supernet.families.mbconv_layers import Entry, computed_as, conversion, conversions, stored_and_computed
from supernet.families.ofa_resnet_layers import STEM, Bottleneck, Shape, Stage, StemSizes
from supernet.space.space import SearchSpace

Layers = tuple[Layer, ...]
Part = Callable[..., Workload]
NARROWEST = 1  # channels of an entry that no peak depends on


@dataclass(frozen=True)
class Position:
    """One block: what its terms have in common. `s` past the end is what comes after the blocks."""

    space: SearchSpace
    stages: tuple[Stage, ...]
    s: int
    b: int

    @property
    def name(self) -> str:
        return f"s{self.s}.b{self.b}"

    @property
    def formats(self) -> tuple[str, ...]:
        """Names of the choices of its layers' formats."""
        return tuple(f"{self.name}.{part}.format" for part in net.parts(self.b))

    @property
    def sizes(self) -> tuple[str, ...]:
        """Names of the choices of its channels."""
        return (f"s{self.s}.width", f"{self.name}.expand")

    @property
    def stride(self) -> int:
        return 1 if self.b else self.stages[self.s].stride

    @property
    def entry_width(self) -> str:
        """Name of the choice of the channels that it reads."""
        if self.b:
            return f"s{self.s}.width"
        return f"s{self.s - 1}.width" if self.s else "stem.width"

    def entries(self) -> list[Entry]:
        """The layers whose formats that of its input can be: the last ones before it."""
        if self.b:
            return [Entry((f"s{self.s}.b{self.b - 1}.conv3.format",))]
        if not self.s:
            return [Entry((f"{STEM[-1]}.format",))]
        stage, depths = f"s{self.s - 1}", self.stages[self.s - 1].depths
        return [Entry((f"{stage}.b{depth - 1}.conv3.format", f"{stage}.depth"), depth) for depth in depths]

    def size(self, resolution: int) -> int:
        """Height and width of the tensor that it reads."""
        return net.entry_size(self.stages, resolution, self.s, self.b)

    def shapes(self, resolution: int, width: int) -> tuple[Shape, Shape]:
        """The tensor of `width` channels that it reads, and the same averaged for the shortcut."""
        size = self.size(resolution)
        averaged = -(-size // self.stride)
        return (width, size, size), (width, averaged, averaged)

    # -- cost --------------------------------------------------------------------------------------

    def term(self, names: Sequence[str], layers: Callable[..., Layers]) -> CostTerm:
        """The layers that the resolution and the choices called `names` give, where the block is there."""
        if self.b < min(self.stages[self.s].depths):
            return CostTerm(*of_options(self.space, ("resolution", *names), layers))

        def living(depth: int, *options: int | str) -> Layers:
            return layers(*options) if depth > self.b else ()

        return CostTerm(*of_options(self.space, (f"s{self.s}.depth", "resolution", *names), living))

    def cost_terms(self) -> list[CostTerm]:
        """The block's layers, with the conversions before and within it."""
        conv1, conv2, conv3, *_ = self.formats
        entered = () if self.b else (self.entry_width,)
        return [
            *(self._sum_terms() if self.b else self._shortcut_terms()),
            self.term((*self.sizes, conv1, conv2, *entered), self._conv1),
            self.term((*self.sizes, conv2, conv3), self._conv2),
            self.term((*self.sizes, conv3), self._conv3),
        ]

    def _sum_terms(self) -> list[CostTerm]:
        """Of a block with an identity as shortcut."""
        conv1, _, conv3 = self.formats
        names = (f"s{self.s}.width", conv1, conv3)
        return [self.term((*names, *entry.names), self._identity) for entry in self.entries()]

    def _shortcut_terms(self) -> list[CostTerm]:
        """Of a first block."""
        _, _, conv3, shortcut = self.formats
        width = f"s{self.s}.width"
        return [
            *(self.term((*self._entered, *e.names), partial(self._first, entry=e)) for e in self.entries()),
            self.term((width, self.entry_width, shortcut), self._shortcut),
            self.term((width, shortcut, conv3), self._first_sum),
        ]

    @property
    def _entered(self) -> tuple[str, ...]:
        """Names of the choices, besides its entry's, that decide what becomes of a first block's input."""
        return (self.entry_width, self.formats[0], self.formats[-1])

    def _first(
        self, resolution: int, width: int, conv1: str, shortcut: str, found: str, *before: int, entry: Entry
    ) -> Layers:
        if not entry.holds(before):
            return ()
        shape, averaged = self.shapes(resolution, width)
        if self.stride == 1:
            return conversions(shape, found, shortcut, conv1)
        pool = net.average_pooling(shape, self.stride, computed(found))
        return (*conversion(shape, found, conv1), pool, *conversion(averaged, found, shortcut))

    def _shortcut(self, resolution: int, width: int, entry_width: int, fmt: str) -> Layers:
        _, averaged = self.shapes(resolution, entry_width)
        return (net.part("shortcut", averaged, Bottleneck(width, 1), 1, fmt),)

    def _first_sum(self, resolution: int, width: int, shortcut: str, conv3: str) -> Layers:
        _, shape = self.shapes(resolution, width)
        total = net.add(shape, computed(shortcut), computed(conv3))
        return (*conversion(shape, shortcut, conv3), total)

    def _identity(self, resolution: int, width: int, conv1: str, conv3: str, found: str) -> Layers:
        shape, _ = self.shapes(resolution, width)
        total = net.add(shape, computed(found), computed(conv3))
        return (*conversions(shape, found, conv1, conv3), total)

    def _conv1(
        self, resolution: int, width: int, percent: int, conv1: str, conv2: str, *entered: int
    ) -> Layers:
        shape, _ = self.shapes(resolution, *entered or (width,))
        layer = net.part("conv1", shape, self.block(width, percent), self.stride, conv1)
        return (layer, *conversion(layer.out_shape, conv1, conv2))

    def _conv2(self, resolution: int, width: int, percent: int, conv2: str, conv3: str) -> Layers:
        block = self.block(width, percent)
        shape, _ = self.shapes(resolution, block.expanded)
        layer = net.part("conv2", shape, block, self.stride, conv2)
        return (layer, *conversion(layer.out_shape, conv2, conv3))

    def _conv3(self, resolution: int, width: int, percent: int, conv3: str) -> Layers:
        block = self.block(width, percent)
        _, shape = self.shapes(resolution, block.expanded)
        return (net.part("conv3", shape, block, self.stride, conv3),)

    def block(self, width: int, percent: int) -> Bottleneck:
        """Its sizes by the options chosen."""
        return Bottleneck(width, net.expanded_channels(width, percent))

    # -- memory ------------------------------------------------------------------------------------

    def peak_term(self, names: Sequence[str], part: Callable[..., Workload | None]) -> PeakTerm:
        """As `term`."""
        if self.b < min(self.stages[self.s].depths):
            return PeakTerm(*of_options(self.space, ("resolution", *names), part))

        def living(depth: int, *options: int | str) -> Workload | None:
            return part(*options) if depth > self.b else None

        return PeakTerm(*of_options(self.space, (f"s{self.s}.depth", "resolution", *names), living))

    def peak_terms(self, parts: "StageParts") -> list[PeakTerm]:
        """A block with an identity as shortcut is one part. A first block is cut in two, since too many genes
        decide it as a whole: up to its first convolution, and from there on.
        """
        entries = self.entries()
        if self.b:
            return [self.peak_term((*self.sizes, *self.formats, *e.names), parts.whole) for e in entries]

        def opening(entry: Entry, *options: int | str) -> Workload | None:
            end = len(options) - len(entry.names) + 1
            return parts.opening(*options[:end]) if entry.holds(options[end:]) else None

        names = (*self.sizes, *self._entered)
        return [
            *(self.peak_term((*names, *entry.names), partial(opening, entry)) for entry in entries),
            self.peak_term((*self.sizes, *self.formats), parts.closing),
        ]


class StageParts:
    """Blocks of one stage by themselves as functions of the options chosen, the resolution first. Each is
    made once for all that have the same activations: what weights are stored in makes no difference.
    """

    def __init__(self, space: SearchSpace, stages: tuple[Stage, ...], s: int) -> None:
        self._first, self._next = Position(space, stages, s, 0), Position(space, stages, s, 1)
        self._block, self._opening = cache(net.block_alone), cache(net.opening_alone)
        self.whole: Part = cache(self._whole)
        self.closing: Part = cache(self._close)
        self.opening: Part = cache(self._open)

    def _whole(self, resolution: int, width: int, percent: int, *formats: str) -> Workload:
        """A block after the first; the last of `formats` is that of its input."""
        *chosen, found = formats
        shape, _ = self._next.shapes(resolution, width)
        block = self._next.block(width, percent)
        return self._block(shape, block, 1, tuple(map(computed_as, chosen)), computed(found))

    def _open(self, resolution: int, width: int, percent: int, entered: int, *formats: str) -> Workload:
        """The first block up to its first convolution; `formats` are of that, the shortcut and the input."""
        conv1, shortcut, found = formats
        shape, _ = self._first.shapes(resolution, entered)
        ends = (computed_as(conv1), computed_as(shortcut), computed(found))
        return self._opening(shape, self._first.block(width, percent), self._first.stride, *ends)

    def _close(self, resolution: int, width: int, percent: int, *formats: str) -> Workload:
        """The first block from there on. Read is a tensor of one channel that needs no conversion: before the
        second convolution this is less than the other part, and from there on it is dead.
        """
        shape, _ = self._first.shapes(resolution, NARROWEST)
        chosen = tuple(map(computed_as, formats))
        return self._block(
            shape, self._first.block(width, percent), self._first.stride, chosen, computed(formats[0])
        )


def computed(fmt: str) -> str:
    """The activation format of a layer's choice."""
    return stored_and_computed(fmt)[1]


def positions(space: SearchSpace, stages: tuple[Stage, ...]) -> list[Position]:
    """All blocks, in order."""
    return [Position(space, stages, s, b) for s, stage in enumerate(stages) for b in range(max(stage.depths))]


# -- whole networks --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ends:
    """What comes before and after the blocks, each as one network by itself."""

    space: SearchSpace
    stages: tuple[Stage, ...]
    in_channels: int
    classes: int

    def stem(self) -> tuple[tuple[int, ...], Callable[[tuple[int, ...]], Workload]]:
        """Columns, and the stem by the genes there."""
        names = ("resolution", "stem.depth", "stem.inner", "stem.width", *(f"{name}.format" for name in STEM))

        def part(resolution: int, depth: int, inner: int, width: int, *formats: str) -> Workload:
            sizes = StemSizes(inner, width, depth > 0)
            return net.stem_alone((self.in_channels, resolution, resolution), sizes, formats)

        return of_options(self.space, names, part)

    def tails(self) -> list[tuple[tuple[int, ...], Callable[[tuple[int, ...]], Workload | None]]]:
        """Columns, and pooling and classifier by the genes there; one for each layer that can be the last."""
        end = len(self.stages)
        width, entries = f"s{end - 1}.width", Position(self.space, self.stages, end, 0).entries()

        def part(
            resolution: int, width: int, fmt: str, found: str, *before: int, entry: Entry
        ) -> Workload | None:
            if not entry.holds(before):
                return None
            size = net.entry_size(self.stages, resolution, end, 0)
            return net.tail_alone((width, size, size), self.classes, fmt, computed(found))

        names = ("resolution", width, "classifier.format")
        return [
            of_options(self.space, (*names, *entry.names), partial(part, entry=entry)) for entry in entries
        ]


def cost_terms(
    space: SearchSpace, stages: tuple[Stage, ...], in_channels: int, classes: int
) -> tuple[CostTerm, ...]:
    """The terms of a whole network."""
    ends = Ends(space, stages, in_channels, classes)
    return (
        _layers(*ends.stem()),
        *(term for position in positions(space, stages) for term in position.cost_terms()),
        *(_layers(*tail) for tail in ends.tails()),
    )


def peak_terms(
    space: SearchSpace, stages: tuple[Stage, ...], in_channels: int, classes: int
) -> tuple[PeakTerm, ...]:
    """The parts of a whole network."""
    ends = Ends(space, stages, in_channels, classes)
    parts = [StageParts(space, stages, s) for s in range(len(stages))]
    return (
        PeakTerm(*ends.stem()),
        *(term for at in positions(space, stages) for term in at.peak_terms(parts[at.s])),
        *(PeakTerm(*tail) for tail in ends.tails()),
    )


def _layers(columns: tuple[int, ...], part: Callable[[tuple[int, ...]], Workload | None]) -> CostTerm:
    """The layers of a part."""

    def layers(genes: tuple[int, ...]) -> Layers:
        found = part(genes)
        return found.layers if found else ()

    return CostTerm(columns, layers)
