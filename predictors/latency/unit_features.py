"""Units as numbers to learn from: size, work, traffic, alignment and formats of any `Layer`.

Every column is a fixed function of one unit, on a scale where a change of 1 is a large one, so that what was
learned on one device or space means the same on another.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hw_profiles.graph.counts import ONE, params
from hw_profiles.graph.formats import element_types, is_integer, tensor_bits, weight_bits
from hw_profiles.graph.key import KINDS
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.ops import OPS
from hw_profiles.graph.tensor_type import image_shape, known, times

Floats = NDArray[np.float64]

SIMD = 16  # channels of a full block of 512 bit fp32: times of a convolution are a staircase of these
DOT = 4  # input channels that one integer dot-product instruction takes
OCTAVES = 2.0  # doublings that count as a large change of a size...
WORK_OCTAVES = 4.0  # ...and of a product of sizes, which moves further
INDICATED = 2.0  # what a difference in kind counts
PARTS = ("squeeze", "residual")  # that whole blocks may have
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
    geometry = [(*_geometry(layer), params(layer)) for layer in layers]
    channels, height, width, out_channels, out_height, out_width, *window, weights = (
        np.array(geometry, np.int64).reshape(-1, 11).T
    )
    kernel, stride, groups, expanded = window
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
        "weighted": np.array([layer.weighted or layer.op == "MatMul" for layer in layers], np.float64),
        "in_bytes": channels * height * width * read / 8,
        "out_bytes": out_channels * out_height * out_width * written / 8,
        "weight_bytes": weights * stored / 8,
    }


def _geometry(layer: Layer) -> tuple[int, ...]:
    """Return channels, height and width of what a unit reads and gives; kernel, stride, groups, and expanded
    channels. Of what is no map the last dimension is channels, and all others are the height.
    """
    if layer.kind != layer.op:
        window = (layer.kernel, layer.stride, layer.groups, layer.expanded)
        return (*layer.in_shape, *layer.out_shape, *window)
    if layer.op == "Conv":
        a = layer.values
        window = (a.integers("weight")[-1], a.integers("strides", 2)[0], a.integer("group"), 0)
        return (*image_shape(layer.inputs[0].shape), *layer.out_shape, *window)
    rows = (known(x.shape[-1], ONE) for x in (layer.inputs[0], layer.outputs[0]))
    pairs = zip(rows, (layer.inputs[0], layer.outputs[0]), strict=True)
    maps = [(width, known(times(x.shape[:-1]), ONE), 1) for width, x in pairs]
    return (*maps[0], *maps[1], 1, 1, 1, 0)


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
    others += [
        [part in layer.values and layer.values.integer(part) > 0 for layer in layers] for part in PARTS
    ]
    unsigned = [element_types(layer.weight_format).unsigned for layer in layers]  # as wide, and other kernels
    integer_input = [is_integer(layer.in_format) for layer in layers]
    others += [unsigned, integer_input, [is_integer(layer.out_format) for layer in layers]]
    bits = [
        [np.log2(weight_bits(layer.weight_format)) for layer in layers],
        [np.log2(tensor_bits(layer.activation_format)) for layer in layers],
    ]
    others += [[layer.kind == op for layer in layers] for op in OPS]  # of those without a kind
    indicators = np.concatenate([kinds, kinds * integer, np.array(others, np.float64)])
    return [*(INDICATED * indicators), *(np.array(bits) / OCTAVES)]


def _up(count: Floats, multiple: int) -> Floats:
    return np.asarray(np.ceil(count / multiple) * multiple)
