"""Which units compute on integers once the formats of products are chosen: additions, pooling and what only
moves values follow their neighbours, since converting to real numbers and back costs more than they do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from supernet.imported.model import ImportedModel, Unit

REAL, INTEGER, FOLLOWS = 0, 1, -1  # what is chosen for a unit
ALL = 2**16
CLIPS = ("Relu", "Clip")  # vanish into the range of codes
Choices = NDArray[np.int8]


@dataclass(frozen=True)
class Follower:
    """How an operation without weights is computed on integers.

    Attributes:
        operands: how many of its first inputs are codes; others are sizes, indices and the like.
        moves: whether it only chooses among values, so that codes keep their scale.
    """

    operands: int = 1
    moves: bool = False


_MOVES = Follower(moves=True)
# operations that ONNX Runtime has kernels on integers for
FOLLOWERS: Mapping[str, Follower] = {
    "Add": Follower(ALL),
    "Mul": Follower(ALL),
    "Concat": Follower(ALL),
    "GlobalAveragePool": Follower(),
    "AveragePool": Follower(),
    "LeakyRelu": Follower(),
    "Sigmoid": Follower(),
    "Softmax": Follower(),
    "MaxPool": _MOVES,
    "Reshape": _MOVES,
    "Flatten": _MOVES,
    "Transpose": _MOVES,
    "Squeeze": _MOVES,
    "Unsqueeze": _MOVES,
    "Slice": _MOVES,
    "Split": _MOVES,
    "Gather": _MOVES,
    "Expand": _MOVES,
    "Tile": _MOVES,
    "DepthToSpace": _MOVES,
    "Resize": _MOVES,
}
GIVES_REALS = ("Gemm", "MatMul")  # whose kernels on integers give real numbers where nobody reads codes


def operands(unit: Unit) -> tuple[str, ...]:
    """Return the inputs of a unit that are codes where it computes on integers."""
    return unit.inputs[: FOLLOWERS[unit.op].operands if unit.op in FOLLOWERS else ALL]


def keeps_scale(unit: Unit) -> bool:
    """Return whether what a unit gives is codes of what it reads."""
    return unit.op in FOLLOWERS and FOLLOWERS[unit.op].moves


def integer_units(model: ImportedModel, choices: Choices) -> NDArray[np.bool_]:
    """Return which units compute on integers, (n, units), in n policies.

    A unit that follows does so if all that it reads are codes; a matrix product gives codes only where some
    unit at the end of followers multiplies them.

    Args:
        choices: (n, units) of `REAL`, `INTEGER` or `FOLLOWS`, in the order of the model's units.
    """
    plan = _plan(model)
    integer: NDArray[np.bool_] = np.equal(choices, INTEGER)
    codes = np.zeros((len(choices), plan.tensors), bool)
    multiplied = np.zeros_like(codes)
    for unit in reversed(plan.units):
        passes = integer[:, unit.position]
        if unit.follower:
            onward = multiplied[:, unit.gives].any(axis=1)
            passes = passes | (choices[:, unit.position] == FOLLOWS) & onward
        multiplied[:, unit.reads] |= passes[:, None]
    for unit in plan.units:
        computes = integer[:, unit.position]
        if unit.follower and unit.reads:
            follows = choices[:, unit.position] == FOLLOWS
            computes |= follows & codes[:, unit.reads].all(axis=1)
        given = computes[:, None]
        codes[:, unit.gives] = given & multiplied[:, unit.gives] if unit.gives_reals else given
    return integer


@dataclass(frozen=True)
class _Place:
    """A unit by numbers: tensors that are codes where it computes on integers."""

    position: int
    reads: list[int]
    gives: list[int]
    follower: bool
    gives_reals: bool


@dataclass(frozen=True)
class _Plan:
    units: tuple[_Place, ...]
    tensors: int


@lru_cache(maxsize=8)
def _plan(model: ImportedModel) -> _Plan:
    numbers: dict[str, int] = {}
    places = [
        _Place(
            position,
            [numbers.setdefault(tensor, len(numbers)) for tensor in operands(unit)],
            [numbers.setdefault(tensor, len(numbers)) for tensor in unit.outputs],
            follower=unit.op in FOLLOWERS,
            gives_reals=unit.op in GIVES_REALS,
        )
        for position, unit in enumerate(model.units)
    ]
    return _Plan(tuple(places), len(numbers))
