"""Which units compute on integers once the formats of products are chosen: additions, pooling and what only
moves values follow their neighbours, since converting to real numbers and back costs more than they do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np
import onnx
from numpy.typing import NDArray

from supernet.imported.model import ImportedModel, Unit
from supernet.imported.rescaling import GATED, rescalings

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
        pays: whether its kernel on integers is faster than converting to real numbers and back.
    """

    operands: int = 1
    moves: bool = False
    pays: bool = True


_MOVES = Follower(moves=True)
# operations that ONNX Runtime has kernels on integers for; figures are microseconds of 64 maps of 28 x 28
# between two pointwise convolutions, on integers and through real numbers (AVX512-VNNI)
FOLLOWERS: Mapping[str, Follower] = {
    "Add": Follower(ALL),  # -1 / 35
    "Mul": Follower(ALL),  # 3 / 36
    "Concat": Follower(ALL),  # 22 / 48
    "GlobalAveragePool": Follower(),  # -32 / -5: what reads it has less to do
    "LeakyRelu": Follower(),  # -14 / 2
    "Sigmoid": Follower(),  # -15 / 9
    "AveragePool": Follower(pays=False),  # 2 x 2: 26 / -2; 3 x 3: 242 / 23; but of a whole map -32 / -5
    "Softmax": Follower(pays=False),  # 91 / 17
    "HardSwish": Follower(),  # 2 / 18
    "HardSigmoid": Follower(),
    "Div": Follower(),  # by a stored number
    "Relu": Follower(),
    "Clip": Follower(),
    "Pad": _MOVES,
    "MaxPool": _MOVES,  # -29 / -7
    "Reshape": _MOVES,
    "Flatten": _MOVES,
    "Transpose": _MOVES,  # -19 / 2
    "Squeeze": _MOVES,
    "Unsqueeze": _MOVES,
    "Slice": _MOVES,  # -25 / -4
    "Split": _MOVES,
    "Gather": _MOVES,
    "Expand": _MOVES,
    "Tile": _MOVES,
    "DepthToSpace": _MOVES,
    "Resize": _MOVES,
}
_LINES = ("HardSwish", "HardSigmoid", "Div", "Relu", "Clip")  # of which only straight lines fit
GIVES_REALS = ("Gemm", "MatMul")  # whose kernels on integers give real numbers where nobody reads codes


def follows(model: ImportedModel, unit: Unit) -> bool:
    """Return whether a unit computes on integers where its neighbours do, without being asked.

    Stored operands would be rounded to 8 bits; a single number loses nothing by that, others may.
    """
    follower = FOLLOWERS.get(unit.op)
    if follower is None or unit.name not in _fitting(model):
        return False
    pools_whole_map = unit.op == "AveragePool" and set(model.shapes[unit.outputs[0]][2:]) == {1}
    return follower.pays or pools_whole_map


def on_codes(model: ImportedModel, unit: Unit) -> bool:
    """Return whether a unit on integers reads and gives codes as they are, without real numbers between."""
    return unit.op == "Pad" or (unit.op != GATED and unit.name in rescalings(model))


@lru_cache(maxsize=8)
def _fitting(model: ImportedModel) -> frozenset[str]:
    """Return the units whose first node has attributes and operands that a kernel on integers takes."""
    proto = onnx.load_from_string(model.content)
    sizes = {tensor.name: prod(tensor.dims) for tensor in proto.graph.initializer}
    names = {unit.name for unit in model.units}
    lines = rescalings(model)
    fitting = {node.name for node in proto.graph.node if node.name in names and _fits(node, sizes)}
    return frozenset(
        unit.name
        for unit in model.units
        if unit.name in fitting and (unit.name in lines or unit.op not in _LINES)
    )


def _fits(node: onnx.NodeProto, sizes: Mapping[str, int]) -> bool:
    given = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    mode = given.get("mode", b"")
    if node.op_type == "Resize":
        return mode in (b"", b"nearest")
    if node.op_type == "Pad":
        return mode in (b"", b"constant") and len([name for name in node.input[2:3] if name]) == 0
    if node.op_type == "MaxPool":
        return len(node.output) == 1
    if node.op_type in FOLLOWERS and FOLLOWERS[node.op_type].operands == ALL:
        return all(sizes.get(name, 1) == 1 for name in node.input)
    return True


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
        if unit.follows:
            onward = multiplied[:, unit.gives].any(axis=1)
            passes = passes | (choices[:, unit.position] == FOLLOWS) & onward
        multiplied[:, unit.reads] |= passes[:, None]
    for unit in plan.units:
        computes = integer[:, unit.position]
        if unit.follows and unit.reads:
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
    follows: bool
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
            follows=follows(model, unit),
            gives_reals=unit.op in GIVES_REALS,
        )
        for position, unit in enumerate(model.units)
    ]
    return _Plan(tuple(places), len(numbers))
