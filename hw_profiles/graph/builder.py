"""Builders that grow a `Workload` and insert the conversions between number formats.

`GraphBuilder` has a method for each kind of layer and works the shapes out: families and importers use it.
"""

from collections.abc import Sequence
from typing import Protocol

from hw_profiles.graph.attributes import Value
from hw_profiles.graph.conversions import convert
from hw_profiles.graph.formats import needs_scale
from hw_profiles.graph.layer import FP32, INPUT, Layer, map_layer
from hw_profiles.graph.tensor_type import Dim, TensorType, image_shape, image_type
from hw_profiles.graph.workload import Feed, Workload

_CONVERSIONS = {"QuantizeLinear": "quantize", "DequantizeLinear": "dequantize"}  # -> in names of layers
DEPTHWISE = 0  # as a number of groups: one for every channel that is read


class Precision(Protocol):
    """What one choice of a layer stands for: formats of its weights and of its activations."""

    @property
    def weight(self) -> str: ...

    @property
    def activation(self) -> str: ...


class WorkloadBuilder:
    """Grows a `Workload` layer by layer and inserts the format conversions.

    A tensor is quantized once for all that read it in one format, but dequantized for each: that is how
    engines that fuse DequantizeLinear -> op -> QuantizeLinear groups run it, whatever the graph says. From
    one integer format to another it goes through fp32.

    Args:
        in_shape: (channels, height, width) of the image that the network reads.
        feeds: what the network reads where that is not one image.
    """

    def __init__(
        self, in_shape: Sequence[int] = (), in_format: str = FP32, *, feeds: Sequence[Feed] = ()
    ) -> None:
        self._feeds = tuple(feeds) or (Feed("image", image_type(in_shape, in_format)),)
        self._names: list[str] = []
        self._layers: list[Layer] = []
        self._inputs: list[tuple[int, ...]] = []
        self._types: list[TensorType] = []
        self._producers: list[str] = []  # of each tensor
        self._quantized: dict[tuple[int, str], int] = {}

    def type(self, tensor: int) -> TensorType:
        """Return what is known of a tensor."""
        return self._types[tensor] if tensor >= 0 else self._feeds[-1 - tensor].type

    def shape(self, tensor: int) -> tuple[int, int, int]:
        """Return (channels, height, width) of a tensor of images; 1 x 1 of features."""
        return image_shape(self.dims(tensor))

    def dims(self, tensor: int) -> tuple[Dim, ...]:
        """Return every dimension of a tensor, the batch among them."""
        return self.type(tensor).shape

    def format(self, tensor: int) -> str:
        """Return the number format of a tensor."""
        return self.type(tensor).format

    def add(self, name: str, layer: Layer, *tensors: int) -> int:
        """Append `layer` reading `tensors`, converted to the layer's formats where they have others; return
        the (first) tensor that it gives.
        """
        pairs = zip(tensors, layer.inputs, strict=True)
        return self._append(name, layer, tuple(self._as_format(tensor, x.format) for tensor, x in pairs))

    def build(self, *outputs: int) -> Workload:
        """Return the finished workload, which gives the last tensor unless others are named."""
        layers, inputs = tuple(self._layers), tuple(self._inputs)
        return Workload(tuple(self._names), layers, inputs, feeds=self._feeds, outputs=outputs)

    def _append(self, name: str, layer: Layer, sources: tuple[int, ...]) -> int:
        self._names.append(name)
        self._layers.append(layer)
        self._inputs.append(sources)
        self._types += layer.outputs
        self._producers += [name] * len(layer.outputs)
        return len(self._types) - len(layer.outputs)

    def _as_format(self, tensor: int, target_format: str) -> int:
        source = self.type(tensor)
        if source.format == target_format:
            return tensor
        if (tensor, target_format) in self._quantized:
            return self._quantized[tensor, target_format]
        origin, result = self._origin(tensor), tensor
        for layer in convert(source, target_format):
            name = f"{origin}.{_CONVERSIONS[layer.op]}"
            unique = f"{name}.{len(self._names)}" if name in self._names else name
            result = self._append(unique, layer, (result,))
        if target_format != FP32:
            self._quantized[tensor, target_format] = result
        return result

    def _origin(self, tensor: int) -> str:
        if tensor >= 0:
            return self._producers[tensor]
        return "input" if tensor == INPUT else self._feeds[-1 - tensor].name


class Layers(Protocol):
    """Where a `GraphBuilder` puts its layers: a `WorkloadBuilder`, or what looks at them one by one."""

    def type(self, tensor: int) -> TensorType: ...

    def shape(self, tensor: int) -> tuple[int, int, int]: ...

    def dims(self, tensor: int) -> tuple[Dim, ...]: ...

    def format(self, tensor: int) -> str: ...

    def add(self, name: str, layer: Layer, *tensors: int) -> int: ...

    def build(self, *outputs: int) -> Workload: ...


class GraphBuilder:
    """Grows a `Workload` by layers whose shapes and formats follow from the tensors that they read.

    Every method appends a layer and returns a handle of the tensor that it gives; `input` is that of the
    network's input. A `precision` is one format for weights and activations, or a pair of them. A tensor that
    has another format than its reader computes in is converted, see `WorkloadBuilder`.

    >>> net = GraphBuilder((3, 32, 32))
    >>> x = net.stem("stem", net.input, 16, kernel=3, stride=2, activation="relu")
    >>> y = net.conv("s0.depthwise", x, 16, kernel=3, groups=DEPTHWISE)
    >>> x = net.linear("classifier", net.global_pool("pool", net.add("s0.add", y, x)), 10)
    >>> net.shape(x), net.build().names[-1]
    ((10, 1, 1), 'classifier')
    """

    def __init__(
        self,
        in_shape: Sequence[int] = (),
        in_format: str = FP32,
        *,
        feeds: Sequence[Feed] = (),
        layers: Layers | None = None,
    ) -> None:
        self._net: Layers = layers or WorkloadBuilder(in_shape, in_format, feeds=feeds)
        self.input = INPUT
        self.inputs = tuple(-1 - i for i in range(max(1, len(feeds))))

    def type(self, x: int) -> TensorType:
        """Return what is known of a tensor."""
        return self._net.type(x)

    def shape(self, x: int) -> tuple[int, int, int]:
        """Return (channels, height, width) of a tensor."""
        return self._net.shape(x)

    def dims(self, x: int) -> tuple[Dim, ...]:
        """Return every dimension of a tensor, the batch among them."""
        return self._net.dims(x)

    def format(self, x: int) -> str:
        """Return the number format of a tensor."""
        return self._net.format(x)

    def conv(
        self,
        name: str,
        x: int,
        out_channels: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        activation: str = "none",
        precision: Precision | str = FP32,
    ) -> int:
        """Append a convolution with a bias, padded with `kernel // 2` on every side.

        Args:
            groups: a number, or `DEPTHWISE`.
            activation: fused into it.
        """
        sizes = (out_channels, kernel, stride, groups or self.shape(x)[0])
        return self._convolution("conv", name, x, sizes, activation, precision)

    def stem(
        self,
        name: str,
        x: int,
        out_channels: int,
        *,
        kernel: int = 3,
        stride: int = 1,
        activation: str = "none",
        precision: Precision | str = FP32,
    ) -> int:
        """Append the convolution that reads the image, which profiles know by itself."""
        return self._convolution("stem", name, x, (out_channels, kernel, stride, 1), activation, precision)

    def linear(self, name: str, x: int, out_features: int, *, precision: Precision | str = FP32) -> int:
        """Append a linear layer with a bias on a (channels, 1, 1) tensor; its output is fp32."""
        weight, activation = formats(precision)
        layer = map_layer(
            "linear", self.shape(x), out_features, weight_format=weight, activation_format=activation
        )
        return self._net.add(name, layer, x)

    def add(
        self,
        name: str,
        x: int,
        shortcut: int,
        *,
        activation: str = "none",
        precision: Precision | str | None = None,
    ) -> int:
        """Append a residual sum; a shortcut of another format is converted first, which profiles tell apart.

        Args:
            precision: whose activation format it computes in; None takes that of `x`.
        """
        computed = self.format(x) if precision is None else formats(precision)[1]
        converted = int(self.format(shortcut) != computed)
        operand = TensorType(self.dims(x), computed)
        layer = Layer.of("Add", operand, operand, activation=activation, converted=converted)
        return self._net.add(name, layer, x, shortcut)

    def mul(self, name: str, x: int, scale: int) -> int:
        """Append the product of every channel of `x` with its number in `scale` (channels, 1, 1)."""
        return self._elementwise("mul", name, (x, scale), self.format(x))

    def global_pool(self, name: str, x: int, *, precision: Precision | str | None = None) -> int:
        """Append the mean over each channel, in the format of `x` unless another is given."""
        computed = self.format(x) if precision is None else formats(precision)[1]
        return self._elementwise("pool", name, (x,), computed)

    def patches(
        self,
        name: str,
        x: int,
        out_channels: int,
        size: int,
        *,
        image: bool = False,
        precision: Precision | str = FP32,
    ) -> int:
        """Append a convolution with a bias of square patches side by side, nothing padded.

        Args:
            image: whether it reads the image, which profiles know by itself.
        """
        weight, computed = formats(precision)
        shape = (out_channels, self.shape(x)[0], size, size)
        maps = TensorType(self.dims(x), computed)
        layer = Layer.of(
            "Conv", maps, weight_format=weight, weight=shape, strides=(size, size), image=int(image)
        )
        return self._net.add(name, layer, x)

    def matmul(
        self, name: str, x: int, out_features: int, *, bias: bool = True, precision: Precision | str = FP32
    ) -> int:
        """Append the product of what the last dimension holds with a stored matrix; what integers are
        multiplied to is given as fp32, which is what the operations between matrices compute in.
        """
        weight, computed = formats(precision)
        dims = self.dims(x)
        layer = Layer.of(
            "MatMul",
            TensorType(dims, computed),
            weight_format=weight,
            weight=(int(dims[-1]), out_features),
            bias=int(bias),
            to=FP32 if needs_scale(computed) else None,
        )
        return self._net.add(name, layer, x)

    def product(self, name: str, left: int, right: int) -> int:
        """Append the product of two computed matrices, or of as many as the dimensions before hold."""
        types = (TensorType(self.dims(tensor)) for tensor in (left, right))
        return self._net.add(name, Layer.of("MatMul", *types), left, right)

    def layer_norm(self, name: str, x: int, *, epsilon: float = 1e-5) -> int:
        """Append the normalisation of what the last dimension holds, in fp32."""
        dims = self.dims(x)
        layer = Layer.of("LayerNormalization", TensorType(dims), weight=dims[-1:], epsilon=epsilon)
        return self._net.add(name, layer, x)

    def rms_norm(self, name: str, x: int, *, epsilon: float = 1e-5) -> int:
        """Append the division of what the last dimension holds by its root mean square, times a stored scale
        (Zhang & Sennrich 2019, arXiv:1910.07467), in fp32.
        """
        dims = self.dims(x)
        layer = Layer.of("RMSNormalization", TensorType(dims), weight=dims[-1:], epsilon=epsilon)
        return self._net.add(name, layer, x)

    def rotary(self, name: str, x: int, heads: int, *, length: int, theta: float = 1e4) -> int:
        """Append rotary positions for queries or keys (n, t, heads x depth), counted from 0 on, in fp32.

        Args:
            length: positions that can be told apart.
            theta: base of the frequencies.
        """
        given = (("num_heads", heads), ("length", length), ("theta", theta))
        return self._net.add(name, Layer("RotaryEmbedding", (TensorType(self.dims(x)),), given), x)

    def attention(
        self,
        name: str,
        queries: int,
        keys: int,
        values: int,
        *,
        heads: int,
        groups: int,
        cache: Precision | str = FP32,
    ) -> int:
        """Append causal attention of `heads` queries to `groups` keys and values (Ainslie et al. 2023,
        arXiv:2305.13245), kept in the format of `cache`, in fp32; all are (n, t, heads x depth).
        """
        types = tuple(TensorType(self.dims(tensor)) for tensor in (queries, keys, values))
        counts = (("q_num_heads", heads), ("kv_num_heads", groups), ("is_causal", 1))
        layer = Layer("Attention", types, (*counts, ("cache", formats(cache)[1])))
        return self._net.add(name, layer, queries, keys, values)

    def gated(self, name: str, gate: int, x: int) -> int:
        """Append the product of two tensors, number by number, in fp32."""
        types = (TensorType(self.dims(tensor)) for tensor in (gate, x))
        return self._net.add(name, Layer.of("Mul", *types), gate, x)

    def table(self, name: str, x: int) -> int:
        """Append the sum with a stored table of the shape of one example, such as positions, in fp32."""
        dims = self.dims(x)
        return self._net.add(name, Layer.of("Add", TensorType(dims), weight=dims[1:]), x)

    def embedding(
        self, name: str, ids: int, vocabulary: int, width: int, *, precision: Precision | str = FP32
    ) -> int:
        """Append the rows of a stored table (vocabulary, width) for ids (n, t), given as fp32."""
        layer = Layer.of(
            "Gather", self.type(ids), weight_format=formats(precision)[0], weight=(vocabulary, width)
        )
        return self._net.add(name, layer, ids)

    def curve(self, name: str, x: int, op: str, **attributes: Value | None) -> int:
        """Append an operation that keeps the shape, such as `Gelu` or `Softmax`, in fp32."""
        stated = tuple((key, value) for key, value in attributes.items() if value is not None)
        return self._net.add(name, Layer(op, (TensorType(self.dims(x)),), stated), x)

    def reshape(self, name: str, x: int, *shape: Dim) -> int:
        """Append the same numbers as another shape: 0 keeps a dimension, -1 is what the others leave."""
        return self.op(name, "Reshape", x, shape=shape)

    def transpose(self, name: str, x: int, *perm: int) -> int:
        """Append the same numbers with their dimensions in another order."""
        return self.op(name, "Transpose", x, perm=perm)

    def max_pool(self, name: str, x: int, kernel: int, stride: int) -> int:
        """Append the largest of each window, padded as a convolution, in the format of `x`."""
        return self._window("maxpool", name, x, kernel, stride)

    def avg_pool(self, name: str, x: int, kernel: int, stride: int) -> int:
        """Append the mean of each window, or of what of it is inside the map, in the format of `x`.

        Raises:
            ValueError: windows overlap or leave gaps.
        """
        if kernel != stride:
            raise ValueError(f"{name}: windows of {kernel} at a stride of {stride}; the two must be equal")
        return self._window("avgpool", name, x, kernel, stride)

    def inverted_residual(  # noqa: PLR0913 the fields of such a unit's key
        self,
        name: str,
        x: int,
        out_channels: int,
        *,
        kernel: int,
        stride: int = 1,
        expanded: int,
        activation: str = "relu",
        squeeze: bool = False,
        residual: bool = False,
        precision: Precision | str = FP32,
    ) -> int:
        """Append a whole inverted-residual block: the unit of published tables that measured blocks.

        Args:
            expanded: channels between its pointwise convolutions.
            squeeze: whether it has squeeze-and-excitation.
            residual: whether it adds its input to its output.
        """
        shape, sizes = self.shape(x), (out_channels, kernel, stride, 1, activation)
        spec = map_layer("mbconv", shape, *sizes, *formats(precision), expanded, squeeze, residual)
        return self._net.add(name, spec, x)

    def op(
        self,
        name: str,
        op: str,
        *tensors: int,
        activation: str = "none",
        weight_format: str = FP32,
        **attributes: Value | None,
    ) -> int:
        """Append any operation of the table by its own name, with its attributes; it computes in the formats
        of the tensors that it reads. Where it gives several tensors, the others follow the one returned.
        """
        types = map(self.type, tensors)
        layer = Layer.of(op, *types, activation=activation, weight_format=weight_format, **attributes)
        return self._net.add(name, layer, *tensors)

    def build(self, *outputs: int) -> Workload:
        """Return the finished workload, which gives the last tensor unless others are named."""
        return self._net.build(*outputs)

    def _convolution(
        self,
        op: str,
        name: str,
        x: int,
        sizes: tuple[int, int, int, int],
        activation: str,
        precision: Precision | str,
    ) -> int:
        spec = map_layer(op, self.shape(x), *sizes, activation, *formats(precision))
        return self._net.add(name, spec, x)

    def _elementwise(
        self, op: str, name: str, tensors: tuple[int, ...], computed: str, activation: str = "none"
    ) -> int:
        shape = self.shape(tensors[0])
        spec = map_layer(op, shape, shape[0], activation=activation, activation_format=computed)
        return self._net.add(name, spec, *tensors)

    def _window(self, op: str, name: str, x: int, kernel: int, stride: int) -> int:
        shape = self.shape(x)
        spec = map_layer(op, shape, shape[0], kernel, stride, activation_format=self.format(x))
        return self._net.add(name, spec, x)


def formats(precision: Precision | str) -> tuple[str, str]:
    """Return the formats of weights and activations."""
    return (precision, precision) if isinstance(precision, str) else (precision.weight, precision.activation)
