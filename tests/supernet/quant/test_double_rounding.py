"""Double Rounding: the shift against the formula, and worked numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from supernet.qat.double_rounding import largest_code, requantized, rounded_down, step_ratio, stored_codes

WIDTHS = (8, 6, 5, 4, 3, 2)
ABSMAX = 4.735  # of some 400,000 normal samples: what the published figures are of
ALL = torch.arange(-127, 128, dtype=torch.int8)


@pytest.fixture(scope="module")
def normal() -> torch.Tensor:
    """A million samples of N(0, 1), none beyond what the scale covers."""
    samples = np.random.default_rng(0).standard_normal(10**6)
    return torch.from_numpy(samples).clamp_(-ABSMAX, ABSMAX)


@pytest.mark.parametrize("bits", WIDTHS)
def test_the_shift_is_bit_identical_to_rounding_the_quotient(bits: int) -> None:
    half_up = np.floor(ALL.numpy().astype(np.float64) / 2 ** (8 - bits) + 0.5)
    expected = np.clip(half_up, -largest_code(bits), largest_code(bits))
    np.testing.assert_array_equal(requantized(ALL, bits).numpy(), expected)
    in_floats = rounded_down(ALL.float(), bits).clamp(-largest_code(bits), largest_code(bits))
    np.testing.assert_array_equal(in_floats.numpy(), expected)


@pytest.mark.parametrize(
    ("bits", "double", "direct"), [(6, 2.20e-3, 1.85e-3), (4, 0.02998, 0.02963), (2, 0.4569, 0.4566)]
)
def test_errors_on_a_normal_distribution_are_the_published_ones(
    normal: torch.Tensor, bits: int, double: float, direct: float
) -> None:
    scale = torch.tensor(ABSMAX / 127, dtype=torch.float64)
    step = scale * step_ratio(bits)
    twice = requantized(stored_codes(normal, scale), bits)
    once = torch.round(normal / step).clamp(-largest_code(bits), largest_code(bits))
    assert float(((twice * step - normal) ** 2).mean()) == pytest.approx(double, rel=0.01)
    assert float(((once * step - normal) ** 2).mean()) == pytest.approx(direct, rel=0.01)


@pytest.mark.parametrize(
    ("bits", "error", "bias"), [(6, 4.97e-3, -0.056), (4, 0.1077, -0.279), (2, 1.866, -1.17)]
)
def test_flooring_instead_would_be_worse_and_biased(
    normal: torch.Tensor, bits: int, error: float, bias: float
) -> None:
    """Without the addition before the shift; these figures are of the full range, -2^(b-1) included."""
    scale = torch.tensor(ABSMAX / 127, dtype=torch.float64)
    floored = (stored_codes(normal, scale).to(torch.int16) >> (8 - bits)).clamp(-(2 ** (bits - 1)))
    off = floored * (scale * step_ratio(bits)) - normal
    assert float((off**2).mean()) == pytest.approx(error, rel=0.01)
    assert float(off.mean()) == pytest.approx(bias, rel=0.01)
    ours = requantized(stored_codes(normal, scale), bits) * (scale * step_ratio(bits)) - normal
    assert abs(float(ours.mean())) < abs(bias) / 2


def test_so_many_4_bit_codes_differ_from_rounding_once(normal: torch.Tensor) -> None:
    scale = torch.tensor(ABSMAX / 127, dtype=torch.float64)
    once = torch.round(normal / (scale * 16)).clamp(-7, 7)
    assert float((requantized(stored_codes(normal, scale), 4) != once).double().mean()) == pytest.approx(
        0.031, abs=0.001
    )


@given(st.floats(-1, 1), st.floats(1e-3, 1e3), st.sampled_from(WIDTHS))
def test_values_inside_the_range_are_off_by_at_most_the_two_roundings(
    position: float, scale: float, bits: int
) -> None:
    step = step_ratio(bits)
    weight = torch.tensor([position * (largest_code(bits) * step) * scale], dtype=torch.float64)
    found = requantized(stored_codes(weight, torch.tensor(scale)), bits) * (scale * step)
    assert float((found - weight).abs()) <= scale * (step / 2 + 0.5) * (1 + 1e-6)


@pytest.mark.parametrize("bits", WIDTHS)
def test_signs_can_be_flipped_and_widths_are_nested(bits: int) -> None:
    codes = requantized(ALL, bits)
    assert int(codes.min()) == -int(codes.max()) == -largest_code(bits)
    assert codes.dtype == torch.int8
    assert bool((codes.diff() >= 0).all())
    assert requantized(torch.zeros(1, dtype=torch.int8), bits).tolist() == [0]


@pytest.mark.parametrize("bits", [1, 9, 0])
def test_other_widths_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match="2 to 8 bits"):
        requantized(ALL, bits)
