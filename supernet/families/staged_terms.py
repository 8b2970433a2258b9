"""Costs and memory of staged networks, each by the few genes that decide it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TypeVar

from hw_profiles.graph.builder import WorkloadBuilder
from hw_profiles.graph.layer import INPUT, Layer
from hw_profiles.graph.workload import Workload
from supernet.families import staged_layers as net
from supernet.families.choices import of_options
from supernet.families.family import CostTerm, PeakTerm
from supernet.families.mbconv_layers import Entry, computed_as, conversion, conversions, stored_and_computed
from supernet.families.staged_layers import Ends, Part, Shape, Sizes, Stage, middle_channels
from supernet.space.space import SearchSpace

Layers = tuple[Layer, ...]
Genes = tuple[int, ...]
Result = TypeVar("Result")
Chosen = Mapping[str, int | str]  # option by the name of its choice


@dataclass(frozen=True)
class Position:
    """One block: what its terms have in common. `s` past the end is what comes after the blocks."""

    space: SearchSpace
    ends: Ends
    stages: tuple[Stage, ...]
    s: int
    b: int

    @property
    def name(self) -> str:
        return f"s{self.s}.b{self.b}"

    @property
    def stage(self) -> Stage:
        return self.stages[self.s]

    @property
    def stride(self) -> int:
        return 1 if self.b else self.stage.stride

    def format_of(self, part: Part) -> str:
        """Name of the choice of a part's formats."""
        return f"{self.name}.{part.name}.format"

    # -- what it reads -----------------------------------------------------------------------------

    @property
    def entry_width(self) -> tuple[str, ...]:
        """Name of the choice of the channels that it reads; none after the stem."""
        before = self.s if self.b else self.s - 1
        return (f"s{before}.width",) if before >= 0 else ()

    def entries(self) -> list[Entry]:
        """The layers that the tensor it reads can come from."""
        if self.b:
            return [Entry((f"s{self.s}.b{self.b - 1}.{self.stage.type.last.name}.format",))]
        if not self.s:
            return [Entry(("stem.format",))]
        stage, before = f"s{self.s - 1}", self.stages[self.s - 1]
        last = before.type.last.name
        return [Entry((f"{stage}.b{d - 1}.{last}.format", f"{stage}.depth"), d) for d in before.depths]

    def entry(self, chosen: Chosen) -> Shape:
        """The tensor that it reads; of one channel where how many is not known and does not matter."""
        width = int(chosen.get(self.entry_width[0], 1)) if self.entry_width else self.ends.stem_width
        size = net.entry_size(self.ends, self.stages, int(chosen["resolution"]), self.s, self.b)
        return (width, size, size)

    # -- terms -------------------------------------------------------------------------------------

    def names(self, names: Sequence[str]) -> tuple[str, ...]:
        """`names`, each once, and those that always count."""
        always = ["resolution"]
        if self.s < len(self.stages) and self.b >= min(self.stage.depths):
            always.append(f"s{self.s}.depth")
        return tuple(dict.fromkeys([*always, *names]))

    def alive(self, chosen: Chosen) -> bool:
        """Whether the block is there."""
        return int(chosen.get(f"s{self.s}.depth", self.b + 1)) > self.b

    def decided_by(
        self, names: Sequence[str], function: Callable[[Chosen], Result], absent: Result
    ) -> tuple[tuple[int, ...], Callable[[Genes], Result]]:
        """Columns of the choices called `names`, and a function of what is chosen there as one of the genes;
        `absent` where the block is not there.
        """
        asked = self.names(names)

        def found(*options: int | str) -> Result:
            chosen = dict(zip(asked, options, strict=True))
            return function(chosen) if self.alive(chosen) else absent

        return of_options(self.space, asked, found)

    def term(self, names: Sequence[str], layers: Callable[[Chosen], Layers]) -> CostTerm:
        """The layers that the choices called `names` give, where the block is there."""
        none: Layers = ()
        return CostTerm(*self.decided_by(names, layers, none))

    def peak_term(self, names: Sequence[str], part: Callable[[Chosen], Workload | None]) -> PeakTerm:
        """As `term`."""
        return PeakTerm(*self.decided_by(names, part, None))

    def sizes_of(self, parts: Sequence[Part]) -> list[str]:
        """Names of the choices that decide the sizes of `parts`."""
        channels = frozenset[str]().union(*(part.channels for part in parts))
        names = [*self.entry_width] if "entry" in channels else []
        if channels & {"middle", "out"}:
            names.append(f"s{self.s}.width")
        if "middle" in channels:
            names.append(f"{self.name}.expand")
        return names

    def sizes(self, chosen: Chosen) -> Sizes:
        """The block's sizes, as far as they are known; what is not, no asked part depends on."""
        width = int(chosen.get(f"s{self.s}.width", 1))
        middle = middle_channels(width, int(chosen.get(f"{self.name}.expand", 100)))
        return Sizes(width, middle, int(chosen.get(f"{self.name}.kernel", 1)))

    def part(self, part: Part, chosen: Chosen) -> Layer:
        """One convolution."""
        sizes, (entry, size, _) = self.sizes(chosen), self.entry(chosen)
        parts = self.stage.type.parts
        strided = any(before.strided for before in parts[: parts.index(part)])
        if strided:
            size = -(-size // self.stride)
        width = {"entry": entry, "middle": sizes.expanded, "out": sizes.width}[part.reads]
        return net.convolution(
            self.stage,
            part,
            (width, size, size),
            sizes,
            stride=self.stride,
            summed=self.b > 0,
            fmt=str(chosen[self.format_of(part)]),
        )

    # -- cost --------------------------------------------------------------------------------------

    def cost_terms(self) -> list[CostTerm]:
        """The block's layers, with the conversions before and within it."""
        parts = self.stage.type.parts
        following = [*parts[1:], None]
        boundaries = [self._boundary_term(entry) for entry in self.entries()]
        return [*boundaries, *map(self._part_term, parts, following)]

    def _boundary_term(self, entry: Entry) -> CostTerm:
        """What becomes of the tensor that the block reads, and the sum."""
        first, last = (self.format_of(part) for part in (self.stage.type.parts[0], self.stage.type.last))

        def boundary(chosen: Chosen) -> Layers:
            found, *before = (chosen[name] for name in entry.names)
            if not entry.holds(before):
                return ()
            shape, head, fmt = self.entry(chosen), str(chosen[first]), str(found)
            if not self.b:
                return conversion(shape, fmt, head)
            tail = str(chosen[last])
            total = net.add(self.stage, shape, computed(fmt), computed(tail))
            return (total, *conversions(shape, fmt, head, tail))

        return self.term((*self.entry_width, first, *([last] if self.b else []), *entry.names), boundary)

    def _part_term(self, part: Part, following: Part | None) -> CostTerm:
        """One convolution, and the conversion after it."""
        here = self.format_of(part)
        after = [] if following is None else [self.format_of(following)]
        kernel = [f"{self.name}.kernel"] if part.spatial else []

        def layers(chosen: Chosen) -> Layers:
            spec = self.part(part, chosen)
            wanted = [conversion(spec.out_shape, str(chosen[here]), str(chosen[name])) for name in after]
            return (spec, *(layer for converted in wanted for layer in converted))

        return self.term((*self.sizes_of([part]), *kernel, here, *after), layers)

    # -- memory ------------------------------------------------------------------------------------

    def peak_terms(self) -> list[PeakTerm]:
        """Of a block with a sum, one part; else every convolution is one."""
        return [self._whole_peak()] if self.b else self._chain_peaks()

    def _whole_peak(self) -> PeakTerm:
        parts = self.stage.type.parts
        formats = [self.format_of(part) for part in parts]
        (found,) = self.entries()[0].names
        alone = cache(self._block_alone)

        def whole(chosen: Chosen) -> Workload:
            stored = tuple(computed_as(str(chosen[name])) for name in formats)
            return alone(self.entry(chosen), self.sizes(chosen), stored, computed(str(chosen[found])))

        return self.peak_term((*self.sizes_of(parts), *formats, found), whole)

    def _block_alone(self, shape: Shape, sizes: Sizes, formats: Sequence[str], found: str) -> Workload:
        builder = WorkloadBuilder(shape, found)
        net.append_block(builder, INPUT, "block", self.stage, sizes, self.b, formats)
        return builder.build()

    def _chain_peaks(self) -> list[PeakTerm]:
        parts = self.stage.type.parts
        before = [self.entries(), *([Entry((self.format_of(part),))] for part in parts[:-1])]
        return [
            self._convolution_peak(part, entry)
            for part, entries in zip(parts, before, strict=True)
            for entry in entries
        ]

    def _convolution_peak(self, part: Part, entry: Entry) -> PeakTerm:
        def alone(chosen: Chosen) -> Workload | None:
            found, *before = (chosen[name] for name in entry.names)
            if not entry.holds(before):
                return None
            spec = self.part(part, chosen)
            builder = WorkloadBuilder(spec.in_shape, computed(str(found)))
            builder.add("part", spec, INPUT)
            return builder.build()

        return self.peak_term((*self.sizes_of([part]), self.format_of(part), *entry.names), alone)


def computed(fmt: str) -> str:
    """The activation format of a layer's choice."""
    return stored_and_computed(fmt)[1]


# -- whole networks --------------------------------------------------------------------------------

PartOf = tuple[tuple[int, ...], Callable[[Genes], Workload | None]]  # columns, the part by the genes there


@dataclass(frozen=True)
class Whole:
    """All terms of a network."""

    space: SearchSpace
    ends: Ends
    stages: tuple[Stage, ...]
    in_channels: int

    def at(self, s: int, b: int) -> Position:
        """One position."""
        return Position(self.space, self.ends, self.stages, s, b)

    def positions(self) -> list[Position]:
        """All blocks, in order."""
        return [self.at(s, b) for s, stage in enumerate(self.stages) for b in range(max(stage.depths))]

    def cost_terms(self) -> tuple[CostTerm, ...]:
        """Parts whose layers add up to the network's."""
        blocks = [term for at in self.positions() for term in at.cost_terms()]
        return (_layers(*self._stem()), *blocks, *(_layers(*tail) for tail in self._tails()))

    def peak_terms(self) -> tuple[PeakTerm, ...]:
        """Parts of which the largest needs what the network needs."""
        blocks = [term for at in self.positions() for term in at.peak_terms()]
        return (PeakTerm(*self._stem()), *blocks, *(PeakTerm(*tail) for tail in self._tails()))

    def _stem(self) -> PartOf:
        def part(resolution: int, fmt: str) -> Workload:
            builder = WorkloadBuilder((self.in_channels, resolution, resolution))
            self.ends.append_stem(builder, fmt)
            return builder.build()

        return of_options(self.space, ("resolution", "stem.format"), part)

    def _tails(self) -> list[PartOf]:
        """One for each layer that can be the last."""
        end = self.at(len(self.stages), 0)

        def part(entry: Entry, *options: int | str) -> Workload | None:
            chosen = dict(zip((*names, *entry.names), options, strict=True))
            found, *before = (chosen[name] for name in entry.names)
            if not entry.holds(before):
                return None
            formats = str(chosen["head.format"]), str(chosen["classifier.format"])
            return self.ends.tail_alone(end.entry(chosen), *formats, computed(str(found)))

        names = ("resolution", *end.entry_width, "head.format", "classifier.format")
        return [of_options(self.space, (*names, *e.names), partial(part, e)) for e in end.entries()]


def _layers(columns: tuple[int, ...], part: Callable[[Genes], Workload | None]) -> CostTerm:
    """The layers of a part."""

    def layers(genes: Genes) -> Layers:
        found = part(genes)
        return found.layers if found else ()

    return CostTerm(columns, layers)
