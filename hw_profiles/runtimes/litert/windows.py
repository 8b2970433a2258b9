"""Convolutions and pooling: on real numbers and on codes they are one operator with the same geometry."""

from collections.abc import Sequence
from math import prod

import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.litert.conversion import LAST, MAPS, Conversion, Stored, View
from hw_profiles.runtimes.litert.fusing import NONE, Fused, code_output, real_output, views_of
from hw_profiles.runtimes.litert.onnx_source import Array, Node
from hw_profiles.runtimes.litert.weights import bias_of, codes_bias, stored_weight
from hw_profiles.runtimes.tflite_micro.geometry import Geometry

MOST_TAPS = 25  # of a depthwise convolution that is as fast as a mean
SAME, VALID = "SAME", "VALID"


def geometry(conversion: Conversion, node: Node, kernel: Sequence[int]) -> Geometry:
    """Return where the windows of a node lie.

    Raises:
        TrilobitError: they are not on maps.
    """
    shape = conversion.shape(node.input(0))
    if len(shape) != MAPS or len(kernel) != 2:
        raise TrilobitError(f"LiteRT: {node.op} is written for maps only; {node.name} reads {shape}")
    height, width = shape[2:]
    strides = _pair(node.integers("strides", (1, 1)))
    dilations = _pair(node.integers("dilations", (1, 1)))
    top, left, *_ = node.integers("pads", (0, 0, 0, 0))
    rows, columns = conversion.shape(node.outputs[0])[2:]
    spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    automatic = node.text("auto_pad", "NOTSET")
    if automatic.startswith("SAME"):
        wholes = [
            max(0, (n - 1) * s + span - size)
            for n, s, span, size in zip((rows, columns), strides, spans, (height, width), strict=True)
        ]
        top, left = [whole // 2 if automatic == "SAME_UPPER" else whole - whole // 2 for whole in wholes]
    # how far the last windows reach: what no window reaches is not padded
    bottom = (rows - 1) * strides[0] + spans[0] - height - top
    right = (columns - 1) * strides[1] + spans[1] - width - left
    pads = (top, left, max(bottom, 0), max(right, 0))
    return Geometry(_pair(kernel), strides, dilations, pads, (height, width), (rows, columns))


def _pair(values: Sequence[int]) -> tuple[int, int]:
    return int(values[0]), int(values[1])


def padded(
    conversion: Conversion, node: Node, place: int, where: Geometry, least: float | None = None
) -> tuple[int, str]:
    """Return what an operator with windows reads, and its word for how far they reach: padded before where
    the schema has no word for it.

    Args:
        least: what is added, of real numbers; None adds what stands for 0.
    """
    if not any(where.pads):
        return place, VALID
    if where.same and least is None:
        return place, SAME
    top, left, bottom, right = where.pads
    read = conversion.model.tensors[place]
    batch, height, width, channels = read.shape
    shape = (batch, height + top + bottom, width + left + right, channels)
    output = conversion.between(f"{node.name}.padded", place, shape)
    sizes = conversion.sizes(f"{node.name}.pads", np.array([[0, 0], [top, bottom], [left, right], [0, 0]]))
    if least is None:
        return conversion.operate("PAD", (place, sizes), output, "PadOptions"), VALID
    quantized = {"scales": read.scales, "zero_point": read.zero_point} if read.scales else {}
    value = conversion.store(f"{node.name}.least", np.array([least], read.dtype), **quantized)
    return conversion.operate("PADV2", (place, sizes, value), output, "PadV2Options"), VALID


def conv(conversion: Conversion, node: Node) -> None:
    """Write a convolution, on codes where it reads and gives such."""
    weight = stored_weight(conversion, node, 1)
    shape = weight.codes.shape if isinstance(weight, Stored) else weight.shape
    where = geometry(conversion, node, shape[2:])
    views, on_codes = views_of(conversion, node, 1), code_output(conversion, node)
    groups = node.integer("group", 1)
    if views and on_codes and isinstance(weight, Stored) and not weight.zero:
        source = conversion.read_codes(views[0], LAST)
        _convolve(conversion, node, source, _arranged(weight, groups), where, on_codes, views[0])
        return
    _convolve(
        conversion,
        node,
        conversion.read(node.input(0), LAST),
        _arranged(weight, groups),
        where,
        real_output(conversion, node),
        None,
    )


def _arranged(weight: Array | Stored, groups: int) -> Array | Stored:
    """Return a weight (out, in / groups, rows, columns) as LiteRT has it."""
    depthwise = groups > 1 and (weight.codes if isinstance(weight, Stored) else weight).shape[1] == 1
    axes = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)
    return (
        weight.transposed(axes)
        if isinstance(weight, Stored)
        else np.ascontiguousarray(weight.transpose(axes))
    )


def _convolve(
    conversion: Conversion,
    node: Node,
    source: int,
    weight: Array | Stored,
    where: Geometry,
    output: Fused,
    view: View | None,
) -> None:
    groups = node.integer("group", 1)
    channels = conversion.model.tensors[source].shape[-1]
    outputs = conversion.shape(node.outputs[0])[1]
    depthwise = groups > 1 and groups == channels
    added = where.grown() if any(where.pads) else None
    if added is not None and ((conversion.lean and depthwise) or not any(added)):
        weight, padding = _with_zeros(weight, added), SAME
    else:
        source, padding = padded(conversion, node, source, where)
    name = f"{node.name}.w"
    if view is None:
        filters = conversion.stored_reals(name, weight)
        bias = conversion.store(f"{node.name}.b", bias_of(conversion, node, 2, outputs))
    else:
        assert isinstance(weight, Stored)
        filters = conversion.store(name, weight.codes, **weight.quantization())
        bias = codes_bias(conversion, node, 2, outputs, view.codes, weight)
    code, kind = (
        ("DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions") if depthwise else ("CONV_2D", "Conv2DOptions")
    )
    more = {"depthMultiplier": outputs // channels} if depthwise else {}
    conversion.operate(
        code,
        (source, filters, bias),
        output.give(conversion, LAST),
        kind,
        padding=padding,
        fusedActivationFunction=output.activation,
        **where.steps(),
        **more,
    )


def _with_zeros(weight: Array | Stored, added: tuple[int, int]) -> Array | Stored:
    """Return a weight, arranged for LiteRT, with more taps at the end that count for nothing."""
    if not any(added):
        return weight
    around = ((0, 0), (0, added[0]), (0, added[1]), (0, 0))
    if not isinstance(weight, Stored):
        return np.pad(weight, around)
    return Stored(np.pad(weight.codes, around), weight.scales, weight.axis, weight.zero)


def max_pool(conversion: Conversion, node: Node) -> None:
    """Write the largest number of each window, of codes where these keep their meaning."""
    where = geometry(conversion, node, node.integers("kernel_shape", ()))
    if where.dilations != (1, 1) or len(node.outputs) > 1:
        raise TrilobitError(f"LiteRT: no MaxPool with dilations or places is written ({node.name})")
    views, on_codes = views_of(conversion, node, 1), code_output(conversion, node)
    if views and on_codes and on_codes.codes == views[0].codes:
        source, least, output = conversion.read_codes(views[0], LAST), -128.0, on_codes
    elif node.input(0) in conversion.codes:
        codes = conversion.codes[node.input(0)]
        source, least, output = (
            conversion.read(node.input(0), LAST),
            -128.0,
            Fused(node.outputs[0], codes=codes),
        )
    else:
        source, least = conversion.read(node.input(0), LAST), float(np.finfo(np.float32).min)
        output = real_output(conversion, node)
    # what SAME adds is never the largest, whatever it is
    source, padding = padded(conversion, node, source, where, None if where.same else least)
    _pool(conversion, "MAX_POOL_2D", source, where, padding, output)


def _pool(
    conversion: Conversion, code: str, source: int, where: Geometry, padding: str, output: Fused
) -> None:
    conversion.operate(
        code,
        (source,),
        output.give(conversion, LAST),
        "Pool2DOptions",
        padding=padding,
        filterHeight=where.kernel[0],
        filterWidth=where.kernel[1],
        strideH=where.strides[0],
        strideW=where.strides[1],
        fusedActivationFunction=output.activation,
    )


def average_pool(conversion: Conversion, node: Node) -> None:
    """Write the mean of each window."""
    where = geometry(conversion, node, node.integers("kernel_shape", ()))
    counted = bool(node.integer("count_include_pad", 0))
    if where.kernel == where.size and not any(where.pads) and global_mean_on_codes(conversion, node):
        return  # written so by exporters that have no other word for it
    views, on_codes = views_of(conversion, node, 1), code_output(conversion, node)
    uniform = counted or not any(where.pads)
    if views and on_codes and uniform:
        _mean_on_codes(conversion, node, views[0], where, on_codes)
        return
    source = conversion.read(node.input(0), LAST)
    if any(where.pads) and not counted:
        if not where.same:
            raise TrilobitError(f"LiteRT: no AveragePool of what is padded unevenly is written ({node.name})")
        _pool(conversion, "AVERAGE_POOL_2D", source, where, SAME, real_output(conversion, node))
        return
    zero = 0.0 if any(where.pads) else None
    source, padding = padded(conversion, node, source, where, zero)
    _pool(conversion, "AVERAGE_POOL_2D", source, where, padding, real_output(conversion, node))


def global_average_pool(conversion: Conversion, node: Node) -> None:
    """Write the mean over a whole map."""
    size = conversion.shape(node.input(0))[2:]
    if len(size) != 2:
        raise TrilobitError(f"LiteRT: GlobalAveragePool is written for maps only ({node.name})")
    if not global_mean_on_codes(conversion, node):
        source = conversion.read(node.input(0), LAST)
        axes = conversion.sizes(f"{node.name}.axes", (1, 2))
        output = conversion.give(node.outputs[0], LAST)
        conversion.operate("MEAN", (source, axes), output, "ReducerOptions", keepDims=True)


def global_mean_on_codes(conversion: Conversion, node: Node) -> bool:
    """Write the mean over whole maps on codes; return whether it reads and gives such.

    XNNPACK has a kernel for means that rounds once, but the kernels of the reference round what the zero
    point is worth first: one code in ten is off. A convolution with equal weights rounds once everywhere, and
    is as fast up to the taps that XNNPACK has kernels for.
    """
    views, on_codes = views_of(conversion, node, 1), code_output(conversion, node)
    if not views or not on_codes:
        return False
    size = conversion.shape(node.input(0))[2:]
    where = Geometry((size[0], size[1]), (1, 1), (1, 1), (0, 0, 0, 0), (size[0], size[1]), (1, 1))
    if conversion.lean or prod(where.kernel) <= MOST_TAPS:
        _mean_on_codes(conversion, node, views[0], where, on_codes)
        return True
    if on_codes.activation != NONE:
        return False
    source = conversion.read_codes(views[0], LAST)
    axes = conversion.sizes(f"{node.name}.axes", (1, 2))
    conversion.operate(
        "MEAN", (source, axes), on_codes.give(conversion, LAST), "ReducerOptions", keepDims=True
    )
    return True


def _mean_on_codes(conversion: Conversion, node: Node, view: View, where: Geometry, output: Fused) -> None:
    """Write a mean as a convolution of each channel with equal weights."""
    channels = conversion.shape(node.input(0))[1]
    scale = np.full(channels, 1 / prod(where.kernel), np.float32)
    weight = Stored(np.ones((1, *where.kernel, channels), np.int8), scale, 3)
    source, padding = padded(conversion, node, conversion.read_codes(view, LAST), where)
    filters = conversion.store(f"{node.name}.w", weight.codes, **weight.quantization())
    steps = np.float32(view.codes.scale) * scale
    bias = conversion.store(f"{node.name}.b", np.zeros(channels, np.int32), scales=tuple(map(float, steps)))
    place = output.give(conversion, LAST)
    conversion.operate(
        "DEPTHWISE_CONV_2D",
        (source, filters, bias),
        place,
        "DepthwiseConv2DOptions",
        padding=padding,
        fusedActivationFunction=output.activation,
        depthMultiplier=1,
        **where.steps(),
    )


def conv_transpose(conversion: Conversion, node: Node) -> None:
    """Write a transposed convolution on real numbers."""
    weight = conversion.required(node, 1, "weight")
    if node.integer("group", 1) != 1 or set(node.integers("dilations", (1,))) != {1} or weight.ndim != MAPS:
        raise TrilobitError(f"LiteRT: no ConvTranspose with groups or dilations is written ({node.name})")
    batch, channels, rows, columns = conversion.shape(node.outputs[0])
    height, width = conversion.shape(node.input(0))[2:]
    strides, kernel = _pair(node.integers("strides", (1, 1))), weight.shape[2:]
    whole = [(n - 1) * s + k for n, s, k in zip((height, width), strides, kernel, strict=True)]
    top, left, *_ = node.integers("pads", (0, 0, 0, 0))
    if node.text("auto_pad", "NOTSET") != "NOTSET" or whole[0] < top + rows or whole[1] < left + columns:
        raise TrilobitError(f"LiteRT: no ConvTranspose with such an output padding is written ({node.name})")
    filters = conversion.store(f"{node.name}.w", weight.transpose(1, 2, 3, 0).astype(np.float32))
    bias = conversion.store(f"{node.name}.b", bias_of(conversion, node, 2, channels))
    shape = (batch, *whole, channels)
    sizes = conversion.sizes(f"{node.name}.size", shape)
    source = conversion.read(node.input(0), LAST)
    cut = whole != [rows, columns]
    output = (
        conversion.between(f"{node.name}.whole", source, shape)
        if cut
        else conversion.give(node.outputs[0], LAST)
    )
    conversion.operate(
        "TRANSPOSE_CONV",
        (sizes, filters, source, bias),
        output,
        "TransposeConvOptions",
        padding=VALID,
        strideH=strides[0],
        strideW=strides[1],
    )
    if cut:
        ends = [
            conversion.sizes(f"{node.name}.{key}", v)
            for key, v in (("begin", (0, top, left, 0)), ("length", (batch, rows, columns, channels)))
        ]
        conversion.operate("SLICE", (output, *ends), conversion.give(node.outputs[0], LAST), "SliceOptions")
