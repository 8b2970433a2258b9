"""Values that depend on choices: what a network's description becomes when nothing is chosen yet.

A `Varying` is a small table of a value over the options of the few choices that it depends on. Plain
functions are lifted to such tables: evaluated once for every distinct combination of their arguments, and cut
down to the choices that really matter.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import Any, Generic, NoReturn, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError

T = TypeVar("T")
P = ParamSpec("P")
MOST_ENTRIES = 2**22  # of one table: 32 MB and about a second
Positions = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Varying(Generic[T]):
    """A value by the options of some choices. Arithmetic and comparisons give another one.

    Attributes:
        columns: of the choices in the genome matrix, ascending.
        index: one axis per column, as long as the choice has options: position of the value in `values`.
        values: distinct, each of which some options give.
    """

    columns: tuple[int, ...]
    index: Positions
    values: tuple[T, ...]

    def on(self, columns: tuple[int, ...]) -> Positions:
        """Return the index with an axis for each of `columns`, of length 1 where it does not depend on it."""
        if columns == self.columns:
            return self.index
        return self.index.reshape(axes(self.columns, self.index.shape, columns))

    @property
    def shape(self) -> tuple[int, ...]:
        """Options of each choice."""
        return self.index.shape

    @cached_property
    def key(self) -> tuple[object, ...]:
        """What is equal exactly for equal tables."""
        return (self.columns, self.index.tobytes(), self.values)

    def __add__(self, other: Any) -> Any:
        return lift(lambda a, b: a + b, self, other)

    def __radd__(self, other: Any) -> Any:
        return lift(lambda a, b: b + a, self, other)

    def __sub__(self, other: Any) -> Any:
        return lift(lambda a, b: a - b, self, other)

    def __mul__(self, other: Any) -> Any:
        return lift(lambda a, b: a * b, self, other)

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> Any:
        return lift(lambda a, b: a // b, self, other)

    def __gt__(self, other: Any) -> Any:
        return lift(lambda a, b: a > b, self, other)

    def __ge__(self, other: Any) -> Any:
        return lift(lambda a, b: a >= b, self, other)

    def __lt__(self, other: Any) -> Any:
        return lift(lambda a, b: a < b, self, other)

    def __getitem__(self, position: int) -> Any:
        return lift(lambda value: value[position], self)

    def __bool__(self) -> NoReturn:
        raise TrilobitError(
            "a family's `build` branches on a value that is not chosen yet: write choose.when(condition, x, "
            "body) for a part that only some networks have, choose.repeat(times, x, body) for a depth, and "
            "@elementwise on a function that looks at its arguments"
        )

    __index__ = __iter__ = __int__ = __float__ = __bool__  # all of them would need one value


def lift(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return `function(*arguments)`: a table where an argument is one, else the plain value."""
    varying = [argument for argument in arguments if isinstance(argument, Varying)]
    if not varying:
        return function(*arguments)
    columns = union(varying)
    if len(varying) == 1:
        (only,) = varying
        results = [
            function(*(value if argument is only else argument for argument in arguments))
            for value in only.values
        ]
        return table(columns, only.index, results)
    entries = math.prod({c: n for v in varying for c, n in zip(v.columns, v.shape, strict=True)}.values())
    if entries > MOST_ENTRIES:
        raise ValueError(
            f"one layer, or the memory at one moment, depends on {entries} combinations of options; allowed "
            f"are {MOST_ENTRIES}: have it depend on fewer choices"
        )
    joint, sizes = np.zeros((), np.int64), [len(v.values) for v in varying]
    for v, size in zip(varying, sizes, strict=True):
        joint = joint * size + v.on(columns)
    codes, index = _distinct(joint, math.prod(sizes))
    results = []
    for code in codes:
        picked = iter(np.unravel_index(code, sizes))
        results.append(
            function(*(a.values[next(picked)] if isinstance(a, Varying) else a for a in arguments))
        )
    return table(columns, index, results)


def elementwise(function: Callable[P, T]) -> Callable[P, T]:
    """Let a plain function also take values that depend on choices, by position.

    >>> @elementwise
    ... def halved(width: int) -> int:
    ...     return max(8, width // 2)
    >>> halved(64)
    32
    """

    @wraps(function)
    def lifted(*args: P.args, **kwargs: P.kwargs) -> T:
        result: T = lift(lambda *values: function(*values, **kwargs), *args)
        return result

    return lifted


def axes(own: tuple[int, ...], shape: tuple[int, ...], columns: tuple[int, ...]) -> list[int]:
    """Return the lengths of axes for `columns` of what has some of them; 1 for the others."""
    sizes = dict(zip(own, shape, strict=True))
    return [sizes.get(column, 1) for column in columns]


def constant(value: Any) -> Varying[Any]:
    """Return a table of one value, unless it is a table already."""
    return value if isinstance(value, Varying) else Varying((), np.zeros((), np.int64), (value,))


def union(varying: Sequence[Varying[Any]]) -> tuple[int, ...]:
    """Return all columns that any of these depends on, ascending."""
    if len(varying) == 1 or all(v.columns == varying[0].columns for v in varying):
        return varying[0].columns
    return tuple(sorted({column for v in varying for column in v.columns}))


def table(columns: tuple[int, ...], index: Positions, results: Sequence[Any]) -> Any:
    """Return a table with `results[index]`: equal results once, without the axes that make no difference; a
    plain value where none does.
    """
    positions: dict[Any, int] = {}
    renumbered = np.array([positions.setdefault(result, len(positions)) for result in results], np.int64)
    if len(positions) == 1:
        return results[0]
    if len(positions) < len(results):
        index = renumbered[index]
    for axis in reversed(range(len(columns))):
        if index.shape[axis] == 1 or bool((index == index.take([0], axis)).all()):
            index, columns = np.asarray(index.take(0, axis)), columns[:axis] + columns[axis + 1 :]
    return Varying(columns, index, tuple(positions))


def _distinct(joint: Positions, size: int) -> tuple[Positions, Positions]:
    """Return the distinct codes, and the position of each entry's code among them."""
    if size > 4 * joint.size + 4096:
        codes, index = np.unique(joint, return_inverse=True)
        return codes, index.reshape(joint.shape)
    occurs = np.zeros(size, bool)
    occurs[joint] = True
    codes = np.flatnonzero(occurs)
    position = np.cumsum(occurs) - 1
    return codes, position[joint]
