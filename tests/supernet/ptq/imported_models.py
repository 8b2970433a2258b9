"""Small imported models, written node by node."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.shape_inference import infer_shapes

from hw_profiles.graph.layer import INPUT, Layer
from hw_profiles.graph.tensor_type import TensorType
from hw_profiles.graph.workload import Workload
from supernet.imported.model import ImportedModel, Unit

PLACEHOLDER = Layer.of("Relu", TensorType((1, 4)))  # nothing here looks at layers
WORKLOAD = Workload(("unit",), (PLACEHOLDER,), ((INPUT,),))
PRODUCTS = ("Conv", "Gemm", "MatMul")


def node(op: str, inputs: Sequence[str], output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [output], name=f"{output}.{op}", **attributes)


def imported_model(
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, np.ndarray],
    inputs: Mapping[str, Sequence[int]],
    outputs: Sequence[str],
) -> ImportedModel:
    """Return a model whose units are a product with its bias, ReLU and clip, or else one node."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    proto = infer_shapes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10),
        strict_mode=True,
        data_prop=True,
    )
    onnx.checker.check_model(proto)
    values = [*proto.graph.input, *proto.graph.value_info, *proto.graph.output]
    types = {value.name: value.type.tensor_type for value in values}
    return ImportedModel(
        proto.SerializeToString(),
        units(list(proto.graph.node), constants),
        WORKLOAD,
        {name: tuple(dim.dim_value for dim in kind.shape.dim) for name, kind in types.items()},
        {name: helper.tensor_dtype_to_np_dtype(kind.elem_type).name for name, kind in types.items()},
        {},
        dict(constants),
        tuple(inputs),
        tuple(outputs),
        {},
    )


def units(nodes: Sequence[onnx.NodeProto], constants: Mapping[str, np.ndarray]) -> tuple[Unit, ...]:
    groups: list[list[onnx.NodeProto]] = []
    for current in nodes:
        follows = (
            groups and groups[-1][-1].output[0] == current.input[0] and groups[-1][0].op_type in PRODUCTS
        )
        biased = current.op_type == "Add" and current.input[1] in constants
        if follows and (biased or current.op_type in ("Relu", "Clip")):
            groups[-1].append(current)
        else:
            groups.append([current])
    return tuple(unit(group, constants) for group in groups)


def unit(group: Sequence[onnx.NodeProto], constants: Mapping[str, np.ndarray]) -> Unit:
    first = group[0]
    inside = {name for member in group for name in member.output}
    read = (name for member in group for name in member.input)
    weighted = first.op_type in PRODUCTS and first.input[1] in constants
    biases = [
        *first.input[2:],
        *(name for member in group[1:] if member.op_type == "Add" for name in member.input[1:]),
    ]
    return Unit(
        first.name,
        first.op_type,
        tuple(member.name for member in group),
        tuple(dict.fromkeys(name for name in read if name and name not in inside and name not in constants)),
        tuple(group[-1].output),
        PLACEHOLDER,
        first.input[1] if weighted else "",
        biases[0] if weighted and biases else "",
    )
