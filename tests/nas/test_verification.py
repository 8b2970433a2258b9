"""`nas verify` and `nas bench` on a network that was exported, tampered with, or is none of ours."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hw_profiles.backends.ort import CPU, integer_sums
from hw_profiles.files import write_json
from nas.cli import main
from nas.export.check import Input
from nas.export.package import file_entries
from nas.export.to_onnx import random_network
from supernet.family import Family
from supernet.train.data import load_data


@pytest.fixture(scope="module")
def exported(
    family: Family, write_exported: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """As `nas export` writes it, of random weights."""
    data = load_data("digits", seed=0)
    network = random_network(family.workload(family.corners()["smallest/int8"]), rng=np.random.default_rng(0))
    c, h, w = network.workload.in_shape
    image = Input((h, w, c), data.mean, data.std)
    return write_exported(tmp_path_factory.mktemp("run") / "export" / "abc123", network, image, data)


def changed(exported: Path, folder: Path, **parts: Any) -> Path:
    """A copy whose manifest says something else."""
    for path in exported.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    document = json.loads((exported / "manifest.json").read_text())
    write_json(folder / "manifest.json", {**document, **parts})
    return folder


def test_a_whole_folder_holds(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(exported.parents[1]), "--data", "digits", "--json"]) == 0
    printed = capsys.readouterr()
    found = {one["what"]: one for one in json.loads(printed.out)["abc123"]}
    assert list(found) == ["sha256 of model.onnx", "integer sums", "answers", "test accuracy", "latency"]
    assert [one["holds"] for one in found.values()] == [True, None, True, True, None]
    here = integer_sums(CPU)
    assert found["integer sums"]["now"].startswith(f"{here} on ")
    assert ("session.x64quantprecision=1" in found["integer sums"]["now"]) is (here == "saturating")
    assert "another CPU" in found["latency"]["then"]
    assert "all that must hold holds" in printed.err


def test_a_changed_file_is_found(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = changed(exported, tmp_path)
    (folder / "model.onnx").write_bytes((exported / "model.onnx").read_bytes() + b"x")
    assert main(["verify", str(folder)]) == 2
    assert "sha256 of model.onnx was" in capsys.readouterr().err
    (folder / "model.onnx").unlink()
    assert main(["verify", str(folder)]) == 2
    assert "is missing" in capsys.readouterr().err


def test_other_answers_are_found(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = json.loads((exported / "manifest.json").read_text())["answers"]
    other = {**answers, "labels": [(label + 1) % 10 for label in answers["labels"]]}
    assert main(["verify", str(changed(exported, tmp_path, answers=other)), "--no-latency"]) == 2
    assert "answers was 200 answers, is 0.0% the same" in capsys.readouterr().err


def test_another_accuracy_is_found(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = changed(exported, tmp_path, accuracy={"test": 0.99, "n": len(load_data("digits", seed=0).test)})
    assert main(["verify", str(folder), "--no-latency", "--data", "digits"]) == 2
    assert "test accuracy was 99.00%" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"schema": "export/1"}, "export/2"),
        ({"id": "zzz"}, "calls itself abc123, its manifest zzz"),
    ],
)
def test_what_is_not_ours_is_refused(
    parts: dict[str, Any], said: str, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(changed(exported, tmp_path, **parts)), "--no-latency"]) == 2
    assert said in capsys.readouterr().err


def test_a_manifest_that_is_not_ours_is_refused(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(tmp_path / "manifest.json", {"schema": "export/2", "id": "abc123", "seed": 0})
    assert main(["verify", str(tmp_path)]) == 2
    assert "without files, input, answers" in capsys.readouterr().err


def test_a_file_that_is_no_model_is_refused(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = changed(exported, tmp_path, files=file_entries({"model.onnx": b"text"}))
    (folder / "model.onnx").write_bytes(b"text")
    assert main(["verify", str(folder), "--no-latency"]) == 2
    assert "ONNX Runtime cannot load it" in capsys.readouterr().err


def test_a_folder_without_networks_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path)]) == 2
    assert "no exported network there" in capsys.readouterr().err


def test_other_data_is_refused(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = changed(exported, tmp_path, classes=["cat", "dog"])
    assert main(["verify", str(folder), "--no-latency", "--data", "digits"]) == 2
    assert "give the data it was made for" in capsys.readouterr().err


def test_bench_gives_percentiles_and_throughput(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(exported), "--seconds", "0.05", "--json"]) == 0
    [one] = json.loads(capsys.readouterr().out)["settings"]
    times = list(one["percentiles_s"].values())
    assert (one["threads"], one["batch"]) == (1, 1)
    assert times == sorted(times)
    assert one["calls"] > 0
    assert one["images_per_s"] < 2 / min(times)
    assert 0.05 <= one["calls"] / one["images_per_s"] < 60  # the time of all calls


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--batch", "4"], "made for 1 images at once"),
        (["--seconds", "0"], "bench.seconds must be a number above 0"),
        (["--seconds", "nan"], "bench.seconds must be a number above 0"),
    ],
)
def test_bench_says_what_it_cannot_do(
    arguments: list[str], said: str, exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(exported), *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("model", ["nothing.onnx", "text.onnx"])
def test_bench_needs_a_model(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    assert main(["bench", str(tmp_path / model)]) == 2
    assert model in capsys.readouterr().err
