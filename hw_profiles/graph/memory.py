"""Peak memory of a network's tensors: what a board must have besides the weights."""

from collections.abc import Sequence
from functools import lru_cache
from math import prod

from hw_profiles.graph.counts import ONE
from hw_profiles.graph.formats import tensor_bits
from hw_profiles.graph.lowering import lower
from hw_profiles.graph.tensor_type import TensorType, known
from hw_profiles.graph.workload import Workload


def tensor_bytes(shape: Sequence[int], fmt: str) -> int:
    """Return the bytes of one tensor, values packed without gaps; a last byte that is not full counts whole.

    >>> tensor_bytes((8, 14, 14), "fp32"), tensor_bytes((3, 1, 1), "int4")
    (6272, 2)

    Raises:
        TrilobitError: no such format, or one that only weights can have.
    """
    return -(-prod(shape) * tensor_bits(fmt) // 8)


def peak_bytes(workload: Workload, *, held: bool = False) -> int:
    """Return the most bytes of tensors that are alive at once while the layers run in order, for one image.

    While a layer runs, its outputs are alive, and every tensor that it or a later layer reads, what the
    network is given and gives among them. No layer writes over its input, and no output takes the place of
    one that dies with the layer: engines that do so need less. A block is the layers within it. Weights, and
    what a kernel keeps for itself (an unfolded image), do not count.

    Args:
        held: whether what the network is given stays alive to the end, since something else reads it.

    Raises:
        TrilobitError: a dimension besides the batch has no size yet.
    """
    work = lower(workload)
    end = len(work.layers) - 1
    last_reader = {source: position for position, read in enumerate(work.inputs) for source in read}
    last_reader.update(dict.fromkeys(work.outputs, end))
    dies = [0] * len(work.layers)  # bytes that are free once a layer has run
    alive = peak = 0
    for tensor, feed in enumerate(work.feeds):
        if -1 - tensor in last_reader:
            size = type_bytes(feed.type)
            alive += size
            dies[end if held else last_reader[-1 - tensor]] += size
    tensor = 0
    for position, layer in enumerate(work.layers):
        for output in layer.outputs:
            size = type_bytes(output)
            dies[last_reader.get(tensor, position)] += size
            alive += size
            tensor += 1
        peak = max(peak, alive)
        alive -= dies[position]
    return peak


@lru_cache(2**15)
def type_bytes(x: TensorType) -> int:
    """Return the bytes of one tensor; a batch that is open counts as one image."""
    return tensor_bytes([known(dim, ONE) for dim in x.shape], x.format)
