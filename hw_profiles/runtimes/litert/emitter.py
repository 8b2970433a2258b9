"""A network with its numbers as a `.tflite` file: channels last, int8 with a scale for each output channel.

Codes are those of the network less 128, weights and biases its own, so that a layer gives the same codes but
for ties. A classifier that reads codes and gives real numbers, which no operator of LiteRT does, is computed
in real numbers of what the codes stand for: the same up to the rounding of sums.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.consumer import Consumer
from hw_profiles.graph.formats import QuantParams, accumulator_codes
from hw_profiles.graph.layer import FP32, Layer
from hw_profiles.graph.tensor_type import TensorType
from hw_profiles.graph.windows import map_shape, windows_of
from hw_profiles.graph.workload import Workload
from hw_profiles.reference.unit_numbers import UnitNumbers
from hw_profiles.runtimes.litert.flat_model import FlatModel, FlatTensor

INPUT_NAME, OUTPUT_NAME = "image", "output"
OFFSET = 128  # between unsigned codes and the signed ones of LiteRT
INT8, FP = "int8", "fp32"
# that operators have fused into them, by the schema's word
ACTIVATIONS: Mapping[str, str] = {"none": "NONE", "relu": "RELU", "relu6": "RELU6"}
_QUANTIZED_VERSION = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "ADD": 2, "MEAN": 2, "PAD": 2}


@dataclass(frozen=True, eq=False)
class _Step:
    """One layer while it is written.

    Attributes:
        model: what is written to.
        name, layer, numbers: of it.
        inputs: places of the tensors that it reads.
    """

    model: FlatModel
    name: str
    layer: Layer
    numbers: UnitNumbers
    inputs: tuple[int, ...]

    def output(self, kind: TensorType) -> int:
        """Add the tensor that the layer gives."""
        return self.model.add(_computed(self.name, kind, self.numbers.output))

    def operate(self, code: str, inputs: tuple[int, ...], output: int, kind: str, **options: object) -> int:
        """Add an operator, of the version that its types need; return its output."""
        integer = self.model.tensors[inputs[0]].dtype == INT8
        version = _QUANTIZED_VERSION.get(code, 1) if integer else 1
        self.model.operator(code, inputs, (output,), kind, version=version, **options)
        return output


_Write = Callable[[_Step], int]


def flat_model(
    work: Workload, numbers: Mapping[str, UnitNumbers]
) -> tuple[FlatModel, tuple[int], tuple[int]]:
    """Return a network of layers that run by themselves, for one image, and the places of what it reads and
    gives.

    Args:
        numbers: of each layer by its name; neighbours agree about the tensor between them.

    Raises:
        TrilobitError: LiteRT has no such layer; says why.
    """
    if why := next(filter(None, map(refusal, work.layers)), ""):
        raise TrilobitError(why)
    model, places = FlatModel(), list[int]()
    first = numbers[work.names[0]].inputs[0]
    image = model.add(_computed(INPUT_NAME, work.feeds[0].type, first))
    for name, layer, sources in zip(work.names, work.layers, work.inputs, strict=True):
        inputs = tuple(image if source < 0 else places[source] for source in sources)
        called = OUTPUT_NAME if name == work.names[-1] else name
        places.append(OPERATORS[layer.op](_Step(model, called, layer, numbers[name], inputs)))
    return model, (image,), (places[work.outputs[0]],)


def refusal(layer: Layer) -> str:
    """Return why a layer cannot be written, in one line; empty where it can."""
    if why := OPERATORS.refusal(layer.op):
        return f"LiteRT: no {layer.op}: {why}"
    pair = (layer.weight_format, layer.activation_format)
    kinds = {x.format for x in (*layer.inputs, *layer.outputs)}
    if not kinds <= {FP, INT8} or (layer.weighted and pair not in ((FP, FP), (INT8, INT8))):
        return f"LiteRT: no {layer.kind} of {pair[0]} weights on {pair[1]} activations is written"
    if layer.activation not in ACTIVATIONS:
        return f"LiteRT: no {layer.activation} fused into {layer.kind} is written"
    if layer.op == "Conv" and 1 < layer.values.integer("group") != layer.inputs[0].shape[1]:
        return "LiteRT: convolutions in groups are written for one channel a group only"
    if layer.op == "Gemm" and map_shape(layer.inputs[0])[1:] != (1, 1):
        return "LiteRT: a matrix product reads features, not maps: their order is another"
    if "weight" in layer.values and not layer.weighted:
        return f"LiteRT: no {layer.op} of stored numbers is written"
    return ""


def _computed(name: str, kind: TensorType, params: QuantParams | None) -> FlatTensor:
    """Return a tensor for one image, channels last."""
    if len(kind.shape) == 2:
        shape: tuple[int, ...] = (1, int(kind.shape[1]))
    else:
        channels, height, width = map_shape(kind)
        shape = (1, height, width, channels)
    if kind.format == FP32 or params is None:
        return FlatTensor(name, shape, "float32")
    return FlatTensor(name, shape, INT8, (float(np.float32(params.scale)),), params.zero_point - OFFSET)


def _conv(step: _Step) -> int:
    layer, windows = step.layer, windows_of(step.layer)
    weight, scale, bias = step.numbers.parameters
    depthwise = layer.values.integer("group") > 1
    axes, axis = ((1, 2, 3, 0), 3) if depthwise else ((0, 2, 3, 1), 0)
    source, same = _padded(step)
    filters = step.model.constant(
        f"{step.name}.w", weight.transpose(axes).copy(), **_scales(step, scale, axis)
    )
    offsets = _bias(step, scale, bias)
    code, kind = (
        ("DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions") if depthwise else ("CONV_2D", "Conv2DOptions")
    )
    more = {"depthMultiplier": len(weight) // windows.channels} if depthwise else {}
    return step.operate(
        code,
        (source, filters, offsets),
        step.output(layer.outputs[0]),
        kind,
        padding="SAME" if same else "VALID",
        strideH=windows.strides[0],
        strideW=windows.strides[1],
        dilationHFactor=windows.dilations[0],
        dilationWFactor=windows.dilations[1],
        fusedActivationFunction=ACTIVATIONS[layer.activation],
        **more,
    )


def _padded(step: _Step) -> tuple[int, bool]:
    """Return what a convolution reads, and whether its windows reach beyond that: `SAME` is what files mean
    only where steps are of one pixel and as many are added on each side; else it is padded before.
    """
    windows, source = windows_of(step.layer), step.inputs[0]
    top, left, bottom, right = windows.pads
    if not windows.padded:
        return source, False
    spans = [d * (k - 1) for d, k in zip(windows.dilations, windows.kernel, strict=True)]
    if windows.strides == (1, 1) and [top + bottom, left + right] == spans and (top, left) == (bottom, right):
        return source, True
    read = step.model.tensors[source]
    _, height, width, channels = read.shape
    shape = (1, height + top + bottom, width + left + right, channels)
    grown = FlatTensor(f"{step.name}.padded", shape, read.dtype, read.scales, read.zero_point)
    sizes = np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
    pads = step.model.constant(f"{step.name}.pads", sizes)
    return step.operate("PAD", (source, pads), step.model.add(grown), "PadOptions"), False


def _scales(step: _Step, scale: NDArray[np.float32], axis: int) -> dict[str, object]:
    """Return how the codes of a weight are read; nothing where they are real numbers."""
    if step.layer.weight_format == FP32:
        return {}
    return {"scales": tuple(map(float, scale)), "axis": axis}


def _bias(step: _Step, scale: NDArray[np.float32], bias: NDArray[np.generic]) -> int:
    name = f"{step.name}.b"
    if step.layer.weight_format == FP32:
        return step.model.constant(name, bias.astype(np.float32))
    codes, steps = _bias_codes(step, scale, bias)
    return step.model.constant(name, codes, scales=tuple(map(float, steps)))


def _bias_codes(
    step: _Step, scale: NDArray[np.float32], bias: NDArray[np.generic]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return a bias as codes that are added to sums of codes, and what one of them is worth."""
    steps = (np.float32(step.numbers.input().scale) * scale).astype(np.float32)
    exact = bias.dtype.kind == "i"
    return bias.astype(np.int32) if exact else accumulator_codes(bias.astype(np.float32), steps), steps


def _linear(step: _Step) -> int:
    weight, scale, bias = step.numbers.parameters
    real = (weight.reshape(len(weight), -1) * scale[:, None]).astype(np.float32)
    source = step.inputs[0]
    if step.model.tensors[source].dtype == INT8:
        codes, steps = _bias_codes(step, scale, bias)
        bias = codes * steps  # rounded as where it is added to sums of codes
        read = step.model.tensors[source]
        source = step.model.add(FlatTensor(f"{step.name}.real", read.shape, "float32"))
        step.operate("DEQUANTIZE", step.inputs[:1], source, "DequantizeOptions")
    matrix, offsets = (
        step.model.constant(f"{step.name}.w", real),
        step.model.constant(f"{step.name}.b", bias.astype(np.float32)),
    )
    return step.operate(
        "FULLY_CONNECTED",
        (source, matrix, offsets),
        step.output(step.layer.outputs[0]),
        "FullyConnectedOptions",
        fusedActivationFunction=ACTIVATIONS[step.layer.activation],
    )


def _add(step: _Step) -> int:
    activation = ACTIVATIONS[step.layer.activation]
    output = step.output(step.layer.outputs[0])
    return step.operate("ADD", step.inputs, output, "AddOptions", fusedActivationFunction=activation)


def _mean(step: _Step) -> int:
    axes = step.model.constant(f"{step.name}.axes", np.array([1, 2], np.int32))
    output = step.output(step.layer.outputs[0])
    return step.operate("MEAN", (step.inputs[0], axes), output, "ReducerOptions", keepDims=True)


def _quantize(step: _Step) -> int:
    return step.operate("QUANTIZE", step.inputs, step.output(step.layer.outputs[0]), "QuantizeOptions")


def _dequantize(step: _Step) -> int:
    return step.operate("DEQUANTIZE", step.inputs, step.output(step.layer.outputs[0]), "DequantizeOptions")


OPERATORS: Consumer[_Write] = Consumer(
    "LiteRT",
    {
        "Conv": _conv,
        "Gemm": _linear,
        "Add": _add,
        "GlobalAveragePool": _mean,
        "QuantizeLinear": _quantize,
        "DequantizeLinear": _dequantize,
    },
    otherwise="it is not written as .tflite yet",
)
