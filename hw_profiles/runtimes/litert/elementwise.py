"""Operations on single numbers, with what is broadcast, and the rounding to codes and back."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.litert.conversion import (
    FIRST,
    LAST,
    MAPS,
    OFFSET,
    TO_LAST,
    Codes,
    Conversion,
    Order,
    Steps,
    Stored,
    View,
)
from hw_profiles.runtimes.litert.fusing import (
    NONE,
    RELU,
    RELU6,
    Fused,
    activation_of,
    bounds,
    code_output,
    codes_of,
    real_output,
)
from hw_profiles.runtimes.litert.onnx_source import Array, Node

Write = Callable[[Conversion, Node], None]
HALF_WAVE, SAME = 6.0, 1e-6  # of a sixth, within which a slope is one


# -- rounding ------------------------------------------------------------------------------------------


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


# -- one operand ---------------------------------------------------------------------------------------


def unary(code: str, kind: str = "") -> Write:
    """Return what writes an operator with one operand."""

    def write(conversion: Conversion, node: Node) -> None:
        order = conversion.order_of(node.input(0))
        source = conversion.read(node.input(0), order)
        conversion.operate(code, (source,), conversion.give(node.outputs[0], order), kind)

    return write


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
    """Write a clip of codes."""
    name = node.input(0)
    codes, order = conversion.codes[name], conversion.order_of(name)
    offset = OFFSET if conversion.source.dtypes[name] == "uint8" else 0
    source, sides = conversion.read(name, order), []
    for code, position, free in (("MAXIMUM", 1, 0), ("MINIMUM", 2, 255)):
        array = conversion.source.constants.get(node.input(position))
        if node.input(position) and array is None:
            raise TrilobitError(f"LiteRT: no {node.op} with computed ends is written ({node.name})")
        if array is not None and int(array.item()) + OFFSET - offset != free:
            sides.append((code, int(array.item()) - offset))
    if not sides:
        conversion.same(node.outputs[0], name)
        conversion.codes[node.outputs[0]] = codes
        return
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


def hard_sigmoid(conversion: Conversion, node: Node) -> None:
    """Write clip(alpha x + beta, 0, 1), as a sixth of a clip to 6 where that is what it is."""
    alpha, beta = node.number("alpha", 0.2), node.number("beta", 0.5)
    order = conversion.order_of(node.input(0))
    source = conversion.read(node.input(0), order)
    step = Steps(conversion, node, source)
    sixth = abs(alpha * HALF_WAVE - 1) < SAME
    word = RELU6 if sixth else RELU
    moved = step("ADD", (source, step.number(beta / alpha)), "AddOptions", fusedActivationFunction=word)
    if not sixth:
        moved = step("MINIMUM", (moved, step.number(1 / alpha)), "MaximumMinimumOptions")
    step("MUL", (moved, step.number(alpha)), "MulOptions", output=conversion.give(node.outputs[0], order))


def leaky_relu(conversion: Conversion, node: Node) -> None:
    """Write a line with another slope below 0."""
    order = conversion.order_of(node.input(0))
    source, output = conversion.read(node.input(0), order), conversion.give(node.outputs[0], order)
    conversion.operate("LEAKY_RELU", (source,), output, "LeakyReluOptions", alpha=node.number("alpha", 0.01))


def gelu(conversion: Conversion, node: Node) -> None:
    """Write x times the share of a normal distribution that is below it."""
    order = conversion.order_of(node.input(0))
    source, output = conversion.read(node.input(0), order), conversion.give(node.outputs[0], order)
    rounded = node.text("approximate", "none") == "tanh"
    conversion.operate("GELU", (source,), output, "GeluOptions", approximate=rounded)


def swish(conversion: Conversion, node: Node) -> None:
    """Write x sigmoid(alpha x)."""
    order = conversion.order_of(node.input(0))
    inside = source = conversion.read(node.input(0), order)
    step = Steps(conversion, node, source)
    if (alpha := node.number("alpha", 1.0)) != 1.0:
        inside = step("MUL", (source, step.number(alpha)), "MulOptions")
    gate = step("LOGISTIC", (inside,))
    step("MUL", (source, gate), "MulOptions", output=conversion.give(node.outputs[0], order))


def reciprocal(conversion: Conversion, node: Node) -> None:
    """Write 1 / x."""
    order = conversion.order_of(node.input(0))
    one = conversion.store(f"{node.name}.one", np.array(1, np.float32))
    source, output = conversion.read(node.input(0), order), conversion.give(node.outputs[0], order)
    conversion.operate("DIV", (one, source), output, "DivOptions")


def identity(conversion: Conversion, node: Node) -> None:
    """Let what it gives be what it reads."""
    name = node.input(0)
    if name not in conversion.views and name not in conversion.stored:
        conversion.read(name, conversion.order_of(name))
    conversion.same(node.outputs[0], name)


# erf(x) = sign(x) (1 - (a1 t + ... + a5 t^5) exp(-x^2)), t = 1 / (1 + p |x|): Abramowitz and Stegun 7.1.26,
# within 1.5e-7
_ERF = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
_ERF_P = 0.3275911


def erf(conversion: Conversion, node: Node) -> None:
    """Write the error function, which LiteRT has no operator for, by a polynomial."""
    order = conversion.order_of(node.input(0))
    x = conversion.read(node.input(0), order)
    step = Steps(conversion, node, x)
    add, times = partial(step, "ADD", kind="AddOptions"), partial(step, "MUL", kind="MulOptions")
    one = step.number(1.0)
    magnitude = step("ABS", (x,), "AbsOptions")
    t = step("DIV", (one, add((times((magnitude, step.number(_ERF_P))), one))), "DivOptions")
    total = times((t, step.number(_ERF[-1])))
    for factor in _ERF[-2::-1]:
        total = times((t, add((total, step.number(factor)))))
    tail = step("EXP", (step("NEG", (times((x, x)),), "NegOptions"),), "ExpOptions")
    shares = step("SUB", (one, times((total, tail))), "SubOptions")
    sign = step("SIGN", (x,), "SignOptions")
    times((sign, shares), output=conversion.give(node.outputs[0], order))


# -- two operands --------------------------------------------------------------------------------------


def binary(code: str, kind: str, *, fuses: bool = True, on_codes: bool = False) -> Write:
    """Return what writes an operator with two operands, of which either may be stored.

    Args:
        fuses: whether it computes a clip behind it.
        on_codes: whether it takes codes.
    """

    def write(conversion: Conversion, node: Node) -> None:
        order = _common_order(conversion, node)
        coded = code_output(conversion, node) if on_codes else None
        if coded and all(_is_coded(conversion, name) for name in node.inputs):
            places = [_coded_operand(conversion, node, name, order) for name in node.inputs]
            output = coded
        else:
            places = [operand(conversion, node, name, order) for name in node.inputs]
            output = real_output(conversion, node) if fuses else Fused(node.outputs[0])
        more = {"fusedActivationFunction": output.activation} if fuses else {}
        conversion.operate(code, places, output.give(conversion, order), kind, **more)

    return write


def _common_order(conversion: Conversion, node: Node) -> Order:
    """Return the order in which most is there already."""
    if len(conversion.shape(node.outputs[0])) != MAPS:
        return FIRST
    computed = [name for name in node.inputs if conversion.constant(name) is None]
    return LAST if any(conversion.order_of(name) == LAST for name in computed) else FIRST


def operand(conversion: Conversion, node: Node, name: str, order: Order) -> int:
    """Return an operand as it is broadcast where maps are in an order."""
    array = conversion.constant(name)
    if array is not None:
        return conversion.store(f"{node.name}.operand", _broadcast(array, order))
    return _broadcast_place(conversion, name, conversion.read, order)


def _broadcast(array: Array, order: Order) -> Array:
    if order == FIRST or array.size == 1:
        return array.reshape(-1)[:1].reshape(()) if order == LAST and array.size == 1 else array
    return array.reshape((1,) * (MAPS - array.ndim) + array.shape).transpose(TO_LAST)


def _broadcast_place(
    conversion: Conversion, name: str, read: Callable[[str, Order], int], order: Order
) -> int:
    shape = conversion.shape(name)
    if order == FIRST or len(shape) == MAPS:
        return read(name, order)
    place = read(name, FIRST)
    whole = (*(1,) * (MAPS - len(shape)), *shape)
    wide = conversion.reshape(place, conversion.between(f"{name}.wide", place, whole))
    output = conversion.between(f"{name}.last", place, [whole[axis] for axis in TO_LAST])
    return conversion.transpose(wide, output, TO_LAST)


def _is_coded(conversion: Conversion, name: str) -> bool:
    """Return whether a tensor stands for codes of one scale."""
    stored = conversion.stored.get(name)
    return name in conversion.views or (
        stored is not None and stored.scales.size == 1 and stored.codes.dtype == np.int8
    )


def _coded_operand(conversion: Conversion, node: Node, name: str, order: Order) -> int:
    if (view := conversion.views.get(name)) is not None:
        return _broadcast_place(conversion, name, lambda _, where: conversion.read_codes(view, where), order)
    stored = conversion.stored[name]
    codes = _broadcast(stored.codes, order)
    return conversion.store(f"{node.name}.operand", codes, **stored.quantization())


UNARY: Mapping[str, Write] = {
    "Sigmoid": unary("LOGISTIC"),
    "Tanh": unary("TANH"),
    "HardSwish": unary("HARD_SWISH", "HardSwishOptions"),
    "Exp": unary("EXP", "ExpOptions"),
    "Sqrt": unary("SQRT"),
    "Neg": unary("NEG", "NegOptions"),
    "Abs": unary("ABS", "AbsOptions"),
    "Log": unary("LOG"),
    "Floor": unary("FLOOR"),
    "Ceil": unary("CEIL"),
    "Sin": unary("SIN"),
    "Cos": unary("COS", "CosOptions"),
    "Sign": unary("SIGN", "SignOptions"),
    "Erf": erf,
    "Gelu": gelu,
    "Swish": swish,
    "HardSigmoid": hard_sigmoid,
    "LeakyRelu": leaky_relu,
    "Reciprocal": reciprocal,
    "Relu": clip,
    "Clip": clip,
    "Identity": identity,
    "Dropout": identity,
    "Cast": cast,
}
BINARY: Mapping[str, Write] = {
    "Add": binary("ADD", "AddOptions", on_codes=True),
    "Sub": binary("SUB", "SubOptions"),
    "Mul": binary("MUL", "MulOptions", on_codes=True),
    "Div": binary("DIV", "DivOptions"),
    "Pow": binary("POW", "PowOptions", fuses=False),
    "Max": binary("MAXIMUM", "MaximumMinimumOptions", fuses=False),
    "Min": binary("MINIMUM", "MaximumMinimumOptions", fuses=False),
}
