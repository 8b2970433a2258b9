"""From a policy of a quantized supernet to a `QuantizedGraph`: norms folded, codes by Double Rounding."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hw_profiles.graph.formats import QuantParams, in_integers
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.lowering import lower
from hw_profiles.graph.workload import Workload
from supernet.formats.loading import load_weight_format
from supernet.formats.quantized_tensor import QuantizedTensor
from supernet.graph.executor import (
    LayeredNet,
    SizedLayer,
    Statistics,
    folded,
    folding,
    recalibrated,
    run,
    sized_layer,
    tensor_keys,
)
from supernet.graph.quantized_graph import (
    Parameters,
    QuantizedGraph,
    cache_names,
    cache_params,
    keeps_codes,
)
from supernet.qat.learned import BIAS_CODES, LearnedQuantizers
from supernet.qat.lsq import SMALLEST_SCALE


def deploy(
    net: LayeredNet, quantizers: LearnedQuantizers, workload: Workload, batches: Sequence[Tensor]
) -> QuantizedGraph:
    """Convert a policy of `net` to the network that `workload` describes, with the weights of `net`.

    Args:
        net: an elastic supernet, or an extracted subnet; it is only read.
        batches: calibration inputs for the batch-norm statistics of this very policy.
    """
    work = lower(workload)
    statistics = recalibrated(net, quantizers, work, batches)
    tensors: dict[str, QuantParams] = {}
    for producer, key in zip(work.producers, tensor_keys(work), strict=True):
        name, layer = work.names[producer], work.layers[producer]
        if key is not None and name not in tensors:
            tensors[name] = quantizers.params(key, layer.out_format)
    if any(map(keeps_codes, work.layers)):
        tensors |= _kept(net, quantizers, work, statistics, batches)
    parameters = {}
    for position, (name, layer) in enumerate(zip(work.names, work.layers, strict=True)):
        if "weight" not in layer.values:
            continue
        sized = sized_layer(net.layer(name), layer)
        if not layer.weighted:
            bias = np.zeros(0, np.float32) if sized.bias is None else _array(sized.bias)
            parameters[name] = Parameters(QuantizedTensor(_array(sized.weight)), bias)
        else:
            source = work.inputs[position][0]
            input_qparams = tensors.get(work.names[work.producers[source]]) if source >= 0 else None
            parameters[name] = _parameters(quantizers, name, layer, sized, statistics, input_qparams)
    return QuantizedGraph(work, parameters, tensors)


def _kept(
    net: LayeredNet,
    quantizers: LearnedQuantizers,
    work: Workload,
    statistics: Statistics,
    batches: Sequence[Tensor],
) -> dict[str, QuantParams]:
    """Return how keys and values are kept that attention keeps as codes: to the largest that is seen."""
    reach: dict[str, float] = {}
    compute = folded(quantizers, statistics)
    with torch.no_grad():
        for batch in batches:
            tensors = run(net, quantizers, work, batch, compute)
            for name, layer, sources in zip(work.names, work.layers, work.inputs, strict=True):
                read = sources[1:3] if keeps_codes(layer) else ()
                for key, source in zip(cache_names(name), read, strict=False):
                    reach[key] = max(reach.get(key, 0.0), float(tensors[source].abs().max()))
    return {key: cache_params(largest) for key, largest in reach.items()}


def _parameters(
    quantizers: LearnedQuantizers,
    name: str,
    layer: Layer,
    sized: SizedLayer,
    statistics: Statistics,
    input_qparams: QuantParams | None,
) -> Parameters:
    """Numbers of one layer; `input_qparams` is how the tensor it reads is quantized."""
    with torch.no_grad():
        factor, bias = folding(name, sized, statistics)
        if "bias" not in layer.values or not layer.values.integer("bias"):
            bias = bias[:0]
        weight_format = load_weight_format(layer.weight_format, quantizers.sums)
        if not weight_format.on_ladder:
            weight = sized.weight * factor.view(-1, *(1,) * (sized.weight.ndim - 1))
            return Parameters(weight_format.encode(_array(weight)), _array(bias))
        codes, scale = quantizers.codes(name, sized.weight, layer.weight_format)
        signs = torch.where(factor < 0, -1, 1).to(torch.int8)
        signed = codes * signs.view(-1, *(1,) * (codes.ndim - 1))
    stored = _array(signed), _array(scale * factor.abs())
    if input_qparams is None or not in_integers(layer.weight_format, layer.in_format):
        return Parameters(QuantizedTensor(*stored), _array(bias))
    return _representable(*stored, _array(bias), input_qparams.scale)


def _representable(
    codes: NDArray[np.int8], scale: NDArray[np.float32], bias: NDArray[np.float32], input_scale: float
) -> Parameters:
    """Channels whose scale is so small that 32 bits do not hold their bias get a larger one, and with it
    smaller codes: what is lost is far below a step of the output.
    """
    held = np.abs(bias) if len(bias) else np.zeros(1, np.float32)
    smallest = np.maximum(held / (BIAS_CODES * np.float32(input_scale)), SMALLEST_SCALE)
    raised = np.maximum(scale, smallest).astype(np.float32)
    ratio = (scale / raised).reshape(-1, *(1,) * (codes.ndim - 1))
    return Parameters(QuantizedTensor(np.rint(codes * ratio).astype(np.int8), raised), bias)


def _array(tensor: Tensor) -> Any:
    return np.ascontiguousarray(tensor.detach().cpu().numpy())
