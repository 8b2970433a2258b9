"""How good class scores are, against right answers or another network's: arrays in, numbers out."""

import numpy as np
from numpy.typing import NDArray

from supernet.tasks.metric import ACCURACY, AGREEMENT, CALIBRATION, FLIPS, WORST_CLASS

BINS = 15  # of confidence, that the calibration error is counted in
LEAST_OF_CLASS = 5  # examples without which the share of a class is chance

Choices = NDArray[np.int64]


def calibration_error(logits: NDArray[np.floating], labels: Choices) -> float:
    """Return the expected calibration error: how far confidence and accuracy are apart, on average over
    examples sorted into `BINS` bins of equal width by confidence (Guo et al. 2017, arXiv:1706.04599, equation
    3).

    Args:
        logits: (n, classes), up to a constant of each example: logarithms of probabilities too.
        labels: (n,) right answers.
    """
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    confidence = 1 / np.exp(shifted).sum(axis=1)  # of the likeliest class
    right = logits.argmax(axis=1) == labels
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    gaps = np.bincount(bins, right, BINS) - np.bincount(bins, confidence, BINS)
    return float(np.abs(gaps).sum() / len(labels))


def worst_class(choices: Choices, answers: Choices) -> float:
    """Return the least share of right choices (n,) among the classes of `answers` (n,), all that have at
    least `LEAST_OF_CLASS` examples; among all classes where none has.
    """
    _, member = np.unique(answers, return_inverse=True)
    sizes = np.bincount(member)
    shares = np.bincount(member, choices == answers) / sizes
    common = sizes >= LEAST_OF_CLASS
    return float(shares[common].min() if common.any() else shares.min())


def same_choice(logits: NDArray[np.floating], others: NDArray[np.floating]) -> float:
    """Return the share of rows, or of positions, that two networks choose the same class at; both are
    (..., classes).
    """
    return float((logits.argmax(axis=-1) == others.argmax(axis=-1)).mean())


def values_of_classes(
    logits: NDArray[np.floating], labels: Choices, original: NDArray[np.floating] | None = None
) -> dict[str, float]:
    """Return accuracy, calibration error and the accuracy on the worst class by the metrics' names and,
    compared with an original, negative flips and agreement.

    Args:
        logits: (n, classes).
        labels: (n,) right answers.
        original: (n, classes) what the network says that this one is compared with.
    """
    choices = logits.argmax(axis=1)
    right = choices == labels
    values = {
        ACCURACY.name: float(right.mean()),
        CALIBRATION.name: calibration_error(logits, labels),
        WORST_CLASS.name: worst_class(choices, labels),
    }
    if original is not None:
        originally_right = original.argmax(axis=1) == labels
        values[FLIPS.name] = float((originally_right & ~right).mean())
        values[AGREEMENT.name] = same_choice(logits, original)
    return values
