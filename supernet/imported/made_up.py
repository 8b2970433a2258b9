"""Something to run a network on before anyone has given it data."""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from supernet.imported.fixed_value import Fixed

Feeds = Mapping[str, NDArray[np.generic]]  # what a network reads, by the names of its inputs
_PASSED_ON = ("Cast", "Gather", "Identity", "Reshape", "Squeeze", "Unsqueeze")
_HOPS = 5  # from an input to what compares it


def made_up_feeds(
    model: ir.Model, shapes: Mapping[str, tuple[int, ...]], fixed: Fixed | None = None
) -> dict[str, NDArray[np.generic]]:
    """Return noise for real numbers, and ones for whole numbers: most take them as indices and masks. A
    single one that the network compares with a stored number, such as a sample rate, is that number.

    Args:
        model: reads them.
        shapes: of every input.
        fixed: value of inputs that always have the same.
    """
    known = fixed or {}
    rng = np.random.default_rng(0)
    feeds: dict[str, NDArray[np.generic]] = {}
    for value in model.graph.inputs:
        name, dtype = str(value.name), np.dtype("float32" if value.dtype is None else value.dtype.numpy())
        shape = shapes[name]
        if name in known:
            feeds[name] = np.full(shape, known[name]).astype(dtype)
        elif dtype.kind in "iub":
            feeds[name] = np.full(shape, compared(value) if shape in ((), (1,)) else 1, dtype)
        else:
            feeds[name] = rng.normal(size=shape).astype(dtype)
    return feeds


def compared(value: ir.Value) -> int:
    """Return the stored number that an input is compared with for equality; 1 where there is none."""
    return _compared(value, _HOPS)


def _compared(value: ir.Value, hops: int) -> int:
    for node, _ in value.uses():
        if node.op_type == "Equal":
            for other in node.inputs:
                tensor = ir.convenience.get_const_tensor(other) if other is not None else None
                if tensor is not None and tensor.size == 1:
                    return int(tensor.numpy().reshape(()))
        elif node.op_type in _PASSED_ON and hops and node.inputs[0] is value:
            number = _compared(node.outputs[0], hops - 1)
            if number != 1:
                return number
    return 1
