"""Operations along axes: means, sums, softmax, norms."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.litert.conversion import FIRST, LAST, MAPS, TO_LAST, Conversion, Order, Steps
from hw_profiles.runtimes.litert.onnx_source import Node
from hw_profiles.runtimes.litert.windows import global_mean_on_codes

Write = Callable[[Conversion, Node], None]


def reduction(code: str) -> Write:
    """Return what writes an operator that leaves one number along axes."""

    def write(conversion: Conversion, node: Node) -> None:
        rank = len(conversion.shape(node.input(0)))
        axes = _axes(conversion, node, rank)
        keeps = bool(node.integer("keepdims", 1))
        if (
            code == "MEAN"
            and keeps
            and rank == MAPS
            and axes == [2, 3]
            and global_mean_on_codes(conversion, node)
        ):
            return
        order = conversion.order_of(node.input(0)) if keeps or (rank == MAPS and axes == [2, 3]) else FIRST
        source = conversion.read(node.input(0), order)
        placed = [TO_LAST.index(axis) for axis in axes] if order == LAST else axes
        given = order if keeps else FIRST
        stored = conversion.sizes(f"{node.name}.axes", placed)
        output = conversion.give(node.outputs[0], given)
        conversion.operate(code, (source, stored), output, "ReducerOptions", keepDims=keeps)

    return write


def _axes(conversion: Conversion, node: Node, rank: int) -> list[int]:
    given: Sequence[int] = node.integers("axes", ())
    if node.input(1):
        given = conversion.required(node, 1, "axes").tolist()
    return sorted(int(axis) % rank for axis in given) or list(range(rank))


def softmax(conversion: Conversion, node: Node) -> None:
    """Write shares along an axis, which the operator takes along the last only."""
    shape = conversion.shape(node.input(0))
    axis = node.integer("axis", -1) % len(shape)
    order: Order = LAST if len(shape) == MAPS and axis == 1 else FIRST
    source = conversion.read(node.input(0), order)
    if order == LAST or axis == len(shape) - 1:
        conversion.operate(
            "SOFTMAX", (source,), conversion.give(node.outputs[0], order), "SoftmaxOptions", beta=1.0
        )
        return
    axes = [place for place in range(len(shape)) if place != axis] + [axis]
    moved = conversion.between(f"{node.name}.moved", source, [shape[place] for place in axes])
    conversion.transpose(source, moved, axes)
    shares = conversion.operate(
        "SOFTMAX", (moved,), conversion.between(f"{node.name}.shares", moved), "SoftmaxOptions", beta=1.0
    )
    conversion.transpose(
        shares, conversion.give(node.outputs[0]), [axes.index(place) for place in range(len(shape))]
    )


def batch_norm(conversion: Conversion, node: Node) -> None:
    """Write a line for each channel."""
    scale, offset, mean, variance = (
        conversion.required(node, place, "statistic").astype(np.float32) for place in range(1, 5)
    )
    factor = scale / np.sqrt(variance + np.float32(node.number("epsilon", 1e-5)))
    rank = len(conversion.shape(node.input(0)))
    order: Order = LAST if rank == MAPS else FIRST
    shape = (1, -1, *(1,) * (rank - 2)) if order == FIRST else (1, 1, 1, -1)
    source = conversion.read(node.input(0), order)
    line = [
        conversion.store(f"{node.name}.{key}", value.reshape(shape).astype(np.float32))
        for key, value in (("factor", factor), ("offset", offset - mean * factor))
    ]
    scaled = conversion.between(f"{node.name}.scaled", source)
    conversion.operate("MUL", (source, line[0]), scaled, "MulOptions")
    output = conversion.give(node.outputs[0], order)
    conversion.operate("ADD", (scaled, line[1]), output, "AddOptions")


def layer_norm(conversion: Conversion, node: Node) -> None:
    """Write a norm over the last dimensions as what it is made of."""
    shape = conversion.shape(node.input(0))
    axis = node.integer("axis", -1) % len(shape)
    x = conversion.read(node.input(0))
    step = Steps(conversion, node, x)
    axes = conversion.sizes(f"{node.name}.axes", range(axis, len(shape)))
    mean = partial(
        step, "MEAN", kind="ReducerOptions", shape=(*shape[:axis], *[1] * (len(shape) - axis)), keepDims=True
    )
    centred = x if node.op == "RMSNormalization" else step("SUB", (x, mean((x, axes))), "SubOptions")
    small = Steps(conversion, node, variance := mean((step("MUL", (centred, centred), "MulOptions"), axes)))
    above = small("ADD", (variance, step.number(node.number("epsilon", 1e-5))), "AddOptions")
    normed = step("MUL", (centred, small("RSQRT", (above,))), "MulOptions")
    scale, offset = (
        conversion.store(f"{node.name}.{key}", conversion.required(node, place, key).astype(np.float32))
        if node.input(place)
        else None
        for place, key in ((1, "scale"), (2, "offset"))
    )
    assert scale is not None
    if offset is None:
        step("MUL", (normed, scale), "MulOptions", output=conversion.give(node.outputs[0]))
        return
    scaled = step("MUL", (normed, scale), "MulOptions")
    step("ADD", (scaled, offset), "AddOptions", output=conversion.give(node.outputs[0]))


def where(conversion: Conversion, node: Node) -> None:
    """Write a choice between two tensors."""
    places = [conversion.read(name) for name in node.inputs]
    conversion.operate("SELECT_V2", places, conversion.give(node.outputs[0]), "SelectV2Options")


def comparison(code: str, kind: str) -> Write:
    """Return what writes a comparison."""

    def write(conversion: Conversion, node: Node) -> None:
        places = [conversion.read(name) for name in node.inputs]
        conversion.operate(code, places, conversion.give(node.outputs[0]), kind)

    return write


def arg_max(conversion: Conversion, node: Node) -> None:
    """Write the place of the largest number along an axis."""
    if node.integer("select_last_index", 0) or conversion.source.dtypes[node.outputs[0]] != "int64":
        raise TrilobitError(f"LiteRT: no such ArgMax is written ({node.name})")
    rank = len(conversion.shape(node.input(0)))
    axis = conversion.sizes(f"{node.name}.axis", np.array(node.integer("axis", 0) % rank))
    source = conversion.read(node.input(0))
    output = conversion.give(node.outputs[0])
    if not node.integer("keepdims", 1):
        conversion.operate("ARG_MAX", (source, axis), output, "ArgMaxOptions", outputType="int64")
        return
    shape = list(conversion.shape(node.outputs[0]))
    del shape[node.integer("axis", 0) % rank]
    flat = conversion.between(f"{node.name}.flat", output, shape)
    conversion.operate("ARG_MAX", (source, axis), flat, "ArgMaxOptions", outputType="int64")
    conversion.reshape(flat, output)


REDUCTIONS: Mapping[str, Write] = {
    "ReduceMean": reduction("MEAN"),
    "ReduceSum": reduction("SUM"),
    "ReduceMax": reduction("REDUCE_MAX"),
    "ReduceMin": reduction("REDUCE_MIN"),
    "Softmax": softmax,
    "BatchNormalization": batch_norm,
    "LayerNormalization": layer_norm,
    "RMSNormalization": layer_norm,
    "Where": where,
    "Equal": comparison("EQUAL", "EqualOptions"),
    "Less": comparison("LESS", "LessOptions"),
    "Greater": comparison("GREATER", "GreaterOptions"),
    "ArgMax": arg_max,
}
