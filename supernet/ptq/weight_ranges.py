"""How much of the range of its weights each scale of a narrow format covers: the share of the least error."""

import numpy as np
from numpy.typing import NDArray

from supernet.formats.weight_format import WeightFormat
from supernet.ptq.moments import Moments
from supernet.ptq.weight_grid import weight_grid

Array = NDArray[np.float32]
Wide = NDArray[np.float64]

SHARES = np.linspace(1.0, 0.3, 15, dtype=np.float32)
WIDEST_BITS = 6  # of formats whose steps are so wide that to clip a large weight can be the lesser harm


def narrow_ranges(weight_format: WeightFormat, moments: Moments, weight: Array) -> Array | None:
    """Return the best share (rows, groups) for each scale of a weight (out, ...), by the error of the outputs
    that it rounds; None where the format has enough steps for the whole range.

    Scales of groups are chosen one by one, each as if all others were exact.
    """
    if weight_format.bits > WIDEST_BITS or not weight_format.granularity.channels:
        return None
    granularity = weight_format.granularity
    inside = _blocks_of_hessian(moments.hessian, granularity.group)
    errors = []
    for share in SHARES:
        grid = weight_grid(weight_format, weight, share)
        exact = weight.astype(np.float64)
        difference = granularity.blocks((grid.values(grid.codes(exact)) - exact).astype(np.float32))
        errors.append(_forms(difference, inside))
    return np.asarray(SHARES[np.argmin(errors, axis=0)], np.float32)


def _blocks_of_hessian(hessian: Wide, group: int) -> Array:
    """Return the second moments (output groups, scales of a channel, size, size) of the inputs that share a
    scale."""
    groups, k, _ = hessian.shape
    size = group or k
    scales = -(-k // size)
    padded = np.pad(hessian, ((0, 0), (0, scales * size - k), (0, scales * size - k)))
    blocks = padded.reshape(groups, scales, size, scales, size)
    return np.asarray(np.einsum("gasat->gast", blocks), np.float32)


def _forms(difference: Array, inside: Array) -> Array:
    """Return the quadratic form of each block of (out, scales, size)."""
    groups, scales, size, _ = inside.shape
    by_group = difference.reshape(groups, -1, scales, size).transpose(
        0, 2, 1, 3
    )  # (groups, scales, out, size)
    forms = np.einsum("gaos,gaos->gao", by_group @ inside, by_group)
    return np.asarray(forms.transpose(0, 2, 1).reshape(-1, scales), np.float32)
