"""Rounding to codes, and what codes stand for."""

import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.litert.conversion import OFFSET, Codes, Conversion, Stored, View
from hw_profiles.runtimes.litert.fusing import codes_of
from hw_profiles.runtimes.litert.onnx_source import Array, Node


def quantize(conversion: Conversion, node: Node) -> None:
    """Write the rounding of real numbers to codes, or of codes to other codes."""
    codes = codes_of(conversion, node)
    if codes is None:
        raise TrilobitError(f"LiteRT: activations have codes of 8 bits and one scale; {node.name} has others")
    name = node.input(0)
    order = conversion.order_of(name)
    view = conversion.views.get(name)
    source = conversion.read(name, order) if view is None else conversion.read_codes(view, order)
    conversion.operate(
        "QUANTIZE", (source,), conversion.give(node.outputs[0], order, codes), "QuantizeOptions"
    )


def dequantize(conversion: Conversion, node: Node) -> None:
    """Note what codes stand for; nothing is written before somebody reads that."""
    name, output = node.input(0), node.outputs[0]
    if (array := conversion.source.constants.get(name)) is not None:
        conversion.stored[output] = _stored_codes(conversion, node, array)
        return
    codes = codes_of(conversion, node)
    if codes is None or name not in conversion.codes:
        raise TrilobitError(
            f"LiteRT: activations have codes of 8 bits and one scale; {node.name} reads others"
        )
    conversion.views[output] = View(name, codes)


def _stored_codes(conversion: Conversion, node: Node, array: Array) -> Stored:
    """Return stored codes with their scales.

    Raises:
        TrilobitError: groups of them share one, or zero points differ.
    """
    scales = conversion.required(node, 1, "scale").astype(np.float32)
    zeros = conversion.source.constants.get(node.input(2), np.zeros(1, array.dtype)).astype(np.int64)
    if node.integer("block_size", 0) or scales.ndim > 1 or (zeros.size and np.ptp(zeros)):
        raise TrilobitError("LiteRT: weights in groups, each with a scale or a zero point, are not written")
    axis = node.integer("axis", 1) % max(array.ndim, 1) if scales.size > 1 else 0
    first = int(zeros.flat[0]) if zeros.size else 0
    if array.dtype == np.uint8:
        codes = (array.astype(np.int16) - OFFSET).astype(np.int8)
        return Stored(codes, scales.ravel(), axis, first - OFFSET)
    kept = array if array.dtype in (np.int8, np.int32) else array.astype(np.int8)
    return Stored(kept, scales.ravel(), axis, first)


def cast(conversion: Conversion, node: Node) -> None:
    """Write another element type; of codes whose arithmetic is spelled out, note what they stand for."""
    name, output = node.input(0), node.outputs[0]
    array = conversion.source.constants.get(name)
    if array is not None and _store_cast(conversion, node, array):
        return
    if name in conversion.codes and _spelled_out(conversion, node):
        return
    order = conversion.order_of(name)
    source = conversion.read(name, order)
    if conversion.source.dtypes[name] == conversion.source.dtypes[output]:
        conversion.same(output, name)
        return
    conversion.operate(
        "CAST",
        (source,),
        conversion.give(output, order),
        "CastOptions",
        inDataType=conversion.model.tensors[source].dtype,
        outDataType=conversion.source.dtypes[output],
    )


def _store_cast(conversion: Conversion, node: Node, array: Array) -> bool:
    """Note a weight that is stored in fewer bits than it is computed in: in 16 bits, or as codes that are
    multiplied with their scales.
    """
    output = node.outputs[0]
    if array.dtype == np.float16:
        conversion.halves[output] = array
        return True
    follower = conversion.source.only_reader(output)
    if array.dtype not in (np.int8, np.uint8) or follower is None or follower.op != "Mul":
        return False
    other = conversion.source.constants.get(next((n for n in follower.inputs if n != output), ""))
    axis = None if other is None else _single_axis(other, array.ndim)
    if other is None or axis is None:
        return False
    zero = OFFSET if array.dtype == np.uint8 else 0
    codes = (array.astype(np.int16) - zero).astype(np.int8)
    conversion.stored[follower.outputs[0]] = Stored(codes, other.ravel().astype(np.float32), axis, -zero)
    conversion.finished.add(follower)
    return True


def _single_axis(scales: Array, rank: int) -> int | None:
    """Return the only dimension along which scales differ; None where there are several."""
    shape = (*(1,) * (rank - scales.ndim), *scales.shape)
    along = [axis for axis, size in enumerate(shape) if size > 1]
    return None if len(along) > 1 else (along or [0])[0]


def _spelled_out(conversion: Conversion, node: Node) -> bool:
    """Note (codes - zero) x scale, spelled as three operations, as what codes stand for."""
    less = conversion.source.only_reader(node.outputs[0])
    zero = None if less is None or less.op != "Sub" else conversion.constant(less.input(1))
    if less is None or zero is None or zero.size != 1:
        return False
    times = conversion.source.only_reader(less.outputs[0])
    scale = None if times is None or times.op != "Mul" else conversion.constant(times.input(1))
    if times is None or scale is None or scale.size != 1:
        return False
    offset = OFFSET if conversion.source.dtypes[node.input(0)] == "uint8" else 0
    codes = Codes(float(scale.item()), round(float(zero.item())) - offset)
    conversion.views[times.outputs[0]] = View(node.input(0), codes)
    conversion.finished.update((less, times))
    return True
