"""What the files of policies need of a microcontroller's working memory, from some that were counted."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import NDArray

from nas.tune.policies.size_model import SizeModel, fit_size
from predictors.latency.policy_terms import PolicyTerms
from supernet.imported.following import GIVES_REALS
from supernet.space.space import Genomes

Floats = NDArray[np.float64]
Marks = NDArray[np.bool_]
REAL_BYTES, CODE_BYTES = 4.0, 1.0


@dataclass(frozen=True)
class Tensor:
    """A tensor that is not stored.

    Attributes:
        numbers: of it.
        giver: unit that gives it; None of what the network reads.
        codes: whether that unit may give codes.
        readers: units that read it, in order; what the network gives is read by nobody at the end.
    """

    numbers: float
    giver: int | None
    codes: bool
    readers: tuple[int, ...]

    @property
    def moments(self) -> range:
        """The units while which it is there."""
        born = self.giver or 0
        return range(born, max((born, *self.readers)) + 1)


@dataclass(frozen=True, eq=False)
class Alive:
    """The most bytes of tensors that are alive at once in files of policies, while units compute and while
    tensors are converted for them.

    A tensor is codes where a unit on integers gives it, and rounded once for all that read codes; real
    numbers of codes are there for one unit.

    Attributes:
        terms: of the policies.
    """

    terms: PolicyTerms

    def __call__(self, genomes: Genomes) -> Floats:
        """Return bytes (n,) of policies (n, g)."""
        integer = self.terms.integer(genomes)
        end = np.zeros((len(genomes), 1), bool)  # who takes what the network gives reads real numbers
        integer = np.concatenate([integer, end], axis=1)
        converting, computing = np.zeros((2, *integer.shape))
        for tensor in self._tensors:
            given = integer[:, tensor.giver] if tensor.giver is not None and tensor.codes else end[:, 0]
            for moment in tensor.moments:
                before, during = _bytes(tensor, given, integer, moment)
                converting[:, moment] += before
                computing[:, moment] += during
        return np.asarray(np.maximum(converting, computing).max(axis=1))

    @cached_property
    def _tensors(self) -> list[Tensor]:
        model = self.terms.model
        born = {tensor: at for at, unit in enumerate(model.units) for tensor in unit.outputs}
        readers: dict[str, list[int]] = {}
        for at, unit in enumerate(model.units):
            for name in dict.fromkeys(unit.inputs):
                readers.setdefault(name, []).append(at)
        for name in model.outputs:
            readers.setdefault(name, []).append(len(model.units))
        reals = {name for unit in model.units if unit.op in GIVES_REALS for name in unit.outputs}
        return [
            Tensor(
                float(prod(model.shapes[name])),
                born.get(name),
                name not in reals,
                tuple(readers.get(name, ())),
            )
            for name in dict.fromkeys((*model.inputs, *born))
            if name in model.shapes
        ]


def _bytes(tensor: Tensor, given: Marks, integer: Marks, moment: int) -> tuple[Floats, Floats]:
    """Return bytes (n,) of a tensor while some are converted for the unit of a moment, and while it computes.

    Args:
        given: (n,) whether it is given as codes.
        integer: (n, units + 1) which units compute on integers.
    """
    later, until = ([r for r in tensor.readers if r >= moment], [r for r in tensor.readers if r <= moment])
    real_later, code_later = _any(~integer, later), _any(integer, later)
    rounded, rounded_before = _any(integer, until), _any(integer, [r for r in until if r < moment])
    real_now = ~integer[:, moment] if moment in tensor.readers else np.zeros(len(given), bool)
    if moment == tensor.giver:
        size = np.where(given, CODE_BYTES, REAL_BYTES) * tensor.numbers
        return np.zeros(len(given)), size
    real_after = _any(~integer, [r for r in later if r > moment])
    codes = np.where(given, real_later | code_later, code_later & rounded)
    reals = np.where(given, real_now, real_later | (code_later & ~rounded_before))
    codes_then = np.where(given, real_after | code_later, code_later & rounded)
    reals_then = np.where(given, real_now, real_later | (code_later & ~rounded))
    before = tensor.numbers * (CODE_BYTES * codes + REAL_BYTES * reals)
    during = tensor.numbers * (CODE_BYTES * codes_then + REAL_BYTES * reals_then)
    return before, during


def _any(marks: Marks, columns: Sequence[int]) -> Marks:
    return np.asarray(marks[:, list(columns)].any(axis=1))


@dataclass(frozen=True, eq=False)
class ArenaModel:
    """Working memory of policies: what is alive at once, and what a sum over units adds to it.

    Attributes:
        alive: bytes of tensors.
        beside: what was counted besides.
    """

    alive: Alive
    beside: SizeModel

    def __call__(self, genomes: Genomes) -> Floats:
        """Return bytes (n,) of policies (n, g)."""
        return self.alive(genomes) + self.beside(genomes)


def fit_arena(terms: PolicyTerms, genomes: Genomes, arenas: Floats) -> ArenaModel:
    """Return the model of policies (n, g) whose files need `arenas` (n,)."""
    alive = Alive(terms)
    return ArenaModel(alive, fit_size(terms.space, genomes, arenas - alive(genomes)))
