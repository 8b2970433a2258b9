"""Operations of transformers as ONNX nodes: the standard's own, which ONNX Runtime runs as one kernel each,
or spelled out in older ones where files are to be portable; see docs/decisions.md for what was tried.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.formats import FP32, WHOLE
from hw_profiles.graph.rotary import Rotation, rotation_of, tables
from hw_profiles.graph.shape_rules import Attended, attended, heads_of, places
from hw_profiles.graph.tensor_type import Dim
from nas.emit.cached_attention import attended_as_kept, grown_names
from nas.emit.emission import Emission, Emit

# the opset that has an operation, where the oldest that is written does not
SINCE: Mapping[str, int] = dict.fromkeys(("RMSNormalization", "RotaryEmbedding", "Attention"), 23)
_LARGEST = np.iinfo(np.int64).max


def _rms_norm(e: Emission) -> list[str]:
    a, (x,) = e.layer.values, e.inputs
    if not e.portable:
        return e.node("RMSNormalization", axis=a.integer("axis"), epsilon=a.number("epsilon"))
    # in this order ONNX Runtime makes one kernel of it: with a product in place of Pow it does not
    rank = len(e.layer.inputs[0].shape)
    axes = e.number("axes", *range(a.integer("axis") % rank - rank, 0))
    two, epsilon = (_real(e, name, number) for name, number in (("two", 2.0), ("eps", a.number("epsilon"))))
    mean = e.step("ReduceMean", "mean", [e.step("Pow", "squares", [x, two]), axes], keepdims=1)
    root = e.step("Sqrt", "root", [e.step("Add", "shifted", [mean, epsilon])])
    return [e.writer.node("Mul", e.name, [e.step("Div", "unit", [x, root]), *e.constants])]


def _real(e: Emission, name: str, number: float) -> str:
    return e.writer.constant(f"{e.name}.{name}", np.array(number, np.float32))


def _swish(e: Emission) -> list[str]:
    """Write x * sigmoid(alpha x): ONNX Runtime makes one kernel of it (QuickGelu), but not of Swish."""
    (x,), alpha = e.inputs, e.layer.values.number("alpha")
    scaled = x if alpha == 1 else e.step("Mul", "scaled", [x, _real(e, "alpha", alpha)])
    return [e.writer.node("Mul", e.name, [x, e.step("Sigmoid", "gate", [scaled])])]


def _gather(e: Emission) -> list[str]:
    a = e.layer.values
    if "weight" in a:
        return [e.writer.node("Gather", e.name, [*e.constants, *e.inputs], axis=0)]
    indices = np.array(places(a) if a.is_list("indices") else a.integer("indices"), np.int64)
    chosen = e.writer.constant(f"{e.name}.indices", indices)
    return [e.writer.node("Gather", e.name, [*e.inputs, chosen], axis=a.integer("axis"))]


def _slice(e: Emission) -> list[str]:
    a = e.layer.values
    axes = a.integers("axes")
    lists = {name: a.integers(name) for name in ("starts", "ends")}
    lists |= {"axes": axes, "steps": a.integers("steps", len(axes))}
    return [e.writer.node("Slice", e.name, [*e.inputs, *(e.number(*each) for each in _flat(lists))])]


def _flat(lists: Mapping[str, tuple[int, ...]]) -> list[tuple[Any, ...]]:
    return [(name, *values) for name, values in lists.items()]


def _expand(e: Emission) -> list[str]:
    target_shape, input_shape = e.layer.values.dims("shape"), e.layer.inputs[0].shape
    shift = len(e.layer.outputs[0].shape) - len(input_shape)
    sizes = [
        size
        if isinstance(size, int)
        else _repeats(e, size, input_shape[i - shift : i - shift + 1] if i >= shift else ())
        for i, size in enumerate(target_shape, len(e.layer.outputs[0].shape) - len(target_shape))
    ]
    return [e.writer.node("Expand", e.name, [*e.inputs, e.number("sizes", *sizes)])]


def _repeats(e: Emission, size: str, before: tuple[Dim, ...]) -> int:
    """Return 1, by which what has an open size keeps it.

    Raises:
        TrilobitError: it is repeated so many times.
    """
    if before != (size,):
        raise TrilobitError(f"{e.name}: a file cannot repeat {size} times before that has a size; bind it")
    return 1


def _where(e: Emission) -> list[str]:
    condition, *operands = e.inputs
    if len(operands) == 1:
        operands.append(_real(e, "value", e.layer.values.number("value")))
    return [e.writer.node("Where", e.name, [_truth(e, condition, 0), *operands])]


def _less(e: Emission) -> list[str]:
    fmt, value = e.layer.inputs[0].format, e.layer.values.integer("value")
    least = e.writer.constant(f"{e.name}.value", np.array(value, fmt))
    return [e.writer.node("Less", e.name, [*e.inputs, least])]


def _truth(e: Emission, value: str, position: int) -> str:
    """Return whole numbers as truth values."""
    if e.layer.inputs[position].format == "bool":
        return value
    return e.step("Cast", "truth", [value], to="BOOL")


def _rotary(e: Emission) -> list[str]:
    rotation, a, layer = rotation_of(e.layer), e.layer.values, e.layer
    cosines, sines = _tables(e, rotation)
    positions = e.inputs[1] if len(e.inputs) > 1 else _counted_on(e)
    if layer.inputs[-1].format in WHOLE and layer.inputs[-1].format != "int64":
        positions = e.step("Cast", "positions", [positions], to="INT64")
    if e.portable:
        return _turned(
            e,
            rotation,
            [
                e.step("Gather", part, [table, positions], axis=0)
                for part, table in (("cos", cosines), ("sin", sines))
            ],
        )
    if len(e.inputs) > 1 and layer.inputs[1].shape[0] != layer.inputs[0].shape[0]:
        positions = _for_all(e, positions)
    attributes: dict[str, int] = {"interleaved": a.integer("interleaved")}
    if len(layer.inputs[0].shape) == 3:
        attributes["num_heads"] = a.integer("num_heads")
    if a.integer("rotary_embedding_dim"):
        attributes["rotary_embedding_dim"] = a.integer("rotary_embedding_dim")
    inputs = [e.inputs[0], cosines, sines, positions]
    return [e.writer.node("RotaryEmbedding", e.name, inputs, **attributes)]


def _tables(e: Emission, rotation: Rotation) -> list[str]:
    """Return the names of cosines and sines, which all layers of the same angles share."""
    names = [
        f"rotary.{rotation.theta:g}.{rotation.turned}.{rotation.length}.{part}" for part in ("cos", "sin")
    ]
    stored = {tensor.name for tensor in e.writer.initialisers}
    if names[0] not in stored:
        for name, table in zip(names, tables(rotation), strict=True):
            e.writer.constant(name, table)
    return names


def _counted_on(e: Emission) -> str:
    """Return positions (batch, sequence) from the layer's start on."""
    (start,), sequence = e.layer.values.dims("start"), e.layer.inputs[0].shape[-2]
    if isinstance(start, str):
        raise TrilobitError(
            f"{e.name}: a file cannot count from {start} on before that has a size; bind it or read positions"
        )
    if isinstance(sequence, int):
        counted = e.writer.constant(f"{e.name}.counted", np.arange(start, start + sequence)[None])
    else:
        steps = _size(e, "steps", e.inputs[0], len(e.layer.inputs[0].shape) - 2)
        ends = [_scalar(e, "first", start), e.step("Add", "last", [steps, _scalar(e, "from", start)])]
        row = e.step("Range", "row", [*ends, _scalar(e, "one", 1)])
        counted = e.step("Unsqueeze", "counted", [row, e.number("rows", 0)])
    return counted if e.portable else _for_all(e, counted)


def _for_all(e: Emission, row: str) -> str:
    """Return positions of one example as those of each of the batch."""
    batch = e.step("Shape", "batch", [e.inputs[0]], start=0, end=1)
    return e.step("Expand", "places", [row, e.step("Concat", "sizes", [batch, e.number("each", 1)], axis=0)])


def _scalar(e: Emission, name: str, number: int) -> str:
    return e.writer.constant(f"{e.name}.{name}", np.array(number, np.int64))


def _size(e: Emission, step: str, x: str, axis: int) -> str:
    """Return a dimension of a tensor as a number."""
    size = e.step("Shape", f"{step}.shape", [x], start=axis, end=axis + 1)
    return e.step("Squeeze", step, [size])


def _turned(e: Emission, rotation: Rotation, angles: list[str]) -> list[str]:
    """Write pairs turned by the angles (batch, sequence, turned / 2) of their positions."""
    layer, a, x = e.layer, e.layer.values, e.inputs[0]
    split = len(layer.inputs[0].shape) == 3
    depth = int(heads_of(layer.inputs[0], a.integer("num_heads")).depth)
    if split:
        x = e.step("Reshape", "heads", [x, e.number("heads.shape", 0, 0, a.integer("num_heads"), depth)])
    axis = e.number("angles.axis", 2 if split else 1)
    cosines, sines = (
        e.step("Unsqueeze", f"{part}.each", [angle, axis])
        for part, angle in zip(("cos", "sin"), angles, strict=True)
    )
    half, rest = rotation.turned // 2, depth - rotation.turned
    kept = []
    if rest:
        x, *kept = _parts(e, "turned", x, [rotation.turned, rest])
    interleaved = bool(a.integer("interleaved"))
    if interleaved:
        x = e.step("Reshape", "pairs", [x, e.number("pairs.shape", 0, 0, 0, half, 2)])
        first, second = (
            e.step("Gather", f"of.{i}", [x, _scalar(e, f"index.{i}", i)], axis=-1) for i in range(2)
        )
    else:
        first, second = _parts(e, "halves", x, [half, half])
    products = {
        f"{left}.{right}": e.step("Mul", f"{left}.{right}", [value, angle])
        for left, value in (("first", first), ("second", second))
        for right, angle in (("c", cosines), ("s", sines))
    }
    pair = [
        e.step("Sub", "left", [products["first.c"], products["second.s"]]),
        e.step("Add", "right", [products["second.c"], products["first.s"]]),
    ]
    if interleaved:
        last = e.number("last", -1)
        pair = [e.step("Unsqueeze", f"{i}.pair", [value, last]) for i, value in enumerate(pair)]
        joined = e.step("Concat", "joined", pair, axis=-1)
        pair = [e.step("Reshape", "unpaired", [joined, e.number("unpaired.shape", 0, 0, 0, rotation.turned)])]
    y = e.step("Concat", "whole", [*pair, *kept], axis=-1)
    if not split:
        return [e.writer.node("Identity", e.name, [y])]
    return [e.writer.node("Reshape", e.name, [y, e.number("flat.shape", 0, 0, -1)])]


def _parts(e: Emission, step: str, x: str, sizes: list[int]) -> list[str]:
    names = [f"{e.name}.{step}.{i}" for i in range(len(sizes))]
    split = [x, e.number(f"{step}.sizes", *sizes)]
    e.writer.nodes.append(onnx.helper.make_node("Split", split, names, axis=-1))
    return names


def _attention(e: Emission) -> list[str]:
    a, read = e.layer.values, attended(e.layer.inputs, e.layer.values)
    mask = e.inputs[3] if read.masked else ""
    if mask and e.layer.inputs[3].format in WHOLE:
        mask = _truth(e, mask, 3)
    if a.text("cache") != FP32:
        return attended_as_kept(e, mask, _attention)
    if e.portable:
        return _spelled_out(e, read, mask)
    if mask and e.layer.inputs[3].shape[-2:-1] in ((), (1,)) and read.queries != 1:
        mask = _by_query(e, mask, read.queries)
    inputs = [*e.inputs[:3], mask, *(e.inputs[-2:] if read.cached else ())]
    while not inputs[-1]:
        inputs.pop()
    attributes: dict[str, Any] = {name: a.integer(name) for name in ("q_num_heads", "kv_num_heads")}
    if len(e.layer.inputs[0].shape) == 4:
        attributes = {}
    if a.integer("is_causal"):
        attributes["is_causal"] = 1
    if "scale" in a:
        attributes["scale"] = a.number("scale")
    names = [e.name, *grown_names(e)]
    e.writer.nodes.append(onnx.helper.make_node("Attention", inputs, names, **attributes))
    return names


def _by_query(e: Emission, mask: str, queries: Dim) -> str:
    """Return a mask with a row for each query: ONNX Runtime's kernel (1.31) does not repeat a single one."""
    if isinstance(queries, int):
        return e.step("Expand", "mask", [mask, e.number("mask.rows", queries, 1)])
    axis = len(e.layer.inputs[0].shape) - 2
    rows = e.step("Shape", "rows", [e.inputs[0]], start=axis, end=axis + 1)
    sizes = e.step("Concat", "mask.sizes", [rows, e.number("mask.column", 1)], axis=0)
    return e.step("Expand", "mask", [mask, sizes])


def _spelled_out(e: Emission, read: Attended, mask: str) -> list[str]:
    """Write scores, softmax and mixture.

    Queries of one group are a dimension of their own, so that keys are not repeated; where a mask may differ
    from head to head, they are.
    """
    a, by_heads = e.layer.values, len(e.layer.inputs[0].shape) == 4
    heads, groups, depth, value_depth = map(int, (read.heads, read.groups, read.depth, read.value_depth))
    sizes = ((heads, depth), (groups, depth), (groups, value_depth))
    q, k, v = e.inputs[:3]
    if not by_heads:
        q, k, v = (_divided(e, name, x, *size) for name, x, size in zip("qkv", (q, k, v), sizes, strict=True))
    if read.cached:
        names = grown_names(e)
        k = e.writer.node("Concat", names[0], [e.inputs[-2], k], axis=2)
        v = e.writer.node("Concat", names[1], [e.inputs[-1], v], axis=2)
    grown = [k, v] if len(e.layer.outputs) > 1 else []
    grouped = heads > groups and not mask
    if grouped:
        q = e.step("Reshape", "q.groups", [q, e.number("q.shape5", 0, groups, heads // groups, -1, depth)])
        axis = e.number("group", 2)
        k, v = (e.step("Unsqueeze", f"{i}.groups", [x, axis]) for i, x in (("k", k), ("v", v)))
    elif heads > groups:
        k, v = (
            _repeated(e, i, x, heads // groups, size)
            for i, x, size in (("k", k, (heads, depth)), ("v", v, (heads, value_depth)))
        )
    turned = e.step("Transpose", "k.turned", [k], perm=[0, 1, 2, 4, 3] if grouped else [0, 1, 3, 2])
    scale = a.number("scale") if "scale" in a else depth**-0.5
    scores = e.step("Mul", "scaled", [e.step("MatMul", "scores", [q, turned]), _real(e, "scale", scale)])
    if a.integer("is_causal"):
        scores = _before(e, scores, rank=4 + grouped)
    if mask:
        scores = _masked(e, scores, mask)
    mixed = e.step("MatMul", "mixed", [e.step("Softmax", "softmax", [scores], axis=-1), v])
    if grouped:
        mixed = e.step("Reshape", "ungrouped", [mixed, e.number("shape4", 0, heads, -1, value_depth)])
    if by_heads:
        return [e.writer.node("Identity", e.name, [mixed]), *grown]
    together = e.step("Transpose", "together", [mixed], perm=[0, 2, 1, 3])
    flat = e.number("shape3", 0, 0, heads * value_depth)
    return [e.writer.node("Reshape", e.name, [together, flat]), *grown]


def _divided(e: Emission, name: str, x: str, heads: int, depth: int) -> str:
    """Return (batch, length, width) as (batch, heads, length, depth)."""
    divided = e.step("Reshape", f"{name}.divided", [x, e.number(f"{name}.shape", 0, 0, heads, depth)])
    return e.step("Transpose", f"{name}.heads", [divided], perm=[0, 2, 1, 3])


def _repeated(e: Emission, name: str, x: str, times: int, size: tuple[int, int]) -> str:
    """Return keys or values (batch, groups, length, depth) with each group as often as it has heads."""
    heads, depth = size
    groups = e.step("Unsqueeze", f"{name}.groups", [x, e.number(f"{name}.group", 2)])
    each = e.step("Expand", f"{name}.each", [groups, e.number(f"{name}.times", 1, 1, times, 1, 1)])
    return e.step("Reshape", f"{name}.repeated", [each, e.number(f"{name}.shape4", 0, heads, -1, depth)])


def _before(e: Emission, scores: str, *, rank: int) -> str:
    """Leave out later positions than a query's own, which is that behind the past."""
    queries = _size(e, "queries", e.inputs[0], len(e.layer.inputs[0].shape) - 2)
    keys = _size(e, "keys", scores, rank - 1)
    zero, one = _scalar(e, "zero", 0), _scalar(e, "one", 1)
    own = e.step("Range", "own", [zero, queries, one])
    if len(e.inputs) > 4:
        own = e.step("Add", "own.now", [own, _size(e, "past", e.inputs[-2], 2)])
    column = e.step("Unsqueeze", "column", [own, e.number("column.axis", 1)])
    before = e.step("LessOrEqual", "before", [e.step("Range", "all", [zero, keys, one]), column])
    return e.step("Where", "causal", [before, scores, _real(e, "later", -np.inf)])


def _masked(e: Emission, scores: str, mask: str) -> str:
    """Leave out what a mask is 0 for, or add what it says. Where it leaves out all, they are all alike: with
    minus infinity there would be no numbers.
    """
    if e.layer.inputs[3].format not in WHOLE:
        return e.step("Add", "masked", [scores, mask])
    return e.step("Where", "masked", [mask, scores, _real(e, "left_out", float(np.finfo(np.float32).min))])


TRANSFORMER_NODES: Mapping[str, Emit] = {
    "RMSNormalization": _rms_norm,
    "Swish": _swish,
    "Gather": _gather,
    "Slice": _slice,
    "Expand": _expand,
    "Less": _less,
    "Where": _where,
    "RotaryEmbedding": _rotary,
    "Attention": _attention,
}
