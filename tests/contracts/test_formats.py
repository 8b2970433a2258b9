"""What every registered number format must do."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from supernet.family import FORMATS, load_format
from supernet.quant.formats.format import Format

finite = st.floats(-100, 100, width=32)
weights = arrays(np.float32, (3, 4, 2, 2), elements=finite)


@pytest.mark.parametrize("name", sorted(FORMATS))
@given(weight=weights)
def test_rounding_error_is_at_most_half_a_step(name: str, weight: np.ndarray) -> None:
    number_format = load_format(name)
    codes, scale = number_format.quantize_weight(weight)
    error = np.abs(number_format.dequantize_weight(codes, scale) - weight)
    step = scale[:, None, None, None]
    assert (error <= step / 2 * (1 + 1e-5)).all()


@pytest.mark.parametrize("name", sorted(FORMATS))
@given(weight=weights)
def test_quantizing_twice_changes_nothing(name: str, weight: np.ndarray) -> None:
    number_format = load_format(name)
    once = number_format.dequantize_weight(*number_format.quantize_weight(weight))
    twice = number_format.dequantize_weight(*number_format.quantize_weight(once))
    assert np.allclose(once, twice, rtol=1e-5, atol=1e-6)


def integer_formats() -> list[Format]:
    return [f for f in map(load_format, sorted(FORMATS)) if f.activation_params(-1.0, 1.0) is not None]


@given(low=finite, high=finite)
def test_activation_range_is_covered_and_zero_is_exact(low: float, high: float) -> None:
    low, high = min(low, high), max(low, high)
    for number_format in integer_formats():
        params = number_format.activation_params(low, high)
        assert params is not None
        assert 0 <= params.zero_point <= 255
        bottom, top = -params.zero_point * params.scale, (255 - params.zero_point) * params.scale
        assert bottom <= min(low, 0) + params.scale
        assert top >= max(high, 0) - params.scale
        if low >= 0:
            assert params.zero_point == 0  # so that a ReLU costs nothing


def test_int8_weights_equal_torch() -> None:
    weight = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    int8 = load_format("int8")
    codes, scale = int8.quantize_weight(weight.numpy())
    expected = torch.fake_quantize_per_channel_affine(
        weight, torch.from_numpy(scale), torch.zeros(8, dtype=torch.int32), 0, -127, 127
    )
    assert np.allclose(int8.dequantize_weight(codes, scale), expected.numpy(), atol=1e-6)


def test_int8_activations_equal_torch() -> None:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    params = load_format("int8").activation_params(float(x.min()), float(x.max()))
    assert params is not None
    expected = torch.fake_quantize_per_tensor_affine(x, params.scale, params.zero_point, 0, 255)
    codes = torch.clamp(torch.round(x / params.scale) + params.zero_point, 0, 255)
    assert torch.allclose((codes - params.zero_point) * params.scale, expected, atol=1e-6)
