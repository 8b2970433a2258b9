"""The convolutions inside of an inverted residual, the whole-block unit of published tables, by their sizes.

There is no expanding convolution where it would not add channels, and the squeeze leaves a quarter of the
expanded ones: once-for-all's MobileNetV3 (Cai et al. 2020, arXiv:1908.09791).
"""

from collections.abc import Mapping
from typing import NamedTuple


class Part(NamedTuple):
    """One convolution of a block: channels read and given, kernel, stride, groups, what it is applied to and
    its activation.

    Attributes:
        on: the map: `input` of the block, `output` of the depthwise convolution, or `pooled` to one number.
    """

    reads: int
    gives: int
    kernel: int
    stride: int
    groups: int
    on: str
    activation: str


def divisible(value: float, divisor: int = 8) -> int:
    """Return the multiple of `divisor` nearest to `value`, at most 10 % below it (MobileNet's rule)."""
    nearest = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * value else nearest


def block_parts(
    channels: int, gives: int, kernel: int, stride: int, expanded: int, squeeze: bool, activation: str
) -> Mapping[str, Part]:
    """Return the convolutions by name, in order: `expand`, `depthwise`, `reduce` and `excite` of
    squeeze-and-excitation, `project`.
    """
    parts = {}
    if expanded != channels:
        parts["expand"] = Part(channels, expanded, 1, 1, 1, "input", activation)
    parts["depthwise"] = Part(expanded, expanded, kernel, stride, expanded, "input", activation)
    if squeeze:
        squeezed = divisible(expanded / 4)
        parts["reduce"] = Part(expanded, squeezed, 1, 1, 1, "pooled", "relu")
        parts["excite"] = Part(squeezed, expanded, 1, 1, 1, "pooled", "hsigmoid")
    parts["project"] = Part(expanded, gives, 1, 1, 1, "output", "none")
    return parts
