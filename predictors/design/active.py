"""Which networks to evaluate next, so that all others are predicted best."""

import numpy as np
from numpy.typing import NDArray

from predictors.design.surrogate import Groups, Kernel, posterior_covariance


def alc_design(kernel: Kernel, measured: Groups, pool: Groups, n: int) -> NDArray[np.int64]:
    """Return (min(n, m),) rows of `pool` (m), in the order in which to evaluate them, by ALC (active
    learning, Cohn).

    Each is the one whose answer, on top of those for `measured` (k) and for the rows before it, takes most
    off the summed variance of the whole pool: Cohn 1996, "Neural network exploration using optimal experiment
    design", section 3. A row near one that was chosen has little to add, so a batch spreads out; and unlike
    the most uncertain rows, which are the odd ones, these stand for many others.
    """
    left = posterior_covariance(kernel, measured, pool)
    rows: list[int] = []
    taken = np.zeros(len(left), bool)
    for _ in range(min(n, len(left))):
        variance = np.diag(left) + kernel.noise
        gain = np.where(taken, -np.inf, np.einsum("ij,ij->j", left, left) / variance)
        row = int(gain.argmax())
        left -= np.outer(left[:, row], left[row] / variance[row])
        taken[row] = True
        rows.append(row)
    return np.array(rows, np.int64)
