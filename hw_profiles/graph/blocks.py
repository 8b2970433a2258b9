"""What is inside of a whole-block unit of published tables: an inverted residual."""

from hw_profiles.graph.layer import LayerSpec


def divisible(value: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `value`, at most 10 % below it (MobileNet's rule)."""
    nearest = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * value else nearest


def block_convolutions(block: LayerSpec) -> dict[str, LayerSpec]:
    """The convolutions of a `mbconv` by name, in order: `expand`, `depthwise`, `reduce` and `excite` of
    squeeze-and-excitation, `project`; each in the block's formats.

    There is no expanding convolution where it would not add channels, and the squeeze leaves a quarter of the
    expanded ones: once-for-all's MobileNetV3 (Cai et al. 2020, arXiv:1908.09791).
    """
    middle, activation = block.expanded, block.activation
    formats = (block.weight_format, block.activation_format)
    parts = {}
    if middle != block.in_shape[0]:
        parts["expand"] = LayerSpec("conv", block.in_shape, middle, 1, 1, 1, activation, *formats)
    shape = (middle, *block.in_shape[1:])
    depthwise = LayerSpec("conv", shape, middle, block.kernel, block.stride, middle, activation, *formats)
    parts["depthwise"] = depthwise
    if block.squeeze:
        squeezed = divisible(middle / 4)
        parts["reduce"] = LayerSpec("conv", (middle, 1, 1), squeezed, 1, 1, 1, "relu", *formats)
        parts["excite"] = LayerSpec("conv", (squeezed, 1, 1), middle, 1, 1, 1, "hsigmoid", *formats)
    parts["project"] = LayerSpec("conv", depthwise.out_shape, block.out_channels, 1, 1, 1, "none", *formats)
    return parts
