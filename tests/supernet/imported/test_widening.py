"""Networks of 16-bit numbers are tuned in 32 bits, and read and give what they did."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from hw_profiles.runtimes.plugin import host_runtime
from hw_profiles.runtimes.runtime import Artifact
from supernet.imported.import_onnx import import_onnx

HALF, SINGLE = TensorProto.FLOAT16, TensorProto.FLOAT
RNG = np.random.default_rng(0)
node = helper.make_node


def halves(given: int, read: int) -> bytes:
    """A network that converts inside, has a branch, and fills a tensor; `given` and `read` are types."""
    twice = helper.make_graph(
        [node("Add", ["h", "h"], ["t"])], "twice", [], [helper.make_tensor_value_info("t", HALF, None)]
    )
    once = helper.make_graph(
        [node("Identity", ["h"], ["o"])], "once", [], [helper.make_tensor_value_info("o", HALF, None)]
    )
    filler = numpy_helper.from_array(np.array([0.5], np.float16))
    nodes = [
        node("Cast", ["x"], ["x16"], to=HALF),
        node("MatMul", ["x16", "w"], ["m"], "first"),
        node("Relu", ["m"], ["h"]),
        node("ReduceSum", ["h"], ["total"], keepdims=0),
        node("Greater", ["total", "zero"], ["positive"]),
        node("If", ["positive"], ["b"], then_branch=twice, else_branch=once),
        node("Shape", ["b"], ["sizes"]),
        node("ConstantOfShape", ["sizes"], ["fill"], value=filler),
        node("Add", ["b", "fill"], ["c"]),
        node("MatMul", ["c", "v"], ["d"], "second"),
        node("Cast", ["d"], ["wide"], to=SINGLE),
        node("Softmax", ["wide"], ["s"]),
        node("Cast", ["s"], ["y"], to=given),
    ]
    stored = {
        "w": RNG.normal(0, 0.3, (8, 16)).astype(np.float16),
        "v": RNG.normal(0, 0.3, (16, 4)).astype(np.float16),
        "zero": np.float16(0),
    }
    graph = helper.make_graph(
        nodes,
        "halves",
        [helper.make_tensor_value_info("x", read, ["n", 8])],
        [helper.make_tensor_value_info("y", given, ["n", 4])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


@pytest.mark.parametrize(("given", "read"), [(HALF, HALF), (SINGLE, HALF), (HALF, SINGLE), (SINGLE, SINGLE)])
def test_it_computes_the_same_in_more_bits(given: int, read: int) -> None:
    content = halves(given, read)
    model = import_onnx(content)
    products = [unit for unit in model.units if unit.weighted]
    assert [unit.op for unit in products] == ["MatMul", "MatMul"]
    assert {model.constants[unit.weight].dtype for unit in products} == {np.dtype(np.float32)}
    assert {model.dtypes[name] for unit in products for name in unit.inputs} == {"float32"}
    x = RNG.normal(size=(5, 8)).astype(helper.tensor_dtype_to_np_dtype(read))
    before, after = (
        host_runtime().compile(Artifact(file)).run({"x": x})["y"] for file in (content, model.content)
    )
    assert after.dtype == before.dtype == helper.tensor_dtype_to_np_dtype(given)
    np.testing.assert_allclose(after, before, atol=5e-3)
