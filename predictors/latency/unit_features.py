"""Units as numbers to learn from: size, work, traffic, alignment and formats of any `Layer`.

Every column is a fixed function of one unit, on a scale where a change of 1 is a large one, so that what was
learned on one device or space means the same on another.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hw_profiles.graph.counts import params
from hw_profiles.graph.formats import element_types, is_integer, tensor_bits, weight_bits
from hw_profiles.graph.key import KINDS
from hw_profiles.graph.layer import Layer

Floats = NDArray[np.float64]

SIMD = 16  # channels of a full block of 512 bit fp32: times of a convolution are a staircase of these
DOT = 4  # input channels that one integer dot-product instruction takes
OCTAVES = 2.0  # doublings that count as a large change of a size...
WORK_OCTAVES = 4.0  # ...and of a product of sizes, which moves further
INDICATED = 2.0  # what a difference in kind counts
ACTIVATIONS = ("none", "relu", "relu6", "hswish")


def unit_features(layers: Sequence[Layer]) -> Floats:
    """Return features (n, d) of n units; d is the same for every call."""
    sizes = _sizes(layers)
    return np.column_stack([*_size_columns(sizes), *_work_columns(sizes), *_kind_columns(layers)])


def rough_cost(layers: Sequence[Layer]) -> Floats:
    """Return costs (n,) of a made-up device in arbitrary units, for when nothing was measured: a constant,
    the padded work and the traffic.
    """
    sizes = _sizes(layers)
    return np.asarray(1e5 + _padded_work(sizes) + 8 * (sizes["in_bytes"] + sizes["out_bytes"]))


def in_bounds_taps(size: NDArray[np.int64], kernel: NDArray[np.int64], stride: NDArray[np.int64]) -> Floats:
    """Return (n,) kernel taps along one axis of `size` that do not fall on the padding, summed over the
    outputs.

    >>> in_bounds_taps(np.array([4, 4]), np.array([3, 3]), np.array([1, 2]))
    array([10.,  5.])
    """
    pad, outputs, total = kernel // 2, -(-size // stride), np.zeros(len(size))
    for tap in range(int(kernel.max(initial=1))):
        first = np.maximum(-((tap - pad) // stride), 0)  # the first output whose tap is inside
        last = np.minimum((size - 1 + pad - tap) // stride, outputs - 1)
        total += np.where(tap < kernel, np.maximum(last - first + 1, 0), 0)
    return total


def _sizes(layers: Sequence[Layer]) -> dict[str, Floats]:
    """Return the sizes of n units by name, (n,) each."""
    shapes = np.array([(*layer.in_shape, *layer.out_shape) for layer in layers], np.int64).reshape(-1, 6)
    geometry = [(layer.kernel, layer.stride, layer.groups, layer.expanded, params(layer)) for layer in layers]
    kernel, stride, groups, expanded, weights = np.array(geometry, np.int64).reshape(-1, 5).T
    channels, height, width, out_channels, out_height, out_width = shapes.T
    read, written, stored = (
        np.array(bits, np.float64)
        for bits in (
            [tensor_bits(layer.in_format) for layer in layers],
            [tensor_bits(layer.out_format) for layer in layers],
            [weight_bits(layer.weight_format) for layer in layers],
        )
    )
    return {
        "in": channels.astype(np.float64),
        "out": out_channels.astype(np.float64),
        "expanded": expanded.astype(np.float64),
        "pixels": (height * width).astype(np.float64),
        "out_pixels": (out_height * out_width).astype(np.float64),
        "kernel": kernel.astype(np.float64),
        "stride": stride.astype(np.float64),
        "groups": groups.astype(np.float64),
        "taps": in_bounds_taps(height, kernel, stride) * in_bounds_taps(width, kernel, stride),
        "weighted": np.array([layer.weighted for layer in layers], np.float64),
        "in_bytes": channels * height * width * read / 8,
        "out_bytes": out_channels * out_height * out_width * written / 8,
        "weight_bytes": weights * stored / 8,
    }


def _padded_work(sizes: dict[str, Floats]) -> Floats:
    """Return (n,) multiply-adds with channels padded to full blocks and without those on the padding."""
    per_output = _up(sizes["in"] / sizes["groups"], DOT)
    conv = np.where(
        sizes["groups"] == sizes["in"], np.where(sizes["in"] > 1, 1, DOT), per_output
    )  # one filter per channel pads no input
    plain = sizes["weighted"] * _up(sizes["out"], SIMD) * sizes["taps"] * conv
    expanded = _up(sizes["expanded"], SIMD)
    block = expanded * (
        _up(sizes["in"], DOT) * sizes["pixels"]
        + sizes["taps"]
        + _up(sizes["out"], SIMD) * sizes["out_pixels"]
    )
    return np.asarray(plain + block)


def _size_columns(sizes: dict[str, Floats]) -> list[Floats]:
    logs = [np.log2(1 + sizes[name]) / OCTAVES for name in ("in", "out", "expanded", "pixels", "out_pixels")]
    taps = [np.log2(sizes["kernel"]), sizes["stride"] - 1]
    aligned = [(sizes[name] % block != 0) / 1.0 for name in ("in", "out") for block in (4, 8, SIMD)]
    return [*logs, *taps, *aligned, (sizes["expanded"] % SIMD != 0) / 1.0]


def _work_columns(sizes: dict[str, Floats]) -> list[Floats]:
    work, traffic = _padded_work(sizes), sizes["in_bytes"] + sizes["out_bytes"] + sizes["weight_bytes"]
    intensity = np.log2((1 + work) / traffic)
    totals = [work, sizes["in_bytes"], sizes["out_bytes"], sizes["weight_bytes"]]
    return [*(np.log2(1 + total) / WORK_OCTAVES for total in totals), intensity / WORK_OCTAVES]


def _kind_columns(layers: Sequence[Layer]) -> list[Floats]:
    """Return indicators: op and depthwise, alone and times integer; activation, formats, parts of a block."""
    integer = np.array([is_integer(layer.activation_format) for layer in layers], np.float64)
    ops = [[layer.kind == op for layer in layers] for op in KINDS]
    kinds = np.array([*ops, [layer.depthwise for layer in layers]], np.float64)
    others = [[layer.nonlinearity == name for layer in layers] for name in ACTIVATIONS]
    others += [[getattr(layer, name) for layer in layers] for name in ("squeeze", "residual")]
    unsigned = [element_types(layer.weight_format).unsigned for layer in layers]  # as wide, and other kernels
    integer_input = [is_integer(layer.in_format) for layer in layers]
    others += [unsigned, integer_input, [is_integer(layer.out_format) for layer in layers]]
    bits = [
        [np.log2(weight_bits(layer.weight_format)) for layer in layers],
        [np.log2(tensor_bits(layer.activation_format)) for layer in layers],
    ]
    indicators = np.concatenate([kinds, kinds * integer, np.array(others, np.float64)])
    return [*(INDICATED * indicators), *(np.array(bits) / OCTAVES)]


def _up(count: Floats, multiple: int) -> Floats:
    return np.asarray(np.ceil(count / multiple) * multiple)
