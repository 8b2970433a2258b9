"""From the types of what an operation reads, and its attributes, to the types of what it gives."""

from collections.abc import Callable, Sequence

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.attributes import Attributes
from hw_profiles.graph.tensor_type import FP32, Dim, TensorType, over, plus, times

Types = tuple[TensorType, ...]
Rule = Callable[[Types, Attributes], Types]


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
    return (TensorType((x.shape[0], features), a.text("to") if "to" in a else x.format),)


def matmul(inputs: Types, a: Attributes) -> Types:
    """Return the type of a matrix product of two tensors, or of one and the constant `weight` (..., k, n)."""
    left, right, fmt = inputs[0].shape, operand(inputs, a), inputs[0].format
    if len(left) < 2 or len(right) < 2 or left[-1] != right[-2]:
        raise TrilobitError(f"matrices of {_text(left)} and {_text(right)} cannot be multiplied")
    batch = broadcast(left[:-2], right[:-2])
    return (TensorType((*batch, left[-2], right[-1]), a.text("to") if "to" in a else fmt),)


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
    if any(x.format != FP32 for x in (*inputs, *a.types("outputs"))):
        raise TrilobitError("a part that is kept as it is reads and gives fp32")
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
    axis, rank = a.integer("axis"), len(x.shape)
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
