"""`nas verify` and `nas bench` on a network's shared library: run where it can be, and never loaded unless it
is the file that was exported.
"""

import _ctypes
import json
import shutil
import subprocess
import time
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.builder import WorkloadBuilder
from hw_profiles.graph.layer import map_layer
from hw_profiles.runtimes.transports.ssh import PROGRAM
from nas.checks.check import Input, digest
from nas.checks.parity import file_metric
from nas.cli.main import main
from nas.emit.to_onnx import emit, random_network
from nas.export.library.check import EXACT, ExportedLibrary, export_library
from nas.export.library.library import MACHINES, machine_of
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.tasks.image_classification import ImageClassification
from supernet.tasks.loading import load_images
from tests.hw_profiles.transports.pipes import stand_in
from tests.nas.exported import forged, write_exported
from tests.nas.opened_here import opened_here

SIGNATURE = (
    'const char trilobit_signature[] = "{\\"inputs\\":[{\\"name\\":\\"images\\",\\"shape\\":[null,8,8,1],'
    '\\"dtype\\":\\"float32\\"}],\\"outputs\\":[{\\"name\\":\\"logits\\",\\"shape\\":[null,10],'
    '\\"dtype\\":\\"float32\\"}],\\"layers\\":[]}";'
)
CROSS = "aarch64-linux-gnu"
AARCH64 = next(code for code, name in MACHINES.items() if name == "aarch64")


@pytest.fixture
def _file_is_opened_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ONNX file beside the library needs no process of its own where only the library is looked at."""
    for module in ("file_checks", "common_checks"):
        monkeypatch.setattr(f"nas.verification.{module}.confined", opened_here)


@pytest.fixture(scope="module")
def data() -> ImageClassification:
    return load_images("digits", seed=0)


@pytest.fixture(scope="module")
def network() -> QuantizedGraph:
    """Integers throughout, with random weights."""
    formats = {"weight_format": "int8", "activation_format": "int8"}
    net = WorkloadBuilder((1, 8, 8))
    x = net.add("stem", map_layer("stem", (1, 8, 8), 16, 3, activation="relu", **formats), -1)
    x = net.add("pool", map_layer("pool", (16, 8, 8), 16, activation_format="int8"), x)
    net.add("classifier", map_layer("linear", (16, 1, 1), 10, **formats), x)
    return random_network(net.build(), rng=np.random.default_rng(0))


@pytest.fixture(scope="module")
def shipped(
    network: QuantizedGraph, data: ImageClassification, tmp_path_factory: pytest.TempPathFactory
) -> ExportedLibrary:
    return ship(network, data, "host", tmp_path_factory.mktemp("database"))


def image_of(network: QuantizedGraph, data: ImageClassification) -> Input:
    c, h, w = network.workload.in_shape
    return Input((h, w, c), data.mean, data.std)


def ship(network: QuantizedGraph, data: ImageClassification, target: str, database: Path) -> ExportedLibrary:
    """As `nas export --library TARGET` does, with the first schedule of every unit."""
    config = SimpleNamespace(
        export=SimpleNamespace(library=target, integer_only=False),
        device=SimpleNamespace(settings={"database": str(database)}),
    )
    run: Any = SimpleNamespace(
        config=config, images=data, task=data, recorded=False, device=SimpleNamespace(runtime=None)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(import_module("nas.export.library.to_tvm"), "run_locally", None)
        library = export_library(run, network, emit(network), image_of(network, data))
    assert library is not None
    return library


@pytest.fixture(scope="module")
def exported(
    network: QuantizedGraph,
    shipped: ExportedLibrary,
    data: ImageClassification,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """As `nas export --library host` writes it."""
    folder, image = tmp_path_factory.mktemp("run") / "export", image_of(network, data)
    return write_exported(folder, network, image, data, files=shipped.files, library=dict(shipped.record))


def changed(exported: Path, folder: Path, code: bytes | None = None, **record: Any) -> Path:
    """A copy with another library, whose hash the manifest knows, and other things said of it."""
    library = {**json.loads((exported / "manifest.json").read_text())["library"], **record}
    known = {key: value for key, value in library.items() if value is not None}
    return forged(exported, folder, files={} if code is None else {"model.so": code}, library=known)


def findings(folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, dict[str, Any]]:
    assert main(["verify", str(folder), "--json", "--run-library", *more]) == 0
    [rows] = json.loads(capsys.readouterr().out).values()
    return {row["what"]: row for row in rows}


def for_aarch64(exported: Path) -> bytes:
    code = bytearray((exported / "model.so").read_bytes())
    code[18:20] = AARCH64.to_bytes(2, "little")
    return bytes(code)


def compiled(source: str, folder: Path) -> bytes:
    (folder / "other.c").write_text(source)
    subprocess.run(
        ["cc", "-shared", "-fPIC", "other.c", "-o", "other.so"], cwd=folder, check=True, timeout=60
    )
    return (folder / "other.so").read_bytes()


def test_what_is_shipped_is_described(
    shipped: ExportedLibrary, network: QuantizedGraph, data: ImageClassification
) -> None:
    record = shipped.record
    assert record["integer_only"]
    assert record["answers"]["images"] == len(record["answers"]["labels"]) == 200
    assert 0 < record["latency"]["median_s"] < 1e-2
    assert record["agreement"] > 0.95
    assert record["parity"] > 0.95
    assert abs(record["test_accuracy"] - file_metric(emit(network), data.test, data)) < 0.05


@pytest.mark.skipif(
    shutil.which(f"{CROSS}-gcc") is None, reason=f"needs {CROSS}-gcc: apt-get install gcc-{CROSS}"
)
def test_what_a_board_must_answer_is_known_without_it(
    network: QuantizedGraph, shipped: ExportedLibrary, data: ImageClassification, tmp_path: Path
) -> None:
    record = ship(network, data, f"{CROSS}:cortex-a76", tmp_path).record
    assert record["answers"]["images"] == EXACT
    assert record["answers"]["labels"] == shipped.record["answers"]["labels"][:EXACT]
    assert len(record["answers"]["sha256"]) == 64
    assert "latency" not in record
    assert "test_accuracy" not in record


def test_a_whole_folder_holds(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = findings(exported, capsys, "--data", "digits")
    assert found["answers of the library"]["now"] == "every bit the same"
    holds = [found[f"{what} of the library"]["holds"] for what in ("answers", "accuracy", "latency")]
    assert holds == [True, True, None]
    assert " x)" in found["latency of the library"]["now"]


def test_a_library_is_not_loaded_unless_it_is_the_one(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = changed(exported, tmp_path)
    with (folder / "model.so").open("ab") as file:
        file.write(b"x")
    for module in ("nas.verification.places", "nas.serving.bench"):
        monkeypatch.setattr(f"{module}.confined", None)  # calling it would be no exit with 2
    monkeypatch.setattr(import_module("nas.export.library.library"), "confined", None)
    assert main(["verify", str(folder), "--no-latency", "--run-library"]) == 2
    assert "size of model.so was" in capsys.readouterr().err
    assert main(["bench", str(folder / "model.so"), "--run-library"]) == 2
    assert "not the file that its manifest.json has the hash of" in capsys.readouterr().err


@pytest.mark.usefixtures("_file_is_opened_here")
def test_another_processor_is_said(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = changed(exported, tmp_path, for_aarch64(exported))
    assert machine_of(folder / "model.so") == "aarch64"
    found = findings(folder, capsys, "--no-latency")["library"]
    assert found["holds"] is None
    assert "is for aarch64, this machine is" in found["now"]
    assert main(["bench", str(folder / "model.so")]) == 2
    assert "is for aarch64" in capsys.readouterr().err


@pytest.mark.usefixtures("_file_is_opened_here")
def test_an_instruction_that_is_missing_ends_nothing(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = "#include <signal.h>\nint trilobit_run(void* x, void* y) { return raise(SIGILL); }"
    folder = changed(exported, tmp_path / "sent", compiled(source, tmp_path))
    found = findings(folder, capsys, "--no-latency")["library"]
    assert found["holds"] is None
    assert "instructions that the processor lacks" in found["now"]


@pytest.mark.usefixtures("_file_is_opened_here")
@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("", "undefined symbol: trilobit_run"),
        ("int trilobit_run(void* x, void* y) { return 7; }", "model.so: code 7"),
        ("int trilobit_run(void* x, void* y) { return *(volatile int*)0; }", "ended by SIGSEGV"),
        ("#include <unistd.h>\nint trilobit_run(void* x, void* y) { for (;;) pause(); }", "no end after 1 s"),
        (
            "#include <string.h>\n#include <stdlib.h>\nint trilobit_run(void* x, void* y)"
            "{ for (;;) { char* p = malloc(1 << 30); if (!p) abort(); memset(p, 1, 1); } }",
            "ended by SIGABRT",
        ),
        ("#include <stdlib.h>\nint trilobit_run(void* x, void* y) { exit(0); }", "gave no answer"),
    ],
)
def test_a_library_that_does_not_run_is_found(
    source: str,
    said: str,
    exported: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if said.startswith("no end"):  # all others have the time that they need
        monkeypatch.setattr("nas.verification.library_checks.TRIAL_S", 1.0)
    code = compiled(source, tmp_path) if source else Path(_ctypes.__file__).read_bytes()
    folder = changed(exported, tmp_path / "sent", code)
    assert main(["verify", str(folder), "--no-latency", "--run-library"]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("_file_is_opened_here")
def test_a_library_is_checked_on_a_board(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which answers as this machine does, being the same: every bit, accuracy, latency."""
    monkeypatch.setenv(PROGRAM, stand_in(tmp_path))
    monkeypatch.setattr("nas.verification.places.WAITING_S", 0.0)
    board = f"ssh:pi@board/tvm:folder={tmp_path / 'cache'},database={tmp_path / 'kernels'}"
    there = findings(exported, capsys, "--device", board, "--data", "digits")
    here = findings(exported, capsys, "--data", "digits")
    for what in ("answers of the library", "accuracy of the library"):
        assert there[what] == here[what]
        assert there[what]["holds"] is True
    assert "on ssh:pi@board, " in there["latency of the library"]["now"]
    assert "latency" not in there
    aarch64 = changed(exported, tmp_path / "aarch64", for_aarch64(exported))
    other = findings(aarch64, capsys, "--device", board)
    assert "model.so is for aarch64, ssh:pi@board is " in other["library"]["now"]
    source = SIGNATURE + "int trilobit_run(void* x, void* y) { __builtin_trap(); }"
    newer = changed(exported, tmp_path / "newer", compiled(source, tmp_path))
    assert (
        "instructions that the processor lacks"
        in findings(newer, capsys, "--device", board)["library"]["now"]
    )
    damaged = changed(exported, tmp_path / "damaged", (exported / "model.so").read_bytes()[:4000])
    assert main(["verify", str(damaged), "--run-library", "--device", board]) == 2
    assert "library was for " in capsys.readouterr().err


@pytest.mark.usefixtures("_file_is_opened_here")
def test_a_file_that_is_no_library_is_refused(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = changed(exported, tmp_path, b"text")
    assert main(["verify", str(folder), "--no-latency", "--run-library"]) == 2
    assert "no shared library (ELF)" in capsys.readouterr().err
    with pytest.raises(TrilobitError, match="no shared library"):
        machine_of(folder / "model.so")


@pytest.mark.usefixtures("_file_is_opened_here")
def test_other_bits_are_found(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = json.loads((exported / "manifest.json").read_text())["library"]["answers"]
    folder = changed(exported, tmp_path, answers={**answers, "sha256": digest(np.zeros(3, np.float32))})
    assert main(["verify", str(folder), "--no-latency", "--run-library"]) == 2
    said = capsys.readouterr().err
    assert "answers of the library was 200 answers, every bit, is 100.0% the same" in said


@pytest.mark.usefixtures("_file_is_opened_here")
def test_a_library_with_real_layers_is_compared_by_its_labels(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = json.loads((exported / "manifest.json").read_text())["library"]["answers"]
    own = {key: value for key, value in answers.items() if key != "sha256"}
    folder = changed(exported, tmp_path, answers=own)
    assert findings(folder, capsys, "--no-latency")["answers of the library"]["holds"] is True
    other = [(label + 1) % 10 for label in own["labels"]]
    folder = changed(exported, tmp_path / "other", answers={**own, "labels": other})
    assert main(["verify", str(folder), "--no-latency", "--run-library"]) == 2
    assert "0.0% the same" in capsys.readouterr().err


@pytest.mark.usefixtures("_file_is_opened_here")
def test_a_library_without_answers_never_passes(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = changed(exported, tmp_path, answers=None)
    for flags in ([], ["--run-library"]):
        assert main(["verify", str(folder), "--no-latency", *flags]) == 2
        assert "its manifest has no answers of it" in capsys.readouterr().err
    folder = forged(exported, tmp_path / "record", library=None)
    assert main(["verify", str(folder), "--no-latency", "--run-library"]) == 2
    assert "the manifest says nothing of it" in capsys.readouterr().err


@pytest.mark.slow
def test_what_was_not_measured_is_not_compared(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = changed(exported, tmp_path, latency=None, test_accuracy=None)
    found = findings(folder, capsys, "--data", "digits")
    assert (
        found["accuracy of the library"]["then"] == found["latency of the library"]["then"] == "not measured"
    )


@pytest.mark.usefixtures("_file_is_opened_here")
def test_machine_code_runs_only_where_that_was_asked_for(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marker = tmp_path / "it ran"
    source = (
        "#include <stdio.h>\n"
        f'__attribute__((constructor)) void begin(void) {{ fclose(fopen("{marker}", "w")); }}'
        "int trilobit_run(void* x, void* y) { return 0; }"
    )
    folder = changed(exported, tmp_path / "forged", compiled(source, tmp_path))
    assert main(["verify", str(folder), "--no-latency", "--json"]) == 0
    assert "only with --run-library" in capsys.readouterr().out
    assert main(["bench", str(folder / "model.so")]) == 2
    assert "with --run-library it is run, with your rights" in capsys.readouterr().err
    assert main(["bench", str(folder / "model.onnx"), "--seconds", "0.01"]) == 0
    assert not marker.exists()
    assert main(["verify", str(folder), "--no-latency", "--run-library"]) == 2
    assert marker.exists()


def test_a_library_that_is_not_listed_is_not_loaded(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = dict(json.loads((exported / "manifest.json").read_text())["files"])
    del listed["model.so"]
    folder = forged(exported, tmp_path, listed=listed, stamp=False)
    assert main(["verify", str(folder), "--no-latency", "--run-library"]) == 2
    assert "model.so was not in manifest.json" in capsys.readouterr().err
    assert main(["bench", str(folder / "model.so"), "--run-library"]) == 2
    assert "not the file" in capsys.readouterr().err
    (folder / "model.so").unlink()
    assert main(["verify", str(folder), "--no-latency", "--run-library"]) == 2
    assert "its manifest has no hash of it" in capsys.readouterr().err


def test_bench_times_a_library(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = time.perf_counter()
    assert main(["bench", str(exported / "model.so"), "--seconds", "0.05", "--run-library", "--json"]) == 0
    elapsed_s = time.perf_counter() - start
    [one] = json.loads(capsys.readouterr().out)["settings"]
    times = list(one["percentiles_s"].values())
    assert (one["threads"], one["batch"]) == (1, 1)
    assert times == sorted(times)
    assert one["rate_per_s"] < 2 / min(times)
    assert 0 < one["calls"] / one["rate_per_s"] < elapsed_s  # what all calls took


@pytest.mark.parametrize("setting", ["--threads", "--batch"])
def test_a_library_takes_one_image_on_one_thread(
    setting: str, exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(exported / "model.so"), setting, "1,4"]) == 2
    assert f"{setting} 1,4: model.so takes one example at a time on one thread" in capsys.readouterr().err


def test_a_library_alone_says_nothing_of_its_images(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(exported / "model.so", tmp_path / "model.so")
    assert main(["bench", str(tmp_path / "model.so")]) == 2
    assert "no manifest.json beside it" in capsys.readouterr().err
