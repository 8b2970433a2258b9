"""Quantization by hand, without calibration, and the execution that a policy stands for, unit by unit."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper, shape_inference

from hw_profiles.graph.formats import QuantParams
from hw_profiles.reference.integer_sums import IntegerSums
from hw_profiles.runtimes.ort.runtime import open_session
from nas.emit.instructions import instructions
from supernet.formats.loading import (
    load_activation_format,
    load_format,
    load_weight_format,
    policy_precision,
)
from supernet.graph.quantized_graph import Parameters
from supernet.imported.model import ImportedModel, Unit
from supernet.ptq.quantization import Quantization

Array = NDArray[Any]
Feeds = Mapping[str, Array]


def run(content: bytes, feeds: Feeds) -> dict[str, Array]:
    """Return the outputs of a file."""
    session = open_session(content)
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(None, dict(feeds)), strict=True))


def tensors(content: bytes, feeds: Feeds) -> dict[str, Array]:
    """Return every computed tensor of a model."""
    model = shape_inference.infer_shapes(onnx.load_from_string(content))
    known = {value.name: value for value in model.graph.value_info}
    outputs = {value.name for value in model.graph.output}
    inner = [name for node in model.graph.node for name in node.output if name not in outputs]
    model.graph.output.extend(known[name] for name in inner)
    return {**feeds, **run(model.SerializeToString(), feeds)}


def quantized(
    model: ImportedModel, feeds: Feeds, formats: Sequence[str], sums: IntegerSums = IntegerSums.EXACT
) -> Quantization:
    """Return what every policy of these formats needs, with the ranges of one run."""
    activation = load_activation_format("int8")
    ranges = {
        name: activation.params(float(array.min()), float(array.max()))
        for name, array in tensors(model.content, feeds).items()
        if array.dtype == np.float32
    }
    nodes = {node.name: node for node in onnx.load_from_string(model.content).graph.node}
    parameters = {}
    for unit in model.units:
        for choice in formats if unit.weighted and unit.op in ("Conv", "Gemm", "MatMul") else ():
            weight_format = load_weight_format(policy_precision(choice).weight, sums)
            weight = _rows(nodes[unit.name], model.constants[unit.weight])
            bias = model.constants[unit.bias] if unit.bias else np.zeros(0)
            bias = np.asarray(bias, np.float32).reshape(-1)
            parameters[unit.name, choice] = Parameters(weight_format.encode(weight), bias)
    return Quantization(model, ranges, parameters)


def _flipped(node: onnx.NodeProto) -> bool:
    given = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    return node.op_type == "MatMul" or (node.op_type == "Gemm" and not given.get("transB", 0))


def _rows(node: onnx.NodeProto, weight: Array) -> NDArray[np.float32]:
    """Return a stored weight with output channels first, or from there."""
    return np.ascontiguousarray(weight.T if _flipped(node) else weight, dtype=np.float32)


def fake_quantized(quantization: Quantization, policy: Mapping[str, str], feeds: Feeds) -> dict[str, Array]:
    """Return the outputs of a policy, computed in real numbers that are rounded where codes are: by the
    original nodes, one unit at a time.
    """
    model = quantization.model
    plan = instructions(quantization, policy)
    proto = onnx.load_from_string(model.content)
    codes = {each.tensor: each for each in plan.quantize}
    values: dict[str, Array] = dict(feeds)
    for unit in model.units:
        reads = {}
        for name in unit.inputs:
            rounded = name in codes and (codes[name].given or unit.name in plan.integer)
            reads[name] = _rounded(values[name], codes[name].params) if rounded else values[name]
        choice = policy.get(unit.name, "fp32")
        operand = load_format(choice).weight.operand if unit.weighted else None
        if operand is not None:
            reads = {name: operand.rounded(real) for name, real in reads.items()}
        values |= _run_unit(proto, unit, reads, _constants(quantization, policy, unit, proto))
    return {
        name: _rounded(values[name], codes[name].params)
        if name in codes and codes[name].given
        else values[name]
        for name in model.outputs
    }


def _rounded(real: Array, params: QuantParams) -> Array:
    if real.dtype != np.float32:
        return real
    codes = np.clip(np.rint(real / np.float32(params.scale)) + params.zero_point, 0, params.largest)
    return np.asarray((codes - params.zero_point) * np.float32(params.scale), np.float32)


def _constants(
    quantization: Quantization, policy: Mapping[str, str], unit: Unit, proto: onnx.ModelProto
) -> dict[str, Array]:
    choice = policy.get(unit.name, "fp32")
    if choice == "fp32" or not unit.weighted:
        return {}
    weight_format = load_weight_format(policy_precision(choice).weight)
    if not weight_format.needs_scale:
        original = np.asarray(quantization.model.constants[unit.weight], np.float32)
        return {unit.weight: weight_format.decode(weight_format.encode(original))}
    parameters = quantization.parameters[unit.name, choice]
    node = next(node for node in proto.graph.node if node.name == unit.name)
    weight = weight_format.decode(parameters.weight)
    return {unit.weight: np.ascontiguousarray(weight.T if _flipped(node) else weight)}


def _run_unit(proto: onnx.ModelProto, unit: Unit, reads: Feeds, constants: Feeds) -> dict[str, Array]:
    nodes = [node for node in proto.graph.node if node.name in unit.nodes]
    used = {name for node in nodes for name in node.input}
    stored = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer if t.name in used}
    stored |= {name: np.asarray(array) for name, array in constants.items()}
    kinds = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in reads.items()}
    graph = helper.make_graph(
        nodes,
        "unit",
        [helper.make_tensor_value_info(name, kinds[name], array.shape) for name, array in reads.items()],
        [helper.make_empty_tensor_value_info(name) for name in unit.outputs],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=proto.opset_import, ir_version=proto.ir_version)
    model = shape_inference.infer_shapes(model)
    return run(model.SerializeToString(), reads)
