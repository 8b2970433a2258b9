"""Which of ONNX's operations are written for LiteRT, and how. Imports no engine."""

from collections.abc import Callable, Mapping

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.consumer import Consumer
from hw_profiles.graph.layer import Layer
from hw_profiles.runtimes.litert.conversion import Conversion, Order
from hw_profiles.runtimes.litert.elementwise import BINARY, UNARY
from hw_profiles.runtimes.litert.flat_model import FlatModel
from hw_profiles.runtimes.litert.moves import MOVES
from hw_profiles.runtimes.litert.onnx_source import Node, Source
from hw_profiles.runtimes.litert.products import dynamic_product, gemm, matmul
from hw_profiles.runtimes.litert.reductions import REDUCTIONS
from hw_profiles.runtimes.litert.rounding import dequantize, quantize
from hw_profiles.runtimes.litert.windows import (
    average_pool,
    conv,
    conv_transpose,
    global_average_pool,
    max_pool,
)
from hw_profiles.runtimes.onnx_layers import LAYER_KINDS

Write = Callable[[Conversion, Node], None]
WRITERS: Mapping[str, Write] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "GlobalAveragePool": global_average_pool,
    "Gemm": gemm,
    "MatMul": matmul,
    "DynamicQuantizeLinear": dynamic_product,
    "QuantizeLinear": quantize,
    "DequantizeLinear": dequantize,
    **UNARY,
    **BINARY,
    **MOVES,
    **REDUCTIONS,
}
# layers that files hold as one operation, or as blocks of such
OPERATIONS: Consumer[tuple[str, ...]] = Consumer(
    "LiteRT",
    {op: kinds for op, kinds in LAYER_KINDS.items() if op in WRITERS or op == "InvertedResidual"},
    otherwise="it is not written as .tflite",
)


def why_not(layer: Layer) -> str:
    """Return why a layer is not written; empty where it is, as far as its operation says."""
    why = OPERATIONS.refusal(layer.op)
    return f"LiteRT: no {layer.op}: {why}" if why else ""


def converted(
    source: Source, *, lean: bool = False
) -> tuple[FlatModel, dict[str, tuple[int, Order]], dict[str, tuple[int, Order]]]:
    """Return a network as LiteRT has it, and where what it reads and gives is, in which order.

    Args:
        lean: whether memory counts more than time: depthwise kernels grow by zeros where maps would have to
            be copied to be padded, and no real numbers are made of codes that are stored.

    Raises:
        TrilobitError: an operation, or a form of it, is not written; says which.
    """
    conversion = Conversion(source, lean=lean)
    for node in source.nodes:
        if node in conversion.finished:
            continue
        if node.op not in WRITERS:
            raise TrilobitError(f"LiteRT: no {node.op} is written as .tflite ({node.name})")
        WRITERS[node.op](conversion, node)
    outputs = conversion.outputs()
    for name in source.inputs:
        if name not in conversion.inputs:  # nothing reads it
            conversion.read(name, conversion.order_of(name))
    inputs = {name: (conversion.places[name, order], order) for name, order in conversion.inputs.items()}
    return conversion.model, {name: inputs[name] for name in source.inputs}, outputs
