"""Which template compiles which unit."""

from collections.abc import Mapping

from hw_profiles.graph.consumer import Consumer
from hw_profiles.graph.formats import ELEMENTS
from hw_profiles.graph.layer import FP32, Layer
from hw_profiles.runtimes.tvm_cpu.dense import DENSE
from hw_profiles.runtimes.tvm_cpu.depthwise import DEPTHWISE
from hw_profiles.runtimes.tvm_cpu.elementwise import ADD, DEQUANTIZE, POOL, QUANTIZE
from hw_profiles.runtimes.tvm_cpu.unit import Template

VERSION = 5  # of all templates: raise it when one computes, packs or schedules otherwise
# by activation format; 4-bit codes are kept two to a byte, others one
WEIGHTS: Mapping[str, tuple[str, ...]] = {
    FP32: (FP32,),
    "int8": tuple(name for name, elements in ELEMENTS.items() if elements.multiplied),
}
ACTIVATIONS = ("none", "relu")

TEMPLATES: Consumer[Template] = Consumer(
    "TVM kernels",
    {
        "Conv": DENSE,
        "Gemm": DENSE,
        "Add": ADD,
        "GlobalAveragePool": POOL,
        "QuantizeLinear": QUANTIZE,
        "DequantizeLinear": DEQUANTIZE,
    },
    otherwise="no kernel is written for it; use the device ort",
    refusals={"InvertedResidual": "a whole block is measured by its layers, not as one"},
)


def template_of(layer: Layer) -> Template:
    """Return how `layer` is compiled."""
    return DEPTHWISE if layer.depthwise else TEMPLATES[layer.op]


def is_supported(layer: Layer) -> bool:
    """Return whether there are kernels for the formats and the grouping that it asks for."""
    square = layer.kind != layer.op  # windows, and centred
    if layer.op not in TEMPLATES.functions or not square or layer.activation_format not in WEIGHTS:
        return False
    if layer.nonlinearity not in ACTIVATIONS or layer.kernel % 2 == 0:
        return False
    if not layer.weighted:
        return True
    one_filter = layer.groups == layer.in_shape[0] == layer.out_channels
    return layer.weight_format in WEIGHTS[layer.activation_format] and (layer.groups == 1 or one_filter)
