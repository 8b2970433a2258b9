"""Units of a model as a file by themselves, at the bound sizes, and made-up numbers to quantize them with."""

from dataclasses import replace

import numpy as np
import onnx
from onnx import helper

from hw_profiles.graph.formats import QuantParams
from hw_profiles.graph.workload import single
from hw_profiles.reference.integer_sums import IntegerSums
from supernet.formats.loading import load_activation_format, load_weight_format, policy_precision
from supernet.graph.quantized_graph import Parameters
from supernet.imported.model import ImportedModel, Unit
from supernet.ptq.quantization import Quantization

RANGE = (-3.0, 3.0)  # of tensors: which kernel runs does not depend on it
CLIPPED = (0.0, 3.0)  # of what goes through a Relu or a Clip


class UnitFiles:
    """The units of a model as models."""

    def __init__(self, model: ImportedModel) -> None:
        self._model = model
        self._proto = onnx.load_from_string(model.content)
        self._nodes = {node.name: node for node in self._proto.graph.node}
        self._stored = {tensor.name: tensor for tensor in self._proto.graph.initializer}

    def model(self, unit: Unit, *beside: Unit) -> ImportedModel:
        """Return a model of this unit alone, or of those beside it, too, that read the same as it does."""
        units = (unit, *beside)
        inputs = tuple(dict.fromkeys(name for each in units for name in each.inputs))
        outputs = tuple(name for each in units for name in each.outputs)
        nodes = [self._nodes[name] for each in units for name in each.nodes]
        read = dict.fromkeys(name for node in nodes for name in node.input if name in self._stored)
        graph = helper.make_graph(
            nodes,
            "unit",
            [self._value(name) for name in inputs],
            [self._value(name) for name in outputs],
            [self._stored[name] for name in read],
        )
        proto = helper.make_model(
            graph, opset_imports=self._proto.opset_import, ir_version=self._proto.ir_version
        )
        return replace(
            self._model,
            content=proto.SerializeToString(),
            units=units,
            workload=single(unit.layer),
            inputs=unit.inputs,
            outputs=outputs,
        )

    def _value(self, name: str) -> onnx.ValueInfoProto:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self._model.dtypes[name]))
        return helper.make_tensor_value_info(name, kind, self._model.shapes[name])


def made_up(part: ImportedModel, choice: str, sums: IntegerSums) -> Quantization:
    """Return ranges, and weights in one format, of a model of one unit or of several that read the same."""
    tensors: dict[str, QuantParams] = {}
    for unit in part.units:
        tensors |= dict.fromkeys(unit.inputs, _params(RANGE))
        tensors |= dict.fromkeys(unit.outputs, _params(CLIPPED if len(unit.nodes) > 1 else RANGE))
    parameters = {
        (unit.name, choice): _made_up_weights(part, unit, choice, sums)
        for unit in part.units
        if unit.weighted
    }
    return Quantization(part, tensors, parameters)


def _made_up_weights(part: ImportedModel, unit: Unit, choice: str, sums: IntegerSums) -> Parameters:
    shape = part.constants[unit.weight].shape
    if unit.op == "MatMul" or (unit.op == "Gemm" and not _is_by_output(part)):
        shape = shape[::-1]
    weight = np.random.default_rng(0).standard_normal(shape, np.float32)
    encoded = load_weight_format(policy_precision(choice).weight, sums).encode(weight)
    bias = np.zeros(part.constants[unit.bias].size if unit.bias else 0, np.float32)
    return Parameters(encoded, bias)


def _is_by_output(part: ImportedModel) -> bool:
    """Return whether a Gemm stores its matrix with output channels first."""
    node = onnx.load_from_string(part.content).graph.node[0]
    return any(each.name == "transB" and each.i for each in node.attribute)


def _params(bounds: tuple[float, float]) -> QuantParams:
    return load_activation_format("int8").params(*bounds)
