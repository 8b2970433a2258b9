"""What ncnn is asked for: networks on images, in real numbers. Imports no engine."""

from hw_profiles.graph.consumer import Consumer
from hw_profiles.runtimes.onnx_layers import LAYER_KINDS

_TAKEN = (
    *("Conv", "Gemm", "Add", "Mul", "InvertedResidual"),
    *("GlobalAveragePool", "MaxPool", "AveragePool"),
    *("Relu", "Clip", "HardSwish", "HardSigmoid"),
    *("MatMul", "Softmax", "LayerNormalization", "Gelu", "Reshape", "Transpose"),
)
OPERATIONS: Consumer[tuple[str, ...]] = Consumer(
    "ncnn",
    {op: LAYER_KINDS[op] for op in _TAKEN},
    otherwise="only what networks on images are made of was tried on it",
    refusals={
        "QuantizeLinear": "its int8 has signed codes without a zero point: ours cannot be written for it",
        "DequantizeLinear": "its int8 has signed codes without a zero point: ours cannot be written for it",
    },
)
