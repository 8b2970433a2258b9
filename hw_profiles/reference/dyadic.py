"""Dyadic numbers m / 2^c, with which integers are brought to another scale (HAWQ-V3, arXiv:2011.10680)."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int32]

MANTISSA_BITS = 31
MAX_SHIFT = 62  # so that accumulator * mantissa + 2^(shift - 1) stays within 63 bits


def dyadic(ratio: ArrayLike) -> tuple[Ints, Ints]:
    """Return (m, c) int32 with m / 2^c equal to `ratio` within 2^-31 of it; m is in [2^30, 2^31).

    A ratio below 2^-31 gets fewer bits: it moves no accumulator by more than one code.

    Raises:
        ValueError: a ratio is not above 0, or 2^30 or more.

    >>> m, c = dyadic(0.75)
    >>> int(m) / 2 ** int(c)
    0.75
    """
    values = np.asarray(ratio, np.float64)
    if not (np.all(values > 0) and np.all(values < 2.0**30)):
        raise ValueError("a ratio of scales must be above 0 and below 2^30")
    fraction, exponent = np.frexp(values)
    mantissa = np.floor(fraction * 2.0**MANTISSA_BITS + 0.5).astype(np.int64)
    shift = MANTISSA_BITS - exponent.astype(np.int64)
    whole = mantissa == 2**MANTISSA_BITS  # rounded up to the next power of two
    mantissa, shift = np.where(whole, mantissa // 2, mantissa), np.where(whole, shift - 1, shift)
    excess = np.clip(shift - MAX_SHIFT, 0, MANTISSA_BITS)
    return (mantissa >> excess).astype(np.int32), np.minimum(shift, MAX_SHIFT).astype(np.int32)


def rescale(values: ArrayLike, m: ArrayLike, c: ArrayLike) -> NDArray[np.int64]:
    """Return round(values * m / 2^c), half up, in int64; the arguments broadcast."""
    wide, shift = np.asarray(values, np.int64), np.asarray(c, np.int64)
    return np.asarray((wide * np.asarray(m, np.int64) + (np.int64(1) << (shift - 1))) >> shift, np.int64)
