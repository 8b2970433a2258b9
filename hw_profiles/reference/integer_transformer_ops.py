"""Integer-only softmax, GELU and layer normalisation in plain numpy: what every integer kernel must give bit
for bit.

I-ViT (Li & Gu 2023, arXiv:2207.01405): exponentials by shifts, divisions by one integer reciprocal a row. All
values are int64 and all divisions and shifts round down. That is the dialect: a runtime that divides towards
zero, or that shifts before it adds, gives other bits.

`S` is the scale of the input, so its real value is x * S. A row is what the last axis holds.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Int64s = NDArray[np.int64]

WORD = 32  # bits of what is added up; published
RECIPROCAL = 2 ** (WORD - 1) - 1  # what a row's sum divides: the largest integer
SOFTMAX_SHIFTS, GELU_SHIFTS = 15, 23  # published; n, the halvings at which an exponential counts as 0
GELU_SLOPE = 1.702  # gelu(x) is about x * sigmoid(1.702 x)
MOST_SHIFTS = 30  # an exponential of 0 is 2^n / S, and a row of them is summed in 32 bits
LOG2_E = 1.4375  # 1 + 1/2 - 1/16: the shifts that stand for log2(e) = 1.4427
ROOT_START, ROOT_STEPS = 2**16, 10  # of the integer square root
CONVERGED = 35_000  # sum of squares from which ten steps are enough
WIDEST = 2**32  # sum of squares that a 32-bit runtime holds
MOST_BITS = 62  # of a value before it leaves int64


def round_even(values: ArrayLike, m: ArrayLike, c: ArrayLike) -> Int64s:
    """Return round(values * m / 2^c), half to even, in int64: I-ViT's dialect of `integer_ops.rescale`.

    >>> round_even([1, 3, 5], 1, 1).tolist()
    [0, 2, 2]
    """
    wide, shift = np.asarray(values, np.int64) * np.asarray(m, np.int64), np.asarray(c, np.int64)
    floor = wide >> shift
    rest, half = wide - (floor << shift), (np.int64(1) << shift) >> 1
    up = (rest > half) | ((rest == half) & (shift > 0) & (floor & 1 == 1))
    return np.asarray(floor + up, np.int64)


def shift_exp(d: ArrayLike, scale: float, n: int) -> Int64s:
    """Return about exp(S d) * 2^n / S. Section 3.3; 2^x is taken as 1 + x / 2 between two powers of two.

    Args:
        d: integers, usually at most 0; below -n / (1.4375 S) they count as that.
        n: halvings that are kept.

    Raises:
        ValueError: the scale is not positive, or a result needs more than 62 bits.
    """
    if not scale > 0:
        raise ValueError(f"scale {scale}: it must be positive")
    whole = math.ceil(1 / scale)
    t = np.asarray(d, np.int64)
    t = np.maximum(t + (t >> 1) - (t >> 4), -n * whole)
    q = t // -whole
    if int((n - q).max(initial=0)) + whole.bit_length() > MOST_BITS:
        raise ValueError(f"exp of {int(np.max(d)) * scale:.3g} with n = {n} does not fit in {MOST_BITS} bits")
    fraction = t + q * whole + 2 * whole  # (-whole, 0] is the rest, twice the mantissa is kept
    return np.asarray((fraction << np.maximum(n - q, 0)) >> 1, np.int64)


def reciprocal(total: Int64s, word: int) -> Int64s:
    """Return what shares of a sum are multiplied with, in words of so many bits."""
    largest = np.int64(2 ** (word - 1) - 1)
    return np.asarray(largest // np.minimum(total, largest), np.int64)


def shiftmax(
    x: ArrayLike,
    scale: float,
    *,
    n: int = SOFTMAX_SHIFTS,
    bits: int = 8,
    word: int = WORD,
    mask: ArrayLike = True,
) -> Int64s:
    """Return softmax over the last axis as codes of scale 2^-(bits - 1). Algorithm 1. What a mask hides,
    where it is 0, has no share, and takes none.

    In 8 bits a row loses mass: sums are .94 at length 16, but .50 to .58 at length 197; 16 bits keep .97. In
    words of 32 bits it loses mass too where the scale is so fine that the reciprocal is a small integer.
    """
    x, seen = np.asarray(x, np.int64), np.asarray(mask, bool)
    x = np.where(seen, x, x.min(axis=-1, keepdims=True))
    powers = np.where(seen, shift_exp(x - x.max(axis=-1, keepdims=True), scale, n), 0)
    total: Int64s = np.maximum(powers.sum(axis=-1, keepdims=True), 1)  # of a row that is hidden altogether
    share = reciprocal(total, word)
    return np.asarray((powers * share) >> (word - bits), np.int64)


def shift_gelu(
    x: ArrayLike, scale: float, *, n: int = GELU_SHIFTS, bits: int = 8, word: int = WORD
) -> Int64s:
    """Return GELU as codes of scale S * 2^-(bits - 1), comparing x with the largest of its row: algorithm 2.

    `check_gelu` says whether the sigmoid can be told from one half, `gelu_shifts` which `n` is best.
    """
    x, slope = np.asarray(x, np.int64), GELU_SLOPE * scale
    largest = x.max(axis=-1, keepdims=True)
    power, exp_of_zero = shift_exp(x - largest, slope, n), shift_exp(-largest, slope, n)
    share = reciprocal(power + exp_of_zero, word)
    return np.asarray(x * ((power * share) >> (word - bits)), np.int64)


def check_gelu(scale: float, span: int, n: int = GELU_SHIFTS) -> None:
    """Refuse a GELU whose exponential reaches its floor before the row's smallest code.

    Args:
        span: largest minus smallest code of a row.

    Raises:
        ValueError: 1.702 * 1.4375 * S * span is above n: the sigmoid of small codes would be one half.
    """
    reach = GELU_SLOPE * LOG2_E * scale * span
    if reach > n:
        raise ValueError(
            f"scale {scale} over {span} codes needs n >= {reach:.1f}, not {n}: clip the range before GELU"
        )


def gelu_shifts(scale: float, *, low: int = -128, high: int = 127, bits: int = 8, word: int = WORD) -> int:
    """Return the `n` of the least largest error on the codes low..high.

    The published 23 is off by .24 to .29 for scales up to .031, since the reciprocal is a coarse integer
    there; the best is off by .012 to .043. In words of 64 bits it is no coarse integer.

    Raises:
        ValueError: no `n` up to 30 reaches the range.
    """
    check_gelu(scale, high - low, MOST_SHIFTS)
    codes = np.arange(low, high + 1)
    exact, step = gelu(codes * scale), scale / 2 ** (bits - 1)

    def error(n: int) -> float:
        return float(np.abs(shift_gelu(codes, scale, n=n, bits=bits, word=word) * step - exact).max())

    return min(range(1, MOST_SHIFTS + 1), key=error)


def gelu(x: ArrayLike) -> NDArray[np.float64]:
    """Return x * Phi(x) in real numbers: what `shift_gelu` stands for."""
    real = np.asarray(x, np.float64)
    below = [0.5 * (1 + math.erf(value / math.sqrt(2))) for value in real.ravel()]
    return np.asarray(real * np.reshape(below, real.shape))


def integer_sqrt(v: ArrayLike, steps: int = ROOT_STEPS) -> Int64s:
    """Return about the square root, by steps of Heron's rule from 2^16: good from 35,000 on after ten, from a
    fourth of that after each one more.
    """
    squares: Int64s = np.asarray(v, np.int64)
    k: Int64s = np.full(squares.shape, ROOT_START, np.int64)
    for _ in range(steps):
        k = np.asarray(k + squares // k, np.int64) >> 1
    return k


def layer_norm(x: ArrayLike, gamma: ArrayLike, beta: ArrayLike) -> Int64s:
    """Return layer normalisation over the last axis, of c codes of 16 bits. Section 3.5.

    Args:
        x: (..., c) codes of any scale.
        gamma, beta: (c,) real; gamma is not 0.

    Returns:
        (..., c) codes; their scale is `layer_norm_scale(gamma)`, one per channel.
    """
    return np.asarray(normalised(x) + layer_norm_offset(gamma, beta), np.int64)


def normalised(x: ArrayLike, epsilon: int = 0, steps: int = ROOT_STEPS) -> Int64s:
    """Return (..., c) codes less their row's mean, in units of 2^-30 of the root of its sum of squares.

    Args:
        epsilon: added to the sum of squares; published without.
        steps: of the square root.
    """
    x = np.asarray(x, np.int64)
    centred = x - _mean(x)
    k = integer_sqrt((centred**2).sum(axis=-1, keepdims=True) + epsilon, steps)
    return np.asarray((centred * (RECIPROCAL // k)) >> 1, np.int64)


def layer_norm_offset(gamma: ArrayLike, beta: ArrayLike) -> Int64s:
    """Return the (c,) beta at the scale of each channel."""
    gamma, beta = np.asarray(gamma, np.float64), np.asarray(beta, np.float64)
    offset = np.floor(beta / gamma * 2.0**30 / math.sqrt(len(gamma)))
    return np.asarray(offset, np.int64)


def layer_norm_scale(gamma: ArrayLike) -> NDArray[np.float64]:
    """Return the (c,) scale of each channel that `layer_norm` gives."""
    gamma = np.asarray(gamma, np.float64)
    return np.asarray(gamma * math.sqrt(len(gamma)) / 2.0**30)


def check_layer_norm(x: ArrayLike) -> None:
    """Refuse rows whose standard deviation the integer square root cannot find.

    Raises:
        ValueError: a row's sum of squares around its mean is below 35,000, where ten steps have not converged
            (with 384 channels of standard deviation 1 the error is above 1, of 100 it is .007), or does not
            fit in 32 bits.
    """
    x = np.asarray(x, np.int64)
    squares = ((x - _mean(x)) ** 2).sum(axis=-1)
    for bad, advice in ((squares < CONVERGED, "finer"), (squares >= WIDEST, "coarser")):
        if np.any(bad):
            square_sum = int(squares[bad].ravel()[0])
            allowed = f"allowed are {CONVERGED} to {WIDEST - 1}"
            raise ValueError(f"a row's sum of squares is {square_sum}; {allowed}: use a {advice} scale")


def _mean(x: Int64s) -> Int64s:
    """Return the (..., 1) mean over the last axis, rounded half to even."""
    c = x.shape[-1]
    floor, rest = np.divmod(x.sum(axis=-1, keepdims=True), c)
    up = (2 * rest > c) | ((2 * rest == c) & (floor & 1 == 1))
    return np.asarray(floor + up, np.int64)
