"""Sums that a layer norm reads, written so that ONNX Runtime leaves them to kernels of their own.

It joins `Add` and the norm behind it into `SkipLayerNormalization`, whose kernel takes up to 8 times as long
on a processor as the two (`benchmarks/norm_sums.py`). `Sum` of two is the same function, and nothing is
joined with it.
"""

from collections import defaultdict
from collections.abc import Set as AbstractSet
from math import prod

import onnx

_NORM = "LayerNormalization"
_SPELLED_OUT = {"ReduceMean", "Sub"}  # what a norm of earlier opsets begins with; it is joined as well


def keep_from_norms(graph: onnx.GraphProto) -> bool:
    """Write every sum of two tensors that a layer norm reads as `Sum`, in place, but those of products and
    their biases; return whether there was any.
    """
    biases = {tensor.name for tensor in graph.initializer if _is_vector(tensor)}
    biases |= {node.output[0] for node in graph.node if node.op_type == "Constant"}
    readers: dict[str, set[str]] = defaultdict(set)
    for node in graph.node:
        for place, name in enumerate(node.input):
            if node.op_type != _NORM or place == 0:
                readers[name].add(node.op_type)
    sums = [node for node in graph.node if _adds(node, biases) and _is_normed(readers[node.output[0]])]
    for node in sums:
        node.op_type = "Sum"
    return bool(sums)


def kept_from_norms(content: bytes) -> bytes:
    """Return a model with its sums written like that; the same bytes where it has none."""
    model = onnx.load_from_string(content)
    if not keep_from_norms(model.graph):
        return content
    data: bytes = model.SerializeToString()
    return data


def _is_vector(tensor: onnx.TensorProto) -> bool:
    return bool(prod(tensor.dims) == (tensor.dims[-1] if tensor.dims else 1))


def _adds(node: onnx.NodeProto, biases: AbstractSet[str]) -> bool:
    return node.op_type == "Add" and not node.domain and biases.isdisjoint(node.input)


def _is_normed(readers: set[str]) -> bool:
    return _NORM in readers or readers >= _SPELLED_OUT
