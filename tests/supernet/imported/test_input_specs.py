"""What a file says of its inputs, before anything is bound."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from hw_profiles.errors import TrilobitError
from supernet.data.input_spec import InputSpec
from supernet.imported.input_specs import input_specs


def model(dtype: int, shape: list[int | str | None], ir_version: int = 8) -> bytes:
    weight = numpy_helper.from_array(np.ones((4, 2), np.float32), "w")
    inputs = [helper.make_tensor_value_info("x", dtype, shape), helper.make_tensor_value_info("w", 1, [4, 2])]
    nodes = [helper.make_node("Cast", ["x"], ["z"], to=1), helper.make_node("MatMul", ["z", "w"], ["y"])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "it", inputs if ir_version < 4 else inputs[:1], outputs, [weight])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=ir_version)
    helper.set_model_props(made, {"imgsz": "[4]"})
    return bytes(made.SerializeToString())


def test_open_dimensions_have_names() -> None:
    reads = input_specs(model(TensorProto.INT64, ["n", None, -1, 4]))
    assert reads.specs == (InputSpec("x", ("n", "x_dim1", "x_dim2", 4), "int64"),)
    assert reads.metadata == {"imgsz": "[4]"}


def test_stored_numbers_are_no_inputs() -> None:
    reads = input_specs(model(TensorProto.FLOAT16, ["n", 4], ir_version=3))
    assert reads.specs == (InputSpec("x", ("n", 4), "float16"),)


def test_words_are_no_numbers() -> None:
    with pytest.raises(TrilobitError, match="input 'x' is text; only numbers can be fed"):
        input_specs(model(TensorProto.STRING, ["n", 4]))
