"""Operations that only choose among numbers, or arrange them: of codes as of real numbers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.litert.conversion import (
    FIRST,
    LAST,
    MAPS,
    OFFSET,
    TO_FIRST,
    TO_LAST,
    Codes,
    Conversion,
    Order,
    View,
)
from hw_profiles.runtimes.litert.fusing import NONE, code_output
from hw_profiles.runtimes.litert.onnx_source import Node

_T = TypeVar("_T")
AXES = {FIRST: (0, 1, 2, 3), LAST: TO_LAST}


@dataclass(frozen=True)
class Moved:
    """What is moved: real numbers, or codes.

    Attributes:
        conversion, node: of which.
        source: name of what is read.
        codes: what codes mean; None of real numbers.
        result: name of what is given.
        view: of the codes, where what is read are the real numbers that they stand for.
        nodes: that are done with it.
    """

    conversion: Conversion
    node: Node
    source: str
    result: str
    codes: Codes | None = None
    view: View | None = None
    nodes: tuple[Node, ...] = ()

    def read(self, order: Order) -> int:
        """Return the place of what is moved."""
        if self.view is not None:
            return self.conversion.read_codes(self.view, order)
        return self.conversion.read(self.source, order)

    def give(self, order: Order, name: str = "") -> int:
        """Add what is given."""
        self.conversion.finished.update(self.nodes)
        return self.conversion.give(name or self.result, order, self.codes)

    def order(self) -> Order:
        """Return the order in which it is there."""
        return self.conversion.order_of(self.source)

    def alias(self, order: Order, of: Order) -> None:
        """Let what is given be what is read, whose memory in one order is that of the result in another."""
        self.conversion.finished.update(self.nodes)
        self.conversion.places[self.result, order] = self.read(of)
        if self.codes is not None:
            self.conversion.codes[self.result] = self.codes

    @property
    def zero(self) -> float:
        """What stands for 0."""
        return 0.0 if self.codes is None else float(self.codes.zero)


Move = Callable[[Moved], None]


def moving(move: Move) -> Callable[[Conversion, Node], None]:
    """Return what writes an operation that moves numbers, of codes where it reads and gives the same."""

    def write(conversion: Conversion, node: Node) -> None:
        name = node.input(0)
        if (held := conversion.stored.get(name)) is not None and node.op == "Transpose":
            conversion.stored[node.outputs[0]] = held.transposed(
                node.integers("perm", range(held.codes.ndim)[::-1])
            )
            return
        view = conversion.views.get(name)
        if name in conversion.codes:
            move(Moved(conversion, node, name, node.outputs[0], conversion.codes[name]))
            return
        coded = code_output(conversion, node) if view is not None and len(node.outputs) == 1 else None
        if view is not None and coded is not None and coded.codes == view.codes and coded.activation == NONE:
            move(Moved(conversion, node, name, coded.name, view.codes, view, coded.nodes))
            return
        move(Moved(conversion, node, name, node.outputs[0]))

    return write


def reshape(moved: Moved) -> None:
    """Write another shape of the same numbers, in the order of the file that is converted."""
    conversion, shape = moved.conversion, moved.conversion.shape(moved.result)
    if shape == conversion.shape(moved.source):
        order = moved.order()
        moved.alias(order, order)
        return
    conversion.reshape(moved.read(FIRST), moved.give(FIRST))


def transpose(moved: Moved) -> None:
    """Write another order of dimensions; where that is what lies in memory already, nothing."""
    rank = len(moved.conversion.shape(moved.source))
    axes = moved.node.integers("perm", range(rank)[::-1])
    if axes == tuple(range(rank)):
        order = moved.order()
        moved.alias(order, order)
    elif axes == TO_LAST and moved.order() == LAST:
        moved.alias(FIRST, LAST)
    elif axes == TO_FIRST and moved.order() == FIRST:
        moved.alias(LAST, FIRST)
    else:
        moved.conversion.transpose(moved.read(FIRST), moved.give(FIRST), axes)


def _permuted(values: Sequence[_T], order: Order) -> list[_T]:
    """Return what is said of each dimension as they lie in memory."""
    return [values[axis] for axis in AXES[order]] if len(values) == MAPS else list(values)


def pad(moved: Moved) -> None:
    """Write numbers around."""
    conversion, node = moved.conversion, moved.node
    if node.text("mode", "constant") != "constant":
        raise TrilobitError(f"LiteRT: Pad is written with a constant only ({node.name})")
    rank = len(conversion.shape(moved.source))
    given = (
        node.integers("pads", ()) if "pads" in node.given else conversion.required(node, 1, "size").tolist()
    )
    axes = conversion.constant(node.input(3)) if node.input(3) else np.arange(rank)
    if axes is None or min(given) < 0:
        raise TrilobitError(f"LiteRT: Pad is written with stored sizes, that add only ({node.name})")
    around = [(0, 0)] * rank
    for place, axis in enumerate(np.asarray(axes).tolist()):
        around[axis % rank] = (int(given[place]), int(given[place + len(given) // 2]))
    order = moved.order()
    source = moved.read(order)
    sizes = conversion.sizes(f"{node.name}.pads", np.array(_permuted(around, order)))
    value = _pad_value(moved)
    if value == moved.zero:
        conversion.operate("PAD", (source, sizes), moved.give(order), "PadOptions")
        return
    read = conversion.model.tensors[source]
    quantized = {"scales": read.scales, "zero_point": read.zero_point} if read.scales else {}
    stored = conversion.store(f"{node.name}.value", np.array([value], read.dtype), **quantized)
    conversion.operate("PADV2", (source, sizes, stored), moved.give(order), "PadV2Options")


def _pad_value(moved: Moved) -> float:
    conversion, node = moved.conversion, moved.node
    if not node.input(2):
        value = node.number("value", 0.0)
        if moved.codes is None or moved.view is not None:
            return value if moved.codes is None else moved.zero
        return value - (OFFSET if conversion.source.dtypes[moved.source] == "uint8" else 0)
    value = float(conversion.required(node, 2, "value").item())
    if moved.codes is None:
        return value
    if moved.view is not None:
        return float(np.clip(round(value / moved.codes.scale) + moved.codes.zero, -OFFSET, OFFSET - 1))
    return value - (OFFSET if conversion.source.dtypes[moved.source] == "uint8" else 0)


def slices(moved: Moved) -> None:
    """Write a part."""
    conversion, node = moved.conversion, moved.node
    shape = conversion.shape(moved.source)
    if "starts" in node.given:  # of opsets before 10
        starts, ends = node.integers("starts", ()), node.integers("ends", ())
        axes, steps = node.integers("axes", range(len(starts))), (1,) * len(starts)
    else:
        starts, ends = (tuple(conversion.required(node, p, "place").tolist()) for p in (1, 2))
        axes = (
            tuple(conversion.required(node, 3, "axes").tolist())
            if node.input(3)
            else tuple(range(len(starts)))
        )
        steps = tuple(conversion.required(node, 4, "steps").tolist()) if node.input(4) else (1,) * len(starts)
    ranges = {
        axis % len(shape): slice(a, b, s).indices(shape[axis])
        for axis, a, b, s in zip(axes, starts, ends, steps, strict=True)
    }
    if any(step < 0 for *_, step in ranges.values()):
        raise TrilobitError(f"LiteRT: no Slice backwards is written ({node.name})")
    _strided(moved, moved.result, [ranges.get(axis, (0, size, 1)) for axis, size in enumerate(shape)])


def _strided(moved: Moved, name: str, ranges: Sequence[tuple[int, int, int]]) -> None:
    conversion, order = moved.conversion, moved.order()
    source = moved.read(order)
    columns = [
        conversion.sizes(f"{name}.{key}", _permuted([each[i] for each in ranges], order))
        for i, key in enumerate(("begin", "end", "steps"))
    ]
    masks = dict.fromkeys(("beginMask", "endMask", "ellipsisMask", "newAxisMask", "shrinkAxisMask"), 0)
    conversion.operate(
        "STRIDED_SLICE", (source, *columns), moved.give(order, name), "StridedSliceOptions", **masks
    )


def split(moved: Moved) -> None:
    """Write parts beside each other."""
    conversion, node = moved.conversion, moved.node
    shape = conversion.shape(moved.source)
    axis, begin = node.integer("axis", 0) % len(shape), 0
    for name in node.outputs:
        size = conversion.shape(name)[axis]
        ranges = [(0, whole, 1) for whole in shape]
        ranges[axis] = (begin, begin + size, 1)
        _strided(moved, name, ranges)
        begin += size


def gather(moved: Moved) -> None:
    """Write a choice along an axis."""
    conversion, node = moved.conversion, moved.node
    axis = node.integer("axis", 0) % len(conversion.shape(moved.source))
    stored = conversion.source.constants.get(node.input(1))
    if stored is not None:
        whole = conversion.shape(moved.source)[axis]
        indices = conversion.sizes(f"{node.name}.places", np.where(stored < 0, stored + whole, stored))
    else:
        indices = conversion.read(node.input(1))
    source = moved.read(FIRST)
    conversion.operate(
        "GATHER", (source, indices), moved.give(FIRST), "GatherOptions", axis=axis, batchDims=0
    )


def expand(moved: Moved) -> None:
    """Write repetitions of what has one element along a dimension."""
    conversion = moved.conversion
    shape = conversion.shape(moved.result)
    target = conversion.sizes(f"{moved.node.name}.shape", shape)
    source = moved.read(FIRST)
    conversion.operate("BROADCAST_TO", (source, target), moved.give(FIRST), "BroadcastToOptions")


def tile(moved: Moved) -> None:
    """Write repetitions."""
    conversion = moved.conversion
    times = conversion.sizes(f"{moved.node.name}.times", conversion.required(moved.node, 1, "count"))
    source = moved.read(FIRST)
    conversion.operate("TILE", (source, times), moved.give(FIRST), "TileOptions")


def resize(moved: Moved) -> None:
    """Write maps of another size."""
    conversion, node = moved.conversion, moved.node
    before, after = conversion.shape(moved.source), conversion.shape(moved.result)
    if len(before) != MAPS or before[:2] != after[:2]:
        raise TrilobitError(f"LiteRT: Resize is written for the size of maps only ({node.name})")
    mode = node.text("mode", "nearest")
    code, kind, options = _resizing(moved, mode, before[2:], after[2:])
    size = conversion.sizes(f"{node.name}.size", after[2:])
    source = moved.read(LAST)
    conversion.operate(code, (source, size), moved.give(LAST), kind, **options)


def _resizing(
    moved: Moved, mode: str, before: Sequence[int], after: Sequence[int]
) -> tuple[str, str, dict[str, bool]]:
    node = moved.node
    where = node.text(
        "coordinate_transformation_mode", "asymmetric" if node.op == "Upsample" else "half_pixel"
    )
    whole = all(b % a == 0 for a, b in zip(before, after, strict=True))
    if mode == "nearest":
        floors = where == "asymmetric" and node.text("nearest_mode", "round_prefer_floor") == "floor"
        if not whole and not floors:
            raise TrilobitError(f"LiteRT: Resize is written by whole factors only ({node.name})")
        return (
            "RESIZE_NEAREST_NEIGHBOR",
            "ResizeNearestNeighborOptions",
            {"alignCorners": False, "halfPixelCenters": False},
        )
    known = {
        "half_pixel": (False, True),
        "pytorch_half_pixel": (False, True),
        "align_corners": (True, False),
        "asymmetric": (False, False),
    }
    if mode != "linear" or where not in known or (where == "pytorch_half_pixel" and 1 in after):
        raise TrilobitError(f"LiteRT: no Resize by {mode} at {where} is written ({node.name})")
    corners, centres = known[where]
    return "RESIZE_BILINEAR", "ResizeBilinearOptions", {"alignCorners": corners, "halfPixelCenters": centres}


def depth_to_space(moved: Moved) -> None:
    """Write channels beside each other."""
    node = moved.node
    if node.text("mode", "DCR") != "DCR":
        raise TrilobitError(f"LiteRT: DepthToSpace is written by blocks of channels (DCR) only ({node.name})")
    source = moved.read(LAST)
    moved.conversion.operate(
        "DEPTH_TO_SPACE",
        (source,),
        moved.give(LAST),
        "DepthToSpaceOptions",
        blockSize=node.integer("blocksize", 1),
    )


def concat(conversion: Conversion, node: Node) -> None:
    """Write tensors one behind another; codes are brought to the scale of the result."""
    shape = conversion.shape(node.outputs[0])
    views = [conversion.views.get(name) for name in node.inputs]
    coded = code_output(conversion, node)
    computed = [name for name in node.inputs if conversion.constant(name) is None]
    order = LAST if any(conversion.order_of(name) == LAST for name in computed) else FIRST
    axis = node.integer("axis", 0) % len(shape)
    axis = AXES[order].index(axis) if len(shape) == MAPS else axis
    if coded is not None and coded.activation == NONE and all(view is not None for view in views):
        assert coded.codes is not None
        places = [_at_scale(conversion, view, order, coded.codes) for view in views if view is not None]
        output = coded.give(conversion, order)
    else:
        places = [conversion.read(name, order) for name in node.inputs]
        output = conversion.give(node.outputs[0], order)
    conversion.operate("CONCATENATION", places, output, "ConcatenationOptions", axis=axis)


def _at_scale(conversion: Conversion, view: View, order: Order, codes: Codes) -> int:
    place = conversion.read_codes(view, order)
    if view.codes == codes:
        return place
    shape = conversion.model.tensors[place].shape
    output = conversion.model.add(conversion.tensor(f"{view.tensor}.rescaled", shape, "int8", codes))
    return conversion.operate("QUANTIZE", (place,), output, "QuantizeOptions")


MOVES: Mapping[str, Callable[[Conversion, Node], None]] = {
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), moving(reshape)),
    "Transpose": moving(transpose),
    "Pad": moving(pad),
    "Slice": moving(slices),
    "Split": moving(split),
    "Gather": moving(gather),
    "Expand": moving(expand),
    "Tile": moving(tile),
    "Resize": moving(resize),
    "Upsample": moving(resize),
    "DepthToSpace": moving(depth_to_space),
    "Concat": concat,
}
