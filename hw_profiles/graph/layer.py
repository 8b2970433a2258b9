"""`Layer`, one fused unit that runs on a device: an operation of the table on tensors of known types."""

from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.attributes import Attributes, Given, Value
from hw_profiles.graph.formats import CACHED, WHOLE, in_integers, is_integer
from hw_profiles.graph.key import FUSED, Fields, Parts, read_fields, read_long, short_fields, write_long
from hw_profiles.graph.ops import OPS, Op, operation
from hw_profiles.graph.tensor_type import FP32 as FP32
from hw_profiles.graph.tensor_type import TensorType, image_shape

INPUT = -1  # as an input of a layer: the network's own (first) input
ACTIVATIONS = ("none", *FUSED)
MATRIX = 2  # dimensions of a matrix
_REMEMBERED = 2**15  # layers that are kept to be given again; a search space has some thousand different ones


@dataclass(frozen=True, eq=False)
class Layer:
    """One unit, for example convolution + bias + activation.

    Attributes:
        op: name of its operation, see `hw_profiles.graph.ops.OPS`.
        inputs: types of the tensors that it reads.
        attributes: of the operation, without those that have their default; `Layer.of` takes them by name.
        activation: one of `ACTIVATIONS`, fused into the unit; in a whole block after its first and its
            depthwise convolution.
        weight_format: number format of the stored weights; `fp32` where there are none.
        outputs: types of the tensors that it gives; they follow from the others.
        values: the attributes, defaults included.

    Raises:
        TrilobitError: there is no such operation, or it cannot read these tensors.
    """

    op: str
    inputs: tuple[TensorType, ...]
    attributes: Given = ()
    activation: str = "none"
    weight_format: str = FP32
    outputs: tuple[TensorType, ...] = field(init=False, repr=False)
    values: Attributes = field(init=False, repr=False)
    _identity: tuple[object, ...] = field(init=False, repr=False)
    _hash: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        op = operation(self.op)
        if self.activation not in ACTIVATIONS:
            raise TrilobitError(f"unknown activation {self.activation!r}; known: {', '.join(ACTIVATIONS)}")
        if not op.reads[0] <= len(self.inputs) <= op.reads[1]:
            raise TrilobitError(f"{self.op} reads {_count(op.reads)}, but {len(self.inputs)} are given")
        attributes = op.given(dict(self.attributes))
        values = op.all_attributes(attributes)
        identity = (self.op, self.inputs, attributes, self.activation, self.weight_format)
        made = {
            "attributes": attributes,
            "values": values,
            "outputs": op.rule(self.inputs, values),
            "_identity": identity,
            "_hash": hash(identity),  # computed once: tables look up the same layers millions of times
        }
        for name, value in made.items():
            object.__setattr__(self, name, value)

    @staticmethod
    def of(
        op: str,
        *inputs: TensorType,
        activation: str = "none",
        weight_format: str = FP32,
        **attributes: Value | None,
    ) -> "Layer":
        """Return the layer with these attributes; equal ones may be one object."""
        stated = tuple((name, value) for name, value in attributes.items() if value is not None)
        make = (
            Layer if op == "Opaque" else _remembered
        )  # equal ones may differ in whether they have the bytes
        return make(op, inputs, stated, activation, weight_format)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Layer):
            return NotImplemented
        return self._hash == other._hash and self._identity == other._identity

    def __hash__(self) -> int:
        return self._hash

    # -- any layer ---------------------------------------------------------------------------------

    @property
    def operation(self) -> Op:
        """Its entry in the operation table."""
        return operation(self.op)

    @property
    def in_format(self) -> str:
        """Number format of what it reads."""
        return self.inputs[0].format if self.inputs else FP32

    @property
    def out_format(self) -> str:
        """Number format of what it gives."""
        return self.outputs[0].format

    @property
    def activation_format(self) -> str:
        """Number format it computes in: what it reads; of QuantizeLinear and of ids what it gives."""
        gives = self.op == "QuantizeLinear" or self.in_format in WHOLE
        return self.out_format if gives else self.in_format

    @property
    def is_add(self) -> bool:
        """Whether it is a sum of two tensors."""
        return self.op == "Add" and len(self.inputs) > 1

    @property
    def is_conversion(self) -> bool:
        """Whether all that it does is to change the number format."""
        return self.op in ("QuantizeLinear", "DequantizeLinear")

    @property
    def keeps_codes(self) -> bool:
        """Whether it only chooses among the values that it reads, so that integers need no new scale."""
        return self.operation.picks

    @property
    def weighted(self) -> bool:
        """Whether it multiplies with a stored weight: a convolution, a linear layer, a matrix product."""
        return self.operation.weighted and "weight" in self.values

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape in which its weight is kept here, output channels first: of a matrix product the transposed
        of what ONNX has.
        """
        weight = self.values.integers("weight")
        return weight[::-1] if self.op == "MatMul" and len(weight) == MATRIX else weight

    @property
    def depthwise(self) -> bool:
        """Whether it is a convolution with one filter per channel."""
        return self.op == "Conv" and self.values.integer("group") == self.inputs[0].shape[1] != 1

    def with_formats(self, weight: str, activation: str) -> "Layer":
        """Return the layer with weights in one format, computing in another."""
        if self.op == "QuantizeLinear":
            return replace(self, attributes=(("to", activation),), weight_format=weight)
        kept = (*WHOLE, *CACHED)  # formats that are not chosen by a layer
        inputs = tuple(x if x.format in kept else TensorType(x.shape, activation) for x in self.inputs)
        return replace(self, inputs=inputs, weight_format=weight)

    def key(self) -> str:
        """Return a readable identity, which never changes.

        >>> map_layer("conv", (8, 16, 16), 24, activation="relu").key()
        'conv 8x16x16>24 k1s1g1 relu w=fp32 a=fp32'
        """
        return self._key

    @cached_property
    def _key(self) -> str:
        short = self._short
        return write_long(self._parts, self.attributes) if short is None else short.text()

    @property
    def _parts(self) -> Parts:
        return Parts(self.op, self.inputs, dict(self.attributes), self.activation, self.weight_format)

    # -- layers on maps, by the fields of their short key ------------------------------------------

    @cached_property
    def _short(self) -> Fields | None:
        fields = short_fields(self._parts, self.values)
        try:
            whole = fields is not None and _layer(fields.parts()) == self
        except TrilobitError:
            whole = False
        return fields if whole else None

    @property
    def fields(self) -> Fields:
        """The fields of its short key.

        Raises:
            TrilobitError: it has none: it is no layer on maps, or its windows are not square and centred.
        """
        if self._short is None:
            raise TrilobitError(f"{self.key()!r} is not a layer on square, centred windows of images")
        return self._short

    @property
    def kind(self) -> str:
        """What profiles call layers of this kind: one of `hw_profiles.graph.key.KINDS`, or its operation."""
        return self.op if self._short is None else self._short.kind

    @property
    def nonlinearity(self) -> str:
        """Name of the activation that it applies, fused or by itself; `none`."""
        return self.activation if self._short is None else self._short.activation

    @property
    def in_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the first tensor that it reads."""
        return self.fields.in_shape

    @property
    def out_channels(self) -> int:
        """Channels, or features, of what it gives."""
        return self.fields.out_channels

    @property
    def out_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of what it gives; (features, 1, 1) of a linear layer."""
        return image_shape(self.outputs[0].shape)

    @property
    def kernel(self) -> int:
        """Height and width of its window; 1 without."""
        return self.fields.kernel

    @property
    def stride(self) -> int:
        """Steps of its window; 1 without."""
        return self.fields.stride

    @property
    def groups(self) -> int:
        """Groups of a convolution."""
        return self.fields.groups

    @property
    def expanded(self) -> int:
        """Channels between the pointwise convolutions of a whole block; 0 of every other layer."""
        return self.fields.expanded

    @property
    def squeeze(self) -> bool:
        """Whether a whole block has squeeze-and-excitation."""
        return self.fields.squeeze

    @property
    def residual(self) -> bool:
        """Whether a whole block adds its input to its output."""
        return self.fields.residual


def computes_in_integers(layer: Layer) -> bool:
    """Return whether a kernel for integers computes a layer, rather than one for real numbers."""
    if layer.weighted or layer.kind == "mbconv":
        return in_integers(layer.weight_format, layer.activation_format)
    return is_integer(layer.activation_format)


@lru_cache(_REMEMBERED)
def _remembered(
    op: str, inputs: tuple[TensorType, ...], stated: Given, activation: str, weight_format: str
) -> Layer:
    return Layer(op, inputs, stated, activation, weight_format)


def map_layer(  # noqa: PLR0913 the fields of a short key
    op: str,
    in_shape: tuple[int, int, int],
    out_channels: int,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    activation: str = "none",
    weight_format: str = FP32,
    activation_format: str = FP32,
    expanded: int = 0,
    squeeze: bool = False,
    residual: bool = False,
) -> Layer:
    """Return the layer on maps that the fields of a short key describe.

    Args:
        op: its kind, one of `hw_profiles.graph.key.KINDS`. `stem` is a convolution that reads the image,
            `pool` global average pooling; `linear` reads a `(channels, 1, 1)` tensor and always gives fp32;
            `add_converted` is an `add` whose shortcut went through a format conversion: engines that fuse
            sums into convolutions cannot fuse that one. `mbconv` is a whole inverted-residual block, the unit
            of published tables that measured blocks; `kernel` and `stride` are those of its depthwise
            convolution. `mul` scales every channel of its first input by what its second has for it, and
            `act` is an activation by itself. `maxpool` takes the largest of each window, padded as a
            convolution; `avgpool` the mean of each window of `stride`, which is also its `kernel`, or of what
            of it is inside the map.
        in_shape: (channels, height, width) of the input; of one of the two equal inputs for a sum, of the
            first for a product.
        out_channels: channels of the output.
        kernel, stride, groups: of a convolution, padded with `kernel // 2` on every side, or of a pooling
            window.
        weight_format: number format of the stored weights; `fp32` where there are none.
        activation_format: number format the unit computes in. For `quantize` the format it produces, for
            `dequantize` the one it reads.
        expanded: channels between the pointwise convolutions of a `mbconv`; 0 for every other kind.
        squeeze: whether a `mbconv` has squeeze-and-excitation.
        residual: whether a `mbconv` adds its input to its output.

    Raises:
        TrilobitError: there is no such layer.
    """
    geometry = (kernel, stride, groups, activation, weight_format, activation_format)
    return layer_of(Fields(op, in_shape, out_channels, *geometry, expanded, squeeze, residual))


@lru_cache(_REMEMBERED)
def layer_of(fields: Fields) -> Layer:
    """Return the layer that the fields of a short key describe.

    Raises:
        TrilobitError: there is none.
    """
    layer = _layer(fields.parts())
    if short_fields(layer._parts, layer.values) != fields:
        raise TrilobitError(f"a {fields.kind} has other fields: {fields.text()}; its key is {layer.key()!r}")
    layer.__dict__["_short"] = fields  # what it would work out again
    return layer


def changed(layer: Layer, **fields: object) -> Layer:
    """Return a layer on maps with some fields of its short key replaced.

    >>> changed(map_layer("conv", (8, 16, 16), 24), kernel=3, weight_format="int8").key()
    'conv 8x16x16>24 k3s1g1 none w=int8 a=fp32'
    """
    return layer_of(layer.fields._replace(**fields))  # type: ignore[arg-type]


def at_size(layer: Layer, height: int, width: int) -> Layer:
    """Return a layer on maps as it is on maps of another size; any other layer as it is."""
    if layer.kind == layer.op:
        return layer
    return changed(layer, in_shape=(layer.in_shape[0], height, width))


@lru_cache(maxsize=2**14)
def parse_key(key: str) -> Layer:
    """Return the layer of a key: the inverse of `Layer.key`.

    Raises:
        TrilobitError: `key` was not written by `Layer.key`.
    """
    fields = read_fields(key)
    parts = None if fields else read_long(key)
    layer = layer_of(fields) if fields else _layer(parts) if parts and parts.op in OPS else None
    if layer is None or layer.key() != key:
        raise TrilobitError(f"not a layer key: {key!r}")
    return layer


def _layer(parts: Parts) -> Layer:
    stated = tuple((name, value) for name, value in parts.attributes.items() if value is not None)
    return Layer(parts.op, parts.inputs, stated, parts.activation, parts.weight_format)


def _count(reads: tuple[int, int]) -> str:
    least, most = reads
    return f"{least} tensor{'s' * (least != 1)}" if least == most else f"{least} or more tensors"
