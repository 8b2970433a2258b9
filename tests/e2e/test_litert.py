"""LiteRT through the whole of a tune: files of its own are what is measured, shipped, verified and timed."""

import json
from pathlib import Path
from typing import Any

import pytest

from nas.cli.main import main
from tests.e2e.small_classifier import tune_small
from tests.e2e.test_tune import CLASSES

pytest.importorskip("ai_edge_litert")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tune of a small classifier."""
    folder = tmp_path_factory.mktemp("litert")
    return tune_small(folder, "--device", "litert", image=("n", 3, "h", "w"), scores=("n", CLASSES))


def test_every_exported_network_has_its_own_file(tuned: Path, capsys: Any) -> None:
    manifests = sorted(tuned.glob("export/*/manifest.json"))
    assert manifests
    for path in manifests:
        document = json.loads(path.read_text())
        assert document["latency"]["through"] == "model.tflite"
        assert path.with_name("model.tflite").read_bytes()[4:8] == b"TFL3"
        assert "model.tflite" in document["files"]
        in_integers = "int8" in document["policy"].values()  # whether any is depends on what is fast here
        assert bool(document["kernels"]["integer"]) == in_integers
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
