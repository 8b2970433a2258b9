"""`nas tune` as people use it: a model in, measured files out; killed, it goes on; asked wrongly, it says."""

import contextlib
import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tomli_w

import nas
from nas.cli.main import main
from nas.run.reporting import QUIET
from nas.tune.session import tune_session
from tests.nas.emit.small_networks import Net

CLASSES, SAMPLES = 5, 60
DEADLINE_S = 120
SMALL = {  # as little as a tune can measure and still do everything
    "measure": {"rounds": 3, "sessions": 1, "waiting_s": 0.0, "energy_s": 0.0},
    "tune": {"rounds": 1, "finalists": 3, "evaluations": 12, "budget": "1s", "choosing": 20, "judging": 20},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of images of any size, and of any number."""
    net = Net(1)
    x = net.relu6(net.conv("image", 3, 8))
    y = net.relu6(net.conv(x, 8, 16, strides=[2, 2]))
    pooled = net.op("ReduceMean", y, net.constant(np.array([2, 3])), keepdims=0)
    scores = net.op("Mul", net.linear(pooled, 16, CLASSES), net.constant(np.float32(6)))
    scores = net.op("Softmax", scores)
    path = tmp_path_factory.mktemp("model") / "net.onnx"
    path.write_bytes(net.finish({"image": ("n", 3, "h", "w")}, {scores: ("n", CLASSES)}))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images that look different from each other."""
    rng = np.random.default_rng(0)
    images = rng.normal(rng.normal(0, 2, (SAMPLES, 3, 1, 1)), 1, (SAMPLES, 3, 12, 12)).astype(np.float32)
    path = tmp_path_factory.mktemp("data") / "images.npz"
    np.savez(path, image=images)
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "small.toml"
    path.write_text(tomli_w.dumps({**SMALL, "model": {}}))
    return path


def evaluated(folder: Path) -> int:
    """Policies in the storage."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{folder}/run.db?mode=ro", uri=True)) as database:
            return int(database.execute("SELECT count(*) FROM trials WHERE state = 'COMPLETE'").fetchone()[0])
    except sqlite3.OperationalError:  # not there yet, or just being made
        return 0


@pytest.mark.slow
def test_a_killed_tune_goes_on_and_its_files_are_what_was_measured(
    model: Path, data: Path, small: Path, start: Callable[..., Any], tmp_path: Path, capsys: Any
) -> None:
    folder = tmp_path / "tuned"
    words = ("tune", model, "--data", data, "-o", folder)
    process = start(*words, "--config", small)
    deadline = time.monotonic() + DEADLINE_S
    while evaluated(folder) < 4:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=30)
    known = evaluated(folder)
    assert not (folder / "front.json").exists()

    assert main([*map(str, words), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert evaluated(folder) >= known
    assert {"fp32", "int8"} <= {row["name"] for row in printed["references"]}
    tuned = nas.load(folder)
    assert isinstance(tuned, nas.TuneFolder)
    front = tuned.front
    assert [file.id for file in front] == [row["id"] for row in printed["front"]]
    assert list(front.to_frame()["latency"]) == sorted(front.to_frame()["latency"])
    check_references(front)
    check_files(front, data, tmp_path)
    assert tuned.best(kl=1e-7).formats == {}  # fp32 itself
    (folder / "front.json").unlink()
    with tune_session(folder, {}, reporter=QUIET) as context:
        assert context.tuning.is_done("sample")
        assert not context.tuning.is_done("search")  # what it wrote is gone


def check_references(front: nas.TunedFiles) -> None:
    """Nothing on the front is slower and worse than what it is compared with."""
    metric = front.file.metric.name
    for reference in (front.file.original, *front.file.references):
        if reference.error or reference.latency is None or reference.judging is None:
            continue
        for file in front:
            slower = file.latency_s > reference.latency.median_s
            assert not (slower and file.quality > reference.judging.metrics[metric].value), reference.name


def check_files(front: nas.TunedFiles, data: Path, tmp_path: Path) -> None:
    """A saved file runs, takes any number and size of images, and is as large as was said."""
    images = np.load(data)["image"]
    for file in front:
        saved = file.save(tmp_path / f"{file.id}.onnx")
        session = onnxruntime.InferenceSession(saved.read_bytes())
        [scores] = session.run(None, {"image": images[:7]})
        assert scores.shape == (7, CLASSES)
        session.run(None, {"image": np.zeros((2, 3, 20, 16), np.float32)})
        if file.formats:
            assert saved.stat().st_size == file.size_bytes


@pytest.mark.usefixtures("confined_here")
def test_python_and_command_find_the_same_things(
    model: Path, data: Path, small: Path, tmp_path: Path
) -> None:
    tuned = nas.tune(model, data=data, folder=tmp_path / "api", config=small, formats=["int8"])
    assert {name for file in tuned.front for name in file.formats.values()} <= {"int8"}
    # which of two files fp32 is depends on their times; a prepared file of so small a model may be larger
    assert tuned.best(size="300%").size_bytes <= 3 * model.stat().st_size
    with pytest.raises(nas.TrilobitError, match="no file is within these limits; the nearest one"):
        tuned.best(latency="1ns")


REFUSED = {
    "no such file": (["missing.onnx", "--data", "DATA"], "no such file"),
    "not ONNX": (["TEXT", "--data", "DATA"], "not an ONNX file"),
    "no data": (["MODEL"], "--data SOURCE"),
    "other shape": (["MODEL", "--data", "OTHER"], "image"),
    "few samples": (["MODEL", "--data", "FEW"], "at least 8"),
    "no such format": (["MODEL", "--data", "DATA", "--formats", "int9"], "int9"),
    "no such metric": (["MODEL", "--data", "DATA", "--min-quality", "beauty=3"], "beauty"),
    "no metric function": (["MODEL", "--data", "DATA", "--metric", "nowhere:f"], "nowhere"),
    "wrong way": (["MODEL", "--data", "DATA", "--limit", "agreement<=3%"], "more agreement is better"),
    "a device that runs nothing": (
        ["MODEL", "--data", "DATA", "--device", "systolic:bitfusion"],
        "executes nothing",
    ),
    "a shape that does not fit": (["MODEL", "--data", "DATA", "--shape", "image=1x4x8x8"], "image"),
}


@pytest.mark.usefixtures("confined_here")
def test_what_is_asked_wrongly_is_told_in_one_line_and_leaves_nothing(
    model: Path, data: Path, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "text.onnx").write_text("not a network")
    np.save(tmp_path / "other.npy", np.zeros((20, 4, 8), np.float32))
    np.save(tmp_path / "few.npy", np.random.default_rng(0).normal(size=(3, 3, 12, 12)).astype(np.float32))
    names = {"MODEL": model, "DATA": data, "TEXT": tmp_path / "text.onnx"}
    names |= {"OTHER": tmp_path / "other.npy", "FEW": tmp_path / "few.npy"}
    folder = tmp_path / "refused"
    wrong = []
    for case, (words, told) in REFUSED.items():
        line = [str(names.get(word, word)) for word in words]
        code = main(["tune", *line, "-o", str(folder)])
        error = capsys.readouterr().err.strip()
        if code != 2 or told not in error or "\n" in error or folder.exists():
            wrong.append((case, code, error, folder.exists()))
    assert not wrong


@pytest.mark.slow
def test_a_model_of_a_single_unit_is_tuned(tmp_path: Path, small: Path) -> None:
    net = Net(2)
    scores = net.linear("x", 8, CLASSES)
    model, data = tmp_path / "net.onnx", tmp_path / "x.npz"
    model.write_bytes(net.finish({"x": ("n", 8)}, {scores: ("n", CLASSES)}))
    np.savez(data, x=np.random.default_rng(0).normal(size=(SAMPLES, 8)).astype(np.float32))
    line = ["tune", str(model), "--data", str(data), "--config", str(small)]
    assert main([*line, "-o", str(tmp_path / "run")]) == 0
    assert json.loads((tmp_path / "run" / "front.json").read_text())["candidates"]
