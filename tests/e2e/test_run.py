"""The main job: what it leaves behind, and what it does when it is asked again."""

import hashlib
import json
import shutil
import sqlite3
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from nas.cli.main import main
from nas.run.run import STAGES, find_run
from nas.stages.fit import fit_predictor
from nas.stages.search_context import prepare_search
from supernet.families.family import Family

SCHEMAS = {
    "env.json": "env/1",
    "state.json": "state/1",
    "timings.json": "timings/1",
    "samples.json": "samples/1",
    "damage.json": "damage/1",
    "quality.json": "quality/2",
    "front.json": "front/1",
    "profiles/made-up-cpu.json": "profile/1",
}


@pytest.fixture
def front(finished_run: Path, read) -> dict[str, Any]:
    return read(finished_run / "front.json")


@pytest.fixture
def own_run(finished_run: Path, tmp_path: Path) -> Path:
    """A finished run that the test may change."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.fixture
def manifests(finished_run: Path, read) -> dict[Path, dict[str, Any]]:
    return {path.parent: read(path) for path in (finished_run / "export").glob("*/manifest.json")}


def test_every_file_carries_its_schema(finished_run: Path, read) -> None:
    assert {name: read(finished_run / name)["schema"] for name in SCHEMAS} == SCHEMAS


def test_nothing_else_is_left_behind(finished_run: Path) -> None:
    known = {*SCHEMAS, "run.toml", "run.db", "report.html", "supernet/last.pt"}
    files = {path.relative_to(finished_run).as_posix() for path in finished_run.rglob("*") if path.is_file()}
    assert {name for name in files - known if not name.startswith(("export/", "tensorboard/"))} == set()
    assert known <= files


def test_the_front_is_of_the_space_it_names(front: dict[str, Any], family: Family) -> None:
    space = family.space()
    assert front["space"]["fingerprint"] == space.fingerprint
    for entry in front["candidates"]:
        candidate = space.candidate(np.array(entry["genes"]))
        assert (candidate.id, list(candidate.genes)) == (entry["id"], entry["genes"])


def test_the_front_holds_measured_networks_that_do_not_dominate_each_other(front: dict[str, Any]) -> None:
    names = ("accuracy", "latency", "size")
    points = np.array([[e["measured"][name]["value"] for name in names] for e in front["candidates"]])
    points[:, 0] *= -1
    worse = (points[:, None] >= points).all(axis=2) & (points[:, None] > points).any(axis=2)
    assert not worse.any()
    assert np.isfinite(points).all()


def test_the_front_holds_what_the_store_holds(finished_run: Path, front: dict[str, Any]) -> None:
    query = """
        SELECT a.value_json, v.value FROM trial_user_attributes a
        JOIN trial_values v ON v.trial_id = a.trial_id AND v.objective = 0
        JOIN trials t ON t.trial_id = a.trial_id JOIN studies s ON s.study_id = t.study_id
        WHERE a.key = 'id' AND s.study_name LIKE 'measured-%'
    """
    with sqlite3.connect(finished_run / "run.db") as database:
        stored = {json.loads(name): value for name, value in database.execute(query)}
    entries = front["candidates"] + front["evaluated"]
    assert {entry["id"]: entry["measured"]["accuracy"]["value"] for entry in entries} == stored


def test_accuracies_were_predicted_before_they_were_measured(
    finished_run: Path, front: dict[str, Any]
) -> None:
    """The reference is measured in the first round, when the predictor knows the samples only."""
    run = find_run(finished_run)
    predictor = fit_predictor(run, *prepare_search(run).sampled)
    before = predictor.predict(np.array([front["reference"]["genes"]], np.int16)).mean[0]
    assert front["foreseen"]
    assert front["reference"]["predicted"]["accuracy"]["value"] == pytest.approx(before, abs=1e-9)


def test_more_rounds_never_lose_hypervolume(front: dict[str, Any]) -> None:
    volumes = [entry["hypervolume"] for entry in front["rounds"]]
    assert len(volumes) == 2
    assert volumes == sorted(volumes)
    assert front["hypervolume"] == volumes[-1]


def test_manifests_describe_the_files_beside_them(
    manifests: dict[Path, dict[str, Any]], front: dict[str, Any]
) -> None:
    assert 1 <= len(manifests) <= 3
    on_front = {entry["id"]: entry for entry in front["candidates"]}
    for folder, manifest in manifests.items():
        (name, file), model = next(iter(manifest["files"].items())), (folder / "model.onnx").read_bytes()
        assert (name, file["bytes"]) == ("model.onnx", len(model))
        assert file["sha256"] == hashlib.sha256(model).hexdigest()
        assert manifest["schema"] == "export/3"
        assert manifest["predicted"] == on_front[folder.name]["predicted"]
        assert set(manifest["quality"]) == {"flips", "agreement", "calibration", "worst_class"}
        assert 0 <= manifest["quality"]["worst_class"] <= manifest["accuracy"]["test"]
        told = file["bytes"] - on_front[folder.name]["measured"]["size"]["value"]
        assert 0 < told < 2100  # bytes of what the file says of itself: a policy, genes, classes


def test_what_a_user_feels_can_be_limited(
    finished_run: Path, front: dict[str, Any], read, tmp_path: Path
) -> None:
    """At what the network with the fewest negative flips has, so that it can be met."""
    measured = [entry["measured"] for entry in front["candidates"] + front["evaluated"]]
    assert all("worst_class" in values for values in measured)
    best = min(measured, key=lambda values: values["flips"]["value"])
    flips, agreement = best["flips"]["value"] + 1e-3, best["agreement"]["value"] - 1e-3
    folder = tmp_path / "run"
    shutil.copytree(finished_run, folder)
    limits = ["--max-negative-flips", f"{flips:.6f}", "--min-agreement", f"{agreement:.6f}"]
    assert main(["search", "-o", str(folder), *limits]) == 0
    limited = read(folder / "front.json")
    bounds = {stated["name"]: stated["bound"] for stated in limited["objectives"]}
    assert (bounds["flips"], bounds["agreement"]) == pytest.approx((flips, agreement), abs=1e-6)
    for entry in limited["candidates"]:
        assert entry["measured"]["flips"]["value"] <= flips
        assert entry["measured"]["agreement"]["value"] >= agreement


def test_shipped_files_run_and_say_what_they_are(manifests: dict[Path, dict[str, Any]]) -> None:
    for folder, manifest in manifests.items():
        session = onnxruntime.InferenceSession(folder / "model.onnx")
        image = session.get_inputs()[0]
        [logits] = session.run(None, {image.name: np.zeros(image.shape, np.float32)})
        assert logits.shape == (1, 10)
        assert session.get_modelmeta().custom_metadata_map["trilobit.id"] == manifest["id"] == folder.name


def test_the_second_time_there_is_nothing_to_do(
    own_run: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in own_run.rglob("*.onnx")}
    front, checkpoint = (own_run / name for name in ("front.json", "supernet/last.pt"))
    times = [path.stat().st_mtime_ns for path in (front, checkpoint)]
    assert main(["run", str(config), "-o", str(own_run), "--json"]) == 0
    result, log = capsys.readouterr()
    for stage in STAGES[:-1]:
        assert f"{stage}: already there" in log
    assert {one["id"] for one in json.loads(result)["exported"]} == {path.parent.name for path in before}
    assert times == [path.stat().st_mtime_ns for path in (front, checkpoint)]
    assert before == {path: path.read_bytes() for path in own_run.rglob("*.onnx")}


@pytest.mark.slow
def test_another_limit_redoes_only_search_and_export(
    own_run: Path, config: Path, read, front, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(config), "-o", str(own_run), "--max-latency", "60%"]) == 0
    printed = capsys.readouterr().out
    for stage in ("profile", "train", "sample", "fit"):
        assert f"{stage}: already there" in printed
    limit_s = next(o["bound"] for o in read(own_run / "front.json")["objectives"] if o["name"] == "latency")
    latencies = [e["measured"]["latency"]["value"] for e in read(own_run / "front.json")["candidates"]]
    assert max(latencies) <= limit_s
    assert limit_s == pytest.approx(0.6 * front["reference"]["predicted"]["latency"]["value"])
    names = {path.name for path in (own_run / "export").iterdir()} - {"written.json"}
    exported = {name.removesuffix(".zip") for name in names}
    assert exported <= {entry["id"] for entry in read(own_run / "front.json")["candidates"]}


def test_a_stage_whose_result_was_removed_is_not_done(own_run: Path) -> None:
    run = find_run(own_run)
    results = {
        "profile": run.profile_path,
        "train": run.checkpoint_path,
        "sample": run.samples_path,
        "search": run.front_path,
    }
    assert all(run.is_done(stage) for stage in (*results, "export"))
    for path in results.values():
        path.unlink()
    assert [stage for stage in (*results, "export") if run.is_done(stage)] == ["export"]
    shutil.rmtree(run.export_path)
    assert not run.is_done("export")


@pytest.mark.slow
def test_a_network_is_exported_in_integers_only(own_run: Path, read, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tvm")
    # the first schedule of every unit, which computes the same
    monkeypatch.setattr(import_module("nas.export.library.to_tvm"), "run_locally", None)
    assert main(["export", "-o", str(own_run), "--count", "1", "--integer-only"]) == 0
    (manifest,) = (read(path) for path in (own_run / "export").glob("*/manifest.json"))
    library = manifest["library"]
    assert library["integer_only"]
    assert library["own_formats"]
    assert library["agreement"] >= 0.9
    assert abs(library["test_accuracy"] - manifest["accuracy"]["test"]) <= 0.02
    assert main(["verify", str(own_run), "--run-library", "--no-latency"]) == 0
