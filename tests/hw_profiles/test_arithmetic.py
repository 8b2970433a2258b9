"""The integer oracle itself, against exact fractions and torch's float64 convolution."""

from fractions import Fraction
from math import floor, trunc

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.graph.builder import WorkloadBuilder
from hw_profiles.graph.formats import QuantParams
from hw_profiles.graph.layer import INPUT, Layer, map_layer, parse_key
from hw_profiles.reference.integer_ops import (
    UnitNumbers,
    accumulator_scale,
    dyadic,
    multipliers,
    requantize,
    rescale,
    run_network,
    run_unit,
    unit_bias,
)
from hw_profiles.reference.random_units import random_inputs, random_numbers, random_tensor, random_units

CONVOLUTIONS = (
    "stem 3x9x9>8 k3s2g1 relu w={w} a={a}",
    "conv 8x5x5>12 k1s1g1 none w={w} a={a}",
    "conv 8x5x4>12 k1s2g1 none w={w} a={a}",
    "conv 6x7x7>6 k5s1g6 relu w={w} a={a}",
    "conv 6x8x8>6 k3s2g6 none w={w} a={a}",
    "linear 20x1x1>10 k1s1g1 none w={w} a={a}",
)
FORMATS = (("int8", "int8"), ("int4", "int8"), ("fp32", "fp32"))


def torch_conv(layer: Layer, x: np.ndarray, weight: np.ndarray, padding: float) -> np.ndarray:
    """(h, w, out) float64 sums, computed by torch."""
    edge = layer.kernel // 2
    image = torch.from_numpy(x.astype(np.float64).transpose(2, 0, 1)[None].copy())
    padded = F.pad(image, (edge,) * 4, value=padding)
    kernel = torch.from_numpy(weight.astype(np.float64))
    return F.conv2d(padded, kernel, None, layer.stride, 0, 1, layer.groups)[0].numpy().transpose(1, 2, 0)


def test_dyadic_numbers_reproduce_their_ratio() -> None:
    ratios = 10 ** np.random.default_rng(0).uniform(-7, 1.5, 10_000)
    m, c = dyadic(ratios)
    assert m.min() >= 2**30
    for ratio, mantissa, shift in zip(ratios.tolist(), m.tolist(), c.tolist(), strict=True):
        assert abs(Fraction(mantissa, 2**shift) / Fraction(ratio) - 1) <= Fraction(1, 2**31)


def test_a_ratio_just_below_a_power_of_two_stays_in_31_bits() -> None:
    m, c = dyadic(np.nextafter(0.5, 0))
    assert (int(m), int(c)) == (2**30, 31)


def test_a_tiny_ratio_is_shifted_by_what_int64_can_hold() -> None:
    m, c = dyadic(1e-13)
    assert c == 62
    assert m / 2.0**62 == pytest.approx(1e-13, rel=1e-4)


@pytest.mark.parametrize("ratio", [0.0, -1.0, 2.0**30, float("nan")])
def test_a_ratio_that_no_kernel_can_use_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="above 0 and below"):
        dyadic(ratio)


@given(st.integers(-(2**31), 2**31 - 1), st.floats(1e-7, 30))
def test_rescaling_rounds_half_up(value: int, ratio: float) -> None:
    m, c = dyadic(ratio)
    exact = Fraction(value * int(m), 2 ** int(c))
    assert int(rescale(value, m, c)) == floor(exact + Fraction(1, 2))


def test_codes_are_clipped_and_ties_go_up() -> None:
    m, c = dyadic(0.5)
    acc = np.array([-10_000, -3, -1, 0, 1, 3, 10_000])
    assert requantize(acc, m, c, 100).tolist() == [0, 99, 100, 100, 101, 102, 255]


@pytest.mark.parametrize("key", CONVOLUTIONS)
@pytest.mark.parametrize("formats", FORMATS)
def test_convolutions_agree_with_torch(key: str, formats: tuple[str, str]) -> None:
    layer = parse_key(key.format(w=formats[0], a=formats[1]))
    rng = np.random.default_rng(1)
    numbers, (x,) = random_numbers(layer, rng), random_inputs(layer, rng)
    weight, _, bias = numbers.parameters
    result = run_unit(layer, numbers, (x,))
    if formats[1] == "fp32":
        wanted = torch_conv(layer, x, weight, 0.0) + bias
        wanted = np.maximum(wanted, 0) if layer.nonlinearity == "relu" else wanted
        np.testing.assert_allclose(result, wanted, rtol=1e-6, atol=1e-6)
        return
    zero_point = numbers.input().zero_point
    # padding with the zero point is padding the real tensor with 0
    acc = torch_conv(layer, x.astype(np.int64) - zero_point, weight, 0.0) + unit_bias(numbers)
    if layer.kind == "linear":
        np.testing.assert_array_equal(result, acc.astype(np.float32) * accumulator_scale(numbers))
        return
    assert numbers.output is not None
    ratio = accumulator_scale(numbers) / np.float64(np.float32(numbers.output.scale))
    real = acc * ratio + numbers.output.zero_point
    assert np.abs(result - np.clip(real, 0, 255)).max() <= 0.5 + 1e-6
    assert 0 < (result > 0).mean() <= 1


@pytest.mark.parametrize("op", ["add", "add_converted"])
def test_a_sum_is_that_of_the_real_tensors_up_to_rounding(op: str) -> None:
    layer, rng = map_layer(op, (8, 4, 4), 8, activation_format="int8"), np.random.default_rng(2)
    numbers, inputs = random_numbers(layer, rng), random_inputs(layer, rng)
    real = sum(
        (x.astype(np.float64) - numbers.input(i).zero_point) * numbers.input(i).scale
        for i, x in enumerate(inputs)
    )
    assert numbers.output is not None
    wanted = np.clip(real / numbers.output.scale + numbers.output.zero_point, 0, 255)
    assert np.abs(run_unit(layer, numbers, inputs) - wanted).max() <= 1 + 1e-6


def test_nothing_is_clipped_before_the_sum() -> None:
    layer = map_layer("add", (1, 1, 1), 1, activation_format="int8")
    numbers = UnitNumbers((QuantParams(2.0, 0), QuantParams(2.0, 255)), QuantParams(1.0, 0))
    both = np.full((1, 1, 1), 200, np.uint8), np.full((1, 1, 1), 100, np.uint8)
    assert run_unit(layer, numbers, both).item() == 2 * 200 - 2 * 155


@pytest.mark.parametrize("fmt", ["fp32", "int8"])
def test_pooling_is_the_mean(fmt: str) -> None:
    layer, rng = map_layer("pool", (5, 3, 3), 5, activation_format=fmt), np.random.default_rng(3)
    numbers, (x,) = random_numbers(layer, rng), random_inputs(layer, rng)
    result = run_unit(layer, numbers, (x,))
    assert result.shape == (1, 1, 5)
    if fmt == "fp32":
        np.testing.assert_allclose(result[0, 0], x.mean((0, 1)), atol=1e-6)
        return
    assert numbers.output is not None
    before, after = numbers.input(), numbers.output
    real = (x.astype(np.float64).mean((0, 1)) - before.zero_point) * before.scale
    wanted = np.clip(real / after.scale + after.zero_point, 0, 255)
    assert np.abs(result[0, 0] - wanted).max() <= 0.5 + 1e-6


@pytest.mark.parametrize(
    ("codes", "half_up", "truncated"),
    [((10, 11), 11, 10), ((10, 10), 10, 10), ((0, 199), 100, 99), ((9, 8), 9, 8), ((99, 100), 100, 99)],
)
def test_pooling_has_two_dialects(codes: tuple[int, int], half_up: int, truncated: int) -> None:
    """At one scale, HAWQ-V3's reference gives trunc(mean + 0.01)."""
    layer, same = map_layer("pool", (1, 1, 2), 1, activation_format="int8"), QuantParams(0.02, 0)
    x = np.array(codes, np.uint8).reshape(1, 2, 1)
    numbers = UnitNumbers((same,), same)
    assert run_unit(layer, numbers, (x,)).item() == half_up
    assert run_unit(layer, numbers, (x,), pooling="truncated").item() == truncated
    assert truncated == int(np.trunc(np.mean(codes) + 0.01))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 255), st.integers(0, 2**32 - 1))
def test_truncated_pooling_is_the_reference_in_floats(h: int, w: int, zero: int, seed: int) -> None:
    x = np.random.default_rng(seed).integers(0, 256, (h, w, 3)).astype(np.uint8)
    layer, same = map_layer("pool", (3, h, w), 3, activation_format="int8"), QuantParams(0.05, zero)
    found = run_unit(layer, UnitNumbers((same,), same), (x,), pooling="truncated")
    mean = [(int(x[..., c].astype(int).sum()) - zero * h * w, h * w) for c in range(3)]
    wanted = [trunc(Fraction(total, area) + Fraction(1, 100)) + zero for total, area in mean]
    assert found.ravel().tolist() == np.clip(wanted, 0, 255).tolist()


def test_quantizing_and_back_moves_a_value_by_half_a_step_at_most() -> None:
    rng = np.random.default_rng(4)
    there = map_layer("quantize", (4, 3, 3), 4, activation_format="int8")
    back = map_layer("dequantize", (4, 3, 3), 4, activation_format="int8")
    numbers = random_numbers(there, rng)
    assert numbers.output is not None
    x = rng.uniform(-0.5, 0.5, (3, 3, 4)).astype(np.float32)
    codes = run_unit(there, numbers, (x,))
    again = run_unit(back, UnitNumbers((numbers.output,)), (codes,))
    assert codes.dtype == np.uint8
    assert np.abs(again - x).max() <= numbers.output.scale * 0.5 * (1 + 1e-5)


def test_a_given_integer_bias_is_taken_as_it_is() -> None:
    layer, rng = parse_key("conv 4x2x2>4 k1s1g1 none w=int8 a=int8"), np.random.default_rng(5)
    numbers = random_numbers(layer, rng)
    weight, scale, _ = numbers.parameters
    bias = np.array([1, -2, 3, 2**20], np.int32)
    given_codes = UnitNumbers(numbers.inputs, numbers.output, weight, scale, bias)
    assert unit_bias(given_codes).tolist() == bias.tolist()


def test_the_multiplier_uses_the_product_rounded_to_float32() -> None:
    layer, rng = parse_key("conv 4x2x2>4 k1s1g1 none w=int8 a=int8"), np.random.default_rng(6)
    numbers = random_numbers(layer, rng)
    _, scale, _ = numbers.parameters
    assert numbers.output is not None
    product = np.float32(numbers.input().scale) * scale
    assert product.dtype == np.float32
    wanted = dyadic(product.astype(np.float64) / float(np.float32(numbers.output.scale)))
    for found, each in zip(multipliers(layer, numbers), wanted, strict=True):
        np.testing.assert_array_equal(found, each)


def test_neighbours_of_a_random_network_agree_about_their_tensor() -> None:
    net, shape = WorkloadBuilder((3, 6, 6)), (8, 6, 6)
    x = net.add("stem", parse_key("stem 3x6x6>8 k3s1g1 relu w=int8 a=int8"), INPUT)
    y = net.add("conv", map_layer("conv", shape, 8, weight_format="int8", activation_format="int8"), x)
    z = net.add("add", map_layer("add", shape, 8, activation_format="int8"), y, x)
    net.add("pool", map_layer("pool", shape, 8), z)
    work, rng = net.build(), np.random.default_rng(7)
    numbers = random_units(work, rng)
    assert numbers["add"].inputs == (numbers["conv"].output, numbers["stem"].output)
    result = run_network(work, numbers, random_tensor((6, 6, 3), "fp32", rng))
    assert result.shape == (1, 1, 8)
    assert result.dtype == np.float32
