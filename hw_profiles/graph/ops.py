"""The operation table: everything that a layer can be, by ONNX's names and with ONNX's attributes.

Constants are not tensors of the graph: the shape of a layer's one weight, as ONNX stores it, is its attribute
`weight`, and `bias` says whether it has one. What an operation costs and gives follows from the types of what
it reads. Whoever interprets operations keeps a dict from name to function, see `hw_profiles.graph.consumer`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hw_profiles.errors import TrilobitError, did_you_mean
from hw_profiles.graph import shape_rules, ties
from hw_profiles.graph.attributes import Attributes, Given, Value
from hw_profiles.graph.formats import FP32
from hw_profiles.graph.inverted_residual import Part, block_parts
from hw_profiles.graph.shape_rules import Rule, Types
from hw_profiles.graph.tensor_type import Dim, plus, times
from hw_profiles.graph.ties import Ties

Count = Callable[[Types, Types, Attributes], Dim]  # (inputs, outputs, attributes) -> how many


def _no_macs(inputs: Types, outputs: Types, a: Attributes) -> Dim:
    return 0


def _weights(inputs: Types, a: Attributes) -> int:
    """Return the stored weights and biases of an operation with one weight at most."""
    if "weight" not in a:
        return 0
    weight, bias = a.integers("weight"), "bias" in a and a.integer("bias")
    return int(times(weight)) + (weight[0] if bias else 0)


@dataclass(frozen=True)
class Op:
    """One operation.

    Attributes:
        name: ONNX's; `InvertedResidual` and `Opaque` are ours.
        rule: types of what it gives.
        attributes: allowed ones with their defaults; None where there is none. Of a list a single number
            stands for as many as are needed.
        reads: least and most tensors that it reads.
        macs: multiply-adds of products with weights or of two matrices; symbolic where dimensions are.
        parameters: stored weights and biases, batch norm folded.
        ties: dimensions that lose channels together.
        weighted: whether it multiplies with a stored weight, in a number format of its own.
        fusible: whether engines compute it on the way out of the operation before it.
        picks: whether it only chooses among values or moves them, so that integers need no new scale.
    """

    name: str
    rule: Rule
    attributes: Mapping[str, Value | None] = field(default_factory=dict)
    reads: tuple[int, int] = (1, 1)
    macs: Count = _no_macs
    parameters: Callable[[Types, Attributes], int] = _weights
    ties: Ties = ties.same
    weighted: bool = False
    fusible: bool = False
    picks: bool = False

    def given(self, attributes: Mapping[str, Value | None]) -> Given:
        """Return attributes in the one form that equal layers share: by name, without what is a default.

        Raises:
            TrilobitError: the operation has no such attribute.
        """
        if not attributes.keys() <= self.attributes.keys():
            name = next(name for name in attributes if name not in self.attributes)
            raise TrilobitError(f"{self.name} has no attribute {name!r}; {_listed(self.attributes)}")
        return tuple(
            (name, value)
            for name, value in sorted(attributes.items())
            if value is not None and not _is_default(value, self.attributes[name])
        )

    def all_attributes(self, stated: Given) -> Attributes:
        """Return the attributes with their defaults."""
        return Attributes({**self.attributes, **dict(stated)})


def _is_default(value: Value, default: Value | None) -> bool:
    if default is None:
        return False
    return value == default or (type(value) is tuple and type(default) is tuple and {*value} == {*default})


def _listed(attributes: Mapping[str, object]) -> str:
    return f"allowed: {', '.join(attributes)}" if attributes else "it has none"


def _conv_macs(inputs: Types, outputs: Types, a: Attributes) -> Dim:
    return times((*outputs[0].shape, *a.integers("weight")[1:]))


def _gemm_macs(inputs: Types, outputs: Types, a: Attributes) -> Dim:
    return times((inputs[0].shape[0], *a.integers("weight")))


def _matmul_macs(inputs: Types, outputs: Types, a: Attributes) -> Dim:
    return times((*outputs[0].shape, inputs[0].shape[-1]))


def _matmul_parameters(inputs: Types, a: Attributes) -> int:
    if "weight" not in a:
        return 0
    weight = a.integers("weight")
    return int(times(weight)) + (weight[-1] if a.integer("bias") else 0)


def _norm_parameters(inputs: Types, a: Attributes) -> int:
    return int(times(a.integers("weight"))) * (1 + a.integer("bias"))


def _attention_macs(inputs: Types, outputs: Types, a: Attributes) -> Dim:
    """Return those of scores and of mixing values; what a causal mask leaves out is counted too."""
    read = shape_rules.attended(inputs, a)
    positions = (read.batch, read.heads, read.queries, read.keys)
    return plus(times((*positions, read.depth)), times((*positions, read.value_depth)))


def _parts(a: Attributes, channels: int) -> Mapping[str, Part]:
    """Return the convolutions of a block that reads so many channels; activations do not matter."""
    names = ("channels", "kernel", "stride", "expanded")
    gives, kernel, stride, expanded = map(a.integer, names)
    return block_parts(channels, gives, kernel, stride, expanded, bool(a.integer("squeeze")), "none")


def _block_parameters(inputs: Types, a: Attributes) -> int:
    parts = _parts(a, int(inputs[0].shape[1])).values()
    return sum(part.gives * (part.kernel**2 * part.reads // part.groups + 1) for part in parts)


def _block_macs(inputs: Types, outputs: Types, a: Attributes) -> Dim:
    in_shape, out_shape = inputs[0].shape, outputs[0].shape
    channels = in_shape[1]
    maps = {"input": in_shape[2:], "output": out_shape[2:], "pooled": ()}
    total = 0
    for part in _parts(a, int(channels)).values():
        where = out_shape[2:] if part.stride > 1 else maps[part.on]
        total += int(times((part.gives, part.kernel**2, part.reads // part.groups, *where)))
    return times((in_shape[0], total))


_WINDOW: Mapping[str, Value | None] = {
    "kernel_shape": None,
    "strides": (1,),
    "pads": (0,),
    "dilations": (1,),
    "ceil_mode": 0,
}
_OPERAND: Mapping[str, Value | None] = {"weight": None}
# the format of what an integer layer gives, where that is not the one that it computes in
_TO: Mapping[str, Value | None] = {"to": None}
# which of what is read (1) and given (2) has its channels last in memory, as convolutions have it: only
# layers of integer-only networks say so, which are about memory
_MAPS: Mapping[str, Value | None] = {"maps": 0}

_TABLE = (
    Op(
        "Conv",
        shape_rules.told(shape_rules.conv),
        {
            **_TO,
            "weight": None,
            "bias": 1,
            "strides": (1,),
            "pads": (0,),
            "dilations": (1,),
            "group": 1,
            "image": 0,  # whether it reads the image: profiles know that one by itself
        },
        macs=_conv_macs,
        ties=ties.conv,
        weighted=True,
    ),
    Op(
        "Gemm",
        shape_rules.told(shape_rules.gemm),
        {"weight": None, "bias": 1, "to": "fp32"},
        macs=_gemm_macs,
        ties=ties.gemm,
        weighted=True,
    ),
    Op(
        "MatMul",
        shape_rules.told(shape_rules.matmul),
        {"weight": None, "bias": 0, **_TO},
        reads=(1, 2),
        macs=_matmul_macs,
        parameters=_matmul_parameters,
        ties=ties.matmul,
        weighted=True,
    ),
    Op(
        "Add",
        shape_rules.told(shape_rules.elementwise),
        {
            **_OPERAND,
            **_TO,
            **_MAPS,
            "converted": 0,
        },  # whether a format conversion stands before the second operand
        reads=(1, 2),
        ties=ties.broadcast,
    ),
    Op("Sub", shape_rules.elementwise, _OPERAND, reads=(1, 2), ties=ties.broadcast),
    Op("Mul", shape_rules.elementwise, _OPERAND, reads=(1, 2), ties=ties.broadcast),
    Op("Div", shape_rules.elementwise, _OPERAND, reads=(1, 2), ties=ties.broadcast),
    Op("Concat", shape_rules.concat, {"axis": None}, reads=(1, 1000), ties=ties.but_axis),
    Op("Split", shape_rules.split, {"axis": 0, "split": None}, ties=ties.but_axis, picks=True),
    Op("Reshape", shape_rules.reshape, {"shape": None, **_MAPS}, ties=ties.reshape, picks=True),
    Op("Transpose", shape_rules.transpose, {"perm": None, **_MAPS}, ties=ties.transpose, picks=True),
    Op("Flatten", shape_rules.flatten, {"axis": 1, **_MAPS}, ties=ties.reshape, picks=True),
    Op(
        "Slice",
        shape_rules.slice_,
        {"starts": None, "ends": None, "axes": None, "steps": (1,)},
        ties=ties.but_sliced,
        picks=True,
    ),
    Op("Expand", shape_rules.expand, {"shape": None}, ties=ties.expand, picks=True),
    # rows of a stored table by ids that are read, or stored places along an axis of what is read
    Op(
        "Gather",
        shape_rules.told(shape_rules.gather),
        {"weight": None, "axis": 0, "indices": None, **_TO},
        ties=ties.gather,
        weighted=True,
    ),
    Op("Less", shape_rules.less, {"value": None}),  # which whole numbers are below a stored one
    Op("Where", shape_rules.where, {"value": None}, reads=(2, 3), ties=ties.where),
    # a second operand is a mask, which only integer-only networks have: what it hides has no share
    Op("Softmax", shape_rules.softmax, {"axis": -1}, reads=(1, 2)),
    # turns pairs of numbers by angles of their position (Su et al. 2021, arXiv:2104.09864): one that is read,
    # or counted from `start` on; `length` positions can be told apart
    Op(
        "RotaryEmbedding",
        shape_rules.rotary,
        {
            "num_heads": 0,
            "rotary_embedding_dim": 0,
            "interleaved": 0,
            "theta": 1e4,
            "length": 2048,
            "start": (0,),
        },
        reads=(1, 2),
        ties=ties.rotary,
    ),
    # reads queries, keys, values (batch, sequence, width) or by heads, then a mask, then past keys and values
    # (batch, heads, past, depth) where it has them; with these, or with `present`, it gives them grown, too.
    # Keys and values are read as a cache in the format `cache` holds them, those of the present among them
    Op(
        "Attention",
        shape_rules.attention,
        {"q_num_heads": 0, "kv_num_heads": 0, "is_causal": 0, "scale": None, "present": 0, "cache": FP32},
        reads=(3, 6),
        macs=_attention_macs,
        ties=ties.attention,
    ),
    Op(
        "LayerNormalization",
        shape_rules.told(shape_rules.layer_norm),
        {"axis": -1, "epsilon": 1e-5, "weight": None, "bias": 1, **_TO},
        parameters=_norm_parameters,
        ties=ties.layer_norm,
    ),
    Op(
        "RMSNormalization",
        shape_rules.layer_norm,
        {"axis": -1, "epsilon": 1e-5, "weight": None},
        ties=ties.layer_norm,
    ),
    Op("Gelu", shape_rules.unchanged, {"approximate": "none"}),
    Op("Swish", shape_rules.unchanged, {"alpha": 1.0}),
    Op("Relu", shape_rules.unchanged, fusible=True),
    Op("Clip", shape_rules.unchanged, {"min": None, "max": None}, fusible=True),
    Op("HardSwish", shape_rules.unchanged, fusible=True),
    Op("HardSigmoid", shape_rules.unchanged, {"alpha": 0.2, "beta": 0.5}, fusible=True),
    Op("Sigmoid", shape_rules.unchanged),
    Op("Tanh", shape_rules.unchanged),
    Op("MaxPool", shape_rules.pool, _WINDOW, ties=ties.channels, picks=True),
    Op("AveragePool", shape_rules.pool, {**_WINDOW, "count_include_pad": 0}, ties=ties.channels),
    Op("GlobalAveragePool", shape_rules.global_pool, ties=ties.channels),
    Op("QuantizeLinear", shape_rules.quantize, {"to": None}),
    Op("DequantizeLinear", shape_rules.dequantize),
    Op(
        "InvertedResidual",
        shape_rules.inverted_residual,
        {"channels": None, "kernel": 1, "stride": 1, "expanded": 0, "squeeze": 0, "residual": 0},
        macs=_block_macs,
        parameters=_block_parameters,
        ties=ties.block,
    ),
    Op("Opaque", shape_rules.opaque, {"model": None, "outputs": None}, reads=(0, 1000), ties=ties.nothing),
)
OPS: Mapping[str, Op] = {op.name: op for op in _TABLE}
SUMS: Mapping[int, str] = {1: "Identity", 2: "Add"}  # what a `Sum` of so many tensors is


def operation(name: str) -> Op:
    """Return the operation called `name`.

    Raises:
        TrilobitError: there is none.
    """
    if name not in OPS:
        raise TrilobitError(f"unknown operation {name!r}; known: {', '.join(OPS)}{did_you_mean(name, OPS)}")
    return OPS[name]
