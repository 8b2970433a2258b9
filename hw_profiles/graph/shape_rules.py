"""From the types of what an operation reads, and its attributes, to the types of what it gives."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.attributes import Attributes
from hw_profiles.graph.formats import CACHES, WHOLE
from hw_profiles.graph.tensor_type import FP32, Dim, TensorType, over, plus, times

Types = tuple[TensorType, ...]
Rule = Callable[[Types, Attributes], Types]


def told(rule: Rule) -> Rule:
    """Return the rule of an operation that gives what it computes in the format `to`, where that is said."""

    def types(inputs: Types, a: Attributes) -> Types:
        given = rule(inputs, a)
        return tuple(TensorType(x.shape, a.text("to")) for x in given) if "to" in a else given

    return types


def unchanged(inputs: Types, a: Attributes) -> Types:
    """Return the type of what is computed of each number by itself."""
    return (inputs[0],)


def conv(inputs: Types, a: Attributes) -> Types:
    """Return the type of a convolution with `weight` (out, in / group, *kernel) over (batch, in, *map)."""
    (x,), weight = inputs, a.integers("weight")
    _require_rank(x, len(weight))
    group, channels = a.integer("group"), x.shape[1]
    if channels != weight[1] * group or weight[0] % group:
        raise TrilobitError(
            f"a convolution of {channels} channels in {group} groups cannot have a weight of {weight}"
        )
    spatial = _windows(x, weight[2:], a, rounds_up=False)
    return (TensorType((x.shape[0], weight[0], *spatial), x.format),)


def pool(inputs: Types, a: Attributes) -> Types:
    """Return the type of what windows of `kernel_shape` over each channel give."""
    (x,), kernel = inputs, a.integers("kernel_shape")
    _require_rank(x, len(kernel) + 2)
    spatial = _windows(x, kernel, a, rounds_up=bool(a.integer("ceil_mode")))
    return (TensorType((*x.shape[:2], *spatial), x.format),)


def global_pool(inputs: Types, a: Attributes) -> Types:
    """Return the type of one number for each channel."""
    (x,) = inputs
    return (TensorType((*x.shape[:2], *(1,) * (len(x.shape) - 2)), x.format),)


def gemm(inputs: Types, a: Attributes) -> Types:
    """Return the type of a linear layer with `weight` (out, in) on what is flattened to rows."""
    (x,), (features, width) = inputs, a.integers("weight", 2)
    if len(x.shape) < 2 or times(x.shape[1:]) != width:
        raise TrilobitError(f"a linear layer of {width} features cannot read a tensor of {x}")
    return (TensorType((x.shape[0], features), x.format),)


def matmul(inputs: Types, a: Attributes) -> Types:
    """Return the type of a matrix product of two tensors, or of one and the constant `weight` (..., k, n)."""
    left, right = inputs[0].shape, operand(inputs, a)
    if len(left) < 2 or len(right) < 2 or left[-1] != right[-2]:
        raise TrilobitError(f"matrices of {_text(left)} and {_text(right)} cannot be multiplied")
    batch = broadcast(left[:-2], right[:-2])
    return (TensorType((*batch, left[-2], right[-1]), inputs[0].format),)


def elementwise(inputs: Types, a: Attributes) -> Types:
    """Return the type of two broadcast operands, of which the second may be the constant `weight`."""
    return (TensorType(broadcast(inputs[0].shape, operand(inputs, a)), inputs[0].format),)


def concat(inputs: Types, a: Attributes) -> Types:
    """Return the type of tensors joined along `axis`."""
    shapes, axis = [x.shape for x in inputs], axis_of(inputs[0], a)
    others = {(*shape[:axis], *shape[axis + 1 :]) for shape in shapes}
    if len(others) != 1 or len({len(shape) for shape in shapes}) != 1:
        raise TrilobitError(f"tensors of {', '.join(map(_text, shapes))} cannot be joined along axis {axis}")
    joined = plus(*(shape[axis] for shape in shapes))
    return (TensorType((*shapes[0][:axis], joined, *shapes[0][axis + 1 :]), inputs[0].format),)


def split(inputs: Types, a: Attributes) -> Types:
    """Return the types of parts of the sizes `split` along `axis`."""
    (x,), axis, sizes = inputs, axis_of(inputs[0], a), a.dims("split")
    if plus(*sizes) != x.shape[axis]:
        raise TrilobitError(f"a dimension of {x.shape[axis]} cannot be split into {_text(sizes)}")
    parts = [(*x.shape[:axis], size, *x.shape[axis + 1 :]) for size in sizes]
    return tuple(TensorType(part, x.format) for part in parts)


def reshape(inputs: Types, a: Attributes) -> Types:
    """Return the type of the same numbers as `shape`; 0 keeps a dimension, -1 is what the others leave."""
    (x,), requested = inputs, a.dims("shape")
    kept = [x.shape[i] if size == 0 and i < len(x.shape) else size for i, size in enumerate(requested)]
    if kept.count(-1) > 1:
        raise TrilobitError(f"a shape of {_text(requested)} leaves more than one dimension open")
    total, rest = times(x.shape), times(size for size in kept if size != -1)
    shape = tuple(over(total, rest) if size == -1 else size for size in kept)
    if times(shape) != total:
        raise TrilobitError(f"a tensor of {_text(x.shape)} cannot be reshaped to {_text(requested)}")
    return (TensorType(shape, x.format),)


def transpose(inputs: Types, a: Attributes) -> Types:
    """Return the type with dimensions in the order `perm`."""
    (x,), order = inputs, a.integers("perm")
    if sorted(order) != list(range(len(x.shape))):
        raise TrilobitError(f"{order} does not order the dimensions of {_text(x.shape)}")
    return (TensorType(tuple(x.shape[i] for i in order), x.format),)


def flatten(inputs: Types, a: Attributes) -> Types:
    """Return the type of rows: all dimensions before `axis` by all from it on."""
    (x,), axis = inputs, a.integer("axis")
    return (TensorType((times(x.shape[:axis]), times(x.shape[axis:])), x.format),)


def layer_norm(inputs: Types, a: Attributes) -> Types:
    """Return the type of what is normalised over `axis` and all behind it, which have the shape `weight`."""
    (x,), axis, weight = inputs, axis_of(inputs[0], a), a.integers("weight")
    if x.shape[axis:] != weight:
        raise TrilobitError(f"dimensions of {_text(x.shape[axis:])} cannot be scaled by {_text(weight)}")
    return (x,)


def along(inputs: Types, a: Attributes) -> Types:
    """Return the type of what keeps its shape along `axis`."""
    axis_of(inputs[0], a)
    return (inputs[0],)


def softmax(inputs: Types, a: Attributes) -> Types:
    """Return the type of shares along `axis`, of those that a mask leaves where there is one: a row of truth
    values for each example.
    """
    x, *masks = inputs
    for mask in masks:
        if mask.format != "bool" or mask.shape != (x.shape[0], *(1,) * (len(x.shape) - 2), x.shape[-1]):
            raise TrilobitError(f"a mask of {mask} has no row of truth values for each example of {x}")
    return along((x,), a)


def slice_(inputs: Types, a: Attributes) -> Types:
    """Return the type of every `steps`-th from `starts` to before `ends`, along each of `axes`."""
    (x,), shape = inputs, list(inputs[0].shape)
    starts, ends, axes = map(a.integers, ("starts", "ends", "axes"))
    if not len(starts) == len(ends) == len(axes):
        raise TrilobitError(f"starts {starts} and ends {ends} are not those of axes {axes}")
    for start, end, axis, step in zip(starts, ends, axes, a.integers("steps", len(axes)), strict=True):
        place, size = _place(x, axis), x.shape[_place(x, axis)]
        if isinstance(size, str):
            raise TrilobitError(f"no part of a dimension of {size} is cut out before it has a size; bind it")
        if step == 0:
            raise TrilobitError("steps of a slice cannot be 0")
        shape[place] = len(range(*slice(start, end, step).indices(size)))
    return (TensorType(tuple(shape), x.format),)


def expand(inputs: Types, a: Attributes) -> Types:
    """Return the type with dimensions of 1 repeated, and others before them, as `shape` says."""
    return (TensorType(broadcast(inputs[0].shape, a.dims("shape")), inputs[0].format),)


def gather(inputs: Types, a: Attributes) -> Types:
    """Return the type of rows of the table `weight` (vocabulary, ...) for ids that are read, or of what is at
    the stored `indices` along `axis`: a number takes the dimension away, a list keeps it.
    """
    (x,) = inputs
    if ("weight" in a) == ("indices" in a):
        raise TrilobitError("a choice needs either a table as weight, or stored indices")
    if "weight" in a:
        if x.format not in WHOLE:
            raise TrilobitError(f"ids must be whole numbers ({', '.join(WHOLE)}), not {x.format}")
        return (TensorType((*x.shape, *a.integers("weight")[1:])),)
    axis, indices = axis_of(x, a), places(a)
    size = x.shape[axis]
    if isinstance(size, int) and not all(-size <= index < size for index in indices):
        raise TrilobitError(f"a dimension of {size} has no place {indices}")
    kept = (len(indices),) if a.is_list("indices") else ()
    return (TensorType((*x.shape[:axis], *kept, *x.shape[axis + 1 :]), x.format),)


def places(a: Attributes) -> tuple[int, ...]:
    """Return the stored `indices` of a choice as a list."""
    return a.integers("indices") if a.is_list("indices") else (a.integer("indices"),)


def less(inputs: Types, a: Attributes) -> Types:
    """Return the type of truth values, for each whole number whether it is below `value`."""
    (x,) = inputs
    if x.format not in WHOLE:
        raise TrilobitError(f"what is compared must be whole numbers ({', '.join(WHOLE)}), not {x.format}")
    a.integer("value")  # must be there
    return (TensorType(x.shape, "bool"),)


def where(inputs: Types, a: Attributes) -> Types:
    """Return the type of the second operand where the first is not 0, elsewhere the third, or `value`."""
    condition, *operands = inputs
    if ("value" in a) == (len(operands) == 2):
        raise TrilobitError(
            "two operands are needed to choose from: two tensors, or one and a number `value`"
        )
    if condition.format not in WHOLE:
        raise TrilobitError(f"a condition must be whole numbers ({', '.join(WHOLE)}), not {condition.format}")
    shape = condition.shape
    for operand_type in operands:
        shape = broadcast(shape, operand_type.shape)
    return (TensorType(shape, operands[0].format),)


def rotary(inputs: Types, a: Attributes) -> Types:
    """Return the type of queries or keys turned by the angles of their positions: (batch, sequence) that are
    read, or from `start` on. They are (batch, sequence, heads x depth) or (batch, heads, sequence, depth).
    """
    x, *positions = inputs
    turned, depth = a.integer("rotary_embedding_dim"), heads_of(x, a.integer("num_heads")).depth
    if isinstance(depth, str) or (turned or depth) % 2 or turned > depth:
        raise TrilobitError(f"of heads of {depth}, {turned or depth} cannot be turned: pairs are")
    if positions:
        batch, sequence = x.shape[0], x.shape[-2]
        if positions[0].format not in WHOLE or positions[0].shape not in ((batch, sequence), (1, sequence)):
            raise TrilobitError(f"positions of {x} are {batch},{sequence} whole numbers, not {positions[0]}")
        return (x,)
    (start,), length = a.dims("start"), a.integer("length")
    last = plus(start, x.shape[-2])
    if isinstance(last, int) and last > length:
        raise TrilobitError(f"{x.shape[-2]} positions from {start} on are more than the length {length}")
    return (x,)


class Heads(NamedTuple):
    """How a tensor of queries, keys or values is divided."""

    batch: Dim
    heads: Dim
    length: Dim
    depth: Dim


def heads_of(x: TensorType, heads: int) -> Heads:
    """Return the sizes of (batch, length, heads x depth) or of (batch, heads, length, depth).

    Raises:
        TrilobitError: it is neither.
    """
    if len(x.shape) == 4 and heads in (0, x.shape[1]):
        return Heads(*x.shape)
    if len(x.shape) != 3 or heads < 1:
        raise TrilobitError(
            f"{x} has no {heads} heads: it is batch, sequence, heads x depth with a number of heads, or "
            "batch, heads, sequence, depth"
        )
    batch, length, width = x.shape
    return Heads(batch, heads, length, over(width, heads))


class Attended(NamedTuple):
    """Sizes of what an attention reads: `keys` counts those of the past."""

    batch: Dim
    heads: Dim
    queries: Dim
    groups: Dim
    past: Dim
    keys: Dim
    depth: Dim
    value_depth: Dim
    masked: bool
    cached: bool


def attended(inputs: Types, a: Attributes) -> Attended:
    """Return the sizes of queries, keys and values: heads of `groups` keys serve as many queries each.

    Raises:
        TrilobitError: they do not fit each other.
    """
    q = heads_of(inputs[0], a.integer("q_num_heads"))
    k, v = (heads_of(x, a.integer("kv_num_heads")) for x in inputs[1:3])
    masked, cached = len(inputs) in (4, 6), len(inputs) in (5, 6)
    fits = (q.batch, q.depth, *k[:3]) == (k.batch, k.depth, *v[:3])
    if not fits or {len(x.shape) for x in inputs[:3]} != {len(inputs[0].shape)}:
        raise TrilobitError(
            f"queries of {inputs[0]}, keys of {inputs[1]} and values of {inputs[2]} do not fit each other"
        )
    over(q.heads, k.heads)
    past: Dim = 0
    if cached:
        keys, values = inputs[-2:]
        past = keys.shape[2] if len(keys.shape) == 4 else -1
        expected = [(k.batch, k.heads, past, k.depth), (v.batch, v.heads, past, v.depth)]
        if [keys.shape, values.shape] != expected:
            raise TrilobitError(f"past keys of {keys} and values of {values} do not fit those of {inputs[1]}")
        kept = cache_format(a)
        if {keys.format, values.format} != {kept}:
            raise TrilobitError(f"a cache of {a.text('cache')} holds {kept}, not {keys} and {values}")
    total = plus(past, k.length)
    if masked:
        whole = (q.batch, q.heads, q.length, total)
        if inputs[3].shape[-1:] != (total,) or broadcast(whole, inputs[3].shape) != whole:
            raise TrilobitError(f"a mask of {inputs[3]} does not fit scores of {_text(whole)}")
    return Attended(q.batch, q.heads, q.length, k.heads, past, total, q.depth, v.depth, masked, cached)


def cache_format(a: Attributes) -> str:
    """Return the format of the tensors that an attention's cache is.

    Raises:
        TrilobitError: no cache can be in such a format.
    """
    name = a.text("cache")
    if name not in CACHES:
        raise TrilobitError(f"no key-value cache in {name!r}; it can be in {', '.join(CACHES)}")
    return CACHES[name]


def attention(inputs: Types, a: Attributes) -> Types:
    """Return the type of values mixed for each query, and of present keys and values where they are given."""
    read, x = attended(inputs, a), inputs[0]
    if len(x.shape) == 3:
        shape: tuple[Dim, ...] = (read.batch, read.queries, times((read.heads, read.value_depth)))
    else:
        shape = (read.batch, read.heads, read.queries, read.value_depth)
    mixed, kept = TensorType(shape, x.format), cache_format(a)
    if not (read.cached or a.integer("present")):
        return (mixed,)
    grown = (
        TensorType((read.batch, read.groups, read.keys, depth), kept)
        for depth in (read.depth, read.value_depth)
    )
    return (mixed, *grown)


def quantize(inputs: Types, a: Attributes) -> Types:
    """Return the type of codes of the format `to`."""
    return (TensorType(inputs[0].shape, a.text("to")),)


def dequantize(inputs: Types, a: Attributes) -> Types:
    """Return the type of the real values of codes."""
    return (TensorType(inputs[0].shape, FP32),)


def inverted_residual(inputs: Types, a: Attributes) -> Types:
    """Return the type of a whole block of `channels` at the end, `stride` in its depthwise convolution."""
    (x,), stride = inputs, a.integer("stride")
    _require_rank(x, 4)
    if a.integer("expanded") < 1:
        raise TrilobitError("expanded channels of a block must be at least 1")
    shape = (x.shape[0], a.integer("channels"), *(-(-_size(size) // stride) for size in x.shape[2:]))
    return (TensorType(shape, x.format),)


def opaque(inputs: Types, a: Attributes) -> Types:
    """Return the types that a part of somebody's graph was found to give."""
    a.blob("model")
    if not {x.format for x in (*inputs, *a.types("outputs"))} <= {FP32, *WHOLE}:
        raise TrilobitError("a part that is kept as it is reads and gives fp32, or whole numbers")
    return a.types("outputs")


def operand(inputs: Types, a: Attributes) -> tuple[Dim, ...]:
    """Return the shape of the second operand, computed or constant."""
    if ("weight" in a) == (len(inputs) == 2):
        raise TrilobitError("two operands are needed: two tensors, or one and a constant weight")
    return inputs[1].shape if len(inputs) == 2 else a.dims("weight")


def broadcast(left: Sequence[Dim], right: Sequence[Dim]) -> tuple[Dim, ...]:
    """Return the shape of what is computed of two tensors number by number.

    Raises:
        TrilobitError: their dimensions differ where neither is 1.
    """
    rank = max(len(left), len(right))
    wide = [(1,) * (rank - len(shape)) + tuple(shape) for shape in (left, right)]
    shape: list[Dim] = []
    for size, other_size in zip(*wide, strict=True):
        if size != other_size and 1 not in (size, other_size):
            raise TrilobitError(f"tensors of {_text(left)} and {_text(right)} do not fit each other")
        shape.append(other_size if size == 1 else size)
    return tuple(shape)


def axis_of(x: TensorType, a: Attributes) -> int:
    """Return `axis` counted from the first dimension.

    Raises:
        TrilobitError: there is no such dimension.
    """
    return _place(x, a.integer("axis"))


def _place(x: TensorType, axis: int) -> int:
    rank = len(x.shape)
    if not -rank <= axis < rank:
        raise TrilobitError(f"a tensor of {_text(x.shape)} has no axis {axis}")
    return axis % rank


def _windows(x: TensorType, kernel: Sequence[int], a: Attributes, *, rounds_up: bool) -> tuple[Dim, ...]:
    rank = len(kernel)
    strides, dilations = a.integers("strides", rank), a.integers("dilations", rank)
    pads = a.integers("pads", 2 * rank)
    if min(*kernel, *strides, *dilations) < 1 or min(pads) < 0:
        raise TrilobitError(f"kernel, strides and dilations must be at least 1, pads 0: {kernel}, {pads}")
    sizes = []
    for i, (size, k, stride, dilation) in enumerate(
        zip(x.shape[2:], kernel, strides, dilations, strict=True)
    ):
        reach, padding = dilation * (k - 1) + 1, pads[i] + pads[rank + i]
        if stride == 1 and padding == reach - 1:
            sizes.append(size)
            continue
        steps = _size(size) + padding - reach
        if steps < (1 - stride if rounds_up else 0):
            raise TrilobitError(f"a window that reaches over {reach} does not fit into {size} + {padding}")
        outside = rounds_up and -(-steps // stride) * stride >= _size(size) + pads[i]  # a window of padding
        sizes.append(steps // stride + 1 if outside or not rounds_up else -(-steps // stride) + 1)
    return tuple(sizes)


def _size(dim: Dim) -> int:
    if isinstance(dim, str):
        raise TrilobitError(f"a map of {dim} has no size yet; bind it by a scenario first")
    return dim


def _require_rank(x: TensorType, rank: int) -> None:
    if len(x.shape) != rank:
        raise TrilobitError(f"a tensor of {_text(x.shape)} should have {rank} dimensions")


def _text(shape: Sequence[Dim]) -> str:
    return "x".join(map(str, shape)) or "no dimensions"
