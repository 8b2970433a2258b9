"""Kinds of layers that engines of ONNX files are asked for, by the operation that computes them."""

from collections.abc import Mapping

from hw_profiles.graph.key import FUSED
from hw_profiles.graph.ops import OPS

# on images; of all other operations, what is in real numbers
_ON_IMAGES: Mapping[str, tuple[str, ...]] = {
    "Conv": ("stem", "conv"),
    "Gemm": ("linear",),
    "Add": ("add", "add_converted"),
    "GlobalAveragePool": ("pool",),
    "MaxPool": ("maxpool",),
    "AveragePool": ("avgpool",),
    "QuantizeLinear": ("quantize",),
    "DequantizeLinear": ("dequantize",),
    "InvertedResidual": ("mbconv",),
    "Mul": ("mul",),
    **{op: ("act",) for op, _ in FUSED.values()},
}
LAYER_KINDS: Mapping[str, tuple[str, ...]] = {op: (*_ON_IMAGES.get(op, ()), op) for op in OPS}
