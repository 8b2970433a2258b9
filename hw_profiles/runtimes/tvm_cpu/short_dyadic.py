"""A dyadic number short enough for 32-bit products of one code, with the same results for every code.

The operands of a sum are differences of two codes, -255..255. Rounding v * r for all of them only tells apart
ratios r between which some (k + 1/2) / v lies, and two such fractions are at least 2^-18 apart: 23 bits of m
are enough, and the product fits 32 bits.
"""

import numpy as np

from hw_profiles.reference.integer_ops import CODES, rescale

LARGEST_SHIFT = 30
DIFFERENCES = np.arange(-(CODES - 1), CODES)


def shortened(m: int, c: int) -> tuple[int, int]:
    """Return (m', c') with rescale(v, m', c') == rescale(v, m, c) for every v in -255..255, and v * m' in 31
    bits.

    Raises:
        ValueError: there is none; that takes one scale tens of times the other.

    >>> shortened(2**30, 31)
    (4194304, 23)
    """
    expected = rescale(DIFFERENCES, m, c)
    for shift in range(min(c, LARGEST_SHIFT), 0, -1):
        for short in (m >> (c - shift), (m >> (c - shift)) + 1):
            fits = (CODES - 1) * short + 2 ** (shift - 1) < 2**31
            if fits and np.array_equal(rescale(DIFFERENCES, short, shift), expected):
                return short, shift
    raise ValueError(f"a sum's operand has {m / 2.0**c} times the scale of its result: too much for 32 bits")
