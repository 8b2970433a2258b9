"""Fake quantizers with learned scales: LSQ+ (Bhalgat et al. 2020, arXiv:2004.09576), weights by Double
Rounding.

Forward gives the real values that the integer codes stand for. Backward passes gradients straight through the
rounding, and stops them where values are clipped; the gradients of scales and offsets are multiplied by
1 / sqrt(n * largest code), n being how many values share them, which keeps their steps in proportion to
those of the weights (Esser et al. 2020, arXiv:1902.08153, section 2.2).
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from hw_profiles.graph.formats import NearestCode
from supernet.qat.double_rounding import STORED_BITS, largest_code, rounded_down, step_ratio

SMALLEST_SCALE = 1e-8
UNCLIPPED = 1 + 1e-5  # the largest weight is 127.5 steps; rounded up it would be clipped, and get no gradient


def initial_weight_scale(weight: Tensor) -> Tensor:
    """Return the (out,) scale of 8-bit codes for a weight (out, ...): 2 max|w| / (2^8 - 1) per output
    channel.

    With half of that, LSQ+'s formula read literally, half of the range would be clipped from the start.
    """
    largest = weight.detach().abs().flatten(1).amax(dim=1)
    scale: Tensor = 2 * largest / (2**STORED_BITS - 1)
    return (scale * UNCLIPPED).clamp_min(SMALLEST_SCALE)


def fake_quantize_weight(weight: Tensor, scale: Tensor, bits: int) -> Tensor:
    """Return a weight (out, ...) rounded to 8 bits and from there to `bits`, as real values.

    Args:
        weight: full-precision values, which take the gradient.
        scale: (out,) positive scales of the 8-bit codes, shared by all widths.
        bits: 2 to 8.
    """
    result: Tensor = _FakeWeight.apply(weight, scale, bits)  # type: ignore[no-untyped-call]
    return result


def fake_quantize_tensor(x: Tensor, scale: Tensor, offset: Tensor, largest: int) -> Tensor:
    """Return an activation tensor (n, ...) rounded to scale * (code - zero point), codes in 0..largest.

    The zero point is round(-offset / scale), an integer as it will be on the device, so that 0 stays exact.

    Args:
        scale: positive scalar.
        offset: scalar, the smallest value. Without a gradient it is taken as 0 and nothing in `x` as
            negative, as behind a ReLU.
    """
    result: Tensor = _FakeTensor.apply(x, scale, offset, largest)  # type: ignore[no-untyped-call]
    return result


def fake_quantize_codes(x: Tensor, scale: Tensor, table: NearestCode) -> Tensor:
    """Return a tensor rounded to the codes of a small float or codebook; gradients as of
    `fake_quantize_tensor`, that of the scale included.
    """
    thresholds, values = (torch.from_numpy(array).to(x.device) for array in (table.thresholds, table.values))
    steps = torch.clamp(x / scale, values[0], values[-1])
    nearest = values[torch.bucketize(steps.detach(), thresholds)]
    return (steps + (nearest - steps).detach()) * scale


def zero_point(scale: Tensor, offset: Tensor, largest: int) -> Tensor:
    """Return the code that stands for 0."""
    return torch.round(-offset / scale).clamp(0, largest)


class _FakeWeight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, scale: Tensor, bits: int) -> Tensor:
        ctx.save_for_backward(weight, scale)
        ctx.bits = bits
        codes, _ = _weight_codes(weight, _per_channel(scale, weight), bits)
        return codes.mul_(_per_channel(scale, weight) * step_ratio(bits))

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        weight, scale = ctx.saved_tensors  # type: ignore[attr-defined]
        bits: int = ctx.bits  # type: ignore[attr-defined]
        wide = _per_channel(scale, weight)
        codes, inside = _weight_codes(weight, wide, bits)
        # inside: round(w / s) - w / s at the step of this width; outside: the end of the range
        slope = codes.mul_(step_ratio(bits)).sub_(inside * (weight / wide))
        factor = (weight[0].numel() * largest_code(bits)) ** -0.5
        return grad * inside, (grad * slope).flatten(1).sum(dim=1) * factor, None


def _weight_codes(weight: Tensor, scale: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Codes of this width as floats, and where nothing was clipped."""
    stored = torch.round(weight / scale)
    end, last = largest_code(STORED_BITS), largest_code(bits)
    inside = stored.abs() <= end
    codes = rounded_down(stored.clamp_(-end, end), bits)
    inside &= codes.abs() <= last
    return codes.clamp_(-last, last), inside


class _FakeTensor(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, offset: Tensor, largest: int) -> Tensor:
        ctx.save_for_backward(x, scale, offset)
        ctx.largest = largest
        zero = zero_point(scale, offset, largest)
        return (x / scale).round_().clamp_(-zero, largest - zero).mul_(scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        x, scale, offset = ctx.saved_tensors  # type: ignore[attr-defined]
        largest: int = ctx.largest  # type: ignore[attr-defined]
        signed: bool = ctx.needs_input_grad[2]  # type: ignore[attr-defined]
        zero = zero_point(scale, offset, largest)
        steps = x / scale
        nearest = torch.round(steps)
        inside = nearest == nearest.clamp(-zero, largest - zero)
        to_x = torch.where(inside, grad, 0.0)
        clipped = above = grad.sum() - to_x.sum()
        if signed:
            above = torch.where(nearest > largest - zero, grad, 0.0).sum()
        # inside: round(x / s) - x / s; above: the largest code; below: 0, since only the offset decides it
        within = nearest.sub_(steps).mul_(to_x).sum()
        factor = (x[0].numel() * largest) ** -0.5
        return to_x, (within + largest * above) * factor, clipped * factor if signed else None, None


def _per_channel(scale: Tensor, weight: Tensor) -> Tensor:
    return scale.view(-1, *(1,) * (weight.ndim - 1))
