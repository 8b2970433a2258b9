"""How much memory the tensors of a traced network need: the most over all moments, each of which few choices
decide.

It follows `hw_profiles.graph.memory.peak_bytes`: before a layer runs, what it reads in another number format
is converted, once for all that read it in an integer format; a tensor is alive until its last reader has run.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw_profiles.graph.cache import has_past
from hw_profiles.graph.layer import FP32, Layer
from hw_profiles.graph.lowering import is_lowered
from hw_profiles.graph.memory import peak_bytes, type_bytes
from hw_profiles.graph.tensor_type import TensorType
from hw_profiles.graph.workload import single
from supernet.derive.costs import Reading, grouped, readings
from supernet.derive.trace import Guard, Shape, Trace, every, negated
from supernet.space.varying import Varying, axes, constant, lift, union

Moment = tuple[int, int]  # position of a layer, and which input is being converted: `RUNS` once all are
RUNS = 2**30


@dataclass(frozen=True, eq=False)
class PeakTerm:
    """The memory of some moments, and the few choices that decide it: a network needs as much as its largest.

    Attributes:
        columns: of the genome matrix, those that it depends on.
        bytes: one axis per column, as long as the choice has options; 0 where the moments do not occur.
    """

    columns: tuple[int, ...]
    bytes: NDArray[np.float64]

    @property
    def shape(self) -> tuple[int, ...]:
        """Options of each choice."""
        return self.bytes.shape

    def on(self, columns: tuple[int, ...]) -> NDArray[np.float64]:
        """Return the bytes with an axis for each of `columns`, of length 1 where they do not depend on it."""
        return self.bytes.reshape(axes(self.columns, self.bytes.shape, columns))


def peak_terms(trace: Trace) -> tuple[PeakTerm, ...]:
    """Return terms of which the largest is the peak memory of a network."""
    tensors = _Tensors(trace)
    moments = [moment for i in range(len(trace.layers)) for moment in tensors.moments(i)]
    terms = []
    for columns, group in grouped(moments):
        most = reduce(np.maximum, (moment.on(columns) for moment in group))
        terms.append(PeakTerm(columns, most))
    return tuple(terms)


class _Tensors:
    """Every tensor of a trace with those who read it."""

    def __init__(self, trace: Trace) -> None:
        self.trace, self.readings = trace, readings(trace)
        self.last = {producer: readers[-1].position for producer, readers in self.readings.items()}
        self._both = cache(every)
        self._beside, self._beside_held = cache(_beside_input), cache(_beside_held_input)

    def moments(self, i: int) -> Iterator[PeakTerm]:
        """Yield the memory while layer `i` runs, and before that while what it reads is converted."""
        layer = self.trace.layers[i]
        for producers in product(*(x.producers for x in layer.inputs)):
            context = every(layer.there, *(guard for _, guard in producers))
            if context is False:
                continue
            read = {p: self._readers(p, context) for p, last in self.last.items() if p < i <= last}
            # what the last reader of these networks is over for would only add choices that decide nothing
            alive = {p: readers for p, readers in read.items() if any(r.position >= i for r in readers)}
            first = producers[0][0]
            beside = lift(self._beside, layer.spec)
            outlives = any(reader.position > i for reader in alive[first])
            beside_held = lift(self._beside_held, layer.spec) if outlives else beside
            grid = _Grid([context, beside, beside_held, *self._asked(alive)])
            state = {p: _State(self.trace, p, readers, grid) for p, readers in alive.items()}
            held = grid(context)

            def total(at: Moment, state: dict[int, _State] = state) -> Any:
                return sum(tensor.bytes(at) for tensor in state.values())

            for slot, (producer, _) in enumerate(producers):
                if state[producer].converts(i, slot):
                    yield grid.term(held * state[producer].conversion(i, slot, total((i, slot))))
            extra = grid(beside)
            if outlives:
                extra = np.where(state[first].held(i), grid(beside_held), extra)
            yield grid.term(held * (total((i, RUNS)) + extra))

    def _readers(self, producer: int, context: Guard) -> list[Reading]:
        """Return who reads a tensor in networks of a context, as far as it leaves that open."""
        possible = []
        for reader in self.readings[producer]:
            if self._both(context, reader.when) is False:
                continue
            certain = reader.when is True or self._both(context, negated(reader.when)) is False
            possible.append(
                Reading(reader.position, reader.slot, True if certain else reader.when, reader.wanted)
            )
        return possible

    def _asked(self, alive: dict[int, list[Reading]]) -> Iterator[Any]:
        for producer, readers in alive.items():
            yield from (self.trace.shapes[producer], self.trace.formats[producer])
            for reader in readers:
                yield from (reader.when, reader.wanted)


class _Grid:
    """All combinations of options of the choices that some values depend on."""

    def __init__(self, values: Sequence[Any]) -> None:
        self.columns = union([constant(value) for value in values])

    def __call__(self, value: Any) -> Any:
        """Return a number or a truth value as an array, with an axis for each column."""
        if not isinstance(value, Varying):
            return value
        return np.array(value.values)[value.on(self.columns)]

    def term(self, values: NDArray[np.float64]) -> PeakTerm:
        """Return an array as a term, without the axes that make no difference."""
        columns = self.columns
        for axis in reversed(range(values.ndim)):
            if values.shape[axis] == 1 or bool((values == values.take([0], axis)).all()):
                values = np.asarray(values.take(0, axis))
                columns = columns[:axis] + columns[axis + 1 :]
        return PeakTerm(columns, values)


class _State:
    """One tensor and its conversions, while a layer of some networks runs.

    Args:
        readers: all of its readers there.
    """

    def __init__(self, trace: Trace, producer: int, readers: Sequence[Reading], grid: _Grid) -> None:
        shape, source_format = trace.shapes[producer], trace.formats[producer]
        self.readers, self._found = readers, grid(lift(_code, source_format))
        self._size = grid(lift(_bytes, shape, source_format))
        self._fp32 = grid(lift(lambda s: _bytes(s, FP32), shape))
        self._sizes = [grid(lift(_bytes, shape, reader.wanted)) for reader in readers]
        self._wanted = [grid(lift(_code, reader.wanted)) for reader in readers]
        self._there = [grid(reader.when) for reader in readers]
        self._makes = [
            self._there[e] & (self._wanted[e] != self._found) & ~self._shared(e) for e in range(len(readers))
        ]

    def _shared(self, e: int) -> Any:
        """Return whether reader `e` finds what it wants, since an earlier one wanted it too."""
        same = [self._same(earlier, e) for earlier in range(e)]
        return np.logical_or.reduce(np.broadcast_arrays(*same)) if same else np.bool_(False)

    def _same(self, maker: int, e: int) -> Any:
        """Return whether both are there and want one integer format."""
        return (
            self._there[maker]
            & self._there[e]
            & (self._wanted[maker] == self._wanted[e])
            & (self._wanted[e] != 0)
        )

    def alive(self, at: Moment, *, after: bool = False) -> Any:
        """Return whether the tensor itself is needed at a moment or later; with `after`, only later."""
        needed = np.bool_(False)
        for e, reader in enumerate(self.readers):
            if _reaches((reader.position, RUNS), at, after):
                needed = needed | (self._there[e] & (self._wanted[e] == self._found))
            if _reaches((reader.position, reader.slot), at, after):
                needed = needed | self._makes[e]
        return needed

    def _copy_alive(self, maker: int, at: Moment) -> Any:
        """Return whether what was converted for a reader is still needed at a moment."""
        needed = np.bool_(self.readers[maker].position >= at[0])
        for e in range(maker + 1, len(self.readers)):
            if self.readers[e].position >= at[0]:
                needed = needed | self._same(maker, e)
        return self._makes[maker] & needed

    def bytes(self, at: Moment) -> Any:
        """Return the bytes of the tensor and of what it was converted to before a moment."""
        total = self.alive(at) * self._size
        for e, reader in enumerate(self.readers):
            if (reader.position, reader.slot) < at:
                total = total + self._copy_alive(e, at) * self._sizes[e]
        return total

    def converts(self, i: int, slot: int) -> bool:
        """Return whether any network converts it for input `slot` of layer `i`."""
        return bool(np.any(self._makes[self._at(i, slot)]))

    def conversion(self, i: int, slot: int, total: Any) -> Any:
        """Return the memory while it is converted: `total`, which is alive before that, and what is made."""
        e = self._at(i, slot)
        freed = np.where(self.alive((i, slot), after=True), 0, self._size)
        twice = self._fp32 + np.maximum(0, self._sizes[e] - freed)  # from integer to integer through fp32
        once = (self._found == 0) | (self._wanted[e] == 0)
        return self._makes[e] * (total + np.where(once, self._sizes[e], twice))

    def held(self, i: int) -> Any:
        """Return whether what layer `i` reads of it first is needed after the layer too."""
        e, needed_later = self._at(i, 0), np.bool_(False)
        for later in range(e + 1, len(self.readers)):
            if self.readers[later].position > i:
                needed_later = needed_later | self._same(e, later)
        return np.where(self._wanted[e] == self._found, self.alive((i, RUNS), after=True), needed_later)

    def _at(self, i: int, slot: int) -> int:
        return next(e for e, r in enumerate(self.readers) if (r.position, r.slot) == (i, slot))


def _reaches(end: Moment, at: Moment, after: bool) -> bool:
    return end > at if after else end >= at


_CODES: dict[str, int] = {FP32: 0}


def _code(fmt: str) -> int:
    return _CODES.setdefault(fmt, len(_CODES))


def _bytes(shape: Shape, fmt: str) -> int:
    return type_bytes(TensorType(shape, fmt))


def _beside_input(spec: Layer) -> int:
    """Return the most bytes besides what a layer reads first while it runs, which may die within it."""
    if is_lowered(spec):
        return type_bytes(spec.outputs[0]) + _past(spec)
    return peak_bytes(single(spec)) - type_bytes(spec.inputs[0])


def _beside_held_input(spec: Layer) -> int:
    """Return the same where what it reads stays alive."""
    if is_lowered(spec):
        return type_bytes(spec.outputs[0]) + _past(spec)
    return peak_bytes(single(spec), held=True) - type_bytes(spec.inputs[0])


def _past(spec: Layer) -> int:
    """Return the bytes of the past that an attention reads while it makes the cache that takes its place."""
    read = spec.inputs[-2:] if spec.op == "Attention" and has_past(spec) else ()
    return sum(map(type_bytes, read))
