"""What is written otherwise than usual, so that an engine's optimiser leaves fast kernels alone."""

import onnx

from nas.emit.kept_pools import keep_pools
from nas.emit.norm_sums import keep_from_norms


def keep_kernels(graph: onnx.GraphProto) -> None:
    """Write a graph like that, in place; it computes the same."""
    keep_from_norms(graph)
    keep_pools(graph)
