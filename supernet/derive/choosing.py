"""How a family's `build` asks for options: those of one network, or all of them at once."""

from collections.abc import Callable
from typing import Any, TypeVar

from hw_profiles.graph.layer import FP32
from supernet.formats.loading import Precision, parse_precision
from supernet.space.space import Choice, Option, SearchSpace

T = TypeVar("T")


class Choose:
    """What one network chose: `choose(name)` is the option of a choice, `repeat` and `when` are the loops and
    branches of a description. A format is a `Precision`; an inactive choice has its first option.

    Args:
        genes: one option index per choice.
        fp32: whether every choice of number formats is fp32, whatever was chosen.
    """

    def __init__(self, space: SearchSpace, genes: tuple[int, ...], *, fp32: bool = False) -> None:
        self._space, self._genes, self._fp32 = space, genes, fp32

    def __call__(self, name: str) -> Any:
        """Return the option chosen for the choice called `name`."""
        column = self._space.columns[name]
        choice = self._space.choices[column]
        return meaning(
            choice, FP32 if self._fp32 and choice.kind == "precision" else choice.options[self._genes[column]]
        )

    def format(self, layer: str) -> Precision:
        """Return the precision chosen for the layer called `layer`."""
        precision: Precision = self(f"{layer}.format")
        return precision

    def when(self, condition: bool, x: T, body: Callable[[T], T]) -> T:
        """Return `body(x)` where the condition holds, else `x`."""
        return body(x) if condition else x

    def repeat(self, times: int, x: T, body: Callable[[T, int], T]) -> T:
        """Return `x` after `body(x, 0)`, `body(x, 1)`... were applied one after the other."""
        for i in range(times):
            x = body(x, i)
        return x


_PARSED: dict[Option, Precision] = {}


def meaning(choice: Choice, option: Option) -> Any:
    """Return what an option stands for: the precision that a format names, else itself."""
    if choice.role != "format":
        return option
    if option not in _PARSED:
        _PARSED[option] = parse_precision(str(option))
    return _PARSED[option]
