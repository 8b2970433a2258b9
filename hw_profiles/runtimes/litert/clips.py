"""Clips: of real numbers, of what codes stand for, and of codes."""

import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.litert.conversion import LAST, OFFSET, Codes, Conversion, Order
from hw_profiles.runtimes.litert.fusing import (
    NONE,
    RELU,
    RELU6,
    Fused,
    activation_of,
    bounds,
    code_output,
    codes_of,
)
from hw_profiles.runtimes.litert.onnx_source import Node

FREE = (-128, 127)  # the first and the last code that there are


def clip(conversion: Conversion, node: Node) -> None:
    """Write a clip: of codes by codes, of what codes stand for where new ones end there by themselves."""
    if node.input(0) in conversion.codes:
        _clip_codes(conversion, node)
        return
    view, on_codes = conversion.views.get(node.input(0)), _coded_behind(conversion, node)
    if view and on_codes and activation_of(conversion, node) and _ends_at_zero(on_codes.codes):
        order = conversion.order_of(view.tensor)
        source = conversion.read_codes(view, order)
        conversion.operate("QUANTIZE", (source,), on_codes.give(conversion, order), "QuantizeOptions")
        return
    ends = bounds(conversion, node)
    if ends is None:
        raise TrilobitError(f"LiteRT: no {node.op} with computed ends is written ({node.name})")
    order = conversion.order_of(node.input(0))
    source = conversion.read(node.input(0), order)
    word = activation_of(conversion, node)
    if word:
        conversion.operate(word, (source,), conversion.give(node.outputs[0], order))
        return
    _limit(conversion, node, source, order, ends)


def _coded_behind(conversion: Conversion, node: Node) -> Fused | None:
    """Return what becomes codes right behind a node."""
    output = code_output(conversion, node)
    return output if output is not None and output.activation == NONE else None


def _ends_at_zero(codes: Codes | None) -> bool:
    return codes is not None and codes.zero == -OFFSET


def _limit(conversion: Conversion, node: Node, source: int, order: Order, ends: tuple[float, float]) -> None:
    """Write the two ends of a clip, those that there are."""
    sides = [("MAXIMUM", ends[0]), ("MINIMUM", ends[1])]
    sides = [(code, end) for code, end in sides if np.isfinite(end)]
    if not sides:
        conversion.same(node.outputs[0], node.input(0))
        return
    for position, (code, end) in enumerate(sides):
        value = conversion.store(f"{node.name}.{code.lower()}", np.array(end, np.float32))
        last = position == len(sides) - 1
        output = (
            conversion.give(node.outputs[0], order)
            if last
            else conversion.between(f"{node.name}.low", source)
        )
        source = conversion.operate(code, (source, value), output, "MaximumMinimumOptions")


def _clip_codes(conversion: Conversion, node: Node) -> None:
    """Write a clip of codes: as what it is of the numbers that readers take them for, where there is a word
    for that, since XNNPACK has no kernel for the smaller of two codes.
    """
    name = node.input(0)
    codes, (first, last) = conversion.codes[name], _ends(conversion, node)
    read = _read_as(conversion, node.outputs[0])
    word = "" if read is None else _word(read, first, last)
    order = conversion.order_of(name)
    if (first, last) == FREE:
        conversion.same(node.outputs[0], name)
    elif word and read is not None and order == LAST and not conversion.lean:
        source, output = conversion.read(name, order), conversion.give(node.outputs[0], order, read)
        conversion.straight_line(source, output, codes, read, word)
    else:
        _limit_codes(conversion, node, codes, (first, last))


def _ends(conversion: Conversion, node: Node) -> tuple[int, int]:
    """Return the first and the last code that a clip lets through, as LiteRT has them."""
    offset = OFFSET if conversion.source.dtypes[node.input(0)] == "uint8" else 0
    ends = list(FREE)
    for place in (1, 2):
        array = conversion.source.constants.get(node.input(place))
        if node.input(place) and array is None:
            raise TrilobitError(f"LiteRT: no {node.op} with computed ends is written ({node.name})")
        if array is not None:
            ends[place - 1] = int(array.item()) - offset
    return ends[0], ends[1]


def _read_as(conversion: Conversion, name: str) -> Codes | None:
    """Return what all readers of codes take them for; None where that differs, or others read them."""
    readers = conversion.source.readers.get(name, ())
    if name in conversion.source.outputs or any(each.op != "DequantizeLinear" for each in readers):
        return None
    read = {codes_of(conversion, each) for each in readers}
    return read.pop() if len(read) == 1 else None


def _word(codes: Codes, first: int, last: int) -> str:
    """Return the word for a clip between codes of a meaning that operators have fused into them; empty where
    there is none. From -1 to 1 is from 0 where the first code means that.
    """
    if codes.zero != first:
        return ""
    if last == FREE[1]:
        return RELU
    ends = ((6.0, RELU6), (1.0, "RELU_N1_TO_1" if first == FREE[0] else ""))
    return next((word for end, word in ends if codes.zero + round(end / codes.scale) == last), "")


def _limit_codes(conversion: Conversion, node: Node, codes: Codes, ends: tuple[int, int]) -> None:
    order = conversion.order_of(node.input(0))
    source = conversion.read(node.input(0), order)
    both = [("MAXIMUM", ends[0]), ("MINIMUM", ends[1])]
    sides = [(code, end) for (code, end), free in zip(both, FREE, strict=True) if end != free]
    for position, (code, end) in enumerate(sides):
        value = conversion.store(
            f"{node.name}.{code.lower()}",
            np.array(end, np.int8),
            scales=(float(np.float32(codes.scale)),),
            zero_point=codes.zero,
        )
        last = position == len(sides) - 1
        output = (
            conversion.give(node.outputs[0], order, codes)
            if last
            else conversion.between(f"{node.name}.low", source)
        )
        source = conversion.operate(code, (source, value), output, "MaximumMinimumOptions")
