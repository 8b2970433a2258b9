"""docs/recipes/tune.md: every command is one, says what a tune takes, and works on small models."""

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import tomli_w

from nas.cli.command_line import parse_words
from nas.cli.given import given_options
from nas.cli.main import TEXTS, main
from nas.tune.session import resolve
from supernet.tasks.own_metric import own_metric
from tests.nas.tune.networks import image_network, image_samples, token_network
from tests.test_readme import write_photos

PAGE = (Path(__file__).parents[2] / "docs/recipes/tune.md").read_text()
BLOCKS = re.findall(r"```(python|sh)\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]
TUNES = [line for line in COMMANDS if line.startswith("nas tune ")]
SMALL = {
    "measure": {"rounds": 3, "sessions": 1, "waiting_s": 0.0, "energy_s": 0.0},
    "tune": {"rounds": 1, "finalists": 1, "evaluations": 8, "count": 2},
}
WHATEVER = {
    "--max-latency": "1s",
    "--max-size": "1MB",
    "--min-accuracy": "1%",
}  # random weights keep no others


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the files that the page names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for kind, block in BLOCKS:
        if kind == "python" and (name := re.match(r"# (\w+\.py)\n", block)):
            (tmp_path / name[1]).write_text(block)
        elif kind == "python":
            exec(compile(block, "docs/recipes/tune.md", "exec"), {})
    yield tmp_path
    sys.modules.pop("mine", None)


def test_there_is_a_tune_for_every_task() -> None:
    assert len(TUNES) >= 6
    assert [line for line in COMMANDS if not line.startswith("nas ")] == []


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_is_one_that_nas_takes(line: str, folder: Path) -> None:
    arguments = parse_words(shlex.split(line)[1:], TEXTS)
    assert not isinstance(arguments, str)
    if line in TUNES:
        config = resolve({"model.source": str(arguments.model), **given_options(arguments)}, folder / "run")
        assert config.samples.source
        assert Path(config.model.source).name in ("classifier.onnx", "detector.onnx", "encoder.onnx")


def test_the_metric_is_one(folder: Path) -> None:
    boxes = {"boxes": np.random.default_rng(0).normal(size=(10, 1, 5, 4))}
    metric = own_metric("mine:same_boxes", None, boxes, image_samples(10))
    moved = {"boxes": boxes["boxes"] + np.arange(10).reshape(10, 1, 1, 1) / 4}
    assert metric.evaluate(boxes, boxes, image_samples(10)) == {"same_boxes": 1.0}
    assert metric.evaluate(moved, boxes, image_samples(10)) == {"same_boxes": 0.4}
    assert [known.unit for known in metric.metrics] == ["fraction"]


@pytest.mark.slow
def test_the_page_works_from_the_first_line_to_the_last(folder: Path) -> None:
    pytest.importorskip("tvm")
    write_models(folder)
    write_photos(folder / "photos.zip", size=32)
    (folder / "small.toml").write_text(tomli_w.dumps(SMALL))
    for line in COMMANDS:
        words = shlex.split(line)[1:]
        for option, value in WHATEVER.items():
            if option in words:
                words[words.index(option) + 1] = value
        words += ["--config", "small.toml"] if line in TUNES else []
        assert main(words) == 0, line
    assert {path.parent.name for path in folder.glob("runs/*/report.html")} == {
        folder_name for line in TUNES for folder_name in re.findall(r"-o runs/(\w+)", line)
    }


def write_models(folder: Path) -> None:
    """Write small models under the names of the page."""
    (folder / "encoder.onnx").write_bytes(token_network())
    images = onnx.load_model_from_string(image_network(channels=3, size=32))
    images.graph.output[0].name = images.graph.node[-1].output[0] = "boxes"
    (folder / "detector.onnx").write_bytes(images.SerializeToString())
    images.graph.output[0].name = "probabilities"
    images.graph.node.append(onnx.helper.make_node("Softmax", ["boxes"], ["probabilities"]))
    (folder / "classifier.onnx").write_bytes(images.SerializeToString())
