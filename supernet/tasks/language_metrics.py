"""How well bytes are predicted: arrays in, numbers out."""

import numpy as np
from numpy.typing import NDArray

MOST_NATS = 700.0  # that one prediction costs, also where it is not a number: sums and powers stay finite
MOST_BITS = MOST_NATS / np.log(2)

_BLOCK = 2_000_000  # numbers that are looked at together


def bits_of_targets(logits: NDArray[np.floating], targets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (n, t) the bits that each target costs: minus the binary logarithm of its probability, at most
    `MOST_BITS`, which is also what a logit costs that is not a number.

    Args:
        logits: (n, t, classes).
        targets: (n, t) indices of classes.
    """
    rows = max(1, _BLOCK // max(1, logits[0].size)) if len(logits) else 1
    parts = [
        _bits(logits[start : start + rows], targets[start : start + rows])
        for start in range(0, len(logits), rows)
    ]
    return np.concatenate(parts) if parts else np.zeros(targets.shape)


def _bits(logits: NDArray[np.floating], targets: NDArray[np.int64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", over="ignore"):
        shifted = logits.astype(np.float64) - logits.max(axis=2, keepdims=True)
        sums = np.log(np.exp(shifted).sum(axis=2))
        nats = sums - np.take_along_axis(shifted, targets[..., None], axis=2)[..., 0]
    return np.asarray(np.nan_to_num(np.minimum(nats, MOST_NATS), nan=MOST_NATS) / np.log(2))


def perplexity(bits: float) -> float:
    """Return 2 to the bits per byte: among how many equally likely bytes a network hesitates.

    >>> perplexity(3.0)
    8.0
    """
    return float(2.0 ** min(bits, MOST_BITS))
