"""Make a predictor's own idea of its spread agree with errors seen on rows it was not fitted on."""

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

NOMINAL = 0.9  # share of targets that mean +- Z_NOMINAL std should hold
ROUNDING = 1e-9  # of (n + 1) * NOMINAL, which may come out above a whole number that it is
Z_NOMINAL = 1.6448536269514722  # the normal distribution's quantile at (1 + NOMINAL) / 2


def calibrate(errors: NDArray[np.float64], spread: NDArray[np.float64]) -> float:
    """Return the factor that widens `spread` (n,) until a new error is inside with the nominal probability.

    Split conformal prediction with a normalised score: Lei et al. 2018, arXiv:1604.04173, section 5.2. Of
    `errors` (n,) that were held out, the ceil((n + 1) * `NOMINAL`)-th smallest score counts: among n + 1
    exchangeable scores the new one is then no larger with a probability from `NOMINAL` to 1 / (n + 1) above.
    Fewer than 9 rows cannot tell; their largest is taken.
    """
    scores = np.sort(np.abs(errors) / spread)
    rank = math.ceil((len(scores) + 1) * NOMINAL - ROUNDING)
    return float(scores[min(rank, len(scores)) - 1]) / Z_NOMINAL


def coverage(errors: NDArray[np.float64], std: NDArray[np.float64], expected: float = NOMINAL) -> float:
    """Return the observed share of errors (n,) inside the central interval of a normal distribution of `std`
    (n,) that holds `expected` of it; that much if the spread is right.
    """
    z = Z_NOMINAL if expected == NOMINAL else NormalDist().inv_cdf((1 + expected) / 2)
    return float(np.mean(np.abs(errors) <= z * std))
