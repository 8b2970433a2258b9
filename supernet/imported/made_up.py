"""Something to run a network on before anyone has given it data."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Feeds = Mapping[str, NDArray[np.generic]]  # what a network reads, by the names of its inputs


def made_up_feeds(
    shapes: Mapping[str, tuple[int, ...]], dtypes: Mapping[str, str]
) -> dict[str, NDArray[np.generic]]:
    """Return noise for real numbers, and ones for whole numbers: most take them as indices and masks.

    Args:
        shapes: of every input.
        dtypes: numpy's names of their element types.
    """
    rng = np.random.default_rng(0)
    feeds: dict[str, NDArray[np.generic]] = {}
    for name, shape in shapes.items():
        dtype = np.dtype(dtypes[name])
        whole = dtype.kind in "iub"
        feeds[name] = np.ones(shape, dtype) if whole else rng.normal(size=shape).astype(dtype)
    return feeds
