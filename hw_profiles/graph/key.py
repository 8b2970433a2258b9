"""The text by which profiles know a layer, in two forms.

Layers on maps with square kernels, padded around by what keeps the size, are what profiles held first. Their
key has a few fields: `conv 8x16x16>24 k1s1g1 relu w=fp32 a=fp32`, where `conv` is the layer's kind. All other
layers have a key that says everything by ONNX's names: `Softmax batch,12,64:fp32 none w=fp32 {"axis":1}`.
"""

import json
from collections.abc import Callable, Mapping
from math import prod
from typing import Any, NamedTuple

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.attributes import Attributes, Blob, Given, Value
from hw_profiles.graph.tensor_type import BATCH, FP32, TensorType, parse_type

# activations that are fused by name -> the operation that each is by itself
FUSED: Mapping[str, tuple[str, Mapping[str, Value]]] = {
    "relu": ("Relu", {}),
    "relu6": ("Clip", {"min": 0.0, "max": 6.0}),
    "hswish": ("HardSwish", {}),
    "hsigmoid": ("HardSigmoid", {"alpha": 1 / 6}),
}


class Parts(NamedTuple):
    """What a layer is made from."""

    op: str
    inputs: tuple[TensorType, ...]
    attributes: Mapping[str, Value | None]
    activation: str
    weight_format: str


class Fields(NamedTuple):
    """The fields of a short key; see `hw_profiles.graph.layer.map_layer`."""

    kind: str
    in_shape: tuple[int, int, int]
    out_channels: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    activation: str = "none"
    weight_format: str = FP32
    activation_format: str = FP32
    expanded: int = 0
    squeeze: bool = False
    residual: bool = False

    def text(self) -> str:
        """Return the key."""
        shape = "x".join(map(str, self.in_shape))
        block = f" e{self.expanded}{'+se' * self.squeeze}{'+id' * self.residual}" if self.expanded else ""
        return (
            f"{self.kind} {shape}>{self.out_channels} "
            f"k{self.kernel}s{self.stride}g{self.groups} {self.activation} "
            f"w={self.weight_format} a={self.activation_format}{block}"
        )

    def parts(self) -> Parts:
        """Return the layer that the fields describe.

        Raises:
            TrilobitError: there is no layer of such a kind, or a size is below 1.
        """
        if self.kind not in KINDS:
            raise TrilobitError(f"unknown kind of layer {self.kind!r}; known: {', '.join(KINDS)}")
        if min(*self.in_shape, self.out_channels, self.kernel, self.stride, self.groups) < 1:
            raise TrilobitError(f"sizes must be at least 1: {self.text()}")
        return _PARTS[self.kind](self)


def read_fields(key: str) -> Fields | None:
    """Return the fields of a short key; None where it is none."""
    try:
        kind, shapes, geometry, activation, weight, act, *block = key.split(" ")
        expanded, *extras = block[0][1:].split("+") if block else ("0",)
        in_shape, out_channels = shapes.split(">")
        channels, height, width = map(int, in_shape.split("x"))
        kernel, rest = geometry[1:].split("s")
        stride, groups = rest.split("g")
        fields = Fields(
            kind,
            (channels, height, width),
            int(out_channels),
            int(kernel),
            int(stride),
            int(groups),
            activation,
            weight.removeprefix("w="),
            act.removeprefix("a="),
            int(expanded),
            "se" in extras,
            "id" in extras,
        )
    except ValueError:
        return None
    return fields if fields.text() == key else None


def short_fields(parts: Parts, a: Attributes) -> Fields | None:
    """Return the fields of a layer's short key; None where a short key does not say everything.

    Args:
        a: the attributes with their defaults.
    """
    x = parts.inputs[0] if parts.inputs else None
    if parts.op not in _FIELDS or x is None or len(x.shape) != 4 or x.shape[0] != BATCH:
        return None
    if not all(isinstance(size, int) for size in x.shape[1:]):
        return None
    _, channels, height, width = x.shape
    try:
        fields = _FIELDS[parts.op](parts, a, (int(channels), int(height), int(width)))
    except TrilobitError:  # an attribute that such a layer has is missing
        return None
    return fields


def write_long(parts: Parts, attributes: Given) -> str:
    """Return the key by ONNX's names."""
    words = [parts.op, *map(str, parts.inputs), parts.activation, f"w={parts.weight_format}"]
    if attributes:
        text = json.dumps({name: _to_json(value) for name, value in attributes}, separators=(",", ":"))
        words.append(text.replace(" ", "\\u0020"))
    return " ".join(words)


def read_long(key: str) -> Parts | None:
    """Return what a long key describes; None where it is none."""
    words = key.split(" ")
    try:
        values = json.loads(words.pop()) if words[-1].startswith("{") else {}
        op, *inputs, activation, weight = words
        attributes = {name: _from_json(value) for name, value in values.items()}
        return Parts(op, tuple(map(parse_type, inputs)), attributes, activation, weight.removeprefix("w="))
    except (ValueError, AttributeError, KeyError, TypeError):
        return None


def _to_json(value: Value) -> object:
    if isinstance(value, Blob):
        return {"sha256": value.sha256}
    if isinstance(value, tuple):
        return [str(item) if isinstance(item, TensorType) else item for item in value]
    return value


def _from_json(value: Any) -> Value:
    if isinstance(value, dict):
        return Blob(str(value["sha256"]))
    if isinstance(value, list):
        types = [item for item in value if isinstance(item, str) and ":" in item]
        return tuple(map(parse_type, types)) if types else tuple(value)
    if not isinstance(value, int | float | str):
        raise TypeError(f"no attribute: {value!r}")
    return value


# -- from fields to layers: by kind ------------------------------------------------------------------


def _input(fields: Fields) -> TensorType:
    return TensorType((BATCH, *fields.in_shape), fields.activation_format)


def _make(fields: Fields, op: str, *inputs: TensorType, **attributes: Value | None) -> Parts:
    return Parts(op, inputs or (_input(fields),), attributes, fields.activation, fields.weight_format)


def _conv(fields: Fields) -> Parts:
    channels, kernel, edge = fields.in_shape[0], fields.kernel, fields.kernel // 2
    if channels % fields.groups:
        raise TrilobitError(f"{channels} channels cannot be in {fields.groups} groups: {fields.text()}")
    weight = (fields.out_channels, channels // fields.groups, kernel, kernel)
    sizes: dict[str, Value] = {"weight": weight, "strides": (fields.stride,) * 2, "pads": (edge,) * 4}
    return _make(fields, "Conv", **sizes, group=fields.groups, image=int(fields.kind == "stem"))


def _linear(fields: Fields) -> Parts:
    return _make(fields, "Gemm", weight=(fields.out_channels, prod(fields.in_shape)))


def _sum(fields: Fields) -> Parts:
    x, converted = _input(fields), int(fields.kind == "add_converted")
    return _make(fields, "Add", x, x, converted=converted)


def _product(fields: Fields) -> Parts:
    x = _input(fields)
    scale = TensorType((BATCH, fields.in_shape[0], 1, 1), x.format)
    return _make(fields, "Mul", x, scale)


def _curve(fields: Fields) -> Parts:
    if fields.activation not in FUSED:
        raise TrilobitError(f"an activation must be one of {', '.join(FUSED)}: {fields.text()}")
    op, attributes = FUSED[fields.activation]
    return _make(fields._replace(activation="none"), op, **attributes)


def _max_pool(fields: Fields) -> Parts:
    pads, strides = (fields.kernel // 2,) * 4, (fields.stride,) * 2
    return _make(fields, "MaxPool", kernel_shape=(fields.kernel,) * 2, strides=strides, pads=pads)


def _average_pool(fields: Fields) -> Parts:
    strides, kernel = (fields.stride,) * 2, (fields.kernel,) * 2
    return _make(fields, "AveragePool", kernel_shape=kernel, strides=strides, ceil_mode=1)


def _quantize(fields: Fields) -> Parts:
    x = TensorType((BATCH, *fields.in_shape))
    return _make(fields, "QuantizeLinear", x, to=fields.activation_format)


def _block(fields: Fields) -> Parts:
    return _make(
        fields,
        "InvertedResidual",
        channels=fields.out_channels,
        kernel=fields.kernel,
        stride=fields.stride,
        expanded=fields.expanded,
        squeeze=int(fields.squeeze),
        residual=int(fields.residual),
    )


_PARTS: Mapping[str, Callable[[Fields], Parts]] = {
    "stem": _conv,
    "conv": _conv,
    "linear": _linear,
    "add": _sum,
    "add_converted": _sum,
    "pool": lambda fields: _make(fields, "GlobalAveragePool"),
    "quantize": _quantize,
    "dequantize": lambda fields: _make(fields, "DequantizeLinear"),
    "mbconv": _block,
    "mul": _product,
    "act": _curve,
    "maxpool": _max_pool,
    "avgpool": _average_pool,
}
KINDS = tuple(_PARTS)

# -- from layers to fields: by operation -------------------------------------------------------------

_Shape = tuple[int, int, int]


def _fields(parts: Parts, shape: _Shape, kind: str, out_channels: int | None = None, **more: Any) -> Fields:
    return Fields(
        kind,
        shape,
        shape[0] if out_channels is None else out_channels,
        activation=parts.activation,
        weight_format=parts.weight_format,
        activation_format=parts.inputs[0].format,
        **more,
    )


def _conv_fields(parts: Parts, a: Attributes, shape: _Shape) -> Fields:
    weight, (stride, _) = a.integers("weight"), a.integers("strides", 2)
    kind = "stem" if a.integer("image") else "conv"
    group = a.integer("group")
    return _fields(parts, shape, kind, weight[0], kernel=weight[-1], stride=stride, groups=group)


def _curve_fields(parts: Parts, a: Attributes, shape: _Shape) -> Fields:
    name = next(name for name, (op, _) in FUSED.items() if op == parts.op)
    return _fields(parts, shape, "act")._replace(activation=name)


def _pool_fields(parts: Parts, a: Attributes, shape: _Shape) -> Fields:
    kind, kernel = ("maxpool" if parts.op == "MaxPool" else "avgpool"), a.integers("kernel_shape")[0]
    return _fields(parts, shape, kind, kernel=kernel, stride=a.integers("strides", 2)[0])


def _quantize_fields(parts: Parts, a: Attributes, shape: _Shape) -> Fields:
    return _fields(parts, shape, "quantize")._replace(activation_format=a.text("to"))


def _block_fields(parts: Parts, a: Attributes, shape: _Shape) -> Fields:
    sizes = {name: a.integer(name) for name in ("kernel", "stride", "expanded")}
    fields = _fields(parts, shape, "mbconv", a.integer("channels"), **sizes)
    return fields._replace(squeeze=bool(a.integer("squeeze")), residual=bool(a.integer("residual")))


_FIELDS: Mapping[str, Callable[[Parts, Attributes, _Shape], Fields]] = {
    "Conv": _conv_fields,
    "Gemm": lambda parts, a, shape: _fields(parts, shape, "linear", a.integers("weight")[0]),
    "Add": lambda parts, a, shape: _fields(
        parts, shape, "add_converted" if a.integer("converted") else "add"
    ),
    "GlobalAveragePool": lambda parts, a, shape: _fields(parts, shape, "pool"),
    "QuantizeLinear": _quantize_fields,
    "DequantizeLinear": lambda parts, a, shape: _fields(parts, shape, "dequantize"),
    "InvertedResidual": _block_fields,
    "Mul": lambda parts, a, shape: _fields(parts, shape, "mul"),
    "MaxPool": _pool_fields,
    "AveragePool": _pool_fields,
    **{op: _curve_fields for op, _ in FUSED.values()},
}
