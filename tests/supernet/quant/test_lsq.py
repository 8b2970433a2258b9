"""Fake quantizers against torch's own learnable ones, the papers' formulas, and plain autograd."""

import numpy as np
import pytest
import torch
from torch import Tensor

from supernet.qat.double_rounding import largest_code, requantized, step_ratio, stored_codes
from supernet.qat.lsq import (
    fake_quantize_tensor,
    fake_quantize_weight,
    initial_weight_scale,
    zero_point,
)

WIDTHS = (8, 6, 4, 2)


def straight(x: Tensor, rounded: Tensor) -> Tensor:
    """`rounded` forward, the identity backward."""
    return x + (rounded - x).detach()


def scaled(x: Tensor, factor: float) -> Tensor:
    """The identity forward, `factor` backward."""
    return x * factor + (x - x * factor).detach()


def by_autograd(weight: Tensor, scale: Tensor, bits: int) -> Tensor:
    """The same computation out of torch's own operations: half-up rounding of rounded, clipped codes."""
    largest, ratio = largest_code(bits), step_ratio(bits)
    wide = scaled(scale, (weight[0].numel() * largest) ** -0.5).view(-1, *(1,) * (weight.ndim - 1))
    stored = (weight / wide).clamp(-127.5, 127.5)
    stored = straight(stored, torch.round(stored).clamp(-127, 127)) / ratio
    codes = straight(stored, torch.floor(stored + 0.5)).clamp(-largest, largest)
    return codes * wide * ratio


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("shape", [(5, 7), (6, 3, 3, 3)])
@pytest.mark.parametrize("shrink", [1.0, 0.4])  # with and without clipped weights
def test_weights_and_their_gradients_are_those_of_autograd(
    bits: int, shape: tuple[int, ...], shrink: float
) -> None:
    results = []
    for function in (fake_quantize_weight, by_autograd):
        weight = drawn(*shape).requires_grad_()
        scale = (initial_weight_scale(weight) * shrink).requires_grad_()
        out = function(weight, scale, bits)
        (out * drawn(*shape, seed=1)).sum().backward()
        results.append((out.detach(), weight.grad, scale.grad))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
        assert found.abs().max() > 0


@pytest.mark.parametrize("bits", WIDTHS)
def test_weights_are_the_integers_that_are_deployed(bits: int) -> None:
    weight = drawn(8, 4, 3, 3).float()
    scale = initial_weight_scale(weight)
    codes = requantized(stored_codes(weight, scale.view(-1, 1, 1, 1)), bits)
    expected = codes * (scale * step_ratio(bits)).view(-1, 1, 1, 1)
    torch.testing.assert_close(fake_quantize_weight(weight, scale, bits), expected, rtol=0, atol=0)


def test_8_bit_weights_are_torchs_learnable_fake_quantization() -> None:
    weight, scale = drawn(6, 20).float(), initial_weight_scale(drawn(6, 20)).float() * 0.6
    results = []
    for ours in (True, False):
        w, s = weight.clone().requires_grad_(), scale.clone().requires_grad_()
        out = (
            fake_quantize_weight(w, s, 8)
            if ours
            else torch._fake_quantize_learnable_per_channel_affine(
                w, s, torch.zeros(6), 0, -127, 127, (20 * 127) ** -0.5
            )
        )
        (out * drawn(6, 20, seed=1).float()).sum().backward()
        results.append((out.detach(), w.grad, s.grad))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("bits", "offset"), [(8, 0.0), (8, -1.3), (6, -0.7), (4, 0.0), (4, -1.1)])
def test_activations_and_their_gradients_are_those_of_the_paper(bits: int, offset: float) -> None:
    """Bhalgat et al. 2020, equations 4 to 6, with the zero point rounded."""
    largest = 2**bits - 1
    x = drawn(4, 3, 5, 5).requires_grad_()
    scale = torch.tensor(2.5 / largest, dtype=torch.float64, requires_grad=True)
    beta = torch.tensor(offset, dtype=torch.float64, requires_grad=True)
    grad = drawn(4, 3, 5, 5, seed=1)
    out = fake_quantize_tensor(x, scale, beta, largest)
    (out * grad).sum().backward()

    value, s = x.detach().numpy(), scale.item()
    zero = np.clip(np.rint(-offset / s), 0, largest)
    codes = np.rint(value / s) + zero
    expected = (np.clip(codes, 0, largest) - zero) * s
    np.testing.assert_allclose(out.detach().numpy(), expected, rtol=1e-12)
    inside = (codes >= 0) & (codes <= largest)
    assert 0 < inside.mean() < 1
    slope = np.where(inside, np.rint(value / s) - value / s, np.where(codes < 0, 0, largest))
    factor = (75 * largest) ** -0.5
    np.testing.assert_allclose(x.grad.numpy(), grad.numpy() * inside)
    np.testing.assert_allclose(scale.grad.item(), (grad.numpy() * slope).sum() * factor)
    np.testing.assert_allclose(beta.grad.item(), (grad.numpy() * ~inside).sum() * factor)


def test_clipped_ends_follow_scale_and_offset_by_finite_differences() -> None:
    """Beyond the range the result is smooth in both: offset below, offset + largest * scale above."""
    x = torch.tensor([[-9.0, 9.0]], dtype=torch.float64)
    scale, offset = torch.tensor(0.1, dtype=torch.float64), torch.tensor(-0.8, dtype=torch.float64)
    gradients = []
    for end in (0, 1):
        s, b = scale.clone().requires_grad_(), offset.clone().requires_grad_()
        fake_quantize_tensor(x, s, b, 15)[0, end].backward()
        gradients.append((s.grad.item() * (2 * 15) ** 0.5, b.grad.item() * (2 * 15) ** 0.5))

    def ends(s: float, b: float) -> tuple[float, float]:
        return b, b + 15 * s  # with an offset that is a whole number of steps

    moved_s, moved_b = ends(0.2, -0.8), ends(0.1, -0.7)
    for end in (0, 1):
        here = float(fake_quantize_tensor(x, scale, offset, 15)[0, end])
        assert gradients[end][0] == pytest.approx((moved_s[end] - here) / 0.1)
        assert gradients[end][1] == pytest.approx((moved_b[end] - here) / 0.1)


@pytest.mark.parametrize("offset", [0.0, -0.37, -5.0, 0.4])
def test_zero_is_exact_and_its_code_is_one_of_them(offset: float) -> None:
    scale, beta = torch.tensor(0.03), torch.tensor(offset)
    assert float(fake_quantize_tensor(torch.zeros(1, 1), scale, beta, 63)) == 0
    assert 0 <= float(zero_point(scale, beta, 63)) <= 63


def test_the_first_scale_covers_the_range_of_every_channel() -> None:
    weight = drawn(5, 9) * torch.tensor([0.0, 1e-3, 1.0, 3.0, 100.0], dtype=torch.float64).view(-1, 1)
    scale = initial_weight_scale(weight)
    assert bool((scale > 0).all())
    error = (fake_quantize_weight(weight, scale, 8) - weight).abs()
    assert bool((error <= scale.view(-1, 1) * 0.51).all())
