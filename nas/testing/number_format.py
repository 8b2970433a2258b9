"""What every number format promises (`nas.NumberFormat`)."""

import numpy as np
import torch

from hw_profiles.graph.formats import Int
from nas.testing.contract import Contract, expect
from supernet.formats.loading import load_activation_format
from supernet.formats.number_format import NumberFormat
from supernet.formats.quantized_tensor import Array

ROUNDING = 1e-3  # of a step: scales are float32, and 255 of their rounding errors add up
SHAPES = ((3, 2), (4, 2, 3, 3), (5, 37))


def real_weight(*shape: int) -> Array:
    """Return a weight of normally distributed values."""
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def keeps_its_codes(number_format: NumberFormat) -> None:
    """Encode what was encoded and decoded as the same codes again."""
    for shape in SHAPES:
        weight = real_weight(*shape)
        tensor = number_format.weight.encode(weight)
        expect(tensor.codes.shape == shape, f"codes of {shape} have the shape {tensor.codes.shape}")
        again = number_format.weight.encode(number_format.weight.decode(tensor)).codes
        expect(np.array_equal(again, tensor.codes), f"codes of {shape} change")


def scales_as_it_says(number_format: NumberFormat) -> None:
    """Return float32 scales other than 0 in the shape of the granularity, none where none are needed."""
    for shape in SHAPES:
        scales = number_format.weight.encode(real_weight(*shape)).scales
        if not number_format.weight.needs_scale:
            expect(scales is None, "there are scales although none are needed")
            continue
        scale_shape = number_format.weight.granularity.scale_shape(shape)
        expect(
            scales is not None and scales.shape == scale_shape,
            f"scales of {shape} are not of shape {scale_shape}",
        )
        assert scales is not None
        expect(scales.dtype == np.float32 and bool(scales.all()), "scales are not float32, or 0")


def takes_the_nearest_value(number_format: NumberFormat) -> None:
    """Round every weight to the nearest value that a code stands for."""
    weight = real_weight(6, 40)
    tensor = number_format.weight.encode(weight)
    error = np.abs(number_format.weight.decode(tensor) - weight)
    if not number_format.weight.needs_scale:
        spacing = np.abs(np.spacing(weight.astype(tensor.codes.dtype))).astype(np.float32)
        expect((error <= spacing / 2).all(), "a weight is not rounded to the nearest number")
        return
    element = number_format.weight.element
    grid = np.arange(element.smallest, element.largest + 1) if isinstance(element, Int) else element.values
    assert tensor.scales is not None
    spread = np.broadcast_to(_of_each_weight(tensor.scales, number_format), weight.shape)[..., None]
    nearest = np.nanmin(np.abs(grid * spread - weight[..., None]), axis=2)
    off = error - nearest - ROUNDING * np.abs(spread[..., 0])
    expect((off <= 0).all(), f"a weight is off by {off.max():.2g} more than the nearest value")


def _of_each_weight(scales: Array, number_format: NumberFormat) -> Array:
    """Return scales (rows, groups) as they apply to a weight of 40 columns."""
    group = number_format.weight.granularity.group
    return scales.repeat(group, axis=1)[:, :40] if group else scales.reshape(-1, 1)


def rounds_channels_on_their_own(number_format: NumberFormat) -> None:
    """Round a channel the same, whatever the others are."""
    for shape in SHAPES:
        weight = real_weight(*shape)
        whole = number_format.weight.decode(number_format.weight.encode(weight))
        alone = [
            number_format.weight.decode(number_format.weight.encode(channel[None])) for channel in weight
        ]
        expect(np.array_equal(np.concatenate(alone), whole), f"channels of {shape} depend on each other")


def leaves_zeros_alone(number_format: NumberFormat) -> None:
    """Keep weights of zero at zero."""
    zeros = np.zeros((2, 3), np.float32)
    expect(
        not number_format.weight.decode(number_format.weight.encode(zeros)).any(),
        "a zero became something else",
    )


def trains_on_what_the_file_holds(number_format: NumberFormat) -> None:
    """Train on the values that the file will hold, and let gradients pass through."""
    for shape in SHAPES:
        weight = torch.from_numpy(real_weight(*shape)).requires_grad_()
        rounded = number_format.weight.fake_quantize(weight)
        stored = number_format.weight.decode(number_format.weight.encode(weight.detach().numpy()))
        expect(np.array_equal(rounded.detach().numpy(), stored), f"fake quantization of {shape} differs")
        (gradient,) = torch.autograd.grad((rounded * 3).sum(), weight)
        expect(bool((gradient == 3).all()), "gradients do not pass through")


def says_how_it_is_stored(number_format: NumberFormat) -> None:
    """Say how many bits it takes, and which activations it runs on."""
    expect(1 <= number_format.bits <= 32, f"{number_format.bits} bits per code")
    expect(
        number_format.weight.bits_per_weight((8, 64)) >= number_format.bits, "scales take less than no bits"
    )
    load_activation_format(number_format.on)
    activation = number_format.activation
    expect(activation is None or activation.computed, f"nothing computes tensors of {activation}")


check_format = Contract[NumberFormat](
    "format",
    (
        keeps_its_codes,
        scales_as_it_says,
        takes_the_nearest_value,
        rounds_channels_on_their_own,
        leaves_zeros_alone,
        trains_on_what_the_file_holds,
        says_how_it_is_stored,
    ),
)
