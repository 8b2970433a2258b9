"""I-ViT's operators: bits against plain Python integers and golden vectors, errors against real numbers."""

import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.reference.integer_ops import dyadic
from hw_profiles.reference.integer_transformer_ops import (
    LOG2_E,
    RECIPROCAL,
    check_gelu,
    check_layer_norm,
    gelu,
    gelu_shifts,
    integer_sqrt,
    layer_norm,
    layer_norm_scale,
    round_even,
    shift_exp,
    shift_gelu,
    shiftmax,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "transformer_arithmetic.json"
CODES = np.arange(-128, 128)
LENGTH = 197  # tokens of a ViT at 224 pixels


def exact_exp(d: int, scale: float, n: int) -> int:
    """Section 3.3 in fractions of any length."""
    whole = math.ceil(1 / scale)
    t = max(d + (d >> 1) - (d >> 4), -n * whole)
    q = math.floor(Fraction(t, -whole))
    return math.floor((Fraction(t + q * whole, 2) + whole) * Fraction(2) ** (n - q))


@given(
    st.lists(st.integers(-300, 40), min_size=1, max_size=20),
    st.floats(0.01, 1),
    st.sampled_from([15, 16, 23]),
)
def test_exponentials_equal_those_in_fractions(d: list[int], scale: float, n: int) -> None:
    wanted = [exact_exp(value, scale, n) for value in d]
    if max(wanted) < 2**60:
        assert shift_exp(d, scale, n).tolist() == wanted


def test_an_exponential_that_leaves_64_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit in 62 bits"):
        shift_exp([100], 0.5, 23)
    with pytest.raises(ValueError, match="scale 0: it must be positive"):
        shift_exp([-1], 0, 15)


def test_an_exponential_is_near_the_real_one() -> None:
    d, scale = np.arange(-200, 1), 0.02
    found = shift_exp(d, scale, 15) * scale / 2**15
    assert np.abs(found - np.exp(d * scale)).max() < 0.06  # 1 + x / 2 for 2^x


@given(
    st.lists(st.integers(-128, 127), min_size=2, max_size=12), st.floats(0.01, 0.5), st.sampled_from([8, 16])
)
def test_softmax_equals_the_algorithm_in_plain_integers(row: list[int], scale: float, bits: int) -> None:
    powers = [exact_exp(x - max(row), scale, 15) for x in row]
    reciprocal = RECIPROCAL // min(sum(powers), RECIPROCAL)
    wanted = [(power * reciprocal) >> (32 - bits) for power in powers]
    assert shiftmax(row, scale, bits=bits).tolist() == wanted


@pytest.mark.parametrize("scale", [0.02, 0.05, 0.1, 0.2])
def test_softmax_in_16_bits_is_near_the_real_one(scale: float) -> None:
    x = np.random.default_rng(0).integers(-128, 128, (100, LENGTH))
    real = np.exp((x - x.max(axis=1, keepdims=True)) * scale)
    real /= real.sum(axis=1, keepdims=True)
    found = shiftmax(x, scale, bits=16) / 2**15
    assert np.abs(found - real).mean() <= 3e-4
    assert 0.95 < found.sum(axis=1).mean() <= 1


@given(
    st.lists(st.tuples(st.integers(-255, 255), st.booleans()), min_size=1, max_size=12), st.floats(0.005, 0.1)
)
def test_what_a_mask_hides_has_no_share_and_takes_none(row: list[tuple[int, bool]], scale: float) -> None:
    values, seen = (np.array(column) for column in zip(*row, strict=True))
    found = shiftmax(values, scale, bits=16, word=64, mask=seen)
    assert not found[~seen].any()
    if seen.any():
        np.testing.assert_array_equal(found[seen], shiftmax(values[seen], scale, bits=16, word=64))


def test_softmax_in_8_bits_loses_mass_in_long_rows() -> None:
    x = np.random.default_rng(0).normal(0, 30, (100, LENGTH)).round().clip(-128, 127).astype(int)
    assert 0.5 < (shiftmax(x, 0.05) / 128).sum(axis=1).mean() < 0.6
    assert (shiftmax(x[:, :16], 0.05) / 128).sum(axis=1).mean() > 0.9


@given(st.lists(st.integers(-128, 127), min_size=1, max_size=12), st.floats(0.01, 0.03))
def test_gelu_equals_the_algorithm_in_plain_integers(row: list[int], scale: float) -> None:
    slope = 1.702 * scale
    one = exact_exp(-max(row), slope, 23)
    wanted = []
    for x in row:
        power = exact_exp(x - max(row), slope, 23)
        wanted.append(x * ((power * (RECIPROCAL // min(power + one, RECIPROCAL))) >> 24))
    assert shift_gelu(row, scale).tolist() == wanted


@pytest.mark.parametrize("scale", [0.01, 0.02, 0.031])
def test_the_best_number_of_shifts_beats_the_published_one(scale: float) -> None:
    def error(n: int) -> float:
        return float(np.abs(shift_gelu(CODES, scale, n=n) * scale / 128 - gelu(CODES * scale)).max())

    assert 0.24 <= error(23) <= 0.30
    assert error(gelu_shifts(scale)) <= 0.044


def test_a_gelu_whose_range_is_too_wide_is_refused() -> None:
    check_gelu(0.03, 255)
    with pytest.raises(ValueError, match="clip the range before GELU"):
        check_gelu(0.08, 255)
    with pytest.raises(ValueError, match=r"needs n >= 49\.9, not 30"):
        gelu_shifts(0.08)
    saturated = np.abs(shift_gelu(CODES, 0.08) * 0.08 / 128 - gelu(CODES * 0.08)).max()
    assert 4.5 < saturated < 5.1  # what the guard is for
    assert 1.702 * LOG2_E * 0.03 * 255 < 23


@given(st.integers(35_000, 2**32 - 1))
def test_the_square_root_converges(v: int) -> None:
    assert abs(int(integer_sqrt(v)) - math.isqrt(v)) <= max(1, math.isqrt(v) // 1000)


@given(st.lists(st.integers(-3000, 3000), min_size=4, max_size=16), st.integers(0, 2**32 - 1))
def test_normalisation_equals_the_algorithm_in_plain_integers(row: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    gamma, beta = rng.uniform(0.2, 2, len(row)), rng.normal(0, 1, len(row))
    mean = round(Fraction(sum(row), len(row)))  # Python rounds fractions half to even
    v, k = sum((x - mean) ** 2 for x in row), 2**16
    for _ in range(10):
        k = (k + v // k) >> 1
    offsets = [math.floor(b / g * 2**30 / math.sqrt(len(row))) for g, b in zip(gamma, beta, strict=True)]
    wanted = [
        math.floor(Fraction((x - mean) * (RECIPROCAL // k), 2)) + o for x, o in zip(row, offsets, strict=True)
    ]
    assert layer_norm(row, gamma, beta).tolist() == wanted


@pytest.mark.parametrize(("deviation", "largest"), [(11, 0.1), (100, 0.012), (3000, 5e-4)])
def test_normalisation_is_near_the_real_one(deviation: float, largest: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0, deviation, (50, 384)).round().astype(int)
    gamma, beta = rng.uniform(0.5, 1.5, 384), rng.normal(0, 0.2, 384)
    check_layer_norm(x)
    real = (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True) * gamma + beta
    assert np.abs(layer_norm(x, gamma, beta) * layer_norm_scale(gamma) - real).max() < largest


@pytest.mark.parametrize(("factor", "advice"), [(1, "a finer scale"), (10**6, "a coarser scale")])
def test_rows_that_the_square_root_cannot_do_are_refused(factor: int, advice: str) -> None:
    x = np.random.default_rng(0).normal(0, 1, (2, 384)).round().astype(int) * factor
    with pytest.raises(ValueError, match=advice):
        check_layer_norm(x)


@given(
    st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=20), st.floats(1e-7, 30), st.booleans()
)
def test_requantization_rounds_half_to_even(values: list[int], ratio: float, tie: bool) -> None:
    m, c = (int(part) for part in dyadic(0.5 if tie else ratio))
    assert round_even(values, m, c).tolist() == [round(Fraction(value * m, 2**c)) for value in values]


def test_golden_vectors() -> None:
    """Written once from the plain-integer versions above: the bits must never change."""
    golden = json.loads(GOLDEN.read_text())
    x = np.array(golden["x"])
    assert shiftmax(x, golden["scale"]).tolist() == golden["shiftmax_8"]
    assert shiftmax(x, golden["scale"], bits=16).tolist() == golden["shiftmax_16"]
    assert shift_gelu(x, golden["scale"]).tolist() == golden["shift_gelu"]
    wide = x * golden["widen"]
    assert layer_norm(wide, golden["gamma"], golden["beta"]).tolist() == golden["layer_norm"]
