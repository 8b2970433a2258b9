"""The only ONNX emitter: layers for profiling and whole networks alike, in milliseconds.

Integer layers are written as QDQ groups (DequantizeLinear -> op -> QuantizeLinear), which ONNX Runtime fuses
into integer kernels; a conversion is a lone QuantizeLinear or DequantizeLinear.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hw_profiles.graph.counts import params
from hw_profiles.graph.formats import WHOLE, QuantParams, is_integer, needs_scale
from hw_profiles.graph.layer import INPUT, MATRIX, Layer, computes_in_integers, map_layer
from hw_profiles.graph.lowering import lower
from hw_profiles.graph.tensor_type import BATCH, TensorType, bound
from hw_profiles.graph.workload import Workload, single
from nas.emit.cached_attention import cache_scales
from nas.emit.file_types import IR_VERSIONS, fed_type, needed_opset, real_type
from nas.emit.kept_kernels import keep_kernels
from nas.emit.operations import NODES, Emission
from supernet.formats.loading import load_activation_format, load_format
from supernet.formats.onnx_weights import OPSET, OnnxType
from supernet.graph.quantized_graph import (
    Parameters,
    QuantizedGraph,
    bias_codes,
    cache_names,
    cache_params,
    keeps_codes,
)

_RANDOM_RANGES = {"relu": (0.0, 3.0), "relu6": (0.0, 3.0), "hswish": (-0.375, 3.0), "hsigmoid": (0.0, 1.0)}
_RANDOM_REACH = 3.0  # of keys and values in a cache
_TYPICAL = QuantParams(0.01, 128)  # of a tensor whose size in a file is asked for


@dataclass(frozen=True)
class Normalisation:
    """What turns pixels into a network's input: mean and standard deviation of each channel, in 0..1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def emit(
    network: QuantizedGraph,
    *,
    batch: int | None = 1,
    metadata: Mapping[str, str] | None = None,
    pixels: Normalisation | None = None,
    portable: bool = False,
) -> bytes:
    """Return the network as a serialised ONNX model: input `image` (batch, c, h, w) fp32, output `logits` or
    the last tensor.

    A network that ends in an integer tensor gets a final DequantizeLinear, so that the output is always fp32.

    Args:
        batch: images of one inference; None leaves it open.
        metadata: written into the file.
        pixels: makes the input `image` (batch, h, w, c) uint8, normalised inside the file.
        portable: spells operations of young opsets out, for runtimes that do not have them.
    """
    graph = _Graph(network, pixels, portable=portable)
    for position in range(len(network.workload.layers)):
        graph.layer(position)
    return graph.finish(batch, metadata or {})


def described(model: bytes, metadata: Mapping[str, str]) -> bytes:
    """Return the same model with more metadata; nothing that runs is changed."""
    proto = onnx.load_from_string(model)
    earlier = {prop.key: prop.value for prop in proto.metadata_props}
    helper.set_model_props(proto, {**earlier, **metadata})
    data: bytes = proto.SerializeToString()
    return data


def random_network(workload: Workload, *, rng: np.random.Generator) -> QuantizedGraph:
    """Return `workload`, lowered, with random weights and scales: for measuring time, which does not depend
    on the numbers.

    Values keep the magnitude of a trained network's, since denormal floats would change the time.
    """
    workload = lower(workload)
    parameters: dict[str, Parameters] = {}
    tensors: dict[str, QuantParams] = {}
    for name, layer, sources in zip(workload.names, workload.layers, workload.inputs, strict=True):
        if "weight" in layer.values:
            shape = layer.stored_shape
            fan_in = prod(shape[1:]) if layer.op != "MatMul" or len(shape) == MATRIX else shape[-2]
            weight = rng.normal(0, fan_in**-0.5, shape).astype(np.float32)
            encoded = load_format(layer.weight_format).weight.encode(weight)
            parameters[name] = Parameters(encoded, rng.normal(0, 0.1, _bias_size(layer)).astype(np.float32))
        if keeps_codes(layer):
            tensors.update(dict.fromkeys(cache_names(name), cache_params(_RANDOM_REACH)))
        if not needs_scale(layer.out_format):
            continue
        if layer.keeps_codes and sources[0] >= 0:
            tensors[name] = tensors[workload.names[workload.producers[sources[0]]]]
        else:
            bounds = _RANDOM_RANGES.get(layer.nonlinearity, (-3.0, 3.0))
            tensors[name] = load_activation_format(layer.out_format).params(*bounds)
    return QuantizedGraph(workload, parameters, tensors)


def file_size(layer: Layer) -> int:
    """Return the bytes that one layer or block adds to the ONNX file: codes, scales, biases and the
    description of its nodes.
    """
    name = "s0.b0" if layer.kind == "mbconv" else "s0.b0.depthwise"  # of typical length
    # the unit alone, its input taken as it is: a conversion would be a layer of its own
    work = lower(replace(single(layer), names=(name,)))
    graph = _Graph(None)
    graph.feeds = [feed.name for feed in work.feeds]
    graph.stored("image", _TYPICAL)  # written with the layer that gives what this one reads
    start = graph.body_bytes()
    for place, (part, lowered, sources) in enumerate(
        zip(work.names, work.layers, work.inputs, strict=True), 1
    ):
        graph.add(
            part, lowered, sources, *_placeholder(lowered, replace(_TYPICAL, scale=_TYPICAL.scale * 2**place))
        )
    return graph.body_bytes() - start


def file_overhead() -> int:
    """Return the bytes of an ONNX file besides its layers."""
    work = Workload(("pool",), (map_layer("pool", (1, 1, 1), 1),), ((INPUT,),))
    return len(emit(QuantizedGraph(work, {}, {}))) - file_size(work.layers[0])


def _placeholder(
    layer: Layer, own: QuantParams
) -> tuple[Parameters | None, tuple[QuantParams | None, ...], QuantParams | None]:
    weights = None
    if "weight" in layer.values:
        ones = np.ones(layer.stored_shape, np.float32)
        encoded = load_format(layer.weight_format).weight.encode(ones)
        weights = Parameters(encoded, np.zeros(_bias_size(layer), np.float32))
    before = _TYPICAL if needs_scale(layer.in_format) else None
    after = _TYPICAL if layer.keeps_codes and before else own
    return weights, (before,) * len(layer.inputs), after if needs_scale(layer.out_format) else None


def _bias_size(layer: Layer) -> int:
    """Return how many numbers the bias of a layer has."""
    return params(layer) - prod(layer.values.integers("weight"))


class _Graph:
    """Nodes and initialisers under construction."""

    def __init__(
        self,
        network: QuantizedGraph | None,
        pixels: Normalisation | None = None,
        *,
        portable: bool = False,
    ) -> None:
        self.network = network
        self.pixels = pixels
        self.portable = portable
        self.nodes: list[onnx.NodeProto] = []
        self.initialisers: list[onnx.TensorProto] = []
        self.domains: dict[str, int] = {}  # of operations that are not ONNX's own, and their versions
        self.opset = OPSET if network is None else needed_opset(network.workload, portable=portable)
        self.values: list[str] = []  # ONNX name of each tensor
        self.scales: dict[float, str] = {}  # ONNX names of activations' scales, and of their zero points
        self.zeros: dict[int, str] = {}
        self.by_channel: dict[tuple[float, int, int], tuple[str, str]] = {}
        self.feeds = ["image"] if network is None else [feed.name for feed in network.workload.feeds]
        if pixels is not None:
            self.feeds[0] = self._normalised(self.feeds[0], pixels)

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
        sources = [self.feeds[-1 - i] if i < 0 else self.values[i] for i in inputs]
        integer = computes_in_integers(layer)
        flattens = layer.op == "Gemm" and len(layer.inputs[0].shape) > 2
        if flattens and integer:  # in between it would hide the group from the runtime
            sources = [self.node("Flatten", f"{name}.flat", sources)]
        real = sources
        if layer.op != "QuantizeLinear":
            alone = layer.op == "DequantizeLinear" or not integer
            real = [
                source
                if params is None
                else self._dequantize(f"{name}.in{i}", source, params, x, by_channel=alone)
                for i, (source, params, x) in enumerate(zip(sources, before, layer.inputs, strict=True))
            ]
        if flattens and not integer:
            real = [self.node("Flatten", f"{name}.flat", real)]
        self.values += [
            self._written(name if i == 0 else f"{name}.{i}", layer, value, after)
            for i, value in enumerate(self._compute(name, layer, real, parameters, before))
        ]

    def _written(self, name: str, layer: Layer, value: str, after: QuantParams | None) -> str:
        """Return a real output in the format of the tensor."""
        if after is not None:
            return self._quantize(f"{name}.q", value, after, layer.out_format)
        if layer.inputs and real_type(layer.in_format) != real_type(layer.out_format):
            return self.node("Cast", f"{name}.cast", [value], to=real_type(layer.out_format))
        return value

    def _normalised(self, pixels: str, by: Normalisation) -> str:
        """Write the operations of `supernet.data.pixels.normalised` in their order: no bit differs."""
        value = self.node("Cast", "pixels.real", [pixels], to="FLOAT")
        value = self.node("Transpose", "pixels.planar", [value], perm=[0, 3, 1, 2])
        for op, name, values in (("Sub", "centred", by.mean), ("Div", "normalised", by.std)):
            per_channel = (np.array(values, np.float32) * np.float32(255)).reshape(1, -1, 1, 1)
            value = self.node(op, f"pixels.{name}", [value, self.constant(f"pixels.{name}.by", per_channel)])
        return value

    def _compute(
        self,
        name: str,
        layer: Layer,
        real: list[str],
        parameters: Parameters | None,
        before: tuple[QuantParams | None, ...],
    ) -> list[str]:
        if layer.kind == "act":
            return [self._activate(name, layer.nonlinearity, layer, *real)]
        outputs = self._by_format(name, layer, real, parameters)
        if not outputs:
            constants = [] if parameters is None else self._weights(name, layer, parameters, before[0])
            constants += cache_scales(self, name, layer, self.network.tensors if self.network else {})
            outputs = NODES[layer.op](Emission(self, name, layer, real, constants, self.opset, self.portable))
        if layer.activation == "none":
            return outputs
        return [self._activate(f"{name}.{layer.activation}", layer.activation, layer, y) for y in outputs]

    def _by_format(
        self, name: str, layer: Layer, real: list[str], parameters: Parameters | None
    ) -> list[str]:
        """Return the output of a layer that its weight format writes as a whole; nothing of all others."""
        if parameters is None or real_type(layer.in_format) != "FLOAT":
            return []
        weight_format, value = load_format(layer.weight_format).weight, None
        if layer.op == "Gather":
            rank = len(layer.inputs[0].shape)
            value = weight_format.lower_rows(self, name, real[0], parameters.weight, rank)
        elif layer.op in ("Gemm", "MatMul"):
            value = weight_format.lower_linear(self, name, real[0], parameters.weight, parameters.bias)
        return [] if value is None else [value]

    def _activate(self, name: str, activation: str, layer: Layer, value: str) -> str:
        match activation:
            case "relu":
                return self.node("Relu", name, [value])
            case "relu6" if needs_scale(layer.activation_format):
                # the last code is 6 at most, so that clipping to the codes does the rest; a Clip would hide
                # the group from the runtime where codes have fewer bits than their type
                return self.node("Relu", name, [value])
            case "relu6":
                real = real_type(layer.activation_format)
                ends = [self.typed(f"{name}.{end}", np.array(end), real) for end in (0, 6)]
                return self.node("Clip", name, [value, *ends])
            case "hswish":
                return self.node("HardSwish", name, [value])
        return self.node("HardSigmoid", name, [value], alpha=1 / 6, beta=0.5)

    def _weights(
        self, name: str, layer: Layer, parameters: Parameters, before: QuantParams | None
    ) -> list[str]:
        weight_format, weight = load_format(layer.weight_format).weight, parameters.weight
        columns = layer.op == "MatMul" and weight.codes.ndim == MATRIX
        if before is None or not computes_in_integers(layer):
            real = real_type(layer.in_format)
            if columns and not weight_format.needs_scale:
                weight, columns = replace(weight, codes=np.ascontiguousarray(weight.codes.T)), False
            value = weight_format.lower(self, name, weight, real)
            if columns:  # folded when the file is loaded
                value = self.node("Transpose", f"{name}.columns", [value], perm=[1, 0])
            return [
                value,
                *([self.typed(f"{name}.b", parameters.bias, real)] if len(parameters.bias) else []),
            ]
        # without zero points ONNX Runtime has no integer kernel for matrix products
        value = weight_format.lower_integers(self, name, weight, zeros=layer.op != "Conv", transposed=columns)
        if not len(parameters.bias):
            return [value]
        if (
            columns
        ):  # with a vector ONNX Runtime makes a Gemm of both, on real numbers; with a row it does not
            row = (1,) * (len(layer.inputs[0].shape) - 1)
            return [value, self.constant(f"{name}.b", parameters.bias.reshape(*row, -1))]
        # the bias's scales are a product that the runtime folds at load: stored, they would be as large as it
        product = self.node("Mul", f"{name}.bs", [self.stored(name, before)[0], f"{name}.ws"])
        bias = self.constant(f"{name}.bc", bias_codes(parameters, before.scale)[0])
        return [value, self.node("DequantizeLinear", f"{name}.b", [bias, product], axis=0)]

    def _quantize(self, name: str, value: str, params: QuantParams, fmt: str) -> str:
        if not is_integer(fmt):  # the runtime takes any QuantizeLinear for one of integers, and drops a ReLU
            steps = self.node("Div", f"{name}.steps", [value, self.stored(name, params)[0]])
            return self.node("Cast", name, [steps], to=load_activation_format(fmt).stored_as)
        codes = self.node("QuantizeLinear", name, [value, *self.stored(name, params)])
        if params.largest == np.iinfo(np.uint8).max:
            return codes
        # fewer bits than the type of the tensor: what the network computes, at no gain in speed
        bounds = [
            self.constant(f"{name}.{end}", np.array(code, np.uint8))
            for end, code in (("first", 0), ("last", params.largest))
        ]
        return self.node("Clip", f"{name}.clip", [codes, *bounds])

    def _dequantize(
        self, name: str, value: str, params: QuantParams, x: TensorType, *, by_channel: bool = False
    ) -> str:
        """Return real values of codes; what is read by a layer that computes in real numbers has the one
        scale repeated for each of its channels.

        With a single scale ONNX Runtime's pass WeightBiasQuantization, which is on by default, takes the fp32
        convolution behind it for one that is to be quantized, and rounds its weights to 8 bits. It leaves
        alone what reads a tensor with a scale per channel; neither values nor time differ.
        """
        axis = 1 if len(x.shape) in (2, 4) else len(x.shape) - 1
        channels = x.shape[axis] if by_channel and x.shape else 0
        if not is_integer(x.format):
            real = self.node("Cast", f"{name}.real", [value], to="FLOAT")
            return self.node("Mul", name, [real, self.stored(name, params)[0]])
        if not channels or isinstance(channels, str):
            return self.node("DequantizeLinear", name, [value, *self.stored(name, params)])
        if channels == 1:  # one scale in either form
            codes = self.node("Cast", f"{name}.code", [value], to="FLOAT")
            zero = self.constant(f"{name}.z", np.array(params.zero_point, np.float32))
            steps = self.node("Sub", f"{name}.steps", [codes, zero])
            return self.node("Mul", name, [steps, self.stored(name, params)[0]])
        key = (params.scale, params.zero_point, channels)
        if key not in self.by_channel:
            self.by_channel[key] = (
                self.constant(f"{name}.s", np.full(channels, params.scale, np.float32)),
                self.constant(f"{name}.z", np.full(channels, params.zero_point, np.uint8)),
            )
        return self.node("DequantizeLinear", name, [value, *self.by_channel[key]], axis=axis)

    def stored(self, name: str, params: QuantParams) -> tuple[str, str]:
        """Return scale and zero point; each value is stored once, a scale by the name of its first tensor."""
        # np.array keeps 0 dimensions: ONNX Runtime wants scalars here
        if params.scale not in self.scales:
            self.scales[params.scale] = self.constant(f"{name}.s", np.array(params.scale, np.float32))
        if params.zero_point not in self.zeros:
            zero = np.array(params.zero_point, np.uint8)
            self.zeros[params.zero_point] = self.constant(f"zero_point.{zero}", zero)
        return self.scales[params.scale], self.zeros[params.zero_point]

    def typed(self, name: str, values: NDArray[Any], onnx_type: OnnxType) -> str:
        """Add what `supernet.formats.onnx_weights.OnnxWriter` says."""
        dtype = helper.tensor_dtype_to_np_dtype(TensorProto.DataType.Value(onnx_type))
        return self.constant(name, values.astype(dtype))

    def constant(self, name: str, array: NDArray[Any]) -> str:
        """Store numbers; return their name."""
        self.initialisers.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(
        self, op: str, name: str, inputs: list[str], *, more: Sequence[str] = (), **attributes: Any
    ) -> str:
        """Add what `supernet.formats.onnx_weights.OnnxWriter` says."""
        if "to" in attributes:
            attributes["to"] = TensorProto.DataType.Value(attributes["to"])
        if domain := attributes.get("domain"):
            self.domains.setdefault(domain, 1)
        self.nodes.append(helper.make_node(op, inputs, [name, *more], **attributes))
        return name

    def body_bytes(self) -> int:
        """Return the serialised size of nodes and initialisers."""
        nodes = sum(node.ByteSize() for node in self.nodes)
        return int(nodes + sum(tensor.ByteSize() for tensor in self.initialisers))

    def finish(self, batch: int | None, metadata: Mapping[str, str]) -> bytes:
        """Return the checked model."""
        assert self.network is not None
        work, sizes = self.network.workload, {} if batch is None else {BATCH: batch}
        given = [(feed.name, fed_type(feed.type), feed.type.shape) for feed in work.feeds]
        if self.pixels is not None:
            images, channels, height, width = work.feeds[0].type.shape
            given[0] = (given[0][0], TensorProto.UINT8, (images, height, width, channels))
        made = [(name, fed_type(work.type_of(i)), work.type_of(i).shape) for name, i in self._outputs(work)]
        inputs, outputs = (
            [
                helper.make_tensor_value_info(name, kind, [bound(dim, sizes) for dim in shape])
                for name, kind, shape in values
            ]
            for values in (given, made)
        )
        graph = helper.make_graph(self.nodes, "trilobit", inputs, outputs, self.initialisers)
        keep_kernels(graph)
        opsets = {"": self.opset, **self.domains}
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid(domain, version) for domain, version in opsets.items()],
            ir_version=IR_VERSIONS[self.opset],
            producer_name="trilobit",
        )
        helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model, full_check=True)
        data: bytes = model.SerializeToString()
        return data

    def _outputs(self, work: Workload) -> list[tuple[str, int]]:
        """Return what the network gives, by name, each as fp32."""
        assert self.network is not None
        outputs: list[tuple[str, int]] = []
        for number, tensor in enumerate(work.outputs):
            name, x = f"output{number or ''}", work.type_of(tensor)
            value = self.feeds[-1 - tensor] if tensor < 0 else self.values[tensor]
            if tensor < 0 or any(value == other for other, _ in outputs):
                value = self.node("Identity", name, [value])
            elif needs_scale(x.format):
                params = self.network.tensors[work.names[work.producers[tensor]]]
                value = self._dequantize(name, value, params, x)
            elif x.format not in WHOLE and real_type(x.format) != "FLOAT":
                value = self.node("Cast", name, [value], to="FLOAT")
            outputs.append((value, tensor))
        return outputs
