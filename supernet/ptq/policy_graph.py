"""A policy of an imported model as a `QuantizedGraph`: what integer kernels compute, layer by layer."""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.builder import WorkloadBuilder
from hw_profiles.graph.conversions import convert
from hw_profiles.graph.formats import FP32, QuantParams, is_integer, needs_scale
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.workload import Workload
from supernet.formats.loading import load_format
from supernet.formats.quantized_tensor import QuantizedTensor
from supernet.graph.quantized_graph import Parameters, QuantizedGraph
from supernet.graph.simulate import INTEGERS
from supernet.imported.folding import CLIPPED, Folded, fold
from supernet.imported.model import ImportedModel
from supernet.ptq.product import Product
from supernet.ptq.products import read_products
from supernet.ptq.quantization import Policy, Quantization

FOLLOWING = "int8"  # format of units that follow


def quantized_graph(quantization: Quantization, policy: Policy) -> QuantizedGraph:
    """Return a model in the formats of a policy, conversions between them as layers of their own. What the
    policy does not name follows its neighbours where the arithmetic of integers has it.

    Its layers have the names of the model's units; what only moves numbers is folded (`Folded`).

    Raises:
        TrilobitError: a unit cannot be folded, or the quantization does not have a format of the policy.
    """
    folded = fold(quantization.model)
    if folded.refusals:
        raise TrilobitError("{}: {}".format(*next(iter(folded.refusals.items()))))
    if len(quantization.model.inputs) != 1 or len(folded.outputs) != 1:
        given = f"{len(quantization.model.inputs)} inputs and {len(folded.outputs)} outputs"
        raise TrilobitError(f"a library reads one tensor and gives one; the model has {given}")
    work = policy_workload(quantization.model, policy)
    layers = dict(zip(work.names, work.layers, strict=True))
    parameters = {
        name: _parameters(quantization, folded, name, layer)
        for name, layer in layers.items()
        if "weight" in layer.values
    }
    tensors = {
        name: _range(quantization, folded, work, position)
        for position, name in enumerate(work.names)
        if needs_scale(work.layers[position].out_format)
    }
    return QuantizedGraph(work, parameters, tensors)


def policy_workload(model: ImportedModel, policy: Policy) -> Workload:
    """Return the layers of a policy, conversions among them."""
    folded = fold(model)
    return _in_formats(folded, completed(folded, policy))


def completed(folded: Folded, policy: Policy) -> Policy:
    """Return the number format of every layer of a folded workload, of those too that follow: what has no
    weight computes on codes where it reads nothing else, and the arithmetic of integers has it.
    """
    work = folded.workload
    asked = {name for name, fmt in policy.items() if is_integer(load_format(fmt).on)}
    readers = _readers(work)
    formats: dict[str, str] = {}
    codes: dict[int, bool] = {}
    for position, (name, layer) in enumerate(zip(work.names, work.layers, strict=True)):
        unit, first = name.removesuffix(CLIPPED), work.producers.index(position)
        follows = not layer.weighted and layer.op in INTEGERS.functions and unit not in policy
        integer = unit in asked or (follows and all(codes.get(x, False) for x in work.inputs[position]))
        formats[name] = policy.get(unit, FOLLOWING if integer else FP32)
        onward = layer.op != "Gemm" or (bool(readers.get(first)) and set(readers[first]) <= asked)
        codes |= dict.fromkeys(range(first, first + len(layer.outputs)), integer and onward)
    return formats


def _readers(work: Workload) -> dict[int, list[str]]:
    """Return the layers that read each tensor."""
    readers: dict[int, list[str]] = {}
    for name, read in zip(work.names, work.inputs, strict=True):
        for tensor in read:
            readers.setdefault(tensor, []).append(name)
    return readers


def policy_layer(layer: Layer, fmt: str) -> Layer:
    """Return a layer of a model as it is in a format of a policy."""
    if not layer.weighted:
        return layer.with_formats(FP32, load_format(fmt).on)
    return layer.with_formats(fmt, load_format(fmt).on)


def _in_formats(folded: Folded, formats: Policy) -> Workload:
    """Return the folded workload with its layers in these formats."""
    work, readers = folded.workload, _readers(folded.workload)
    builder = WorkloadBuilder(feeds=work.feeds)
    tensors: list[int] = []
    for position, (name, layer) in enumerate(zip(work.names, work.layers, strict=True)):
        chosen = policy_layer(layer, formats[name])
        sources = tuple(tensors[source] if source >= 0 else source for source in work.inputs[position])
        if name.endswith(CLIPPED) and is_integer(chosen.in_format):
            tensors.append(sources[0])  # the range of its codes clips
            continue
        others = {load_format(formats[reader]).on for reader in readers.get(len(tensors), ())}
        if layer.op == "Gemm" and others == {chosen.in_format} and len(tensors) not in work.outputs:
            chosen = replace(chosen, attributes=(*chosen.attributes, ("to", chosen.in_format)))
        first = builder.add(name, chosen, *sources)
        tensors += range(first, first + len(chosen.outputs))
    outputs = [_as_real(builder, tensors[tensor]) for tensor in work.outputs]
    return builder.build(*outputs)


def _as_real(builder: WorkloadBuilder, tensor: int) -> int:
    """Return an output in real numbers."""
    for layer in convert(builder.type(tensor), FP32):
        tensor = builder.add("output.dequantize", layer, tensor)
    return tensor


# -- numbers ---------------------------------------------------------------------------------------------


@lru_cache(8)
def _products(model: ImportedModel) -> Mapping[str, Product]:
    return read_products(model)


def _parameters(quantization: Quantization, folded: Folded, name: str, layer: Layer) -> Parameters:
    fmt = layer.weight_format
    product = _products(quantization.model).get(name)
    if fmt == FP32 and product is not None:
        stored = Parameters(QuantizedTensor(product.stored), product.bias)
    elif (name, fmt) in quantization.parameters:
        stored = quantization.parameters[name, fmt]
    else:
        raise TrilobitError(f"{name} was not calibrated in {fmt}")
    weight = stored.weight
    codes = _columns(weight.codes, folded, name, layer).reshape(layer.values.integers("weight"))
    return Parameters(replace(weight, codes=codes), stored.bias)


def _columns(codes: NDArray[np.generic], folded: Folded, name: str, layer: Layer) -> NDArray[np.generic]:
    """Return a linear layer's weight with its columns in the order in which it reads maps."""
    order = folded.columns.get(name, ())
    if tuple(order) == tuple(sorted(order)):
        return codes
    sizes = [int(size) for size in layer.inputs[0].shape[1:]]
    dims = [dim - 1 for dim in order[1:]]
    maps = codes.reshape(len(codes), *(sizes[dim] for dim in dims))
    return maps.transpose(0, *(1 + int(i) for i in np.argsort(dims))).reshape(len(codes), -1)


def _range(quantization: Quantization, folded: Folded, work: Workload, position: int) -> QuantParams:
    """Return scale and zero point of what a layer gives."""
    origin = position
    while work.layers[origin].is_conversion or work.layers[origin].keeps_codes:
        source = work.inputs[origin][0]
        if source < 0:
            return _known(quantization, folded, source, work.feeds[-1 - source].name)
        origin = work.producers[source]
    name = work.names[origin]
    tensor = folded.workload.producers.index(folded.workload.names.index(name))
    return _inside(_known(quantization, folded, tensor, name), work.layers[origin].nonlinearity)


def _known(quantization: Quantization, folded: Folded, tensor: int, name: str) -> QuantParams:
    """Return what is known of a tensor of the folded workload."""
    names = list(folded.names.get(tensor, ()))
    names += folded.names.get(tensor + 1, ()) if f"{name}{CLIPPED}" in folded.workload.names else ()
    for other in names:
        if other in quantization.tensors:
            return quantization.tensors[other]
    raise TrilobitError(f"the range of what {name} gives was not calibrated")


def _inside(params: QuantParams, activation: str) -> QuantParams:
    """Return a range that ends where a ReLU does, so that clipping to its codes is all that it takes."""
    if activation not in ("relu", "relu6"):
        return params
    highest = params.scale * (params.largest - params.zero_point)
    end = 6.0 if activation == "relu6" else highest
    scale = float(np.float32(min(highest, end) / params.largest))
    fits = params.zero_point == 0 and params.scale <= scale
    return params if fits else QuantParams(scale, 0, params.largest)
