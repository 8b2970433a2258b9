"""LiteRT through the whole of a tune: files of its own are what is measured, shipped, verified and timed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from nas.cli.main import main
from tests.e2e.test_tune import CLASSES, SAMPLES, SMALL
from tests.nas.emit.small_networks import Net

pytest.importorskip("ai_edge_litert")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tune of a small classifier."""
    folder, net, rng = tmp_path_factory.mktemp("litert"), Net(1), np.random.default_rng(0)
    x = net.relu6(net.conv("image", 3, 8))
    y = net.relu6(net.conv(x, 8, 16, strides=[2, 2]))
    pooled = net.op("ReduceMean", y, net.constant(np.array([2, 3])), keepdims=0)
    scores = net.op("Softmax", net.linear(pooled, 16, CLASSES))
    model, data, config = (folder / name for name in ("net.onnx", "images.npz", "small.toml"))
    model.write_bytes(net.finish({"image": ("n", 3, "h", "w")}, {scores: ("n", CLASSES)}))
    images = rng.normal(rng.normal(0, 2, (SAMPLES, 3, 1, 1)), 1, (SAMPLES, 3, 12, 12))
    np.savez(data, image=images.astype(np.float32))
    config.write_text(tomli_w.dumps({**SMALL, "model": {}}))
    words = ["tune", str(model), "--data", str(data), "-o", str(folder / "tuned"), "--config", str(config)]
    assert main([*words, "--device", "litert"]) == 0
    return folder / "tuned"


def test_every_exported_network_has_its_own_file(tuned: Path, capsys: Any) -> None:
    manifests = sorted(tuned.glob("export/*/manifest.json"))
    assert manifests
    for path in manifests:
        document = json.loads(path.read_text())
        assert document["latency"]["through"] == "model.tflite"
        assert path.with_name("model.tflite").read_bytes()[4:8] == b"TFL3"
        assert "model.tflite" in document["files"]
    assert any(json.loads(path.read_text())["kernels"]["integer"] for path in manifests)
    assert main(["verify", str(manifests[0].parent), "--no-latency"]) == 0
    capsys.readouterr()
    assert main(["bench", str(manifests[0].with_name("model.tflite")), "--seconds", "0.1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"][0]["calls"] > 0


def test_a_file_that_was_changed_is_noticed(tuned: Path, capsys: Any) -> None:
    path = sorted(tuned.glob("export/*/model.tflite"))[0]
    content = path.read_bytes()
    try:
        path.write_bytes(content[:-8] + bytes(8))
        assert main(["verify", str(path.parent), "--no-latency"]) != 0
        assert "model.tflite" in capsys.readouterr().out
    finally:
        path.write_bytes(content)
