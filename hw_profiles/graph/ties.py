"""Which dimensions an operation ties together: channels that go from one go from all of a group.

What is in no group can be pruned by itself, or not at all; a group that holds no dimension of a weight or of
an output decides nothing beyond its operation.
"""

from collections.abc import Callable
from typing import NamedTuple

from hw_profiles.graph.attributes import Attributes
from hw_profiles.graph.shape_rules import Types, axis_of, operand
from hw_profiles.graph.tensor_type import Dim


class Axis(NamedTuple):
    """A dimension of a tensor that a layer has to do with.

    Attributes:
        tensor: `input` or `output`, the weight (`weight`) or the bias (`bias`).
        position: which of its inputs or outputs; 0 for weight and bias.
        dim: which dimension, counted from the first.
    """

    tensor: str
    position: int
    dim: int


Group = tuple[Axis, ...]
Ties = Callable[[Types, Types, Attributes], tuple[Group, ...]]

_WEIGHT, _BIAS = "weight", "bias"


def same(inputs: Types, outputs: Types, a: Attributes) -> tuple[Group, ...]:
    """Tie every dimension to its own in the output."""
    return tuple((Axis("input", 0, dim), Axis("output", 0, dim)) for dim in range(len(inputs[0].shape)))


def channels(inputs: Types, outputs: Types, a: Attributes) -> tuple[Group, ...]:
    """Tie batch and channels of maps."""
    return same(inputs, outputs, a)[:2]


def conv(inputs: Types, outputs: Types, a: Attributes) -> tuple[Group, ...]:
    """Tie input channels to those of filters, and filters to output channels; with groups, all of them."""
    read = (Axis("input", 0, 1), Axis(_WEIGHT, 0, 1))
    filters = (Axis(_WEIGHT, 0, 0), Axis(_BIAS, 0, 0), Axis("output", 0, 1))
    return (read, filters) if a.integer("group") == 1 else ((Axis("input", 0, 1), *filters),)


def gemm(inputs: Types, outputs: Types, a: Attributes) -> tuple[Group, ...]:
    """Tie features that are read, and features that are given."""
    return (
        (Axis("input", 0, 1), Axis(_WEIGHT, 0, 1)),
        (Axis(_WEIGHT, 0, 0), Axis(_BIAS, 0, 0), Axis("output", 0, 1)),
    )


def matmul(inputs: Types, outputs: Types, a: Attributes) -> tuple[Group, ...]:
    """Tie the dimension that is summed over, rows, and columns."""
    rank, left, right = len(outputs[0].shape), len(inputs[0].shape), len(operand(inputs, a))
    second, index = ("input", 1) if len(inputs) == 2 else (_WEIGHT, 0)
    summed = (Axis("input", 0, left - 1), Axis(second, index, right - 2))
    rows = (Axis("input", 0, left - 2), Axis("output", 0, rank - 2))
    columns = (Axis(second, index, right - 1), Axis(_BIAS, 0, 0), Axis("output", 0, rank - 1))
    return (summed, rows, columns if "bias" in a and a.integer("bias") else (columns[0], columns[2]))


def broadcast(inputs: Types, outputs: Types, a: Attributes) -> tuple[Group, ...]:
    """Tie dimensions of both operands to the output's, but those of 1 that are repeated."""
    shape = outputs[0].shape
    second = ("input", 1) if len(inputs) == 2 else (_WEIGHT, 0)
    operands = ((("input", 0), inputs[0].shape), (second, operand(inputs, a)))
    return tuple(
        (
            *(
                Axis(*which, dim - len(shape) + len(own))
                for which, own in operands
                if _size(own, dim - len(shape)) == shape[dim]
            ),
            Axis("output", 0, dim),
        )
        for dim in range(len(shape))
    )


def but_axis(inputs: Types, outputs: Types, a: Attributes) -> tuple[Group, ...]:
    """Tie every dimension but the one along which tensors are joined or cut."""
    axis = axis_of(inputs[0], a)
    return tuple(
        (
            *(Axis("input", index, dim) for index in range(len(inputs))),
            *(Axis("output", index, dim) for index in range(len(outputs))),
        )
        for dim in range(len(inputs[0].shape))
        if dim != axis
    )


def transpose(inputs: Types, outputs: Types, a: Attributes) -> tuple[Group, ...]:
    """Tie every dimension to where it goes."""
    order = a.integers("perm")
    return tuple((Axis("input", 0, source), Axis("output", 0, dim)) for dim, source in enumerate(order))


def reshape(inputs: Types, outputs: Types, a: Attributes) -> tuple[Group, ...]:
    """Tie leading dimensions that stay what they are; the others mix."""
    groups = []
    for dim, (in_size, out_size) in enumerate(zip(inputs[0].shape, outputs[0].shape, strict=False)):
        if in_size != out_size:
            break
        groups.append((Axis("input", 0, dim), Axis("output", 0, dim)))
    return tuple(groups)


def layer_norm(inputs: Types, outputs: Types, a: Attributes) -> tuple[Group, ...]:
    """Tie dimensions to themselves, and the normalised ones to scale and bias too."""
    axis, groups = axis_of(inputs[0], a), list(same(inputs, outputs, a))
    for dim in range(axis, len(groups)):
        groups[dim] += (Axis(_WEIGHT, 0, dim - axis), Axis(_BIAS, 0, dim - axis))
    return tuple(groups)


def but_sliced(inputs: Types, outputs: Types, a: Attributes) -> tuple[Group, ...]:
    """Tie every dimension but those of which a part is cut out."""
    rank = len(inputs[0].shape)
    cut = {axis % rank for axis in a.integers("axes")}
    return tuple(group for dim, group in enumerate(same(inputs, outputs, a)) if dim not in cut)


def expand(inputs: Types, outputs: Types, a: Attributes) -> tuple[Group, ...]:
    """Tie dimensions to where they go, but those that are repeated."""
    before, after = inputs[0].shape, outputs[0].shape
    shift = len(after) - len(before)
    return tuple(
        (Axis("input", 0, dim), Axis("output", 0, dim + shift))
        for dim, size in enumerate(before)
        if size == after[dim + shift]
    )


def gather(inputs: Types, outputs: Types, a: Attributes) -> tuple[Group, ...]:
    """Tie ids to where they go, and columns of a table to the output's; without one, all but the axis."""
    rank, gives = len(inputs[0].shape), len(outputs[0].shape)
    if "weight" in a:
        columns = range(1, gives - rank + 1)
        return (
            *(same(inputs, outputs, a)),
            *((Axis(_WEIGHT, 0, dim), Axis("output", 0, rank + dim - 1)) for dim in columns),
        )
    axis = axis_of(inputs[0], a)
    behind = gives - rank
    return tuple(
        (Axis("input", 0, dim), Axis("output", 0, dim + (behind if dim > axis else 0)))
        for dim in range(rank)
        if dim != axis
    )


def where(inputs: Types, outputs: Types, a: Attributes) -> tuple[Group, ...]:
    """Tie dimensions of all operands to the output's, but those of 1 that are repeated."""
    shape = outputs[0].shape
    return tuple(
        (
            *(
                Axis("input", index, dim - len(shape) + len(x.shape))
                for index, x in enumerate(inputs)
                if _size(x.shape, dim - len(shape)) == shape[dim]
            ),
            Axis("output", 0, dim),
        )
        for dim in range(len(shape))
    )


def rotary(inputs: Types, outputs: Types, a: Attributes) -> tuple[Group, ...]:
    """Tie batch, sequence, and heads where they are a dimension; numbers within a head are pairs."""
    return same(inputs, outputs, a)[:-1]


def attention(inputs: Types, outputs: Types, a: Attributes) -> tuple[Group, ...]:
    """Tie batch, queries, and heads of keys to those of values; several of queries go with one of keys."""
    by_heads, present = len(inputs[0].shape) == 4, outputs[1:]
    sequence = 2 if by_heads else 1
    batch = (*(Axis("input", i, 0) for i in range(3)), *(Axis("output", i, 0) for i in range(len(outputs))))
    groups = [
        batch,
        (Axis("input", 0, sequence), Axis("output", 0, sequence)),
        (Axis("input", 1, sequence), Axis("input", 2, sequence)),
    ]
    if by_heads:
        grown = tuple(Axis("output", i + 1, 1) for i in range(len(present)))
        groups.append((Axis("input", 0, 1), Axis("output", 0, 1)))
        groups.append((Axis("input", 1, 1), Axis("input", 2, 1), *grown))
    return tuple(groups)


def block(inputs: Types, outputs: Types, a: Attributes) -> tuple[Group, ...]:
    """Tie channels before and after where a block adds its input."""
    return (channels(inputs, outputs, a)[1],) if a.integer("residual") else ()


def nothing(inputs: Types, outputs: Types, a: Attributes) -> tuple[Group, ...]:
    """Tie nothing: what happens inside is not known."""
    return ()


def _size(shape: tuple[Dim, ...], dim: int) -> Dim | None:
    """Return a dimension counted from the last; None where there is none."""
    return shape[dim] if -dim <= len(shape) else None
