"""Stored numbers of products: as codes where the file has such, and biases at the scale of sums."""

import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.formats import accumulator_codes
from hw_profiles.runtimes.litert.conversion import Codes, Conversion, Stored
from hw_profiles.runtimes.litert.onnx_source import Array, Node

NEAR = 1e-5  # of a scale, within which it is the same


def stored_weight(conversion: Conversion, node: Node, position: int) -> Array | Stored:
    """Return the weight that a node reads: codes with their scales, or real numbers, of 16 bits where they
    are stored so.

    Raises:
        TrilobitError: it is computed.
    """
    name = node.input(position)
    if name in conversion.stored:
        return conversion.stored[name]
    if name in conversion.halves:
        return conversion.halves[name]
    if name not in conversion.source.constants:
        raise TrilobitError(f"LiteRT: no {node.op} whose weight is computed is written ({node.name})")
    return conversion.source.constants[name]


def bias_of(conversion: Conversion, node: Node, position: int, count: int) -> Array:
    """Return a bias (count,) of real numbers; zeros where there is none."""
    if not node.input(position):
        return np.zeros(count, np.float32)
    return conversion.required(node, position, "bias").astype(np.float32).reshape(-1)


def codes_bias(
    conversion: Conversion, node: Node, position: int, count: int, read: Codes, weight: Stored
) -> int:
    """Store a bias as codes that are added to sums of codes; return its place."""
    real = bias_of(conversion, node, position, count)
    return store_codes_bias(conversion, f"{node.name}.b", real, read, weight, node.input(position))


def store_codes_bias(
    conversion: Conversion, name: str, real: Array, read: Codes, weight: Stored, origin: str = ""
) -> int:
    """Store real numbers (count,) as codes that are added to sums of codes.

    Args:
        origin: name of the tensor that they come from, whose codes are kept where their scale is that.
    """
    scales = np.broadcast_to(weight.scales.ravel(), real.shape)
    steps = (np.float32(read.scale) * scales).astype(np.float32)
    stored = conversion.stored.get(origin)
    if stored is not None and stored.codes.dtype == np.int32 and _near(stored.scales, steps):
        codes = stored.codes.reshape(-1)
    else:
        codes = accumulator_codes(real, steps)
    return conversion.store(name, codes.astype(np.int32), scales=tuple(map(float, steps)))


def _near(first: Array, second: Array) -> bool:
    return bool(np.all(np.abs(first.ravel() - second) <= NEAR * np.abs(second)))
