"""Peak memory of a network's tensors: what a board must have besides the weights."""

import re
from collections.abc import Sequence
from math import prod

from hw_profiles.graph.layer import INPUT
from hw_profiles.graph.lowering import lower
from hw_profiles.graph.workload import Workload

_WIDTH = re.compile(r"(?:fp|bf|u?int)([1-9]\d*)")


def tensor_bytes(shape: Sequence[int], fmt: str) -> int:
    """Bytes of one tensor, values packed without gaps; a last byte that is not full counts whole.

    >>> tensor_bytes((8, 14, 14), "fp32"), tensor_bytes((3, 1, 1), "int4")
    (6272, 2)

    Raises:
        ValueError: `fmt` does not end in the number of its bits.
    """
    width = _WIDTH.fullmatch(fmt)
    if width is None:
        raise ValueError(f"unknown number format {fmt!r}; bytes are known of fpN, bfN, intN and uintN")
    return -(-prod(shape) * int(width[1]) // 8)


def peak_bytes(workload: Workload) -> int:
    """Most bytes of tensors that are alive at once while the layers run in order, for one image.

    While a layer runs, its output is alive, and every tensor that it or a later layer reads, the network's
    input among them. No layer writes over its input, and no output takes the place of one that dies with the
    layer: engines that do so need less. A block is the layers within it. Weights, and what a kernel keeps for
    itself (an unfolded image), do not count.
    """
    workload = lower(workload)
    last_reader = {source: position for position, read in enumerate(workload.inputs) for source in read}
    dies = [0] * len(workload.layers)  # bytes that are free once a layer has run
    alive = peak = 0
    if INPUT in last_reader:
        alive = dies[last_reader[INPUT]] = tensor_bytes(workload.in_shape, workload.in_format)
    for position, layer in enumerate(workload.layers):
        size = tensor_bytes(layer.out_shape, layer.out_format)
        dies[last_reader.get(position, position)] += size
        alive += size
        peak = max(peak, alive)
        alive -= dies[position]
    return peak
