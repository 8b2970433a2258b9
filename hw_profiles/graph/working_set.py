"""What one inference reads once and the next one reads again: weights, and the caches of decoders.

A layer that is measured by itself finds its own in the nearest cache. In a network that has more than fits
there, every inference reads all of it from further away: what a decoder's next token mostly waits for.
"""

from functools import lru_cache

from hw_profiles.graph.cache import has_past
from hw_profiles.graph.counts import params
from hw_profiles.graph.formats import FP32, element_types
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.memory import type_bytes
from hw_profiles.graph.tensor_type import TensorType
from hw_profiles.graph.workload import Workload

WIDENED = ("cache16",)  # engines compute in fp32 what is stored like that: there is a copy of it, besides
_REMEMBERED = 2**15


def working_set_bytes(workload: Workload) -> int:
    """Return the bytes of a network's weights and of the caches that it reads and gives."""
    return sum(map(kept_bytes, workload.layers))


@lru_cache(_REMEMBERED)
def kept_bytes(layer: Layer) -> int:
    """Return the bytes of a layer's weights, and of the keys and values that it reads and gives where it goes
    on from a past. Of a table of embeddings few rows are read: it does not count.

    >>> from hw_profiles.graph.layer import map_layer
    >>> kept_bytes(map_layer("conv", (8, 16, 16), 24))
    864
    """
    weights = (
        0 if layer.op == "Gather" else params(layer) * element_types(layer.weight_format).weight.bits // 8
    )
    if layer.op != "Attention" or not has_past(layer):
        return weights
    return weights + sum(map(_with_copy, (*layer.inputs[-2:], *layer.outputs[1:])))


def _with_copy(x: TensorType) -> int:
    copy = type_bytes(TensorType(x.shape, FP32)) if x.format in WIDENED else 0
    return type_bytes(x) + copy
