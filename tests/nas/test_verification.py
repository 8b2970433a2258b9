"""`nas verify` and `nas bench` on a network that was exported, tampered with, or is none of ours."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from hw_profiles.files import write_json
from hw_profiles.measure.measurement import MeasurePlan, plan_on
from hw_profiles.runtimes.ort.options import OrtOptions
from hw_profiles.runtimes.ort.runtime import CPU, OrtRuntime, integer_sums
from nas.checks.check import Input
from nas.cli.main import main
from nas.emit.to_onnx import described, random_network
from nas.export.seal import CLAIMS, MANIFEST, file_entries
from nas.verification.finding import Finding
from nas.verification.verification import Checks, verify
from supernet.families.family import Family
from supernet.tasks.loading import load_images
from tests.nas.exported import copied, endless, forged, greedy, write_exported

Complaint = Callable[..., str]


@pytest.fixture(scope="module")
def exported(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `nas export` writes it, of random weights."""
    data = load_images("digits", seed=0)
    network = random_network(
        family.workload(family.extremes()["smallest/int8"]), rng=np.random.default_rng(0)
    )
    c, h, w = network.workload.in_shape
    image = Input((h, w, c), data.mean, data.std)
    return write_exported(tmp_path_factory.mktemp("run") / "export", network, image, data)


@pytest.fixture(scope="module")
def document(exported: Path) -> dict[str, Any]:
    return dict(json.loads((exported / MANIFEST).read_text()))


@pytest.fixture
def complaint(capsys: pytest.CaptureFixture[str]) -> Complaint:
    """Runs a command that must fail; gives its only line of complaint."""

    def command(*words: str | Path) -> str:
        assert main([*map(str, words)]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith("nas: ")
        return line

    return command


def finding(folder: Path, what: str, checks: Checks | None = None) -> Finding:
    [result] = [result for result in verify(folder, checks or Checks(latency=False)) if result.what == what]
    return result


# -- what holds ------------------------------------------------------------------------------------


def test_a_whole_folder_holds(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(exported.parents[1]), "--data", "digits", "--json"]) == 0
    printed = capsys.readouterr()
    found = {one["what"]: one for one in json.loads(printed.out)[exported.name]}
    assert list(found) == [
        *("digest of manifest.json", "id of genes and space", "sha256 of model.onnx", "sha256 of README.md"),
        *("claims in the file", "opset", "integer kernels", "integer sums", "answers"),
        *("test accuracy", "search-validation accuracy", "latency"),
    ]
    may_move = {name: one["holds"] for name, one in found.items() if one["holds"] is not True}
    assert may_move == {"integer sums": None, "latency": None}
    here = integer_sums(CPU)
    assert found["integer sums"]["now"].startswith(f"{here} on ")
    assert ("session.x64quantprecision=1" in found["integer sums"]["now"]) is (here == "saturating")
    assert "another CPU" in found["latency"]["then"]
    assert "all that must hold holds" in printed.err


def earlier(exported: Path, folder: Path, model: bytes) -> Path:
    """The folder as version `export/2` wrote it, with this ONNX file."""
    copied(exported, folder)
    (folder / "model.onnx").write_bytes(model)
    document = json.loads((exported / MANIFEST).read_text())
    known = {key: document[key] for key in document if key not in ("digest", "space_fingerprint")}
    files = file_entries({"model.onnx": model})
    write_json(folder / MANIFEST, {**known, "schema": "export/2", "files": files})
    return folder


@pytest.mark.usefixtures("confined_here")
def test_a_folder_of_an_earlier_version_is_read_with_a_note(
    exported: Path, tmp_path: Path, complaint: Complaint
) -> None:
    proto = onnx.load_from_string((exported / "model.onnx").read_bytes())
    for prop in [prop for prop in proto.metadata_props if prop.key == CLAIMS]:
        proto.metadata_props.remove(prop)
    findings = verify(earlier(exported, tmp_path / "2", proto.SerializeToString()), Checks(latency=False))
    assert findings[0].now == "export/2 has no digest of the manifest, no hash of README.md"
    assert {one.what for one in findings if one.holds} >= {"sha256 of model.onnx", "answers", "opset"}
    assert not [one for one in findings if one.holds is False]
    dressed_up = earlier(exported, tmp_path / "3", (exported / "model.onnx").read_bytes())
    assert "claims in the file was none" in complaint("verify", dressed_up, "--no-latency")


# -- what was changed ------------------------------------------------------------------------------


@pytest.mark.usefixtures("confined_here")
def test_every_changed_byte_of_a_manifest_is_found(
    exported: Path, document: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, whole = copied(exported, tmp_path), (exported / MANIFEST).read_bytes()
    rng, missed = np.random.default_rng(0), []
    places = rng.choice(len(whole), 150, replace=False)
    for place, shift in zip(places, rng.integers(1, 256, 150), strict=True):
        changed = whole[:place] + bytes([(whole[place] + shift) % 256]) + whole[place + 1 :]
        (folder / MANIFEST).write_bytes(changed)
        code = main(["verify", str(folder), "--no-latency"])
        lines = capsys.readouterr().err.splitlines()
        try:
            same = json.loads(changed) == document  # white space
        except ValueError:
            same = False
        if not same and (code != 2 or len(lines) != 1):
            missed.append(f"{whole[place - 20 : place + 20]!r} at {place}: {code}, {lines}")
    assert not missed


def test_a_changed_file_is_found(exported: Path, tmp_path: Path, complaint: Complaint) -> None:
    folder = copied(exported, tmp_path)
    model = (exported / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(model[:-1] + b"x")
    assert "sha256 of model.onnx was" in complaint("verify", folder)
    (folder / "model.onnx").write_bytes(model + b"x")
    assert f"size of model.onnx was {len(model)} bytes" in complaint("verify", folder)
    (folder / "model.onnx").unlink()
    assert "is missing" in complaint("verify", folder)
    (folder / "model.onnx").symlink_to(exported / "model.onnx")
    assert "is missing" in complaint("verify", folder)


def test_a_changed_card_and_what_nothing_vouches_for_are_found(
    exported: Path, tmp_path: Path, complaint: Complaint
) -> None:
    folder = copied(exported, tmp_path)
    (folder / "README.md").write_bytes(b"# Other" + (exported / "README.md").read_bytes()[7:])
    assert "sha256 of README.md was" in complaint("verify", folder)
    folder = copied(exported, tmp_path)
    (folder / "sitecustomize.py").write_text("")
    assert "sitecustomize.py was not in manifest.json, is there" in complaint("verify", folder)


def test_a_manifest_without_files_vouches_for_nothing(
    exported: Path, tmp_path: Path, complaint: Complaint
) -> None:
    folder = forged(exported, tmp_path, files={"model.onnx": b"changed"}, stamp=False, listed={})
    assert "files: without model.onnx" in complaint("verify", folder)


@pytest.mark.usefixtures("confined_here")
@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"genes": [1]}, "id of genes and space was"),
        ({"space_fingerprint": "4567"}, "id of genes and space was"),
        ({"opset": 22}, "opset was 22, is 21"),
        ({"requires": {}}, "integer sums was nothing is needed, is its weights need exact sums"),
        (
            {"parity": {"agreement": 1, "images": 9, "integer_layers": 99, "integer_kernels": 99}},
            "kernels was 99",
        ),
        ({"schema": "export/9"}, "export/3 or export/2"),
    ],
)
def test_a_figure_that_is_another_is_found_even_where_all_hashes_fit(
    parts: dict[str, Any], said: str, exported: Path, tmp_path: Path, complaint: Complaint
) -> None:
    assert said in complaint("verify", forged(exported, tmp_path, **parts), "--no-latency")


@pytest.mark.usefixtures("confined_here")
def test_other_answers_are_found(
    exported: Path, document: dict[str, Any], tmp_path: Path, complaint: Complaint
) -> None:
    answers = document["answers"]
    other = {**answers, "labels": [(label + 1) % 10 for label in answers["labels"]]}
    folder = forged(exported, tmp_path, answers=other)
    assert "answers was 200 answers, is 0.0% the same" in complaint("verify", folder, "--no-latency")


@pytest.mark.usefixtures("confined_here")
def test_another_accuracy_is_found(
    exported: Path, document: dict[str, Any], tmp_path: Path, complaint: Complaint
) -> None:
    accuracy = document["accuracy"]
    for key, what in (("test", "test"), ("validation", "search-validation")):
        folder = forged(exported, tmp_path / key, accuracy={**accuracy, key: 0.99})
        said = complaint("verify", folder, "--no-latency", "--data", "digits")
        assert f"{what} accuracy was 99.00%" in said


@pytest.mark.usefixtures("confined_here")
def test_a_file_with_another_manifest_is_found(
    exported: Path, document: dict[str, Any], tmp_path: Path, complaint: Complaint
) -> None:
    """Latency cannot be checked elsewhere: but the file knows which claims were made with it."""
    folder = forged(exported, tmp_path, stamp=False, latency={**document["latency"], "median_s": 1e-9})
    assert "claims in the file was" in complaint("verify", folder, "--no-latency")


@pytest.mark.usefixtures("confined_here")
def test_what_is_not_ours_is_refused(exported: Path, tmp_path: Path, complaint: Complaint) -> None:
    model = (exported / "model.onnx").read_bytes()
    other = described(model, {"trilobit.id": "zzz"})
    folder = forged(exported, tmp_path / "id", files={"model.onnx": other})
    assert f"calls itself zzz, its manifest {exported.name}" in complaint("verify", folder)
    image = {"shape": [9, 9, 1], "mean": [0.5], "std": [0.5], "pixels": False}
    folder = forged(exported, tmp_path / "image", input=image)
    assert "where its manifest says float32 (1, 9, 9)" in complaint("verify", folder)
    folder = forged(exported, tmp_path / "text", files={"model.onnx": b"text"}, stamp=False)
    assert "ONNX Runtime cannot load it" in complaint("verify", folder)


def test_a_manifest_of_another_shape_is_one_line(
    exported: Path, document: dict[str, Any], tmp_path: Path, complaint: Complaint
) -> None:
    entry = document["files"]["model.onnx"]
    for i, (place, parts) in enumerate(
        [
            ("accuracy", {"accuracy": None}),
            ("accuracy.test", {"accuracy": {**document["accuracy"], "test": "high"}}),
            ("accuracy.n", {"accuracy": {**document["accuracy"], "n": 0}}),
            ("latency.median_s", {"latency": {**document["latency"], "median_s": 0}}),
            ("files", {"listed": {"model.onnx": entry, "../../x": entry}}),
            ("files", {"listed": {"model.onnx": entry, "/etc/passwd": entry}}),
            ("files", {"listed": {"model.onnx": entry, "..": entry}}),
            ("sha256", {"listed": {"model.onnx": {**entry, "sha256": "0"}}}),
            ("bytes", {"listed": {"model.onnx": {**entry, "bytes": 2**40}}}),
            ("input", {"input": {"shape": [0, 1, 1], "mean": [0], "std": [1], "pixels": False}}),
            ("too many to make up", {"input": {**document["input"], "shape": [10**5, 10**5, 1]}}),
            ("answers", {"answers": {**document["answers"], "images": 10**12}}),
            ("there are 10 classes", {"answers": {"images": 1, "labels": [10], "largest_logits": [1]}}),
            ("library.integer_only", {"library": {"target": "host"}}),
            ("device.threads", {"device": {**document["device"], "threads": "many"}}),
            ("classes[0]", {"classes": [{}]}),
        ]
    ):
        folder = forged(exported, tmp_path / str(i), stamp=False, **parts)
        assert place in complaint("verify", folder), parts


@pytest.mark.usefixtures("confined_here")
def test_names_of_others_do_nothing_to_the_terminal(
    exported: Path, document: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device = {**document["device"], "cpu": "[/red]\x1b[2J"}
    folder = forged(exported, tmp_path / "[/x]", device=device)
    assert main(["verify", str(folder)]) == 0
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err


def test_a_folder_without_networks_is_refused(tmp_path: Path, complaint: Complaint) -> None:
    assert "no exported network there" in complaint("verify", tmp_path)


@pytest.mark.usefixtures("confined_here")
def test_other_data_is_refused(exported: Path, tmp_path: Path, complaint: Complaint) -> None:
    folder = forged(exported, tmp_path, classes=[str(i) for i in range(9, -1, -1)])
    assert "give the data it was made for" in complaint("verify", folder, "--no-latency", "--data", "digits")


# -- how latency is measured -----------------------------------------------------------------------


def test_one_rule_says_how_a_device_is_measured() -> None:
    plan = MeasurePlan()
    assert plan_on(plan, OrtRuntime(OrtOptions(threads=4)).clock) == replace(plan, clock="wall")
    assert plan_on(plan, OrtRuntime().clock).core == max(os.sched_getaffinity(0))
    assert plan_on(replace(plan, core=0), OrtRuntime().clock) == replace(plan, core=0)


@pytest.mark.usefixtures("confined_here")
def test_latency_is_measured_as_the_manifest_says(
    exported: Path, document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nas.verification import common_checks

    asked = []

    def recorded(task: str, request: dict[str, Any], **more: Any) -> Any:
        asked.append((task, request))
        return confined(task, request, **more)

    confined = common_checks.confined
    monkeypatch.setattr(common_checks, "confined", recorded)
    folder = forged(exported, tmp_path, device={**document["device"], "threads": 2})
    assert "2 threads" not in finding(folder, "latency", Checks()).now
    [request] = [request for task, request in asked if task.endswith(":file_latency")]
    options = {"provider": "CPUExecutionProvider", "threads": 2, "batch": 1}
    assert request["device"] == {"name": "ort", "options": options}
    assert (request["plan"]["clock"], request["plan"]["core"]) == ("wall", None)


@pytest.mark.usefixtures("confined_here")
def test_a_latency_that_cannot_be_measured_here_is_said(
    exported: Path, document: dict[str, Any], tmp_path: Path
) -> None:
    device = {**document["device"], "provider": "QNNExecutionProvider"}
    found = finding(forged(exported, tmp_path / "qnn", device=device), "latency", Checks())
    assert found.holds is None
    assert "not measured: execution provider 'QNNExecutionProvider' is not installed" in found.now
    device = {**document["device"], "engine": "apache-tvm", "provider": "llvm"}
    found = finding(forged(exported, tmp_path / "tvm", device=device), "latency", Checks())
    assert "apache-tvm was timed then" in found.now
    assert " x)" not in found.now


# -- files that harm -------------------------------------------------------------------------------


def test_an_endless_file_is_ended(
    exported: Path, tmp_path: Path, complaint: Complaint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.verification.common_checks.TRIAL_S", 1.0)
    monkeypatch.setattr("nas.serving.bench.START_S", 1.0)
    model = described(endless(), {"trilobit.id": exported.name})
    folder = forged(exported, tmp_path, files={"model.onnx": model})
    assert "no end after 1 s" in complaint("verify", folder)
    assert "no end after 1 s" in complaint("bench", folder / "model.onnx", "--seconds", "0.01")


def test_a_greedy_file_is_refused(tmp_path: Path, complaint: Complaint) -> None:
    (tmp_path / "model.onnx").write_bytes(greedy())
    said = complaint("bench", tmp_path / "model.onnx")
    assert "ONNX Runtime cannot run it" in said


@pytest.mark.usefixtures("confined_here")
def test_a_cut_file_is_one_line(exported: Path, tmp_path: Path, complaint: Complaint) -> None:
    model, path = (exported / "model.onnx").read_bytes(), tmp_path / "model.onnx"
    for share in (0, 0.5):
        path.write_bytes(model[: int(share * len(model))])
        assert str(path) in complaint("bench", path)
    folder = forged(exported, tmp_path / "cut", files={"model.onnx": path.read_bytes()}, stamp=False)
    assert "model.onnx" in complaint("verify", folder)


@pytest.mark.usefixtures("confined_here")
def test_a_file_that_reads_others_is_refused(exported: Path, tmp_path: Path, complaint: Complaint) -> None:
    proto = onnx.load_from_string((exported / "model.onnx").read_bytes())
    tensor = next(one for one in proto.graph.initializer if one.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    folder = forged(exported, tmp_path, files={"model.onnx": proto.SerializeToString()})
    assert "keeps weights in other files" in complaint("verify", folder)


# -- bench -----------------------------------------------------------------------------------------


def test_bench_gives_percentiles_and_throughput(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = time.perf_counter()
    assert main(["bench", str(exported), "--seconds", "0.05", "--json"]) == 0
    elapsed_s = time.perf_counter() - start
    [one] = json.loads(capsys.readouterr().out)["settings"]
    times = list(one["percentiles_s"].values())
    assert (one["threads"], one["batch"]) == (1, 1)
    assert times == sorted(times)
    assert one["calls"] > 0
    assert one["counted"] == "images"
    assert one["rate_per_s"] < 2 / min(times)
    assert 0 < one["calls"] / one["rate_per_s"] < elapsed_s  # what all calls took


@pytest.mark.usefixtures("confined_here")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--batch", "4"], "made for 1 examples at once"),
        (["--seconds", "0"], "bench.seconds must be a number above 0"),
        (["--seconds", "nan"], "bench.seconds must be a number above 0"),
    ],
)
def test_bench_says_what_it_cannot_do(
    arguments: list[str], said: str, exported: Path, complaint: Complaint
) -> None:
    assert said in complaint("bench", exported, *arguments)


@pytest.mark.parametrize("model", ["nothing.onnx", "text.onnx"])
def test_bench_needs_a_model(model: str, tmp_path: Path, complaint: Complaint) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    assert model in complaint("bench", tmp_path / model)
