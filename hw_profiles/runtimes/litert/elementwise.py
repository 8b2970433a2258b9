"""Operations on single numbers, with what is broadcast."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from hw_profiles.runtimes.litert.clips import clip
from hw_profiles.runtimes.litert.conversion import (
    FIRST,
    LAST,
    MAPS,
    TO_LAST,
    Conversion,
    Order,
    Steps,
)
from hw_profiles.runtimes.litert.fusing import (
    RELU,
    RELU6,
    Fused,
    code_output,
    real_output,
)
from hw_profiles.runtimes.litert.onnx_source import Array, Node
from hw_profiles.runtimes.litert.rounding import cast

Write = Callable[[Conversion, Node], None]
HALF_WAVE, SAME = 6.0, 1e-6  # of a sixth, within which a slope is one


# -- one operand ---------------------------------------------------------------------------------------


def unary(code: str, kind: str = "") -> Write:
    """Return what writes an operator with one operand."""

    def write(conversion: Conversion, node: Node) -> None:
        order = conversion.order_of(node.input(0))
        source = conversion.read(node.input(0), order)
        conversion.operate(code, (source,), conversion.give(node.outputs[0], order), kind)

    return write


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
