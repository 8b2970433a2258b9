"""A family's `build` run once with nothing chosen: every layer that some network has, when it is there, and
what it can read.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np

from hw_profiles.graph.builder import GraphBuilder
from hw_profiles.graph.layer import FP32, INPUT, Layer
from hw_profiles.graph.tensor_type import Dim, TensorType, image_shape
from hw_profiles.graph.workload import Workload
from supernet.derive.choosing import meaning
from supernet.derive.inputs import NetworkInput
from supernet.space.space import SearchSpace
from supernet.space.varying import Varying, lift

Shape = tuple[Dim, ...]
Guard = Varying[bool] | bool  # when something is there: always, or by some choices


@dataclass(frozen=True)
class Tensor:
    """A tensor: what gives it, which several layers can do, each under a condition of its own.

    Attributes:
        producers: position of each layer that can give it (`INPUT`: the network's input), and when it does.
    """

    producers: tuple[tuple[int, Guard], ...]


@dataclass(frozen=True)
class Traced:
    """A layer that some networks have.

    Attributes:
        name: of the layer.
        there: when it is there.
        spec: its sizes and formats; a table, or the one that it always has.
        inputs: what it reads.
    """

    name: str
    there: Guard
    spec: Varying[Layer] | Layer
    inputs: tuple[Tensor, ...]


@dataclass
class Trace:
    """Stands in for a `GraphBuilder` while nothing is chosen.

    Attributes:
        layers: in the order in which they run.
        shapes, formats: of what each layer gives, by its position; those of the network's input by `INPUT`.
            A shape is all dimensions.
        there: when a layer that is recorded now is there.
        input: the network's input.
    """

    layers: list[Traced] = field(default_factory=list)
    shapes: dict[int, Any] = field(default_factory=dict)
    formats: dict[int, Any] = field(default_factory=lambda: {INPUT: FP32})
    there: Guard = True
    input: Tensor = Tensor(((INPUT, True),))

    def read(self, given: NetworkInput, size: Any) -> None:
        """Say what the network's input is, once."""
        self.shapes[INPUT] = lift(lambda size: given.feed(size).type.shape, size)
        self.formats[INPUT] = lift(lambda size: given.feed(size).type.format, size)

    def shape(self, x: Tensor) -> Any:
        """Return (channels, height, width) of a tensor."""
        return lift(image_shape, self.dims(x))

    def dims(self, x: Tensor) -> Any:
        """Return every dimension of a tensor."""
        return _selected(x, self.shapes)

    def format(self, x: Tensor) -> Any:
        """Return the number format of a tensor."""
        return _selected(x, self.formats)

    def __getattr__(self, op: str) -> Callable[..., Tensor]:
        method = getattr(GraphBuilder, op)  # an unknown one is an AttributeError there

        def record(name: str, *args: Any, **kwargs: Any) -> Tensor:
            return self._record(method, name, args, kwargs)

        return record

    # -- layers ------------------------------------------------------------------------------------

    def _record(
        self, method: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        inputs = tuple(argument for argument in args if isinstance(argument, Tensor))
        call = _Call(method, name, tuple(isinstance(a, Tensor) for a in args), tuple(kwargs))
        rest = (*(a for a in args if not isinstance(a, Tensor)), *kwargs.values())
        shapes = [self.dims(x) for x in inputs]
        try:
            spec = lift(call.spec, None, *shapes, *rest)
        except _FormatMattersError:
            alike = [self._format_alike(x) for x in inputs]
            if None in alike:
                return self._by_producer(call, inputs, rest)
            spec = lift(call.spec, tuple(alike), *shapes, *rest)
        return Tensor(((self._append(name, self.there, spec, inputs), True),))

    def _format_alike(self, x: Tensor) -> str | None:
        """Return the number format that a tensor has in all networks; None where that depends on choices."""
        formats = {self.formats[position] for position, _ in x.producers}
        return formats.pop() if len(formats) == 1 and isinstance(next(iter(formats)), str) else None

    def _by_producer(self, call: "_Call", inputs: tuple[Tensor, ...], rest: tuple[Any, ...]) -> Tensor:
        """Record a layer whose formats follow from those that it reads: one for each that can give them."""
        produced = []
        for producers in product(*(x.producers for x in inputs)):
            when = every(*(guard for _, guard in producers))
            guard = every(self.there, when)
            if guard is False:
                continue
            read = [position for position, _ in producers]
            formats = lift(lambda *formats: formats, *(self.formats[p] for p in read))
            spec = lift(call.spec, formats, *(self.shapes[p] for p in read), *rest)
            alone = tuple(Tensor(((position, True),)) for position in read)
            produced.append((self._append(call.name, guard, spec, alone), when))
        return Tensor(tuple(produced))

    def _append(self, name: str, guard: Guard, spec: Any, inputs: tuple[Tensor, ...]) -> int:
        position = len(self.layers)
        self.layers.append(Traced(name, guard, spec, inputs))
        self.shapes[position] = lift(lambda layer: layer.outputs[0].shape, spec)
        self.formats[position] = lift(lambda layer: layer.out_format, spec)
        return position


class TracedChoose:
    """Every option at once, see `Choose`.

    Args:
        fp32: whether number formats are not chosen, but all fp32.
    """

    def __init__(self, space: SearchSpace, trace: Trace, *, fp32: bool = False) -> None:
        self._space, self._trace, self._fp32 = space, trace, fp32

    def __call__(self, name: str) -> Any:
        column = self._space.columns[name]
        choice = self._space.choices[column]
        options: list[Any] = [meaning(choice, option) for option in choice.options]
        if len(options) == 1 or (self._fp32 and choice.kind == "precision"):
            return meaning(choice, FP32) if self._fp32 and choice.kind == "precision" else options[0]
        return Varying((column,), np.arange(len(options)), tuple(options))

    def format(self, layer: str) -> Any:
        return self(f"{layer}.format")

    def when(self, condition: Guard, x: Tensor, body: Callable[[Tensor], Tensor]) -> Tensor:
        trace = self._trace
        outer, trace.there = trace.there, every(trace.there, condition)
        try:
            output = (
                body(x if trace.there is True else _under(trace.there, x))
                if trace.there is not False
                else None
            )
        finally:
            trace.there = outer
        if output is None or condition is True:
            return output or x
        without = negated(condition)
        branches = [(p, every(condition, g)) for p, g in output.producers]
        branches += [(p, every(without, g)) for p, g in x.producers]
        return Tensor(tuple((p, g) for p, g in branches if every(outer, g) is not False))

    def repeat(self, times: Any, x: Tensor, body: Callable[[Tensor, int], Tensor]) -> Tensor:
        most = max(times.values) if isinstance(times, Varying) else times
        for i in range(most):
            x = self.when(times > i, x, lambda block_input, i=i: body(block_input, i))  # type: ignore[misc]
        return x


def every(*guards: Guard) -> Guard:
    """Return when all of these hold."""
    open_guards = [guard for guard in guards if guard is not True]
    if any(guard is False for guard in open_guards):
        return False
    if len(open_guards) < 2:
        return open_guards[0] if open_guards else True
    result: Guard = lift(lambda *values: all(values), *open_guards)
    return result


def negated(guard: Guard) -> Guard:
    """Return when it does not hold."""
    result: Guard = lift(lambda value: not value, guard)
    return result


def _under(condition: Guard, x: Tensor) -> Tensor:
    """Return `x` without what cannot be under a condition, and without conditions that follow from it."""
    kept = []
    for position, guard in x.producers:
        if every(condition, guard) is False:
            continue
        implied = guard is True or every(condition, negated(guard)) is False
        kept.append((position, True if implied else guard))
    return Tensor(tuple(kept))


def _selected(x: Tensor, values: dict[int, Any]) -> Any:
    """Return the value of whichever layer gives a tensor."""
    candidates = [values[position] for position, _ in x.producers]
    first = candidates[0]
    if all(value is first or _same(value, first) for value in candidates[1:]):
        return first
    guards = [guard for _, guard in x.producers]

    def select(*pairs: Any) -> Any:
        n = len(guards)
        return next((value for held, value in zip(pairs[:n], pairs[n:], strict=True) if held), pairs[n])

    return lift(select, *guards, *candidates)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Varying) and isinstance(b, Varying):
        return a.key == b.key
    return not isinstance(a, Varying) and not isinstance(b, Varying) and bool(a == b)


# -- one layer by itself ---------------------------------------------------------------------------


class _FormatMattersError(Exception):
    """A layer asked for the number format of what it reads."""


@dataclass(frozen=True)
class _Call:
    """A call of a method of `GraphBuilder`.

    Attributes:
        tensors: of the positional arguments after the name, which are tensors.
        keywords: names of the other arguments.
    """

    method: Callable[..., Any]
    name: str
    tensors: tuple[bool, ...]
    keywords: tuple[str, ...]

    def spec(self, formats: tuple[str, ...] | None, *values: Any) -> Layer:
        """Return the layer that the call appends, by the shapes that it reads, then its other arguments.

        Args:
            formats: of what it reads; None where they should not matter.
        """
        n = sum(self.tensors)
        alone, rest = _Alone(values[:n], formats), iter(values[n:])
        read = iter(range(n))
        args = [next(read) if tensor else next(rest) for tensor in self.tensors]
        net = GraphBuilder(layers=alone)
        self.method(net, self.name, *args, **dict(zip(self.keywords, rest, strict=True)))
        assert alone.layer is not None
        return alone.layer


class _Alone:
    """Takes the one layer that a call appends, which reads tensors of known types."""

    def __init__(self, shapes: tuple[Shape, ...], formats: tuple[str, ...] | None) -> None:
        self._shapes, self._formats = shapes, formats
        self.layer: Layer | None = None

    def shape(self, tensor: int) -> tuple[int, int, int]:
        return image_shape(self.dims(tensor))

    def dims(self, tensor: int) -> Shape:
        return self._shapes[tensor]

    def format(self, tensor: int) -> str:
        if self._formats is None:
            raise _FormatMattersError
        return self._formats[tensor]

    def add(self, name: str, layer: Layer, *tensors: int) -> int:
        if self.layer is not None:
            raise ValueError(f"{name}: a call must append one layer")
        self.layer = layer
        return len(self._shapes)

    def type(self, tensor: int) -> TensorType:
        return TensorType(self.dims(tensor), self.format(tensor))

    def build(self, *outputs: int) -> Workload:
        raise NotImplementedError
