"""Short multipliers: the same codes as the long ones, in 32 bits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.reference.integer_ops import dyadic, rescale
from hw_profiles.runtimes.tvm_cpu.short_dyadic import DIFFERENCES, shortened


def check(ratio: float) -> None:
    m, c = map(int, dyadic(ratio))
    short, shift = shortened(m, c)
    assert 255 * short + 2 ** (shift - 1) < 2**31
    assert 1 <= shift <= 30
    assert rescale(DIFFERENCES, short, shift).tolist() == rescale(DIFFERENCES, m, c).tolist()


@given(st.floats(1e-6, 8))
def test_every_difference_of_codes_is_scaled_alike(ratio: float) -> None:
    check(ratio)


@given(st.integers(0, 500), st.integers(1, 255), st.sampled_from([0.0, 1e-9, -1e-9, 3e-10, -3e-10]))
def test_so_it_is_beside_ties(k: int, value: int, off: float) -> None:
    check(min((k + 0.5) / value, 8.0) * (1 + off))


def test_an_absurd_ratio_is_refused() -> None:
    m, c = map(int, dyadic(2.0**24))
    with pytest.raises(ValueError, match="too much for 32 bits"):
        shortened(m, c)
