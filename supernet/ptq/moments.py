"""What rounding has to know of a unit's inputs: their second moments, and the weight that would be best on
rounded inputs if it could have any value.

The mean squared error of a product's outputs, || W x - W' x' ||^2 over sampled inputs, is a quadratic form
of W': (W' - T) H (W' - T)^T plus what no weight can mend, with H the second moments of the rounded inputs x'
and T the target, the least-squares solution.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Wide = NDArray[np.float64]

# of the mean of the diagonal, by numbers of a row over rows: directions that few inputs have are not trusted
DAMPING, LEAST_DAMPING, MOST_DAMPING = 0.7, 0.01, 1.0
MOST_MACS, MOST_NUMBERS = 10**9, 2**23  # of second moments for every output by itself
LARGEST = 4_608  # numbers of a row, of which second moments are a matrix of 80 MB


@dataclass(frozen=True, eq=False)
class Moments:
    """The quadratic form of a unit's error.

    Attributes:
        target: (groups, out / groups, k) weight of the least error.
        hessian: (groups, k, k) second moments of rounded inputs, damped. Where each output has moments of its
            own, it is a group by itself.
    """

    target: Wide
    hessian: Wide

    def errors(self, weight: Wide) -> Wide:
        """Return the error (groups, out / groups) of each output of a weight."""
        difference = weight - self.target
        return np.asarray(np.einsum("gok,gok->go", difference @ self.hessian, difference))


def moments_of(weight: Array, rows: Array, given: Array, *, centred: bool) -> Moments:
    """Return the quadratic form of the error of a product.

    Args:
        weight: (groups, out / groups, k).
        rows: (groups, n, k) real inputs.
        given: (groups, n, k) as the quantized unit reads them.
        centred: whether a corrected bias takes care of what all inputs have in common.
    """
    if centred:
        rows, given = rows - rows.mean(axis=1, keepdims=True), given - given.mean(axis=1, keepdims=True)
    n = max(rows.shape[1], 1)
    hessian = (given.transpose(0, 2, 1) @ given).astype(np.float64) / n
    mixed = (rows.transpose(0, 2, 1) @ given).astype(np.float64) / n
    return _solved(weight.astype(np.float64), hessian, mixed, n)


def moments_by_output(weight: Array, rows: Array, given: Array, activity: Array, *, centred: bool) -> Moments:
    """Return the quadratic form of the error of outputs, each on the inputs that matter to it.

    Args:
        activity: (n, out) how much each sum matters: less where the activation cuts it off.
    """
    outputs = weight.shape[1]
    hessian = np.empty((weight.shape[0] * outputs, *(weight.shape[2],) * 2))
    mixed = np.empty_like(hessian)
    for output, share in enumerate((activity / np.maximum(activity.sum(axis=0), 1e-30)).T):
        real, rounded = rows[output // outputs], given[output // outputs]
        if centred:
            real, rounded = real - share @ real, rounded - share @ rounded
        weighted = rounded * share[:, None]
        hessian[output] = weighted.T @ rounded
        mixed[output] = real.T @ weighted
    flat = weight.reshape(-1, 1, weight.shape[2])
    return _solved(flat.astype(np.float64), hessian, mixed, len(activity))


def affordable_by_output(weight: Array, n: int) -> bool:
    """Return whether moments of each output by itself take little time and memory."""
    outputs, k = weight.shape[0] * weight.shape[1], weight.shape[2]
    return bool(n * outputs * k * k <= MOST_MACS and outputs * k * k <= MOST_NUMBERS)


def _solved(weight: Wide, hessian: Wide, mixed: Wide, n: int) -> Moments:
    diagonal = np.einsum("gkk->gk", hessian)
    share = np.clip(DAMPING * weight.shape[2] / n, LEAST_DAMPING, MOST_DAMPING)
    damping = share * diagonal.mean(axis=1, keepdims=True) + 1e-12
    diagonal += damping
    numerator = weight @ mixed + weight * damping[:, None, :]
    target = np.linalg.solve(hessian, numerator.transpose(0, 2, 1)).transpose(0, 2, 1)
    return Moments(np.ascontiguousarray(target), hessian)
