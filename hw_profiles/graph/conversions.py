"""Layers between number formats: what stands where a reader computes in another one."""

from collections.abc import Iterable, Sequence

from hw_profiles.graph.layer import FP32, Layer
from hw_profiles.graph.tensor_type import TensorType, image_type


def convert(x: TensorType, target_format: str) -> tuple[Layer, ...]:
    """Return the layers that turn a tensor into `target_format`: none, one, or two where neither is fp32,
    since every change goes through fp32.
    """
    if x.format == target_format:
        return ()
    steps: list[Layer] = []
    if x.format != FP32:
        steps.append(Layer.of("DequantizeLinear", x))
    if target_format != FP32:
        steps.append(Layer.of("QuantizeLinear", TensorType(x.shape), to=target_format))
    return tuple(steps)


def conversion(shape: Sequence[int], source_format: str, target_format: str) -> tuple[Layer, ...]:
    """Return the layers that turn a tensor (channels, height, width) of one format into another.

    >>> [layer.kind for layer in conversion((8, 4, 4), "int8", "int4")]
    ['dequantize', 'quantize']
    """
    return convert(image_type(shape, source_format), target_format)


def conversions(shape: Sequence[int], source_format: str, target_formats: Iterable[str]) -> tuple[Layer, ...]:
    """Return the layers between maps (channels, height, width) of `source_format` and readers that want
    `target_formats`, see `converted`.

    >>> [layer.kind for layer in conversions((8, 4, 4), "fp32", ("int8", "int8"))]
    ['quantize']
    """
    return converted(image_type(shape, source_format), target_formats)


def converted(x: TensorType, target_formats: Iterable[str]) -> tuple[Layer, ...]:
    """Return the layers between a tensor and readers that want `target_formats`, as `WorkloadBuilder` sets
    them: it is quantized once for each format, but dequantized for each reader.
    """
    formats = list(target_formats)
    once = [fmt for i, fmt in enumerate(formats) if fmt == FP32 or fmt not in formats[:i]]
    return tuple(layer for fmt in once for layer in convert(x, fmt))
