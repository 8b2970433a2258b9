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
    "Softmax": lambda layer, x, constants: torch.softmax(x[0], dim=layer.values.integer("axis")),
    "LayerNormalization": _layer_norm,
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


def _as_tuple(function: _One) -> Function:
    return lambda layer, x, constants: (function(layer, x, constants),)


TORCH: Consumer[Function] = Consumer(
    "torch",
    {**{op: _as_tuple(function) for op, function in _ONE.items()}, "Split": _split, "Opaque": _opaque},
    otherwise="it runs only as the layers within it; lower the workload",
)
