"""Inputs that always have one value, such as a sample rate: what they decide is decided in the file."""

from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError, did_you_mean, shown
from supernet.imported.fixed_value import Fixed, Number, fixed_text


def fix_inputs(model: ir.Model, fixed: Fixed) -> None:
    """Let everything that reads an input read a stored value. The input stays one of the network's, so that
    the file can be called as before, and is not read any more.

    Raises:
        TrilobitError: there is no such input, it is no single number, or its type cannot hold the value.
    """
    inputs = {str(value.name): value for value in model.graph.inputs}
    for name, number in fixed.items():
        if name not in inputs:
            raise TrilobitError(
                f"--fix: the network has no input {shown(name)}{did_you_mean(name, inputs)}; it reads: "
                f"{', '.join(inputs)}"
            )
        value = inputs[name]
        array = _array(value, number)
        tensor = ir.tensor(array, name=f"{name}.fixed")
        stored = ir.Value(
            name=tensor.name,
            shape=ir.Shape(array.shape),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        model.graph.register_initializer(stored)
        ir.convenience.replace_all_uses_with(value, stored)


def require_agreement(fixed: Fixed, feeds: Mapping[str, NDArray[np.generic]]) -> None:
    """Raise unless inputs that are fixed have that value in an example.

    Raises:
        TrilobitError: one has another.
    """
    for name, number in fixed.items():
        array = feeds.get(name)
        if array is not None and not np.isclose(array.astype(np.float64), float(number)).all():
            raise TrilobitError(
                f"--fix {fixed_text(name, number)}, but the examples have {name} = {array.reshape(-1)[0]}; "
                "fix it to that, or leave such examples out"
            )


def _array(value: ir.Value, number: Number) -> NDArray[np.generic]:
    """Return a number as an input has it.

    Raises:
        TrilobitError: the input is no single number, or its type cannot hold this one.
    """
    if not is_single(value) or value.is_graph_output():
        what = "an output too" if value.is_graph_output() else f"an array of {value.shape}"
        raise TrilobitError(f"--fix: input {value.name} is {what}; only single numbers can be fixed")
    dtype = np.dtype("float32" if value.dtype is None else value.dtype.numpy())
    with np.errstate(over="ignore"):
        array = np.full((1,) * len(value.shape or ()), number).astype(dtype)
    if not np.isclose(array.astype(np.float64), float(number)).all():
        raise TrilobitError(f"--fix: input {value.name} is {dtype}, which cannot be {number}")
    return array


def is_single(value: ir.Value) -> bool:
    """Return whether a tensor is one number, in any number of dimensions."""
    return value.shape is not None and all(dim == 1 for dim in value.shape)


def deciding_inputs(model: ir.Model) -> tuple[str, ...]:
    """Return the inputs that are a whole number or a truth value and that decide, by themselves or with
    others of that kind, which branch of an `If` runs.
    """
    single = {
        value
        for value in model.graph.inputs
        if is_single(value) and value.dtype is not None and value.dtype.numpy().kind in "iub"
    }
    deciding: dict[str, None] = {}
    for node in model.graph.all_nodes():
        if node.op_type == "If" and node.domain == "":
            sources = set(_sources(node.inputs[0]))
            if sources <= single:
                deciding |= dict.fromkeys(str(value.name) for value in sources)
    return tuple(name for value in model.graph.inputs if (name := str(value.name)) in deciding)


def _sources(value: ir.Value | None) -> Iterator[ir.Value]:
    """Yield the computed tensors that a value comes from and that nothing gives: inputs, of graphs inside
    others too; what is stored, or only a size, is none.
    """
    seen: set[ir.Value] = set()
    pending = [value]
    while pending:
        each = pending.pop()
        if each is None or each in seen or each.const_value is not None:
            continue
        seen.add(each)
        producer = each.producer()
        if producer is None:
            yield each
        elif producer.op_type not in ("Constant", "Shape", "Size"):
            pending += producer.inputs


def agreed(names: tuple[str, ...], rows: Mapping[str, NDArray[np.generic]]) -> dict[str, Number]:
    """Return the inputs of these names that have one value in all examples (n, ...), and that."""
    values = {name: np.unique(rows[name]) for name in names}
    return {name: distinct[0].item() for name, distinct in values.items() if len(distinct) == 1}
