"""What a network with ids among its inputs reads while it is timed: numbers that its tables have."""

from collections.abc import Sequence

import numpy as np

from hw_profiles.graph.formats import WHOLE
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.workload import Workload
from hw_profiles.runtimes.runtime import Array, Arrays, TensorInfo

_ANY = np.iinfo(np.int64).max


def reads_whole(workload: Workload) -> bool:
    """Return whether a network is given ids, positions or masks."""
    return any(feed.type.format in WHOLE for feed in workload.feeds)


def example_feeds(workload: Workload, inputs: Sequence[TensorInfo]) -> Arrays:
    """Return ids and positions that are in range, masks that hide nothing, and noise for all else.

    Args:
        inputs: of its file, in the order of its feeds; a size that is open there is 1.
    """
    rng, limits = np.random.default_rng(0), _limits(workload)
    return {info.name: _numbers(info, limits.get(-1 - place, _ANY), rng) for place, info in enumerate(inputs)}


def _numbers(info: TensorInfo, below: int, rng: np.random.Generator) -> Array:
    shape, dtype = tuple(1 if size is None else size for size in info.shape), np.dtype(info.dtype)
    if dtype.kind == "f":
        return rng.standard_normal(shape, np.float32).astype(dtype)
    return np.ones(shape, dtype) if below == _ANY else rng.integers(0, below, shape).astype(dtype)


def _limits(workload: Workload) -> dict[int, int]:
    """Return for tensors of ids and positions what they are below, as those that read them say."""
    limits: dict[int, int] = {}
    given = len(workload.types)
    for layer, sources in zip(reversed(workload.layers), reversed(workload.inputs), strict=True):
        given -= len(layer.outputs)
        for position, source in enumerate(sources):
            limit = limits.get(given, _ANY) if layer.keeps_codes else _limit(layer, position)
            limits[source] = min(limit, limits.get(source, _ANY))
    return limits


def _limit(layer: Layer, position: int) -> int:
    if layer.op == "Gather" and "weight" in layer.values:
        return layer.values.integers("weight")[0]
    if layer.op == "RotaryEmbedding" and position == 1:
        return layer.values.integer("length")
    return _ANY
