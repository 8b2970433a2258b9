"""Which tensors policies round to codes of 8 bits, units that follow their neighbours among what does."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from predictors.latency.policy_terms import PolicyTerms
from supernet.imported.following import GIVES_REALS, keeps_scale, operands
from supernet.imported.model import Unit
from supernet.space.space import Genomes


@dataclass(frozen=True, eq=False)
class RoundedTensors:
    """Tensors of one model: what a unit on integers reads, and what it gives.

    A tensor is rounded once, however many units read it, and so is what is only moved: its codes are those of
    what was read.

    Attributes:
        terms: of the policies.
    """

    terms: PolicyTerms

    def __call__(self, genomes: Genomes) -> NDArray[np.bool_]:
        """Return (n, t) which of them policies (n, g) round."""
        integer = self.terms.integer(genomes)
        rounded = np.zeros((len(genomes), len(self.names)), bool)
        for unit, columns in zip(integer.T, self._columns, strict=True):
            rounded[:, columns] |= unit[:, None]
        return rounded

    @cached_property
    def names(self) -> tuple[str, ...]:
        """One tensor of each column."""
        every = (self._origin(tensor) for unit in self.terms.model.units for tensor in _codes(unit))
        return tuple(dict.fromkeys(every))

    @cached_property
    def _columns(self) -> list[list[int]]:
        """By unit, what it rounds where it computes on integers."""
        at = {name: column for column, name in enumerate(self.names)}
        units = self.terms.model.units
        return [sorted({at[self._origin(tensor)] for tensor in _codes(unit)}) for unit in units]

    @cached_property
    def _moved(self) -> dict[str, str]:
        """What tensors are moved from."""
        moves = [unit for unit in self.terms.model.units if keeps_scale(unit) and unit.inputs]
        return {tensor: unit.inputs[0] for unit in moves for tensor in unit.outputs}

    def _origin(self, tensor: str) -> str:
        while tensor in self._moved:
            tensor = self._moved[tensor]
        return tensor


def _codes(unit: Unit) -> tuple[str, ...]:
    """Return what are codes where a unit computes on integers; a matrix product gives codes only to who reads
    them.
    """
    return operands(unit) if unit.op in GIVES_REALS else (*operands(unit), *unit.outputs)
