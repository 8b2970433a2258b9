"""Multiply-adds of operations that are products of matrices, whether the operation table has them or not."""

import math
from collections.abc import Callable, Mapping

from hw_profiles.graph.tensor_type import BATCH, known
from supernet.imported.layers import Site, stored
from supernet.imported.units import is_stored

ONE = {BATCH: 1}
Shape = tuple[int, ...]


def multiply_adds(site: Site) -> int:
    """Return the multiply-adds of a unit; what graphs inside it compute is not counted."""
    count = COUNTS.get(site.node.op_type)
    if count is None:
        return 0
    try:
        return count(site)
    except (KeyError, IndexError, ValueError):  # an operand is missing, or of another rank
        return 0


def _shape(site: Site, index: int) -> Shape:
    """Return the shape of an operand, computed or stored."""
    value = site.node.inputs[index]
    if value is None:
        raise IndexError(index)
    if is_stored(value):
        return tuple(stored(value).shape)
    x = site.types[site.reads.index(str(value.name))]
    return tuple(known(dim, ONE) for dim in x.shape)


def _per_output(weight: int) -> Callable[[Site], int]:
    """Return the count of what multiplies a filter (out, in / group, ...) for every output."""
    return lambda site: math.prod(site.shapes[0]) * math.prod(_shape(site, weight)[1:])


def _per_input(site: Site) -> int:
    return math.prod(_shape(site, 0)) * math.prod(_shape(site, 1)[1:])


def _columns(site: Site) -> int:
    """Count a product of two matrices: every output is a sum over the columns of the left one."""
    return math.prod(site.shapes[0]) * _shape(site, 0)[-1]


def _gemm(site: Site) -> int:
    transposed = site.node.attributes.get_int("transA", 0)
    return math.prod(site.shapes[0]) * _shape(site, 0)[0 if transposed else 1]


def _fused(site: Site) -> int:
    transposed = site.node.attributes.get_int("transA", 0)
    return math.prod(site.shapes[0]) * _shape(site, 0)[-2 if transposed else -1]


def _recurrent(site: Site) -> int:
    steps = math.prod(_shape(site, 0)[:2])
    return steps * (math.prod(_shape(site, 1)) + math.prod(_shape(site, 2)))


def _einsum(site: Site) -> int:
    """Count a product for every combination of indices, where there are two operands."""
    left = site.node.attributes.get_string("equation", "").replace(" ", "").partition("->")[0]
    terms = left.split(",")
    if len(terms) != 2 or "." in left:
        return 0
    sizes: dict[str, int] = {}
    for index, term in enumerate(terms):
        sizes |= zip(term, _shape(site, index), strict=True)
    return math.prod(sizes.values())


def _attention(site: Site) -> int:
    """Count scores and mixed values, with those of the past; what a causal mask leaves out is counted."""
    heads = site.node.attributes.get_int("q_num_heads", 0)
    q = _by_heads(_shape(site, 0), heads)
    groups = site.node.attributes.get_int("kv_num_heads", 0)
    k, v = (_by_heads(_shape(site, index), groups) for index in (1, 2))
    past = _shape(site, 4)[2] if len(site.node.inputs) > 4 and site.node.inputs[4] is not None else 0
    return math.prod(q[:3]) * (k[2] + past) * (k[3] + v[3])


def _by_heads(shape: Shape, heads: int) -> Shape:
    """Return (batch, length, width) as (batch, heads, length, depth)."""
    return shape if len(shape) == 4 else (shape[0], heads, shape[1], shape[2] // heads)


COUNTS: Mapping[str, Callable[[Site], int]] = {
    "Conv": _per_output(1),
    "ConvInteger": _per_output(1),
    "QLinearConv": _per_output(3),
    "DeformConv": _per_output(1),
    "ConvTranspose": _per_input,
    "Gemm": _gemm,
    **dict.fromkeys(("MatMul", "MatMulInteger", "QLinearMatMul", "MatMulNBits"), _columns),
    "FusedMatMul": _fused,
    **dict.fromkeys(("GRU", "LSTM", "RNN"), _recurrent),
    "Einsum": _einsum,
    "Attention": _attention,
}
