"""Which template compiles which unit."""

from collections.abc import Mapping

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.consumer import Consumer
from hw_profiles.graph.formats import ELEMENTS, WHOLE
from hw_profiles.graph.integer_only import MOVES, NARROW, WIDE, is_product_of_two
from hw_profiles.graph.layer import FP32, Layer
from hw_profiles.graph.windows import Windows, windows_of
from hw_profiles.reference.integer_transformer_units import CURVES
from hw_profiles.runtimes.tvm_cpu.dense import DENSE
from hw_profiles.runtimes.tvm_cpu.depthwise import DEPTHWISE
from hw_profiles.runtimes.tvm_cpu.elementwise import ACTIVATION, ADD, DEQUANTIZE, QUANTIZE, SOFTMAX
from hw_profiles.runtimes.tvm_cpu.moves import LESS, MOVE, TABULATED
from hw_profiles.runtimes.tvm_cpu.pooling import AVERAGE_POOL, MAX_POOL, POOL
from hw_profiles.runtimes.tvm_cpu.transformer import LAYER_NORM, PRODUCT, SHIFT_GELU
from hw_profiles.runtimes.tvm_cpu.unit import Template

VERSION = 6  # of all templates: raise it when one computes, packs or schedules otherwise
# by activation format; 4-bit codes are kept two to a byte, others one
WEIGHTS: Mapping[str, tuple[str, ...]] = {
    FP32: (FP32,),
    "int8": tuple(name for name, elements in ELEMENTS.items() if elements.multiplied),
}
ACTIVATIONS = ("none", "relu", "relu6")
# what has a kernel for the tensors of integer-only networks alone
IN_INTEGERS = ("MatMul", "Gelu", *CURVES, "Less", "LayerNormalization", *MOVES)

TEMPLATES: Consumer[Template] = Consumer(
    "TVM kernels",
    {
        "Conv": DENSE,
        "Gemm": DENSE,
        "MatMul": DENSE,
        "Gelu": SHIFT_GELU,
        **dict.fromkeys(CURVES, TABULATED),
        "Less": LESS,
        "LayerNormalization": LAYER_NORM,
        **dict.fromkeys(MOVES, MOVE),
        "Add": ADD,
        "GlobalAveragePool": POOL,
        "MaxPool": MAX_POOL,
        "AveragePool": AVERAGE_POOL,
        "Relu": ACTIVATION,
        "Clip": ACTIVATION,
        "Softmax": SOFTMAX,
        "QuantizeLinear": QUANTIZE,
        "DequantizeLinear": DEQUANTIZE,
    },
    otherwise="no kernel is written for it",
    refusals={"InvertedResidual": "a whole block is measured by its layers, not as one"},
)
# which have what is fused into them on their way out
FUSING = ("Conv", "Gemm", "Add")


def template_of(layer: Layer) -> Template:
    """Return how `layer` is compiled."""
    if is_product_of_two(layer):
        return PRODUCT
    return DEPTHWISE if layer.depthwise else TEMPLATES[layer.op]


def is_supported(layer: Layer) -> bool:
    """Return whether there are kernels for the formats and the windows that it asks for."""
    return refusal(layer) is None


def refusal(layer: Layer) -> str | None:
    """Return why there is no kernel for a layer, in one line; None where there is one."""
    if why := TEMPLATES.refusal(layer.op):
        return f"{layer.op}: {why}"
    if layer.op in IN_INTEGERS or WIDE in (layer.in_format, layer.out_format) or _is_rows(layer):
        return _refused_integers(layer)
    return _refused_formats(layer) or _refused_shape(layer)


def _is_rows(layer: Layer) -> bool:
    """Return whether a layer computes on rows of features, or another tensor of codes that is no map."""
    return layer.in_format == NARROW and (layer.op == "Softmax" or len(layer.inputs[0].shape) not in (2, 4))


def _refused_integers(layer: Layer) -> str | None:
    """Return why there is no kernel for a layer of integer-only networks."""
    formats = [x.format for x in (*layer.inputs, *layer.outputs) if x.format not in WHOLE]
    if layer.op in IN_INTEGERS and FP32 in formats[: len(formats) - layer.weighted]:
        return f"a {layer.op} is computed in integers only"
    if not {*formats} <= {NARROW, WIDE, FP32} or layer.activation not in ACTIVATIONS:
        return f"there is no kernel for a {layer.kind} of {' and '.join(formats)} with {layer.activation}"
    if layer.op == "MatMul" and layer.weighted and layer.weight_format not in WEIGHTS[NARROW]:
        return f"there is no kernel for a {layer.kind} of {layer.weight_format} weights"
    if not all(type(size) is int for x in layer.inputs for size in x.shape[1:]):
        return "its dimensions have no sizes yet; bind them by a scenario"
    return _refused_sizes(layer)


def _refused_sizes(layer: Layer) -> str | None:
    shapes = [x.shape for x in layer.inputs]
    if layer.op == "Conv":
        return _refused_product(layer, windows_of(layer))
    if layer.op in ("Softmax", "LayerNormalization"):
        last = layer.values.integer("axis") in (-1, len(shapes[0]) - 1)
        return None if last else f"an integer {layer.op} is computed over the last dimension only"
    if is_product_of_two(layer) and shapes[0][:-2] != shapes[1][:-2]:
        return "products of two tensors have equally many matrices on both sides"
    if layer.op == "Add" and len(set(shapes)) > 1:
        return "sums are of two tensors of one shape"
    return None


def _refused_formats(layer: Layer) -> str | None:
    activation, weights = layer.activation_format, WEIGHTS.get(layer.activation_format, ())
    if not weights or (layer.weighted and layer.weight_format not in weights):
        pair = f"{layer.weight_format} weights on {activation} activations"
        return f"there is no kernel for a {layer.kind} of {pair}"
    applied = layer.activation if layer.op in ("Relu", "Clip") else layer.nonlinearity
    if applied not in (ACTIVATIONS if layer.op in FUSING else ACTIVATIONS[:1]):
        return f"there is no kernel for a {layer.kind} with {applied}"
    if layer.op == "Softmax" and activation != FP32:
        return "a softmax is computed in fp32 only"
    return None


def _refused_shape(layer: Layer) -> str | None:
    try:
        windows = windows_of(layer)
    except TrilobitError as error:
        return str(error)
    if layer.op in ("Conv", "Gemm"):
        return _refused_product(layer, windows)
    if layer.op == "Add" and (len(layer.inputs) != 2 or layer.inputs[0] != layer.inputs[1]):
        return "sums are of two tensors of one shape"
    if layer.op == "AveragePool" and _counts_beyond(layer):
        return "means that count the padding, of windows rounded up, have no kernel"
    if layer.op == "Softmax" and layer.values.integer("axis") not in (1, 1 - len(layer.inputs[0].shape)):
        return "a softmax is computed over channels only"
    return None


def _refused_product(layer: Layer, windows: Windows) -> str | None:
    if layer.op == "Gemm":
        return None
    if windows.dilations != (1, 1) and windows.kernel != (1, 1):
        return f"windows with gaps (dilations of {windows.dilations}) have no kernel"
    groups, out = layer.values.integer("group"), layer.values.integers("weight")[0]
    if groups not in (1, windows.channels) or (layer.depthwise and out != groups):
        return f"there is no kernel for {windows.channels} channels in {groups} groups that give {out}"
    return None


def _counts_beyond(layer: Layer) -> bool:
    return bool(layer.values.integer("count_include_pad") and layer.values.integer("ceil_mode"))
