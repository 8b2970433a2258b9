"""A microcontroller that is not there, through a whole tune and a whole run: memory is weighed, no time."""

import json
from pathlib import Path
from typing import Any

import pytest

from hw_profiles.errors import TrilobitError
from nas.cli.main import main
from nas.export.manifests import read_any
from tests.e2e.conftest import WriteRun
from tests.e2e.small_classifier import tune_small
from tests.e2e.test_tune import CLASSES

pytest.importorskip("ai_edge_litert")
pytest.importorskip("tflite_micro")
from hw_profiles.runtimes.tflite_micro.interpreter import MicroExecutable

pytestmark = pytest.mark.slow


def answer(capsys: Any, *words: Any) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*map(str, words), "--json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tune of a small classifier."""
    folder = tmp_path_factory.mktemp("micro")
    words = ("--device", "tflite-micro", "--formats", "int8", "--max-arena", "90%")
    return tune_small(folder, *words, image=(1, 3, 12, 12), scores=(1, CLASSES))


def test_a_tune_weighs_memory_and_its_files_are_what_was_counted(tuned: Path, capsys: Any) -> None:
    front = json.loads((tuned / "front.json").read_text())
    assert [o["name"] for o in front["objectives"] if o["sought"]][1:] == ["arena", "flash"]
    whole = front["original"]["memory"]["arena"]
    assert all(each["memory"]["arena"] <= 0.9 * whole for each in front["candidates"])
    assert all(each["latency"] is None for each in (*front["candidates"], front["original"]))
    folder = next(path.parent for path in tuned.glob("export/*/manifest.json"))
    manifest = read_any(folder)
    assert (manifest.latency, manifest.device.figures) == (None, "none")
    assert manifest.memory["flash"] == (folder / "model.tflite").stat().st_size
    findings = answer(capsys, "verify", folder)[folder.name]
    assert {f["what"]: f["holds"] for f in findings}["memory"] is True
    assert "arena" in (tuned / "report.html").read_text()


def test_what_has_no_times_is_not_timed(tuned: Path, tmp_path: Path, capsys: Any) -> None:
    folder = next(path.parent for path in tuned.glob("export/*/manifest.json"))
    assert main(["bench", str(folder)]) == 2
    assert "tflite-micro has no times" in capsys.readouterr().err
    words = ["--data", "digits", "--device", "tflite-micro", "-o", str(tmp_path / "run")]
    assert main(["profile", *words]) == 2
    said = capsys.readouterr().err
    assert f"--device tflite-micro:{tmp_path / 'run' / 'layers.csv'}" in said
    assert (tmp_path / "run" / "layers.csv").read_text().startswith("layer,ms\n")
    assert main(["run", *words]) == 2
    assert "--objective accuracy,arena,flash" in capsys.readouterr().err


def test_a_run_ends_without_times(tmp_path: Path, small_run: WriteRun, capsys: Any) -> None:
    config, folder = small_run(tmp_path / "little.toml", data={"source": "digits"}), tmp_path / "run"
    words = (config, "--device", "tflite-micro", "--objective", "accuracy,arena,flash", "-o", folder)
    [network, *_] = answer(capsys, "run", *words)["exported"]
    assert network["latency_s"] is None
    assert 0 < network["arena_bytes"] < 2**20
    findings = answer(capsys, "verify", folder)[network["id"]]
    assert {f["what"]: f["holds"] for f in findings}["memory"] is True
    assert "Nothing says how long networks take" in (folder / "report.html").read_text()


def test_what_the_microcontroller_does_not_run_is_on_no_front(
    tmp_path: Path, small_run: WriteRun, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest network too, which others are compared with."""
    started = MicroExecutable.__init__

    def small_only(self: MicroExecutable, content: bytes, *arenas: Any) -> None:
        if len(content) > 100_000:
            raise TrilobitError("TensorFlow Lite Micro: the file is too large")
        started(self, content, *arenas)

    monkeypatch.setattr(MicroExecutable, "__init__", small_only)
    search = {"rounds": 1, "finalists": 4, "budget": 100, "batch": 50}
    config, folder = (
        small_run(tmp_path / "r.toml", data={"source": "digits"}, search=search),
        tmp_path / "run",
    )
    words = ["--device", "tflite-micro", "--objective", "accuracy,arena,flash", "-o", str(folder)]
    assert main(["run", str(config), *words]) == 0
    assert "are not on the front, as tflite-micro cannot run them" in capsys.readouterr().out
    front = json.loads((folder / "front.json").read_text())
    assert (front["reference"]["measured"], front["candidates"][0].get("error")) == ({}, None)
    assert "too large" in front["reference"]["error"]
    everyone = (*front["candidates"], *front["evaluated"])
    assert max(f["value"] for entry in everyone for f in entry["measured"].values()) < 1e6
    assert "e+18" not in (folder / "report.html").read_text().partition("<script>/**")[0]
