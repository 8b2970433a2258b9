"""Make a predictor's own idea of its spread agree with errors seen on rows it was not fitted on."""

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

NOMINAL = 0.9  # share of targets that mean +- Z_NOMINAL std should hold
Z_NOMINAL = 1.6448536269514722  # the normal distribution's quantile at (1 + NOMINAL) / 2


def calibrate(errors: NDArray[np.float64], spread: NDArray[np.float64]) -> float:
    """The factor that widens `spread` (n,) until the nominal share of held-out `errors` (n,) is inside.

    Split conformal prediction with a normalised score: Lei et al. 2018, arXiv:1604.04173, section 5.2.
    """
    n = len(errors)
    rank = min(1.0, np.ceil((n + 1) * NOMINAL) / n)
    return float(np.quantile(np.abs(errors) / spread, rank, method="higher")) / Z_NOMINAL


def coverage(errors: NDArray[np.float64], std: NDArray[np.float64], expected: float = NOMINAL) -> float:
    """Observed share of errors (n,) inside the central interval of a normal distribution of `std` (n,) that
    holds `expected` of it; that much if the spread is right.
    """
    z = Z_NOMINAL if expected == NOMINAL else NormalDist().inv_cdf((1 + expected) / 2)
    return float(np.mean(np.abs(errors) <= z * std))
