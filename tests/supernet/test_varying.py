"""Values that depend on choices: a table is what its function gives, option by option."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.errors import TrilobitError
from supernet.space.varying import Varying, constant, elementwise, lift

SIZES = (2, 3, 4, 2)  # options of four choices


def option(column: int, values: tuple[int, ...]) -> Any:
    return Varying((column,), np.arange(len(values)), values) if len(set(values)) > 1 else values[0]


@st.composite
def tables(draw: st.DrawFn) -> tuple[Any, ...]:
    """One value for each choice, distinct for its options as those of choices are."""
    distinct = [st.lists(st.integers(-3, 3), min_size=n, max_size=n, unique=True) for n in SIZES]
    return tuple(option(column, tuple(draw(values))) for column, values in enumerate(distinct))


def at(value: Any, genes: tuple[int, ...]) -> Any:
    """The plain value for chosen options."""
    known = constant(value)
    return known.values[known.index[tuple(genes[column] for column in known.columns)]]


@given(tables())
def test_arithmetic_is_that_of_the_options(values: tuple[Any, ...]) -> None:
    a, b, c, d = values

    @elementwise
    def picked(x: int, y: int) -> int:
        return max(x, y) if x % 2 else y

    combined = {
        "sum": (1 + a + b * 2 - c, lambda a, b, c, d: 1 + a + b * 2 - c),
        "compared": (a * d >= b, lambda a, b, c, d: a * d >= b),
        "lifted": (picked(c, a // 2), lambda a, b, c, d: picked(c, a // 2)),
        "cancelled": ((a - a) * b, lambda a, b, c, d: 0),
    }
    for found, expected in combined.values():
        for genes in itertools.product(*map(range, SIZES)):
            assert at(found, genes) == expected(*(at(value, genes) for value in values))
    assert combined["cancelled"][0] == 0  # what depends on nothing is no table


@given(tables())
def test_a_table_has_no_axis_and_no_value_too_many(values: tuple[Any, ...]) -> None:
    a, b, _, _ = values
    found = lift(lambda x, y: (x > 0) and (y > 0), a, b)
    if isinstance(found, Varying):
        assert sorted(set(found.index.ravel().tolist())) == list(range(len(found.values)))
        for axis in range(found.index.ndim):
            assert (found.index != found.index.take([0], axis)).any()


def test_what_is_not_chosen_yet_is_neither_true_nor_a_number() -> None:
    width = option(0, (8, 16))
    for ask in (bool, int, range, list):
        with pytest.raises(TrilobitError, match="not chosen yet"):
            ask(width)
