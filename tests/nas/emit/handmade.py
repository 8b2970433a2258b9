"""Imported models and their quantization made by hand, without import and calibration."""

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper, shape_inference

from hw_profiles.graph.formats import in_integers
from hw_profiles.graph.layer import map_layer
from hw_profiles.graph.workload import Workload, single
from hw_profiles.runtimes.ort.runtime import open_session
from supernet.formats.loading import load_activation_format, load_weight_format, policy_precision
from supernet.graph.quantized_graph import Parameters
from supernet.imported.model import ImportedModel, Unit
from supernet.ptq.quantization import Quantization

Feeds = dict[str, NDArray[np.generic]]
_LAYER = map_layer("pool", (1, 1, 1), 1)


def imported(model: onnx.ModelProto, feeds: Feeds) -> ImportedModel:
    """Return a model whose nodes have names as an imported one, at the sizes of `feeds`."""
    values = tensors(model, feeds)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    work = Workload(("pool",), (_LAYER,), single(_LAYER).inputs)
    return ImportedModel(
        content=model.SerializeToString(),
        units=tuple(_units(model, stored)),
        workload=work,
        shapes={name: array.shape for name, array in values.items()},
        dtypes={name: str(array.dtype) for name, array in values.items()},
        bound={},
        constants=stored,
        inputs=tuple(value.name for value in model.graph.input),
        outputs=tuple(value.name for value in model.graph.output),
        metadata={},
    )


def tensors(model: onnx.ModelProto, feeds: Feeds) -> Feeds:
    """Return every computed tensor of a model."""
    inferred = shape_inference.infer_shapes(model)
    known = {value.name: value for value in inferred.graph.value_info}
    outputs = {value.name for value in model.graph.output}
    more = [known[name] for node in model.graph.node for name in node.output if name not in outputs]
    inferred.graph.output.extend(more)
    session = open_session(inferred.SerializeToString())
    names = [value.name for value in session.get_outputs()]
    return {**feeds, **dict(zip(names, session.run(None, feeds), strict=True))}


def _units(model: onnx.ModelProto, stored: Feeds) -> list[Unit]:
    groups: list[list[onnx.NodeProto]] = []
    by_output: dict[str, list[onnx.NodeProto]] = {}
    readers: dict[str, int] = {value.name: 2 for value in model.graph.output}
    for node in model.graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    for node in model.graph.node:
        group = next((by_output[name] for name in node.input if name in by_output), None)
        if group is not None and _joins(node, group, stored) and readers[group[-1].output[0]] == 1:
            group.append(node)
        else:
            groups.append(group := [node])
        by_output = {each[-1].output[0]: each for each in groups}
    return [_unit(group, stored) for group in groups]


def _joins(node: onnx.NodeProto, group: list[onnx.NodeProto], stored: Feeds) -> bool:
    ops, rest = [each.op_type for each in group], [name for name in node.input if name in stored]
    if ops == ["MatMul"] and group[0].input[1] in stored:
        return (node.op_type == "Add" and bool(rest)) or node.op_type in ("Relu", "Clip")
    return ops[0] in ("Conv", "Gemm", "MatMul", "Add") and node.op_type in ("Relu", "Clip")


def _unit(group: list[onnx.NodeProto], stored: Feeds) -> Unit:
    first = group[0]
    inner = {name for node in group for name in node.output}
    reads = [name for node in group for name in node.input if name and name not in inner]
    weight = first.input[1] if first.op_type in ("Conv", "Gemm", "MatMul") else ""
    weight = weight if weight in stored else ""
    bias = first.input[2] if weight and len(first.input) > 2 else ""
    if weight and len(group) > 1 and group[1].op_type == "Add":
        bias = next(name for name in group[1].input if name in stored)
    return Unit(
        first.name,
        first.op_type,
        tuple(node.name for node in group),
        tuple(dict.fromkeys(name for name in reads if name not in stored)),
        tuple(group[-1].output),
        _LAYER,
        weight,
        bias,
    )


def quantized(
    model: ImportedModel, values: Feeds, formats: Sequence[str], sums: str = "exact"
) -> Quantization:
    """Return what every policy of these formats needs, with the ranges of `values`."""
    from hw_profiles.reference.integer_sums import IntegerSums

    params = load_activation_format("int8")
    ranges = {
        name: params.params(float(array.min()), float(array.max()))
        for name, array in values.items()
        if array.dtype == np.float32
    }
    parameters: dict[tuple[str, str], Parameters] = {}
    nodes = {node.name: node for node in onnx.load_from_string(model.content).graph.node}
    for unit in model.units:
        for choice in formats if unit.weighted else ():
            precision = policy_precision(choice)
            weight = rows(nodes[unit.name], model.constants[unit.weight])
            encoded = load_weight_format(precision.weight, IntegerSums(sums)).encode(weight)
            bias = model.constants.get(unit.bias, np.zeros(0, np.float32)).reshape(-1)
            if weight.ndim == 2 or in_integers(precision.weight, precision.activation) or weight.ndim > 2:
                parameters[unit.name, choice] = Parameters(encoded, bias)
    return Quantization(model, ranges, parameters)


def rows(node: onnx.NodeProto, weight: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return a stored weight with output channels first."""
    attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    flip = node.op_type == "MatMul" or (node.op_type == "Gemm" and not attributes.get("transB", 0))
    return np.ascontiguousarray(weight.T if flip else weight, dtype=np.float32)
