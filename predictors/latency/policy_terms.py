"""What adds up to the time of a policy: units on other kernels than fp32's, and conversions where formats
meet.

A unit's term is there where a format runs on kernels of its own; formats that run on the same kernels share
it. A conversion's term is there where the file of a policy has it: a tensor is quantized where something that
computes on integers reads real numbers, and dequantized for each reader of codes that computes in real ones.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from supernet.imported.following import (
    FOLLOWERS,
    FOLLOWS,
    GIVES_REALS,
    INTEGER,
    REAL,
    integer_units,
    operands,
)
from supernet.imported.model import ImportedModel, Unit
from supernet.space.space import Genomes, SearchSpace

CALLER = ""  # the reader of what the network gives
Kind = Literal["unit", "quantize", "dequantize"]


@dataclass(frozen=True)
class Kernel:
    """How a unit is computed in a format.

    Attributes:
        name: the same for formats that run on the same kernels.
        integer: whether it reads codes and gives them.
    """

    name: str
    integer: bool = False


IN_REALS = Kernel("fp32")
IN_INTEGERS = Kernel("integers", integer=True)
KernelOf = Callable[[str, str], Kernel]  # of a unit's name and a format


@dataclass(frozen=True)
class Term:
    """A part of a policy's time.

    Attributes:
        kind: what it is of: a unit, or a conversion.
        name: of the unit, or of the tensor that is converted.
        detail: the unit's kernel, or the unit that a tensor is dequantized for (`CALLER` for the network's
            output); empty where it is quantized, once for all readers.
    """

    kind: Kind
    name: str
    detail: str = ""

    @property
    def converts(self) -> bool:
        """Whether it is a conversion."""
        return self.kind != "unit"


@dataclass(frozen=True, eq=False)
class PolicyTerms:
    """The terms of all policies of a model, and which of them each policy has.

    Attributes:
        space: a choice for each unit that has alternatives, by its name.
        model: whose units they are.
        kernels: (unit, format) -> what it runs on, of every option.
    """

    space: SearchSpace
    model: ImportedModel
    kernels: Mapping[tuple[str, str], Kernel]

    @classmethod
    def of(cls, space: SearchSpace, model: ImportedModel, kernel_of: KernelOf) -> "PolicyTerms":
        """Return the terms of a space, its first options being fp32."""
        kernels = {
            (choice.name, str(option)): kernel_of(choice.name, str(option)) if gene else IN_REALS
            for choice in space.choices
            for gene, option in enumerate(choice.options)
        }
        return cls(space, model, kernels)

    @cached_property
    def terms(self) -> tuple[Term, ...]:
        """All terms that a policy may have, in the order of the columns that `__call__` gives."""
        follow = (Term("unit", unit.name, IN_INTEGERS.name) for unit in self._followers)
        quantize = (Term("quantize", tensor) for tensor in self._read)
        dequantize = (Term("dequantize", tensor, reader) for tensor, reader in self._dequantized)
        return (*self._of_units, *follow, *quantize, *dequantize)

    def __call__(self, genomes: Genomes) -> NDArray[np.float32]:
        """Return (n, d) which terms policies (n, g) have, 0 or 1."""
        rows = np.zeros((len(self.terms), len(genomes)), np.float32)
        at = self._mark_units(rows, genomes)
        integer = np.ascontiguousarray(self.integer(genomes).T)
        for unit in self._followers:
            rows[at], at = integer[self._positions[unit.name]], at + 1
        read = {tensor: self._any_reads_codes(tensor, integer) for tensor in self._read}
        given = {tensor: self._gives_codes(tensor, integer, read) for tensor in self._codes}
        for tensor in self._read:
            rows[at], at = read[tensor] & ~given[tensor] if tensor in given else read[tensor], at + 1
        for tensor, reader in self._dequantized:
            rows[at], at = given[tensor] & ~self._reads_codes(tensor, reader, integer), at + 1
        return np.asarray(rows.T)

    def integer(self, genomes: Genomes) -> NDArray[np.bool_]:
        """Return (n, units) which units of the model compute on integers in policies (n, g)."""
        return integer_units(self.model, self._choices(genomes))

    def kernels_of(self, genome: Genomes) -> dict[str, str]:
        """Return on which kernel each unit runs in a policy (g,), by the unit's name."""
        integer = self.integer(genome[None])[0]
        names = {
            unit.name: IN_INTEGERS.name if integer[position] else IN_REALS.name
            for position, unit in enumerate(self.model.units)
        }
        for choice, gene in zip(self.space.choices, genome.tolist(), strict=True):
            names[choice.name] = self.kernels[choice.name, str(choice.options[gene])].name
        return names

    # -- which terms there are -----------------------------------------------------------------------

    @cached_property
    def _of_units(self) -> tuple[Term, ...]:
        named = ((unit, kernel.name) for (unit, _), kernel in self.kernels.items() if kernel != IN_REALS)
        return tuple(Term("unit", unit, kernel) for unit, kernel in dict.fromkeys(named))

    @cached_property
    def _integer(self) -> tuple[Unit, ...]:
        """Units that compute on integers in some policy: more choices of them never make fewer follow."""
        choices = self._choices(np.zeros((1, len(self.space.choices)), np.int16))
        for choice in self.space.choices:
            if any(self.kernels[choice.name, str(option)].integer for option in choice.options):
                choices[0, self._positions[choice.name]] = INTEGER
        return tuple(itertools.compress(self.model.units, integer_units(self.model, choices)[0]))

    @cached_property
    def _followers(self) -> tuple[Unit, ...]:
        return tuple(unit for unit in self._integer if unit.name not in self.space.columns)

    @cached_property
    def _read(self) -> tuple[str, ...]:
        """Tensors that some unit reads as codes in some policy."""
        return tuple(dict.fromkeys(tensor for unit in self._integer for tensor in operands(unit)))

    @cached_property
    def _codes(self) -> tuple[str, ...]:
        """Tensors that some unit gives as codes in some policy."""
        read = set(self._read)
        pairs = ((unit, tensor) for unit in self._integer for tensor in unit.outputs)
        return tuple(tensor for unit, tensor in pairs if unit.op not in GIVES_REALS or tensor in read)

    @cached_property
    def _dequantized(self) -> tuple[tuple[str, str], ...]:
        return tuple((tensor, reader) for tensor in self._codes for reader in self._readers(tensor))

    def _readers(self, tensor: str) -> Iterator[str]:
        yield from (unit.name for unit in self.model.readers.get(tensor, ()))
        if tensor in self.model.outputs:
            yield CALLER

    # -- which of them a policy has ------------------------------------------------------------------

    @cached_property
    def _positions(self) -> Mapping[str, int]:
        return {unit.name: position for position, unit in enumerate(self.model.units)}

    @cached_property
    def _gene_choices(self) -> NDArray[np.int8]:
        """(g, options) what `integer_units` reads, of each gene."""
        table = np.full((len(self.space.choices), self._most_options), REAL, np.int8)
        for column, choice in enumerate(self.space.choices):
            follows = self.model.unit(choice.name).op in FOLLOWERS
            table[column, 0] = FOLLOWS if follows else REAL
            for gene, option in enumerate(choice.options[1:], 1):
                table[column, gene] = INTEGER if self.kernels[choice.name, str(option)].integer else REAL
        return table

    @cached_property
    def _most_options(self) -> int:
        return int(max(self.space.cardinalities, default=1))

    def _choices(self, genomes: Genomes) -> NDArray[np.int8]:
        free = [FOLLOWS if unit.op in FOLLOWERS else REAL for unit in self.model.units]
        choices = np.repeat(np.array(free, np.int8)[None], len(genomes), axis=0)
        columns = [self._positions[choice.name] for choice in self.space.choices]
        choices[:, columns] = self._gene_choices[np.arange(len(columns)), genomes]
        return choices

    def _mark_units(self, rows: NDArray[np.float32], genomes: Genomes) -> int:
        """Fill the rows of the units' terms, and return how many those are."""
        at = {term: row for row, term in enumerate(self._of_units)}
        for column, choice in enumerate(self.space.choices):
            for gene, option in enumerate(choice.options):
                row = at.get(Term("unit", choice.name, self.kernels[choice.name, str(option)].name))
                if row is not None:
                    rows[row] += genomes[:, column] == gene
        return len(at)

    def _reads_codes(self, tensor: str, reader: str, integer: NDArray[np.bool_]) -> NDArray[np.bool_]:
        if reader == CALLER or tensor not in operands(self.model.unit(reader)):
            return np.zeros(integer.shape[1], bool)
        return np.asarray(integer[self._positions[reader]])

    def _any_reads_codes(self, tensor: str, integer: NDArray[np.bool_]) -> NDArray[np.bool_]:
        readers = self.model.readers.get(tensor, ())
        read = [self._reads_codes(tensor, unit.name, integer) for unit in readers]
        return np.asarray(np.any(read, axis=0))

    def _gives_codes(
        self, tensor: str, integer: NDArray[np.bool_], read: Mapping[str, NDArray[np.bool_]]
    ) -> NDArray[np.bool_]:
        producer = self.model.producers[tensor]
        computes = integer[self._positions[producer.name]]
        return np.asarray(computes & read[tensor] if producer.op in GIVES_REALS else computes)


def tensor_bytes(model: ImportedModel, tensor: str) -> int:
    """Return the bytes of a tensor's real numbers."""
    return 4 * int(np.prod(model.shapes.get(tensor, ()), dtype=np.int64))
