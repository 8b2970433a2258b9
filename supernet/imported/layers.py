"""What a unit is in the operation table: a dict from ONNX's operations to layers; `Opaque` for all others."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.attributes import Blob
from hw_profiles.graph.formats import WHOLE
from hw_profiles.graph.layer import FP32, Layer
from hw_profiles.graph.rotary import Rotation, tables
from hw_profiles.graph.tensor_type import BATCH, Dim, TensorType, bound
from supernet.imported.units import Group, is_stored

ONE = {BATCH: 1}
Shapes = tuple[tuple[Dim, ...], ...]  # of what a unit gives


@dataclass(frozen=True)
class Site:
    """A unit where it stands.

    Attributes:
        group: its nodes.
        types: of the computed tensors that it reads, in the order of `reads`.
        reads: their names.
        gives: types of its outputs at the bound sizes.
    """

    group: Group
    reads: tuple[str, ...]
    types: tuple[TensorType, ...]
    gives: tuple[TensorType, ...]

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Sizes of what it gives."""
        return tuple(tuple(int(size) for size in x.shape) for x in self.gives)

    @property
    def formats(self) -> tuple[str, ...]:
        """Number formats of what it gives."""
        return tuple(x.format for x in self.gives)

    @property
    def node(self) -> ir.Node:
        """The operation that it is called after."""
        return self.group.nodes[0]

    @property
    def rank(self) -> int:
        """Dimensions of what it reads first."""
        return len(self.types[0].shape)

    @property
    def weight(self) -> tuple[int, ...]:
        """Shape of what it multiplies with.

        Raises:
            TrilobitError: nothing is stored.
        """
        if self.group.weight is None:
            raise TrilobitError(f"{self.node.op_type} has no stored operand")
        return stored(self.group.weight).shape

    def type_of(self, value: ir.Value | None) -> TensorType:
        """Return the type of a computed tensor.

        Raises:
            TrilobitError: it is stored, or none.
        """
        name = "" if value is None else str(value.name)
        if name not in self.reads:
            raise TrilobitError(f"{self.node.op_type} reads {name or 'nothing'} in this place")
        return self.types[self.reads.index(name)]

    def integers(self, name: str, default: Sequence[int] = ()) -> tuple[int, ...]:
        """Return an attribute that is a list of whole numbers."""
        return tuple(self.node.attributes.get_ints(name, default))

    def constant(self, index: int) -> np.ndarray:
        """Return a stored operand.

        Raises:
            TrilobitError: it is computed, or none.
        """
        value = self.node.inputs[index] if index < len(self.node.inputs) else None
        if value is None or not is_stored(value):
            raise TrilobitError(f"operand {index} of {self.node.op_type} is not stored")
        return stored(value)


def number_format(dtype: str) -> str:
    """Return the format of tensors of an element type: all real numbers are fp32, whatever the file has."""
    return dtype if dtype in WHOLE else FP32


def stored(value: ir.Value) -> np.ndarray:
    """Return the numbers of a stored tensor.

    Raises:
        TrilobitError: it is computed.
    """
    if value.const_value is None:
        raise TrilobitError(f"{value.name} is computed, not stored")
    return value.const_value.numpy()


def layer_of_unit(site: Site) -> Layer:
    """Return the unit as a layer of the operation table, all in fp32."""
    maker = LAYERS.get(site.node.op_type) if site.node.domain == "" else None
    if maker is not None:
        for shapes in _with_batch(site.shapes):
            try:
                layer = maker(site, shapes)
            except (TrilobitError, KeyError, IndexError, ValueError, TypeError):  # none the table knows
                continue
            reads = site.types[: len(layer.inputs)]
            if layer.inputs == reads and tuple(map(_bound, layer.outputs)) == site.gives:
                return layer
    return _opaque(site)


def _with_batch(shapes: Shapes) -> tuple[Shapes, Shapes]:
    """Return shapes with a batch first where that may be one, and as they are."""
    batched: Shapes = tuple((BATCH, *shape[1:]) if shape[:1] == (1,) else shape for shape in shapes)
    return batched, shapes


def _bound(x: TensorType) -> TensorType:
    return TensorType(tuple(bound(dim, ONE) for dim in x.shape), x.format)


def _opaque(site: Site) -> Layer:
    """Return what is kept as it is, known by what it computes, whatever it is called."""
    digest = hashlib.sha256()
    for node in site.group.nodes:
        proto = ir.to_proto(node)
        proto.ClearField("name")
        del proto.input[:], proto.output[:]
        digest.update(proto.SerializeToString(deterministic=True))
        for value in node.inputs:
            if value is not None and is_stored(value):
                digest.update(np.ascontiguousarray(stored(value)).tobytes())
    follows = any(x.shape[:1] == (BATCH,) for x in site.types)
    shapes = _with_batch(site.shapes)[0 if follows else 1]
    outputs = tuple(map(TensorType, shapes, site.formats))
    return Layer.of("Opaque", *site.types, model=Blob(digest.hexdigest()), outputs=outputs)


Maker = Callable[[Site, Shapes], Layer]
CURVES: Mapping[tuple[float, float], str] = {(0.0, 6.0): "relu6", (0.0, np.inf): "relu"}


def _activation(site: Site) -> str:
    """Return the activation that is fused; `none` where layers cannot name it: other bounds than 0 and 6."""
    curve = site.group.curve
    if curve is None:
        return "none"
    return "relu" if curve.op_type == "Relu" else CURVES.get(clip_bounds(curve), "none")


def clip_bounds(node: ir.Node) -> tuple[float, float]:
    """Return the stored bounds of a Clip; infinite where there are none."""
    bounds = [-np.inf, np.inf]
    for position, value in enumerate(node.inputs[1:3]):
        if value is not None:
            bounds[position] = float(stored(value).reshape(()))
    return bounds[0], bounds[1]


def _pads(site: Site, kernel: Sequence[int]) -> tuple[int, ...]:
    """Return what is added before each dimension, then behind each."""
    mode = site.node.attributes.get_string("auto_pad", "NOTSET")
    rank = len(kernel)
    if mode in ("NOTSET", "VALID"):
        return site.integers("pads", (0,) * 2 * rank) if mode == "NOTSET" else (0,) * 2 * rank
    strides, dilations = site.integers("strides", (1,) * rank), site.integers("dilations", (1,) * rank)
    totals = [
        max((steps - 1) * stride + dilation * (k - 1) + 1 - int(size), 0)
        for steps, stride, dilation, k, size in zip(
            site.shapes[0][2:], strides, dilations, kernel, site.types[0].shape[2:], strict=True
        )
    ]
    small = [total // 2 for total in totals]
    large = [total - half for total, half in zip(totals, small, strict=True)]
    return tuple(small + large if mode == "SAME_UPPER" else large + small)


def _conv(site: Site, shapes: Shapes) -> Layer:
    weight = site.weight
    rank = len(weight) - 2
    return Layer.of(
        "Conv",
        *site.types,
        activation=_activation(site),
        weight=weight,
        bias=int(site.group.bias is not None),
        strides=site.integers("strides", (1,) * rank),
        pads=_pads(site, weight[2:]),
        dilations=site.integers("dilations", (1,) * rank),
        group=site.node.attributes.get_int("group", 1),
    )


def _gemm(site: Site, shapes: Shapes) -> Layer:
    numbers = [site.node.attributes.get_float(name, 1.0) for name in ("alpha", "beta")]
    if numbers != [1.0, 1.0] or site.node.attributes.get_int("transA", 0) == 1:
        raise TrilobitError("a linear layer neither scales nor transposes")
    transposed = site.node.attributes.get_int("transB", 0) == 1
    weight = site.weight if transposed else site.weight[::-1]
    bias = int(site.group.bias is not None)
    return Layer.of("Gemm", *site.types, activation=_activation(site), weight=weight, bias=bias)


def _matmul(site: Site, shapes: Shapes) -> Layer:
    curve = _activation(site)
    if site.group.weight is None:
        operands = [site.type_of(value) for value in site.node.inputs]
        return Layer.of("MatMul", *operands, activation=curve)
    bias = int(site.group.bias is not None)
    return Layer.of("MatMul", *site.types, activation=curve, weight=site.weight, bias=bias)


def _elementwise(site: Site, shapes: Shapes) -> Layer:
    left, right = site.node.inputs
    op, curve = site.node.op_type, _activation(site)
    if is_stored(left) and op in ("Add", "Mul"):
        left, right = right, left
    if is_stored(right):
        return Layer.of(op, site.type_of(left), activation=curve, weight=stored(right).shape)  # type: ignore[arg-type]
    return Layer.of(op, site.type_of(left), site.type_of(right), activation=curve)


def _concat(site: Site, shapes: Shapes) -> Layer:
    operands = [site.type_of(value) for value in site.node.inputs]
    return Layer.of("Concat", *operands, axis=site.node.attributes.get_int("axis", 0))


def _split(site: Site, shapes: Shapes) -> Layer:
    axis = site.node.attributes.get_int("axis", 0)
    return Layer.of("Split", *site.types, axis=axis, split=tuple(shape[axis] for shape in shapes))


def _reshape(site: Site, shapes: Shapes) -> Layer:
    return Layer.of("Reshape", site.type_of(site.node.inputs[0]), shape=shapes[0])


def _transpose(site: Site, shapes: Shapes) -> Layer:
    perm = site.integers("perm", tuple(reversed(range(site.rank))))
    return Layer.of("Transpose", *site.types, perm=perm)


def _along(default: int) -> Maker:
    def make(site: Site, shapes: Shapes) -> Layer:
        axis = site.node.attributes.get_int("axis", default)
        return Layer.of(site.node.op_type, *site.types, axis=axis)

    return make


def _layer_norm(site: Site, shapes: Shapes) -> Layer:
    return Layer.of(
        "LayerNormalization",
        *site.types,
        axis=site.node.attributes.get_int("axis", -1),
        epsilon=site.node.attributes.get_float("epsilon", 1e-5),
        weight=site.constant(1).shape,
        bias=int(len(site.node.inputs) > 2),
    )


def _pool(site: Site, shapes: Shapes) -> Layer:
    kernel = site.integers("kernel_shape")
    rank = len(kernel)
    counted: dict[str, Any] = {"count_include_pad": site.node.attributes.get_int("count_include_pad", 0)}
    return Layer.of(
        site.node.op_type,
        *site.types,
        kernel_shape=kernel,
        strides=site.integers("strides", (1,) * rank),
        pads=_pads(site, kernel),
        dilations=site.integers("dilations", (1,) * rank),
        ceil_mode=site.node.attributes.get_int("ceil_mode", 0),
        **(counted if site.node.op_type == "AveragePool" else {}),
    )


def _plain(site: Site, shapes: Shapes) -> Layer:
    return Layer.of(site.node.op_type, *site.types)


def _clip(site: Site, shapes: Shapes) -> Layer:
    low, high = clip_bounds(site.node)
    bounds: dict[str, Any] = {
        "min": low if np.isfinite(low) else None,
        "max": high if np.isfinite(high) else None,
    }
    return Layer.of("Clip", *site.types, **bounds)


def _hard_sigmoid(site: Site, shapes: Shapes) -> Layer:
    numbers = site.node.attributes
    alpha, beta = numbers.get_float("alpha", 0.2), numbers.get_float("beta", 0.5)
    return Layer.of("HardSigmoid", *site.types, alpha=alpha, beta=beta)


def _gelu(site: Site, shapes: Shapes) -> Layer:
    approximate = site.node.attributes.get_string("approximate", "none")
    return Layer.of("Gelu", *site.types, approximate=approximate)


def _rms_norm(site: Site, shapes: Shapes) -> Layer:
    a = site.node.attributes
    axis, epsilon = a.get_int("axis", -1), _decimal(a.get_float("epsilon", 1e-5))
    weight = site.constant(1).shape
    return Layer.of("RMSNormalization", *site.types, axis=axis, epsilon=epsilon, weight=weight)


def _decimal(number: float) -> float:
    """Return a number of 32 bits as it was written: 1e-6, not 9.99999997e-07."""
    return float(str(np.float32(number)))


def _swish(site: Site, shapes: Shapes) -> Layer:
    return Layer.of("Swish", *site.types, alpha=_decimal(site.node.attributes.get_float("alpha", 1.0)))


def _gather(site: Site, shapes: Shapes) -> Layer:
    data, axis = site.node.inputs[0], site.node.attributes.get_int("axis", 0)
    if is_stored(data):
        if axis:
            raise TrilobitError("ids choose rows of a table")
        return Layer.of("Gather", *site.types, weight=site.constant(0).shape)
    indices = site.constant(1)
    if indices.ndim > 1:
        raise TrilobitError("stored places are a number or a list")
    chosen = tuple(map(int, indices)) if indices.ndim else int(indices)
    return Layer.of("Gather", *site.types, axis=axis, indices=chosen)


def _slice(site: Site, shapes: Shapes) -> Layer:
    starts, ends, axes, steps = (
        tuple(map(int, site.constant(i))) if i < len(site.node.inputs) and site.node.inputs[i] else None
        for i in range(1, 5)
    )
    axes = axes or tuple(range(len(starts or ())))
    return Layer.of("Slice", *site.types, starts=starts, ends=ends, axes=axes, steps=steps)


def _expand(site: Site, shapes: Shapes) -> Layer:
    return Layer.of("Expand", *site.types, shape=shapes[0])


def _where(site: Site, shapes: Shapes) -> Layer:
    condition, first, second = site.node.inputs
    operands = [site.type_of(condition), site.type_of(first)]
    if not is_stored(second):
        return Layer.of("Where", *operands, site.type_of(second))
    value = site.constant(2)
    if value.size != 1 or value.ndim > len(shapes[0]):
        raise TrilobitError("what is put in place of values is one number")
    return Layer.of("Where", *operands, value=float(value.reshape(())))


def _rotary(site: Site, shapes: Shapes) -> Layer:
    """Return turned pairs whose stored angles are those of a base; any others are kept as they are."""
    a, cosines, sines = site.node.attributes, site.constant(1), site.constant(2)
    if len(site.types) != 2 or cosines.ndim != 2 or len(cosines) < 2:
        raise TrilobitError("positions choose among stored angles")
    length, pairs = cosines.shape
    second = math.atan2(float(sines[1, -1]), float(cosines[1, -1]))  # of the slowest pair at position 1
    theta = float(f"{second ** (-pairs / (pairs - 1)):.5g}") if pairs > 1 else 1e4
    expected = tables(Rotation(theta, 2 * pairs, length))
    if not all(np.allclose(*pair, atol=1e-4) for pair in zip((cosines, sines), expected, strict=True)):
        raise TrilobitError("stored angles are not those of a base")
    return Layer.of(
        "RotaryEmbedding",
        *site.types,
        num_heads=a.get_int("num_heads", 0),
        rotary_embedding_dim=a.get_int("rotary_embedding_dim", 0),
        interleaved=a.get_int("interleaved", 0),
        theta=theta,
        length=length,
    )


def _attention(site: Site, shapes: Shapes) -> Layer:
    a = site.node.attributes
    read = [value is not None for value in site.node.inputs]
    others = [
        a.get_float("softcap", 0.0),
        *(a.get_int(f"{side}_window_size", -1) + 1 for side in ("left", "right")),
    ]
    if (
        any(others)
        or any(read[6:])
        or len(site.node.outputs) > 3
        or read[4:6] not in ([], [True] * 2, [False] * 2)
    ):
        raise TrilobitError("an attention of windows, or capped scores, is kept as it is")
    return Layer.of(
        "Attention",
        *site.types,
        q_num_heads=a.get_int("q_num_heads", 0),
        kv_num_heads=a.get_int("kv_num_heads", 0),
        is_causal=a.get_int("is_causal", 0),
        scale=_decimal(a.get_float("scale")) if "scale" in a else None,
        present=int(len(shapes) > 1 and not any(read[4:6])),
    )


LAYERS: Mapping[str, Maker] = {
    "RMSNormalization": _rms_norm,
    "Swish": _swish,
    "Gather": _gather,
    "Slice": _slice,
    "Expand": _expand,
    "Where": _where,
    "RotaryEmbedding": _rotary,
    "Attention": _attention,
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _elementwise),
    "Concat": _concat,
    "Split": _split,
    **dict.fromkeys(("Reshape", "Squeeze", "Unsqueeze"), _reshape),
    "Transpose": _transpose,
    "Flatten": _along(1),
    "Softmax": _along(-1),
    "LayerNormalization": _layer_norm,
    "Gelu": _gelu,
    "Clip": _clip,
    "HardSigmoid": _hard_sigmoid,
    **dict.fromkeys(("MaxPool", "AveragePool"), _pool),
    **dict.fromkeys(("Relu", "HardSwish", "Sigmoid", "Tanh", "GlobalAveragePool"), _plain),
}
