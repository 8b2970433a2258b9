"""What is asked of somebody's network in a process of its own, of files that leave sizes open."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hw_profiles.runtimes.plugin import open_device
from hw_profiles.runtimes.runtime import Artifact
from nas.checks.engine import named_engine
from nas.checks.examples import example_inputs
from nas.checks.network_tasks import examine_network, network_outputs

PACKAGES = {"ort": "onnxruntime", "openvino": "openvino", "litert": "ai_edge_litert"}
SIZES = (1, 3, 6, 8)


@pytest.fixture(params=[("n", "h", "w"), (-1, -1, -1)], ids=["named", "negative"])
def open_sizes(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A file whose pooling has no meaning on images of one pixel; -1 is an exporter's word for open."""
    n, h, w = request.param
    pool = helper.make_node("AveragePool", ["x"], ["y"], "pool", kernel_shape=[3, 2], strides=[3, 2])
    graph = helper.make_graph(
        [pool],
        "pooled",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [n, 3, h, w])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [n, 3, "h2", "w2"])],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("device", PACKAGES)
def test_examples_bind_what_a_file_leaves_open(device: str, open_sizes: Path) -> None:
    pytest.importorskip(PACKAGES[device])
    images = np.random.default_rng(0).standard_normal((2, *SIZES), np.float32)
    expected = images.reshape(2, 1, 3, 2, 3, 4, 2).mean(axis=(4, 6))
    request = {"path": str(open_sizes), "device": named_engine(device).request(), "names": ["x"]}
    names, arrays = network_outputs(request, input_0=images)
    assert names == ["y"]
    np.testing.assert_allclose(arrays["output_0"], expected, rtol=1e-5, atol=1e-6)
    inputs = [asdict(stated) for stated in example_inputs({"x": images})]
    facts, _ = examine_network({**request, "inputs": inputs, "examples": 2})
    assert [answer["shape"] for answer in facts["answers"]["outputs"]["y"]] == [expected.shape[1:]] * 2


@pytest.mark.parametrize("device", PACKAGES)
def test_what_a_file_leaves_open_is_open_in_every_runtime(device: str, open_sizes: Path) -> None:
    pytest.importorskip(PACKAGES[device])
    runtime = open_device(device).runtime
    assert runtime is not None
    [info] = runtime.compile(
        Artifact(open_sizes.read_bytes(), example={"x": np.ones(SIZES, np.float32)})
    ).inputs
    assert info.shape == (None, 3, None, None)
