"""Runs a part of somebody's graph that is kept as it is."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw_profiles.runtimes.ort.runtime import open_session

_OPEN = 64  # sessions that are kept: a network has few such parts, each of which runs many times


def run(model: bytes, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Return what a part gives for its inputs, in their order.

    Raises:
        TrilobitError: ONNX Runtime cannot run it.
    """
    session = _session(model)
    names = [value.name for value in session.get_inputs()]
    outputs = session.run(
        None, {name: np.ascontiguousarray(x) for name, x in zip(names, inputs, strict=True)}
    )
    return [np.asarray(y) for y in outputs]


@lru_cache(_OPEN)
def _session(model: bytes) -> Any:
    return open_session(model)
