"""`TensorType`: shape and number format of a tensor, and arithmetic with dimensions that have no size yet.

A dimension is a number, or text that stands for one: a symbol such as `batch` or `sequence`, or a sum of
products of symbols, `past+sequence` or `12*batch`. A scenario binds symbols to numbers, see
`hw_profiles.graph.scenario`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import cast

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.formats import FP32 as FP32

BATCH = "batch"  # the dimension that image layers have first

Dim = int | str
_SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_Terms = dict[tuple[str, ...], int]  # product of symbols -> how many of it


@dataclass(frozen=True, slots=True)
class TensorType:
    """What is known of a tensor before there are numbers in it.

    Attributes:
        shape: dimensions, outermost first; the batch is one of them.
        format: number format.
    """

    shape: tuple[Dim, ...]
    format: str = FP32

    def __str__(self) -> str:
        return f"{','.join(map(str, self.shape))}:{self.format}"


def parse_type(text: str) -> TensorType:
    """Return the type that was written as `text`.

    >>> parse_type("batch,8,16:int8")
    TensorType(shape=('batch', 8, 16), format='int8')
    """
    shape, _, fmt = text.rpartition(":")
    return TensorType(tuple(times([dim]) for dim in map(_dim, filter(None, shape.split(",")))), fmt)


def _dim(text: str) -> Dim:
    return int(text) if text.isdecimal() else text


def image_type(shape: Sequence[int], fmt: str = FP32) -> TensorType:
    """Return the type of a batch of maps of `shape` (channels, height, width)."""
    return TensorType((BATCH, *shape), fmt)


def image_shape(dims: Sequence[Dim]) -> tuple[int, int, int]:
    """Return (channels, height, width) of a batch of maps; 1 x 1 of features.

    >>> image_shape(("batch", 8, 4, 4)), image_shape(("batch", 10))
    ((8, 4, 4), (10, 1, 1))
    """
    channels, height, width = (*map(int, dims[1:]), 1, 1)[:3]
    return channels, height, width


def plus(*dims: Dim) -> Dim:
    """Return the sum of dimensions.

    >>> plus("past", "sequence", "past"), plus(2, 3)
    ('2*past+sequence', 5)
    """
    if str not in map(type, dims):
        return sum(cast("tuple[int, ...]", dims))
    total: _Terms = {}
    for dim in dims:
        for symbols, count in _terms(dim).items():
            total[symbols] = total.get(symbols, 0) + count
    return _text(total)


def times(dims: Iterable[Dim]) -> Dim:
    """Return the product of dimensions; 1 of none.

    >>> times((2, "batch", 3)), times((4, 5))
    ('6*batch', 20)
    """
    factors = tuple(dims)
    if str not in map(type, factors):
        return prod(cast("tuple[int, ...]", factors))
    total: _Terms = {(): 1}
    for dim in factors:
        product: _Terms = {}
        for left, count in total.items():
            for right, more in _terms(dim).items():
                symbols = tuple(sorted(left + right))
                product[symbols] = product.get(symbols, 0) + count * more
        total = product
    return _text(total)


def over(dim: Dim, by: Dim) -> Dim:
    """Return the quotient of a dimension and a single product of symbols, which must be exact.

    >>> over("12*batch*sequence", "batch"), over(12, 4)
    ('12*sequence', 3)

    Raises:
        TrilobitError: `by` does not divide `dim`.
    """
    quotient: _Terms = {}
    divisor = _terms(by)
    if len(divisor) == 1:
        ((symbols, count),) = divisor.items()
        for term, many in _terms(dim).items():
            rest = list(term)
            if many % count or any(rest.count(symbol) < symbols.count(symbol) for symbol in symbols):
                break
            for symbol in symbols:
                rest.remove(symbol)
            quotient[tuple(rest)] = many // count
        else:
            return _text(quotient)
    raise TrilobitError(f"a dimension of {dim} cannot be divided by {by}")


def bound(dim: Dim, sizes: Mapping[str, int]) -> Dim:
    """Return the dimension with the symbols that `sizes` knows replaced.

    >>> bound("past+sequence", {"past": 7, "sequence": 1}), bound("batch", {"past": 7})
    (8, 'batch')
    """
    if isinstance(dim, int):
        return dim
    products = (
        times((count, *(sizes.get(symbol, symbol) for symbol in term))) for term, count in _terms(dim).items()
    )
    return plus(*products)


def symbols_of(dims: Iterable[Dim]) -> frozenset[str]:
    """Return the symbols in dimensions."""
    texts = (dim for dim in dims if isinstance(dim, str))
    return frozenset(symbol for text in texts for term in _terms(text) for symbol in term)


def known(dim: Dim, sizes: Mapping[str, int]) -> int:
    """Return the number that a dimension is where symbols have these sizes.

    Raises:
        TrilobitError: a symbol has none.
    """
    number = bound(dim, sizes)
    if isinstance(number, str):
        open_ones = ", ".join(sorted(symbols_of([number])))
        raise TrilobitError(f"a dimension of {dim} has no size yet; bind {open_ones} by a scenario")
    return number


@cache
def _terms(dim: Dim) -> _Terms:
    if isinstance(dim, int):
        return {(): dim}
    total: _Terms = {}
    for term in dim.replace(" ", "").split("+"):
        factors = term.split("*")
        symbols = tuple(sorted(factor for factor in factors if not factor.isdecimal()))
        if not all(map(_SYMBOL.fullmatch, symbols)):
            raise TrilobitError(f"not a dimension: {dim!r}; it is a number, a symbol, or sums of products")
        count = prod(int(factor) for factor in factors if factor.isdecimal())
        total[symbols] = total.get(symbols, 0) + count
    return total


def _text(terms: _Terms) -> Dim:
    parts = []
    for symbols, count in sorted(terms.items(), key=lambda term: (not term[0], term)):  # the number last
        if symbols and count:
            parts.append("*".join([*[str(count)] * (count != 1), *symbols]))
        elif count:
            parts.append(str(count))
    text = "+".join(parts) or "0"
    return int(text) if text.isdecimal() else text
