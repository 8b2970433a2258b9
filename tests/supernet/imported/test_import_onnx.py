"""Import of ONNX files: the function unchanged, units as runtimes compute them, counts right."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.counts import macs, params
from hw_profiles.runtimes.plugin import host_runtime
from hw_profiles.runtimes.runtime import Artifact
from supernet.imported.import_onnx import import_onnx
from supernet.imported.model import ImportedModel
from tests.published_data import data_file

RNG = np.random.default_rng(0)
F = TensorProto.FLOAT


def made(
    nodes: list[Any],
    inputs: dict[str, list[Any]],
    outputs: list[str],
    opset: int = 21,
    **stored: NDArray[Any],
) -> bytes:
    """An ONNX file."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, F, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, F, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    content: bytes = model.SerializeToString()
    return content


def normal(*shape: int) -> NDArray[np.float32]:
    return RNG.normal(0, 0.5, shape).astype(np.float32)


def run(content: bytes, **feeds: NDArray[Any]) -> dict[str, NDArray[Any]]:
    return host_runtime().compile(Artifact(content)).run(feeds)


def assert_same_function(content: bytes, model: ImportedModel, **feeds: NDArray[Any]) -> None:
    for (name, expected), actual in zip(
        run(content, **feeds).items(), run(model.content, **feeds).values(), strict=True
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5, err_msg=name)


def mixed() -> bytes:
    node = helper.make_node
    return made(
        [
            node("Conv", ["x", "w1", "b1"], ["c1"], kernel_shape=[3, 3], pads=[0, 1, 1, 0], strides=[2, 2]),
            node("BatchNormalization", ["c1", "s", "s", "b1", "s"], ["n1"]),
            node("Clip", ["n1", "zero", "six"], ["r1"]),
            node(
                "Conv",
                ["r1", "w2"],
                ["c2"],
                kernel_shape=[3, 3],
                pads=[2, 2, 2, 2],
                dilations=[2, 2],
                group=8,
            ),
            node("Relu", ["c2"], ["r2"]),
            node("Add", ["r1", "r2"], ["a"]),
            node("Relu", ["a"], ["r3"]),
            node("GlobalAveragePool", ["r3"], ["p"]),
            node("Shape", ["p"], ["shape"]),
            node("Gather", ["shape", "first"], ["batch"]),
            node("Concat", ["batch", "rest"], ["target"], axis=0),
            node("Reshape", ["p", "target"], ["flat"]),
            node("Identity", ["flat"], ["same"]),
            node("MatMul", ["same", "w3"], ["m"]),
            node("Add", ["m", "b3"], ["y"]),
        ],
        {"x": ["n", 3, 16, 16]},
        ["y"],
        w1=normal(8, 3, 3, 3),
        b1=normal(8),
        s=np.abs(normal(8)) + 0.5,
        zero=np.float32(0),
        six=np.float32(6),
        w2=normal(8, 1, 3, 3),
        first=np.array([0]),
        rest=np.array([8]),
        w3=normal(8, 5),
        b3=normal(5),
    )


def test_units_are_what_runtimes_compute_as_one_kernel() -> None:
    content = mixed()
    model = import_onnx(content)
    assert [(unit.op, len(unit.nodes), bool(unit.weight), bool(unit.bias)) for unit in model.units] == [
        ("Conv", 2, True, True),  # batch norm folded, clipped to 0..6
        ("Conv", 2, True, False),
        ("Add", 2, False, False),
        ("GlobalAveragePool", 1, False, False),
        ("Reshape", 1, False, False),
        ("MatMul", 2, True, True),
    ]
    assert [unit.layer.activation for unit in model.units] == ["relu6", "relu", "relu", *["none"] * 3]
    assert model.bound == {"n": 1}
    assert model.shapes["x"] == (1, 3, 16, 16)
    assert sum(map(macs, model.workload.layers)) == 8 * 8 * 8 * 27 + 8 * 8 * 8 * 9 + 40
    assert sum(map(params, model.workload.layers)) == 8 * 27 + 8 + 72 + 45
    for batch in (1, 3):
        assert_same_function(content, model, x=normal(batch, 3, 16, 16))


LONG = {"ppocr_v4_rec"}  # hundreds of units
REAL: dict[str, tuple[dict[str, tuple[int, ...]], int]] = {
    "efficientnet_lite0": ({"image": (1, 3, 224, 224)}, 385_187_552),
    "mlperf_tiny_resnet8": ({"input_1": (1, 32, 32, 3)}, 12_501_632),
    "mlperf_tiny_vww96": ({"input_1": (1, 96, 96, 3)}, 7_489_664),
    "ppocr_v2_cls": ({"x": (1, 3, 48, 192)}, 0),
    "ppocr_v4_rec": ({"x": (1, 3, 48, 320)}, 0),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in REAL]
)
def test_published_networks_compute_the_same(name: str) -> None:
    path = data_file(f"models/{name}.onnx")
    shapes, count = REAL[name]
    model = import_onnx(path, shapes=shapes)
    ((source, shape),) = shapes.items()
    assert_same_function(path.read_bytes(), model, **{source: np.abs(normal(*shape))})
    assert not count or sum(map(macs, model.workload.layers)) == count
    nodes = Counter(node.name for node in onnx.load_from_string(model.content).graph.node)
    assert nodes == Counter(name for unit in model.units for name in unit.nodes)


def test_open_dimensions_are_named_with_what_to_say() -> None:
    node = helper.make_node("Add", ["a", "b"], ["y"])
    content = made([node], {"a": ["n", "width"], "b": ["n", -1]}, ["y"])
    with pytest.raises(
        TrilobitError, match=r"width of input a; b_dim1 of input b\. Say --shape a=1x\? --shape b=1x\?"
    ):
        import_onnx(content)
    model = import_onnx(content, shapes={"a": (1, 5), "b": (1, 5)})
    assert model.bound == {"n": 1, "width": 5, "b_dim1": 5}
    inputs = onnx.load_from_string(model.content).graph.input
    assert [d.dim_param for d in inputs[0].type.tensor_type.shape.dim] == ["n", "width"]


def test_no_onnx_file_is_told_in_one_line(tmp_path: Path) -> None:
    for content in (b"", b"no model", b"\x00" * 100, mixed()[:2000]):
        path = tmp_path / "bad.onnx"
        path.write_bytes(content)
        with pytest.raises(TrilobitError):
            import_onnx(path)


def test_what_exporters_spell_out_becomes_one_operation() -> None:
    node = helper.make_node
    content = made(
        [
            node("Mul", ["x", "scale"], ["x1"]),
            node("Add", ["x1", "offset"], ["x2"]),  # before a convolution with padding
            node("Conv", ["x2", "w1"], ["c1"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            node("Add", ["c1", "shift"], ["c2"]),
            node("Add", ["c2", "three"], ["h1"]),
            node("Clip", ["h1", "zero", "six"], ["h2"]),
            node("Mul", ["c2", "h2"], ["h3"]),
            node("Div", ["h3", "six"], ["h4"]),
            node("Mul", ["h4", "each"], ["h5"]),
            node("Add", ["h5", "offset"], ["h6"]),  # before one without
            node("Conv", ["h6", "w2"], ["c3"], kernel_shape=[1, 1], group=2),
            node("Mul", ["each", "c3"], ["c4"]),
            node("Transpose", ["c4"], ["t"], perm=[0, 2, 3, 1]),
            node("ReduceMean", ["t", "last"], ["mean"]),
            node("Sub", ["t", "mean"], ["d"]),
            node("Pow", ["d", "two"], ["dd"]),
            node("ReduceMean", ["dd", "last"], ["variance"]),
            node("Add", ["variance", "tiny"], ["v"]),
            node("Sqrt", ["v"], ["deviation"]),
            node("Div", ["d", "deviation"], ["n"]),
            node("Mul", ["n", "gain"], ["n1"]),
            node("Add", ["n1", "gain"], ["n2"]),
            node("Div", ["n2", "root"], ["e1"]),
            node("Erf", ["e1"], ["e2"]),
            node("Add", ["e2", "one"], ["e3"]),
            node("Mul", ["n2", "e3"], ["e4"]),
            node("Mul", ["e4", "half"], ["e5"]),
            node("Mul", ["e5", "ones"], ["e6"]),
            node("Shape", ["e6"], ["s"]),
            node("Slice", ["s", "from", "to"], ["open"]),
            node("Concat", ["open", "open2"], ["target"], axis=0),
            node("Reshape", ["e6", "target"], ["r"]),
            node("Softmax", ["r"], ["y"]),
        ],
        {"x": ["n", 6, 8, "width"]},
        ["y"],
        scale=np.float32(0.3),
        offset=np.array([0.1], np.float32),
        w1=normal(8, 6, 3, 3),
        shift=normal(1, 8, 1, 1),
        three=np.float32(3),
        zero=np.float32(0),
        six=np.float32(6),
        each=np.abs(normal(8, 1, 1)),
        w2=normal(8, 4, 1, 1),
        last=np.array([-1]),
        two=np.float32(2),
        tiny=np.float32(1e-5),
        gain=normal(8),
        root=np.float32(np.sqrt(2)),
        one=np.float32(1),
        half=np.float32(0.5),
        ones=np.ones(1, np.float32),
        open2=np.array([-1, 64]),
        **{"from": np.array([0]), "to": np.array([1])},
    )
    model = import_onnx(content, shapes={"x": (1, 6, 8, 16)})
    assert [unit.op for unit in model.units] == [
        *("Add", "Conv", "HardSwish", "Conv", "Transpose"),
        *("LayerNormalization", "Gelu", "Reshape", "Softmax"),
    ]
    for shape in ((1, 6, 8, 16), (2, 6, 8, 9)):
        assert_same_function(content, model, x=normal(*shape))


@pytest.mark.parametrize(("opset", "prepared"), [(11, 21), (21, 21), (23, 23)])
def test_files_are_brought_to_the_opset_of_small_integers_but_never_back(opset: int, prepared: int) -> None:
    content = made(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": [1, 4]}, ["y"], opset, w=normal(4, 3)
    )
    model = onnx.load_model_from_string(import_onnx(content).content)
    assert [domain.version for domain in model.opset_import] == [prepared]


def test_units_may_share_weights() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c1"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c1", "b", "b", "b", "s"], ["n1"]),
        helper.make_node("Conv", ["n1", "w", "b"], ["c2"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Mul", ["c2", "scale"], ["m"]),
        helper.make_node("Conv", ["m", "w", "b"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    ]
    stored = {"w": normal(4, 4, 3, 3), "b": normal(4), "s": np.abs(normal(4)), "scale": normal(4, 1, 1)}
    content = made(nodes, {"x": ["n", 4, 8, 8]}, ["y"], **stored)
    model = import_onnx(content)
    assert_same_function(content, model, x=normal(2, 4, 8, 8))
    assert all(unit.weight in model.constants for unit in model.units if unit.op == "Conv")


def test_a_branch_that_gives_on_what_it_reads_keeps_nothing_from_being_cleaned() -> None:
    value = helper.make_tensor_value_info
    as_it_is = helper.make_graph([helper.make_node("Identity", ["h"], ["i"])], "a", [], [value("i", F, None)])
    doubled = helper.make_graph([helper.make_node("Add", ["h", "h"], ["d"])], "b", [], [value("d", F, None)])
    content = made(
        [
            helper.make_node("MatMul", ["x", "w"], ["m"], "product"),
            helper.make_node("Add", ["m", "nothing"], ["h"], "neutral"),
            helper.make_node("ReduceSum", ["h"], ["total"], keepdims=0),
            helper.make_node("Greater", ["total", "nothing"], ["positive"]),
            helper.make_node("If", ["positive"], ["y"], then_branch=as_it_is, else_branch=doubled),
        ],
        {"x": ["n", 4]},
        ["y"],
        w=normal(4, 3),
        nothing=np.float32(0),
    )
    model = import_onnx(content)
    assert [unit.op for unit in model.units] == ["MatMul", "ReduceSum", "Greater", "If"]
    for sign in (1, -1):
        assert_same_function(content, model, x=sign * np.abs(normal(2, 4)))
