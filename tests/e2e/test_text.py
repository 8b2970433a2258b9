"""Whole runs on text, from the words of a person to files that verify. The spaces are tiny ones: those that
are registered for text take minutes.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from nas.cli.main import main
from nas.export.publish import publish
from nas.run.reporting import QUIET
from nas.run.run import find_run
from supernet.registry import FAMILIES

WORDS = ("def", "return", "self", "import", "class", "lambda", "value", "if", "else", "yield", "None")


@pytest.fixture
def config(small_run: Any, tmp_path: Path) -> Path:
    return Path(small_run(tmp_path / "run.toml"))


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, make in (("tiny-text", "tiny_text"), ("tiny-texts", "tiny_texts")):
        monkeypatch.setitem(FAMILIES, name, f"tests.supernet.families.tokens:{make}")  # type: ignore[call-overload]


def written(n: int) -> str:
    """Words by chance."""
    return " ".join(np.random.default_rng(0).choice(WORDS, n))


@pytest.mark.slow
def test_the_next_byte_is_learned_searched_exported_and_verified(
    read: Any, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, folder = tmp_path / "it.txt", tmp_path / "run"
    text.write_text(written(8_000))
    data = f"text:{text}?length=16"
    words = ["run", str(config), "--data", data, "--space", "tiny-text", "--exits", "-o", str(folder)]
    assert main(words) == 0
    assert "test bits per byte" in capsys.readouterr().out
    front = read(folder / "front.json")
    assert (front["space"]["name"], front["metric"]) == ("tiny-text", "bits_per_byte")
    (path,) = (folder / "export").glob("*/manifest.json")
    manifest = read(path)
    assert manifest["metric"] == "bits_per_byte"
    assert 0 < manifest["accuracy"]["test"] < 8
    assert manifest["parity"]["agreement"] >= 0.995
    assert "exits.onnx" in manifest["files"]
    last, parts = manifest["exits"][-1], ("validation", "test")
    assert last["output"] == "classifier"
    assert [last[part] for part in parts] == pytest.approx([manifest["accuracy"][part] for part in parts])
    assert "image" not in (path.parent / "README.md").read_text()
    page = (folder / "report.html").read_text()
    assert "on test texts that neither" in page
    assert not any(
        words in page for words in ("test images", "Test accuracy", "Accuracy predictor", "px input")
    )
    assert main(["verify", str(folder), "--data", data]) == 0
    assert "test bits per byte" in capsys.readouterr().out
    assert main(["verify", str(folder), "--data", "digits"]) == 2
    assert "digits is images, and the network reads tokens" in capsys.readouterr().err
    ids = np.frombuffer(text.read_bytes()[: manifest["input"]["length"]], np.uint8).astype(np.int64)
    session = onnxruntime.InferenceSession(path.parent / "model.onnx")
    (logits,) = session.run(None, {"input_ids": ids[None]})
    assert logits.shape == (1, len(ids), 256)


@pytest.mark.slow
def test_texts_of_classes_are_exported_portably_and_their_supernet_published(
    read: Any, config: Path, tmp_path: Path
) -> None:
    table, folder = tmp_path / "it.csv", tmp_path / "run"
    rows = [f"{written(3 + i % 7)},{'long' if i % 7 > 3 else 'short'}" for i in range(400)]
    table.write_text("\n".join(("text,label", *rows)))
    data = f"csv:{table}?length=16"
    words = ["run", str(config), "--data", data, "--space", "tiny-texts", "--portable", "-o", str(folder)]
    assert main(words) == 0
    (path,) = (folder / "export").glob("*/manifest.json")
    manifest = read(path)
    assert (manifest["space"], manifest["metric"]) == ("tiny-texts", "accuracy")
    assert manifest["input"]["answers"] == "examples"
    assert manifest["opset"] < 23
    assert "texts" in (folder / "report.html").read_text()
    assert main(["verify", str(folder), "--data", data]) == 0
    publish(find_run(folder), tmp_path / "it.pt", QUIET, random=1)
    assert "16 tokens of a vocabulary of 257" in (tmp_path / "it.md").read_text()
