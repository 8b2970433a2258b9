"""The only ONNX emitter: layers for profiling and whole networks alike, in milliseconds.

Integer layers are written as QDQ groups (DequantizeLinear -> op -> QuantizeLinear), which ONNX Runtime fuses
into integer kernels; a conversion is a lone QuantizeLinear or DequantizeLinear.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hw_profiles.graph.layer import FLOATS, FP32, INPUT, Layer, LayerSpec
from hw_profiles.graph.lowering import lower
from hw_profiles.graph.workload import Workload, single
from supernet.formats.format import QuantParams
from supernet.formats.loading import load_format
from supernet.graph.quantized_graph import Network, Parameters, bias_codes

OPSET = 21  # the first with 4-bit tensors
NARROW_OPSET, NARROW_IR_VERSION = 25, 13  # the first with 2-bit tensors
_RANDOM_RANGES = {"relu": (0.0, 3.0), "relu6": (0.0, 3.0), "hswish": (-0.375, 3.0), "hsigmoid": (0.0, 1.0)}
_TENSOR_TYPES = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16}
IR_VERSION = 10
UNSIGNED_ZERO = 128  # the zero point of weights that are stored unsigned
_TYPICAL = QuantParams(0.01, 128)  # of a tensor whose size in a file is asked for


@dataclass(frozen=True)
class Normalisation:
    """What turns pixels into a network's input: mean and standard deviation of each channel, in 0..1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def emit(
    network: Network,
    *,
    batch: int | None = 1,
    metadata: Mapping[str, str] | None = None,
    pixels: Normalisation | None = None,
) -> bytes:
    """The network as a serialised ONNX model: input `image` (batch, c, h, w) fp32, output `logits` or the
    last tensor.

    A network that ends in an integer tensor gets a final DequantizeLinear, so that the output is always fp32.

    Args:
        batch: images of one inference; None leaves it open.
        metadata: written into the file.
        pixels: makes the input `image` (batch, h, w, c) uint8, normalised inside the file.
    """
    graph = _Graph(network, pixels)
    for position in range(len(network.workload.layers)):
        graph.layer(position)
    return graph.finish(batch, metadata or {})


def described(model: bytes, metadata: Mapping[str, str]) -> bytes:
    """The same model with more metadata; nothing that runs is changed."""
    proto = onnx.load_from_string(model)
    known = {prop.key: prop.value for prop in proto.metadata_props}
    helper.set_model_props(proto, {**known, **metadata})
    data: bytes = proto.SerializeToString()
    return data


def random_network(workload: Workload, *, rng: np.random.Generator) -> Network:
    """`workload`, lowered, with random weights and scales: for measuring time, which does not depend on the
    numbers.

    Values keep the magnitude of a trained network's, since denormal floats would change the time.
    """
    workload = lower(workload)
    parameters: dict[str, Parameters] = {}
    tensors: dict[str, QuantParams] = {}
    for name, layer, sources in zip(workload.names, workload.layers, workload.inputs, strict=True):
        if layer.weighted:
            fan_in = layer.in_shape[0] // layer.groups * layer.kernel**2
            shape = (layer.out_channels, layer.in_shape[0] // layer.groups, layer.kernel, layer.kernel)
            weight = rng.normal(0, fan_in**-0.5, shape[:2] if layer.kind == "linear" else shape).astype(
                np.float32
            )
            codes, scale = load_format(layer.weight_format).quantize_weight(weight)
            parameters[name] = Parameters(
                codes, scale, rng.normal(0, 0.1, layer.out_channels).astype(np.float32)
            )
        if layer.out_format not in FLOATS and layer.keeps_codes and sources[0] != INPUT:
            tensors[name] = tensors[workload.names[sources[0]]]
        elif layer.out_format not in FLOATS:
            bounds = _RANDOM_RANGES.get(layer.nonlinearity, (-3.0, 3.0))
            params = load_format(layer.out_format).activation_params(*bounds)
            assert params is not None
            tensors[name] = params
    return Network(workload, parameters, tensors)


def file_size(layer: Layer) -> int:
    """Bytes that one layer or block adds to the ONNX file: codes, scales, biases and the description of its
    nodes.
    """
    name = "s0.b0" if layer.kind == "mbconv" else "s0.b0.depthwise"  # of typical length
    # the unit alone, its input taken as it is: a conversion would be a layer of its own
    work = lower(Workload((name,), (layer,), single(layer).inputs, layer.in_format))
    graph = _Graph(None)
    graph.stored("image", _TYPICAL)  # written with the layer that gives what this one reads
    start = graph.body_bytes()
    for place, (part, one, sources) in enumerate(zip(work.names, work.layers, work.inputs, strict=True), 1):
        graph.add(part, one, sources, *_placeholder(one, replace(_TYPICAL, scale=_TYPICAL.scale * 2**place)))
    return graph.body_bytes() - start


def file_overhead() -> int:
    """Bytes of an ONNX file besides its layers."""
    work = Workload(("pool",), (LayerSpec("pool", (1, 1, 1), 1),), ((INPUT,),))
    return len(emit(Network(work, {}, {}))) - file_size(work.layers[0])


def _placeholder(
    layer: Layer, own: QuantParams
) -> tuple[Parameters | None, tuple[QuantParams | None, ...], QuantParams | None]:
    weights = None
    if layer.weighted:
        shape = (layer.out_channels, layer.in_shape[0] // layer.groups, layer.kernel, layer.kernel)
        ones = np.ones(shape[:2] if layer.kind == "linear" else shape, np.float32)
        codes, scale = load_format(layer.weight_format).quantize_weight(ones)
        weights = Parameters(codes, scale, np.zeros(layer.out_channels, np.float32))
    before = None if layer.in_format in FLOATS else _TYPICAL
    after = _TYPICAL if layer.keeps_codes and before else own
    return weights, (before,) * 2, None if layer.out_format in FLOATS else after


def _stored_zero(weight_format: str) -> int:
    """Return what is added to weight codes in the file: 0 where they are stored signed."""
    return UNSIGNED_ZERO if load_format(weight_format).onnx_weight_type == "UINT8" else 0


class _Graph:
    """Nodes and initialisers under construction."""

    def __init__(self, network: Network | None, pixels: Normalisation | None = None) -> None:
        self.network = network
        self.pixels = pixels
        self.nodes: list[onnx.NodeProto] = []
        self.initialisers: list[onnx.TensorProto] = []
        self.values: list[str] = []  # ONNX name of each layer's output
        self.scales: dict[float, str] = {}  # ONNX names of activations' scales, and of their zero points
        self.zeros: dict[int, str] = {}
        self.by_channel: dict[tuple[float, int, int], tuple[str, str]] = {}
        self.image = "image" if pixels is None else self._normalised("image", pixels)

    def layer(self, position: int) -> None:
        """Emit one layer of the network."""
        assert self.network is not None
        work = self.network.workload
        name = work.names[position]
        self.add(
            name,
            work.layers[position],
            work.inputs[position],
            self.network.parameters.get(name),
            self.network.input_params(position),
            self.network.tensors.get(name),
        )

    def add(
        self,
        name: str,
        layer: Layer,
        inputs: tuple[int, ...],
        parameters: Parameters | None,
        before: tuple[QuantParams | None, ...],
        after: QuantParams | None,
    ) -> None:
        """Emit one layer: dequantize its integer inputs, compute, quantize its output where that is an
        integer tensor.
        """
        sources = [self.image if i == INPUT else self.values[i] for i in inputs]
        if (
            layer.kind == "linear"
        ):  # before the dequantization: in between it would hide the group from the runtime
            sources = [self._node("Flatten", f"{name}.flat", sources)]
        real = sources
        if layer.kind != "quantize":
            scales = layer.in_shape[0] if layer.kind == "dequantize" else 1
            real = [
                source if params is None else self._dequantize(f"{name}.in{i}", source, params, scales)
                for i, (source, params) in enumerate(zip(sources, before, strict=False))
            ]
        value = self._compute(name, layer, real, parameters, before[0])
        if layer.in_format != layer.out_format and {layer.in_format, layer.out_format} <= set(FLOATS):
            value = self._node("Cast", f"{name}.cast", [value], to=_TENSOR_TYPES[layer.out_format])
        if after is not None:
            value = self._quantize(f"{name}.q", value, after)
        self.values.append(value)

    def _normalised(self, pixels: str, by: Normalisation) -> str:
        """The operations of `supernet.data.dataset.normalised` in their order, so that no bit differs."""
        value = self._node("Cast", "pixels.real", [pixels], to=TensorProto.FLOAT)
        value = self._node("Transpose", "pixels.planar", [value], perm=[0, 3, 1, 2])
        for op, name, values in (("Sub", "centred", by.mean), ("Div", "normalised", by.std)):
            per_channel = (np.array(values, np.float32) * np.float32(255)).reshape(1, -1, 1, 1)
            value = self._node(
                op, f"pixels.{name}", [value, self._constant(f"pixels.{name}.by", per_channel)]
            )
        return value

    def _compute(
        self,
        name: str,
        layer: Layer,
        real: list[str],
        parameters: Parameters | None,
        before: QuantParams | None,
    ) -> str:
        match layer.kind:
            case "quantize" | "dequantize":
                return real[0]
            case "add" | "add_converted":
                total = self._node("Add", name, real)
                return self._activate(f"{name}.{layer.nonlinearity}", layer, total)
            case "pool":
                return self._node("GlobalAveragePool", name, real)
            case "maxpool" | "avgpool":
                return self._pool(name, layer, *real)
            case "mul":
                return self._node("Mul", name, real)
            case "act":
                return self._activate(name, layer, *real)
        assert parameters is not None
        weights = self._weights(name, layer, parameters, before)
        if layer.kind == "linear":
            return self._node("Gemm", name, [*real, *weights], transB=1)
        edge = [layer.kernel // 2] * 4
        value = self._node(
            "Conv",
            name,
            [*real, *weights],
            kernel_shape=[layer.kernel] * 2,
            strides=[layer.stride] * 2,
            pads=edge,
            group=layer.groups,
        )
        return self._activate(f"{name}.{layer.nonlinearity}", layer, value)

    def _pool(self, name: str, layer: Layer, value: str) -> str:
        window = {"kernel_shape": [layer.kernel] * 2, "strides": [layer.stride] * 2}
        if layer.kind == "maxpool":
            return self._node("MaxPool", name, [value], pads=[layer.kernel // 2] * 4, **window)
        return self._node("AveragePool", name, [value], ceil_mode=1, **window)

    def _activate(self, name: str, layer: Layer, value: str) -> str:
        match layer.nonlinearity:
            case "relu":
                return self._node("Relu", name, [value])
            case "relu6" if layer.activation_format not in FLOATS:
                # the last code is 6 at most, so that clipping to the codes does the rest; a Clip would hide
                # the group from the runtime where codes have fewer bits than their type
                return self._node("Relu", name, [value])
            case "relu6":
                stored = np.float16 if layer.activation_format == "fp16" else np.float32
                ends = [self._constant(f"{name}.{end}", np.array(end, stored)) for end in (0, 6)]
                return self._node("Clip", name, [value, *ends])
            case "hswish":
                return self._node("HardSwish", name, [value])
            case "hsigmoid":
                return self._node("HardSigmoid", name, [value], alpha=1 / 6, beta=0.5)
        return value

    def _weights(
        self, name: str, layer: Layer, parameters: Parameters, before: QuantParams | None
    ) -> tuple[str, str]:
        if before is None:
            number_format = load_format(layer.weight_format)
            real = number_format.dequantize_weight(parameters.weight, parameters.scale)
            stored = helper.tensor_dtype_to_np_dtype(_TENSOR_TYPES[layer.activation_format])
            return (
                self._constant(f"{name}.w", real.astype(stored)),
                self._constant(f"{name}.b", parameters.bias.astype(stored)),
            )
        scale = self._constant(f"{name}.ws", parameters.scale)
        codes = [self._weight_codes(f"{name}.wc", layer, parameters), scale]
        zero = _stored_zero(layer.weight_format)
        if (
            zero or layer.kind == "linear"
        ):  # without zero points ONNX Runtime has no integer kernel for that one
            zeros = np.full(layer.out_channels, zero, np.uint8 if zero else np.int8)
            codes.append(self._constant(f"{name}.wz", zeros))
        weight = self._node("DequantizeLinear", f"{name}.w", codes, axis=0)
        # the bias's scales are a product that the runtime folds at load: stored, they would be as large as it
        product = self._node("Mul", f"{name}.bs", [self.stored(name, before)[0], scale])
        bias = self._constant(f"{name}.bc", bias_codes(parameters, before.scale)[0])
        return weight, self._node("DequantizeLinear", f"{name}.b", [bias, product], axis=0)

    def _weight_codes(self, name: str, layer: Layer, parameters: Parameters) -> str:
        """Codes of 8 bits; fewer are stored packed and widened by a Cast, which the runtime folds at load.

        DequantizeLinear could read 4-bit codes itself, but then no integer kernel is chosen: a fifth of the
        speed.
        """
        wanted = TensorProto.DataType.Value(load_format(layer.weight_format).onnx_weight_type)
        if zero := _stored_zero(layer.weight_format):
            return self._constant(name, (parameters.weight.astype(np.int16) + zero).astype(np.uint8))
        if wanted == TensorProto.INT8:
            return self._constant(name, parameters.weight)
        packed = parameters.weight.astype(helper.tensor_dtype_to_np_dtype(wanted))
        return self._node("Cast", f"{name}8", [self._constant(name, packed)], to=TensorProto.INT8)

    def _quantize(self, name: str, value: str, params: QuantParams) -> str:
        codes = self._node("QuantizeLinear", name, [value, *self.stored(name, params)])
        if params.largest == np.iinfo(np.uint8).max:
            return codes
        # fewer bits than the type of the tensor: what the network computes, at no gain in speed
        bounds = [
            self._constant(f"{name}.{end}", np.array(code, np.uint8))
            for end, code in (("first", 0), ("last", params.largest))
        ]
        return self._node("Clip", f"{name}.clip", [codes, *bounds])

    def _dequantize(self, name: str, value: str, params: QuantParams, scales: int = 1) -> str:
        """Real values of codes; a conversion to fp32 has the one scale repeated for each of its channels.

        With a single scale ONNX Runtime's pass WeightBiasQuantization, which is on by default, takes the fp32
        convolution behind it for one that is to be quantized, and rounds its weights to 8 bits. It leaves
        alone what reads a tensor with a scale per channel; neither values nor time differ.
        """
        if scales == 1:
            return self._node("DequantizeLinear", name, [value, *self.stored(name, params)])
        key = (params.scale, params.zero_point, scales)
        if key not in self.by_channel:
            self.by_channel[key] = (
                self._constant(f"{name}.s", np.full(scales, params.scale, np.float32)),
                self._constant(f"{name}.z", np.full(scales, params.zero_point, np.uint8)),
            )
        return self._node("DequantizeLinear", name, [value, *self.by_channel[key]], axis=1)

    def stored(self, name: str, params: QuantParams) -> tuple[str, str]:
        """Scale and zero point; each value is stored once, a scale by the name of its first tensor."""
        # np.array keeps 0 dimensions: ONNX Runtime wants scalars here
        if params.scale not in self.scales:
            self.scales[params.scale] = self._constant(f"{name}.s", np.array(params.scale, np.float32))
        if params.zero_point not in self.zeros:
            zero = np.array(params.zero_point, np.uint8)
            self.zeros[params.zero_point] = self._constant(f"zero_point.{zero}", zero)
        return self.scales[params.scale], self.zeros[params.zero_point]

    def _constant(self, name: str, array: NDArray[np.generic]) -> str:
        self.initialisers.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def _node(self, op: str, name: str, inputs: list[str], **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def body_bytes(self) -> int:
        """Serialised size of nodes and initialisers."""
        nodes = sum(node.ByteSize() for node in self.nodes)
        return int(nodes + sum(tensor.ByteSize() for tensor in self.initialisers))

    def finish(self, batch: int | None, metadata: Mapping[str, str]) -> bytes:
        """The checked model."""
        assert self.network is not None
        work = self.network.workload
        last, value = work.layers[-1], self.values[-1]
        if last.out_format not in FLOATS:
            value = self._dequantize("output", value, self.network.tensors[work.names[-1]])
        elif last.out_format != FP32:
            value = self._node("Cast", "output", [value], to=TensorProto.FLOAT)
        shape = (last.out_channels,) if last.kind == "linear" else last.out_shape
        images = "batch" if batch is None else batch
        c, h, w = work.in_shape
        seen = (TensorProto.FLOAT, (c, h, w)) if self.pixels is None else (TensorProto.UINT8, (h, w, c))
        graph = helper.make_graph(
            self.nodes,
            "trilobit",
            [helper.make_tensor_value_info("image", seen[0], [images, *seen[1]])],
            [helper.make_tensor_value_info(value, TensorProto.FLOAT, [images, *shape])],
            self.initialisers,
        )
        opset = needed_opset(work)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", opset)],
            ir_version=IR_VERSION if opset == OPSET else NARROW_IR_VERSION,
            producer_name="trilobit",
        )
        helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model, full_check=True)
        data: bytes = model.SerializeToString()
        return data


def needed_opset(work: Workload) -> int:
    """The oldest opset that has the types of a network's weights."""
    weights = {load_format(layer.weight_format).onnx_weight_type for layer in work.layers if layer.weighted}
    return NARROW_OPSET if "INT2" in weights else OPSET
