"""Published subnets of the BERT-base supernet (SimQ-NAS, DyNAS-T) as genomes of `bert-base`, and back.

A published row has the heads and the feed-forward width of all 12 blocks, also of those that its number of
layers leaves out, and 74 widths of quantizable layers in the order of their modules: block by block queries,
keys, values, the matrix behind the attention and the two of the feed-forward part, then the pooler and the
classifier. A layer keeps its entry at any depth. In a genome what is left out keeps its gene, so that nothing
is lost; `SearchSpace.canonical` makes rows of one network equal.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from supernet.families.encoder import MATRICES
from supernet.space.space import Genomes, SearchSpace

BLOCKS = 12
FORMATS = {8: "int8", 32: "fp32"}  # by width in bits
LAYERS = (*(f"s0.b{b}.{matrix}" for b in range(BLOCKS) for matrix in MATRICES), "pooler", "classifier")

Integers = NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class PublishedRows:
    """Subnets of the BERT-base supernet as its data write them.

    Attributes:
        num_layers: (n,) 6 to 12 blocks.
        heads: (n, 12) of each block.
        ffn: (n, 12) features in the middle of its feed-forward part.
        q_bits: (n, 74) 8 or 32 of each quantizable layer, see `LAYERS`; None where all are fp32.
    """

    num_layers: Integers
    heads: Integers
    ffn: Integers
    q_bits: Integers | None = None

    def __len__(self) -> int:
        return len(self.num_layers)


def from_published(space: SearchSpace, rows: PublishedRows) -> Genomes:
    """Return (n, g) genomes of the space `bert-base`, not canonical: also what a subnet does not have.

    Raises:
        TrilobitError: an entry is none of the space's options, or a row has too many or too few of them.
    """
    genomes = np.zeros((len(rows), len(space.choices)), np.int16)
    for name, values in _columns(rows):
        column = space.columns[name]
        genomes[:, column] = _genes(name, space.choices[column].options, values)
    return genomes


def to_published(space: SearchSpace, genomes: Genomes) -> PublishedRows:
    """Return the rows of (n, g) genomes of the space `bert-base`: the inverse of `from_published`.

    Raises:
        TrilobitError: a layer has another format than int8 or fp32.
    """

    def values(name: str) -> Integers:
        column = space.columns[name]
        options = [_number(option) for option in space.choices[column].options]
        return np.array(options)[genomes[:, column]]

    heads, ffn = (
        np.stack([values(f"s0.b{b}.{role}") for b in range(BLOCKS)], 1) for role in ("heads", "hidden")
    )
    bits = np.stack([values(f"{layer}.format") for layer in LAYERS], 1)
    if not bits.all():
        name = LAYERS[int(np.flatnonzero(~bits.all(0))[0])]
        raise TrilobitError(f"{name}: published subnets are in {' and '.join(FORMATS.values())} only")
    return PublishedRows(values("s0.depth"), heads, ffn, bits)


def _columns(rows: PublishedRows) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the values of each choice that a row decides."""
    bits = np.full((len(rows), len(LAYERS)), 32) if rows.q_bits is None else rows.q_bits
    sizes = (("heads", rows.heads, BLOCKS), ("ffn", rows.ffn, BLOCKS), ("q_bits", bits, len(LAYERS)))
    for name, matrix, count in sizes:
        if matrix.shape != (len(rows), count):
            raise TrilobitError(f"{name} of published subnets is (n, {count}); got {matrix.shape}")
    yield "s0.depth", rows.num_layers
    for b in range(BLOCKS):
        yield f"s0.b{b}.heads", rows.heads[:, b]
        yield f"s0.b{b}.hidden", rows.ffn[:, b]
    for i, layer in enumerate(LAYERS):
        yield f"{layer}.format", bits[:, i]


def _genes(name: str, options: tuple[Any, ...], values: NDArray[Any]) -> NDArray[np.int16]:
    """Return which option each value is."""
    known = np.array([_number(option) for option in options])
    equal = values[:, None] == known
    if not equal.any(1).all():
        odd = values[~equal.any(1)][0]
        raise TrilobitError(
            f"{name} of a published subnet is {odd}; the space has {', '.join(map(str, options))}"
        )
    genes: NDArray[np.int16] = equal.argmax(1).astype(np.int16)
    return genes


def _number(option: Any) -> int:
    """Return an option as published rows write it; 0 for a format that they do not have."""
    bits = {fmt: width for width, fmt in FORMATS.items()}
    return int(option) if not isinstance(option, str) else bits.get(option, 0)
