"""Straight lines on codes: what codes mean, and where they are clipped."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from supernet.formats.loading import load_activation_format
from supernet.imported.rescaling import Rescaling


@given(st.floats(0.01, 50), st.floats(0.05, 4), st.floats(0, 2))
def test_codes_of_a_line_are_those_that_it_reads(high: float, factor: float, offset: float) -> None:
    line = Rescaling(factor, offset, 0.0, 1.0)
    source = load_activation_format("int8").params(line.begins or 0.0, high)
    target = line.params(source)
    first, last = line.code_range(source)
    codes = np.arange(source.largest + 1)
    real = (codes - source.zero_point) * source.scale
    given_back = (np.clip(codes, first, last) - target.zero_point) * target.scale
    assert np.abs(given_back - np.clip(factor * real + offset, 0, 1)).max() <= 1.01 * target.scale
