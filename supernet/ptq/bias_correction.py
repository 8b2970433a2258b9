"""Bias correction: what rounding shifts the mean of an output channel by is taken off its bias (Nagel et al.
2019, arXiv:1906.04721, section 4.2).

The shift is E[W' x' - W x] over the sampled inputs, x' being x in its own codes: that of the unit alone, so
that one correction serves every policy, whatever formats the units before it have.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def corrected_bias(bias: Array, rounded: Array, exact: Array, activity: Array | None = None) -> Array:
    """Return a bias (out,) without the shift of the sums (n, out) that rounding brought.

    A mean of few rows is uncertain itself: each channel's shift is shrunk by its uncertainty (James-Stein),
    so that a channel with none is left alone.

    Args:
        activity: (n, out) how much each sum matters; all the same without.
    """
    difference = (rounded - exact).astype(np.float64)
    weights = np.ones_like(difference) if activity is None else activity.astype(np.float64)
    total = np.maximum(weights.sum(axis=0), 1e-30)
    shift = (weights * difference).sum(axis=0) / total
    uncertainty = (weights**2 * (difference - shift) ** 2).sum(axis=0) / total**2
    trusted = np.maximum(1 - uncertainty / np.maximum(shift**2, 1e-30), 0)
    return np.asarray(bias - trusted * shift, np.float32)
