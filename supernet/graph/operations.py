"""Every operation in torch, in real numbers: the one place that computes them."""

from collections.abc import Callable, Mapping, Sequence
from pkgutil import resolve_name
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.consumer import Consumer
from hw_profiles.graph.layer import MATRIX, Layer
from hw_profiles.graph.rotary import rotation_of, tables
from hw_profiles.graph.shape_rules import attended, places
from hw_profiles.graph.workload import Workload
from supernet.layers.activation import ACTIVATE
from supernet.registry import OPAQUE_RUNNER


class Constants(NamedTuple):
    """The stored numbers of one layer, as ONNX shapes them; None where it has none."""

    weight: Tensor | None = None
    bias: Tensor | None = None


Step = Callable[[int, list[Tensor]], Sequence[Tensor]]  # position of a layer, what it reads -> what it gives
Function = Callable[[Layer, Sequence[Tensor], Constants], tuple[Tensor, ...]]
_One = Callable[[Layer, Sequence[Tensor], Constants], Tensor]


NOTHING = Constants()


def as_stored(layer: Layer, weight: Tensor) -> Tensor:
    """Return a weight that has its output channels first as ONNX has it, or the other way round."""
    return weight.T if layer.op == "MatMul" and weight.ndim == MATRIX else weight


def execute(work: Workload, feeds: Sequence[Tensor], step: Step) -> list[Tensor]:
    """Return every tensor of a workload in order, by what `step` makes of each layer and what it reads.

    Raises:
        TrilobitError: the network reads another number of tensors.
    """
    if len(feeds) != len(work.feeds):
        names = ", ".join(feed.name for feed in work.feeds)
        raise TrilobitError(f"the network reads {names}; {len(feeds)} tensors are given")
    tensors: list[Tensor] = []
    for position, sources in enumerate(work.inputs):
        tensors += step(position, [feeds[-1 - i] if i < 0 else tensors[i] for i in sources])
    return tensors


def computed(layer: Layer, x: Sequence[Tensor], constants: Constants = NOTHING) -> tuple[Tensor, ...]:
    """Return what a layer gives, its fused activation included.

    Raises:
        TrilobitError: it has no such operation.
    """
    outputs = TORCH[layer.op](layer, x, constants)
    if layer.activation == "none":
        return outputs
    return tuple(ACTIVATE[layer.activation](y.clone() if layer.keeps_codes else y) for y in outputs)


def _conv(layer: Layer, x: Sequence[Tensor], constants: Constants) -> Tensor:
    weight, values = _weight(layer, constants), layer.values
    rank = weight.ndim - 2
    pads, strides = values.integers("pads", 2 * rank), values.integers("strides", rank)
    conv = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    dilations, group = values.integers("dilations", rank), values.integer("group")
    if pads[:rank] == pads[rank:]:
        return conv(x[0], weight, constants.bias, strides, pads[:rank], dilations, group)
    padded = F.pad(x[0], torch_pads(pads))
    return conv(padded, weight, constants.bias, strides, 0, dilations, group)


def torch_pads(pads: Sequence[int]) -> list[int]:
    """Return ONNX's pads (begin of every dimension, then ends) as torch wants them: the last dimension first.

    >>> torch_pads((1, 2, 3, 4))
    [2, 4, 1, 3]
    """
    rank = len(pads) // 2
    return [pad for dim in reversed(range(rank)) for pad in (pads[dim], pads[rank + dim])]


def _max_pool(layer: Layer, x: Sequence[Tensor], constants: Constants) -> Tensor:
    kernel, pads, strides, dilations = _window(layer)
    ceil, rank = bool(layer.values.integer("ceil_mode")), len(kernel)
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[rank - 1]
    if pads[:rank] == pads[rank:]:
        return pool(x[0], kernel, strides, pads[:rank], dilations, ceil)
    padded = F.pad(x[0], torch_pads(pads), value=float("-inf"))
    return _counted(layer, pool(padded, kernel, strides, 0, dilations, ceil))


def _average_pool(layer: Layer, x: Sequence[Tensor], constants: Constants) -> Tensor:
    kernel, pads, strides, dilations = _window(layer)
    rank, ceil = len(kernel), bool(layer.values.integer("ceil_mode"))
    counts_padding = bool(layer.values.integer("count_include_pad"))
    if set(dilations) != {1}:
        raise TrilobitError("an average over dilated windows cannot be computed in torch; keep it opaque")
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[rank - 1]
    if pads[:rank] == pads[rank:]:
        return pool(x[0], kernel, strides, pads[:rank], ceil, counts_padding)
    ones = torch.ones_like(x[0])
    total, count = (F.pad(values, torch_pads(pads)) for values in (x[0], ones))
    mean: Tensor = pool(total, kernel, strides, 0, ceil, counts_padding)
    share: Tensor = pool(count, kernel, strides, 0, ceil, counts_padding)
    return _counted(layer, mean if counts_padding else mean / share)


def _counted(layer: Layer, y: Tensor) -> Tensor:
    """Leave out the windows that begin in the padding at the end: ONNX, rounding up, does not count them."""
    for dim, size in enumerate(layer.outputs[0].shape[2:], 2):
        y = y.narrow(dim, 0, size) if isinstance(size, int) else y
    return y


def _window(layer: Layer) -> tuple[tuple[int, ...], ...]:
    """Return kernel, pads, strides and dilations."""
    values = layer.values
    kernel = values.integers("kernel_shape")
    rank = len(kernel)
    return (
        kernel,
        values.integers("pads", 2 * rank),
        values.integers("strides", rank),
        values.integers("dilations", rank),
    )


def _gemm(layer: Layer, x: Sequence[Tensor], constants: Constants) -> Tensor:
    return F.linear(x[0].flatten(1), _weight(layer, constants), constants.bias)


def _matmul(layer: Layer, x: Sequence[Tensor], constants: Constants) -> Tensor:
    product = x[0] @ _operand(layer, x, constants)
    return product if constants.bias is None else product + constants.bias


def _layer_norm(layer: Layer, x: Sequence[Tensor], constants: Constants) -> Tensor:
    weight = _weight(layer, constants)
    return F.layer_norm(x[0], weight.shape, weight, constants.bias, layer.values.number("epsilon"))


def _rms_norm(layer: Layer, x: Sequence[Tensor], constants: Constants) -> Tensor:
    weight = _weight(layer, constants)
    return F.rms_norm(x[0], weight.shape, weight, layer.values.number("epsilon"))


def _swish(layer: Layer, x: Sequence[Tensor], constants: Constants) -> Tensor:
    alpha = layer.values.number("alpha")
    return F.silu(x[0]) if alpha == 1 else x[0] * torch.sigmoid(x[0] * alpha)


def _gather(layer: Layer, x: Sequence[Tensor], constants: Constants) -> Tensor:
    a = layer.values
    if "weight" in a:
        return F.embedding(x[0].long(), _weight(layer, constants))
    axis, indices = a.integer("axis") % x[0].ndim, places(a)
    if not a.is_list("indices"):
        return x[0].select(axis, indices[0])
    chosen = torch.tensor([index % x[0].shape[axis] for index in indices], device=x[0].device)
    return x[0].index_select(axis, chosen)


def _slice(layer: Layer, x: Sequence[Tensor], constants: Constants) -> Tensor:
    a, y = layer.values, x[0]
    starts, ends, axes = map(a.integers, ("starts", "ends", "axes"))
    for start, end, axis, step in zip(starts, ends, axes, a.integers("steps", len(axes)), strict=True):
        kept = range(*slice(start, end, step).indices(x[0].shape[axis]))
        y = y.index_select(axis, torch.tensor(kept, dtype=torch.long, device=y.device))
    return y


def _expand(layer: Layer, x: Sequence[Tensor], constants: Constants) -> Tensor:
    sizes = _sizes(layer.inputs[0].shape, x[0].shape)
    shape = [sizes.get(size, size) if isinstance(size, str) else size for size in layer.outputs[0].shape]
    if unknown := [size for size in shape if isinstance(size, str)]:
        raise TrilobitError(f"what is repeated {', '.join(unknown)} times has no size; bind it by a scenario")
    return x[0].expand([int(size) for size in shape])


def _where(layer: Layer, x: Sequence[Tensor], constants: Constants) -> Tensor:
    other = x[2] if len(x) > 2 else torch.tensor(layer.values.number("value"), dtype=x[1].dtype)
    return torch.where(x[0].bool(), x[1], other)


def _rotary(layer: Layer, x: Sequence[Tensor], constants: Constants) -> Tensor:
    a, by_heads = layer.values, x[0].ndim == 4
    heads = x[0] if by_heads else _by_heads(x[0], a.integer("num_heads"))
    rotation = rotation_of(layer)
    places_of = x[1].long() if len(x) > 1 else _counted_on(layer, heads)
    cosines, sines = (torch.from_numpy(table).to(heads)[places_of][:, None] for table in tables(rotation))
    turned, kept = heads[..., : rotation.turned], heads[..., rotation.turned :]
    if a.integer("interleaved"):
        first, second = turned[..., ::2], turned[..., 1::2]
    else:
        first, second = turned.chunk(2, -1)
    pair = (first * cosines - second * sines, second * cosines + first * sines)
    together = torch.stack(pair, -1).flatten(-2) if a.integer("interleaved") else torch.cat(pair, -1)
    y = torch.cat((together, kept), -1)
    return y if by_heads else _together(y)


def _counted_on(layer: Layer, heads: Tensor) -> Tensor:
    """Return the positions (1, sequence) from the layer's start on."""
    (start,) = layer.values.dims("start")
    if isinstance(start, str):
        raise TrilobitError(
            f"positions from {start} on have no numbers yet; bind it by a scenario, or read positions"
        )
    return torch.arange(start, start + heads.shape[2], device=heads.device)[None]


def _by_heads(x: Tensor, heads: int) -> Tensor:
    """Return (batch, sequence, width) as (batch, heads, sequence, depth)."""
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads).transpose(1, 2)


def _together(x: Tensor) -> Tensor:
    """Return (batch, heads, sequence, depth) as (batch, sequence, width)."""
    return x.transpose(1, 2).flatten(-2)


def _attention(layer: Layer, x: Sequence[Tensor], constants: Constants) -> tuple[Tensor, ...]:
    a, read = layer.values, attended(layer.inputs, layer.values)
    q, k, v = x[:3]
    by_heads = q.ndim == 4
    if not by_heads:
        counts = (a.integer("q_num_heads"), *(a.integer("kv_num_heads"),) * 2)
        q, k, v = (_by_heads(tensor, heads) for tensor, heads in zip((q, k, v), counts, strict=True))
    if read.cached:
        k, v = (torch.cat((past, now), 2) for past, now in zip(x[-2:], (k, v), strict=True))
    past = x[-2].shape[2] if read.cached else 0
    scale = a.number("scale") if "scale" in a else None
    mask = _mask(x[3] if read.masked else None, q, k, past, causal=bool(a.integer("is_causal")))
    mixed = F.scaled_dot_product_attention(q, k, v, mask, scale=scale, enable_gqa=q.shape[1] != k.shape[1])
    y = mixed if by_heads else _together(mixed)
    return (y, k, v) if len(layer.outputs) > 1 else (y,)


def _shares(layer: Layer, x: Sequence[Tensor]) -> Tensor:
    """Return a softmax of what a mask leaves; nothing of rows that it hides altogether."""
    scores, axis = x[0], layer.values.integer("axis")
    if len(x) == 1:
        return torch.softmax(scores, dim=axis)
    return torch.softmax(scores.masked_fill(~x[1], float("-inf")), dim=axis).nan_to_num(0.0)


def _mask(given: Tensor | None, q: Tensor, k: Tensor, past: int, *, causal: bool) -> Tensor | None:
    """Return what may be attended to, or what is added to scores; None where that is all."""
    mask = given.bool() if given is not None and not given.is_floating_point() else given
    if not causal:
        return mask
    before = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril(past)
    if mask is None:
        return before
    return mask & before if mask.dtype == torch.bool else mask.masked_fill(~before, float("-inf"))


def _split(layer: Layer, x: Sequence[Tensor], constants: Constants) -> tuple[Tensor, ...]:
    sizes = list(layer.values.integers("split"))
    return torch.split(x[0], sizes, dim=layer.values.integer("axis"))


def _reshape(layer: Layer, x: Sequence[Tensor], constants: Constants) -> Tensor:
    requested = layer.values.dims("shape")
    sizes = _sizes(layer.inputs[0].shape, x[0].shape)
    kept = [sizes.get(size, size) if isinstance(size, str) else size for size in requested]
    shape = [x[0].shape[i] if size == 0 else size for i, size in enumerate(kept)]
    unknown = [i for i, size in enumerate(shape) if isinstance(size, str)]
    if len(unknown) > 1 or (unknown and -1 in shape):
        names = ", ".join(str(shape[i]) for i in unknown)
        raise TrilobitError(f"a reshape to {requested} needs sizes of {names}; bind them by a scenario")
    return x[0].reshape([-1 if isinstance(size, str) else int(size) for size in shape])


def _sizes(dims: Sequence[int | str], shape: Sequence[int]) -> dict[str, int]:
    """Return the sizes that open dimensions have in a tensor."""
    return {dim: size for dim, size in zip(dims, shape, strict=True) if isinstance(dim, str)}


def _clip(layer: Layer, x: Sequence[Tensor], constants: Constants) -> Tensor:
    values = layer.values
    low, high = (values.number(end) if end in values else None for end in ("min", "max"))
    return torch.clamp(x[0], low, high)


def _hard_sigmoid(layer: Layer, x: Sequence[Tensor], constants: Constants) -> Tensor:
    alpha, beta = layer.values.number("alpha"), layer.values.number("beta")
    if (alpha, beta) == (1 / 6, 0.5):
        return F.hardsigmoid(x[0])
    return torch.clamp(x[0] * alpha + beta, 0, 1)


def _opaque(layer: Layer, x: Sequence[Tensor], constants: Constants) -> tuple[Tensor, ...]:
    blob = layer.values.blob("model")
    if blob.data is None:
        raise TrilobitError(
            f"the part {blob.sha256[:12]} is known by its profile only; import the model again"
        )
    run: Callable[[bytes, list[object]], list[object]] = resolve_name(OPAQUE_RUNNER)
    outputs = run(blob.data, [tensor.detach().cpu().numpy() for tensor in x])
    return tuple(torch.as_tensor(y, device=x[0].device if x else None) for y in outputs)


def _weight(layer: Layer, constants: Constants) -> Tensor:
    if constants.weight is None:
        raise TrilobitError(f"{layer.key()!r} has no weight")
    return constants.weight


def _operand(layer: Layer, x: Sequence[Tensor], constants: Constants) -> Tensor:
    """Return the second operand, computed or constant."""
    return x[1] if len(x) > 1 else _weight(layer, constants)


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> _One:
    return lambda layer, x, constants: function(x[0], _operand(layer, x, constants))


_ONE: Mapping[str, _One] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Add": _binary(torch.add),
    "Sub": _binary(torch.sub),
    "Mul": _binary(torch.mul),
    "Div": _binary(torch.div),
    "Concat": lambda layer, x, constants: torch.cat(list(x), dim=layer.values.integer("axis")),
    "Reshape": _reshape,
    "Transpose": lambda layer, x, constants: x[0].permute(layer.values.integers("perm")),
    "Flatten": lambda layer, x, constants: _flattened(x[0], layer.values.integer("axis")),
    "Softmax": lambda layer, x, constants: _shares(layer, x),
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
    "Swish": _swish,
    "Gather": _gather,
    "Slice": _slice,
    "Expand": _expand,
    "Less": lambda layer, x, constants: x[0] < layer.values.integer("value"),
    "Where": _where,
    "RotaryEmbedding": _rotary,
    "Gelu": lambda layer, x, constants: F.gelu(x[0], approximate=layer.values.text("approximate")),
    "Relu": lambda layer, x, constants: torch.relu(x[0]),
    "Clip": _clip,
    "HardSwish": lambda layer, x, constants: F.hardswish(x[0]),
    "HardSigmoid": _hard_sigmoid,
    "Sigmoid": lambda layer, x, constants: torch.sigmoid(x[0]),
    "Tanh": lambda layer, x, constants: torch.tanh(x[0]),
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": lambda layer, x, constants: x[0].mean(tuple(range(2, x[0].ndim)), keepdim=True),
    "QuantizeLinear": lambda layer, x, constants: x[0],  # rounded as every tensor of its format is
    "DequantizeLinear": lambda layer, x, constants: x[0],
}


def _flattened(x: Tensor, axis: int) -> Tensor:
    rows = int(torch.tensor(x.shape[:axis]).prod()) if axis else 1
    return x.reshape(rows, -1)


_SEVERAL: Mapping[str, Function] = {"Split": _split, "Attention": _attention, "Opaque": _opaque}


def _as_tuple(function: _One) -> Function:
    return lambda layer, x, constants: (function(layer, x, constants),)


TORCH: Consumer[Function] = Consumer(
    "torch",
    {**{op: _as_tuple(function) for op, function in _ONE.items()}, **_SEVERAL},
    otherwise="it runs only as the layers within it; lower the workload",
)
