"""Boards that run libraries: a file is compiled here and served there, a model tuned for them, and what was
exported looked at again there. The board is this machine, behind what stands in for ssh, or an emulator of
aarch64, whose times say nothing.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tvm")

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import Layer
from hw_profiles.measure.in_context import alone
from hw_profiles.measure.measurement import MeasurePlan
from hw_profiles.runtimes.device import MeasuredDevice
from hw_profiles.runtimes.plugin import open_device
from hw_profiles.runtimes.runtime import Artifact, single_output
from hw_profiles.runtimes.transports import board_kind
from hw_profiles.runtimes.transports.board_transport import BoardTransport
from hw_profiles.runtimes.transports.boards import Boards
from hw_profiles.runtimes.transports.native_agent import NativeAgent
from hw_profiles.runtimes.transports.ssh import PROGRAM
from hw_profiles.runtimes.tvm_cpu.agent_program import agent_program
from hw_profiles.runtimes.tvm_cpu.elsewhere import HOST, TvmHere
from nas.checks.check import Input
from nas.cli.main import main
from nas.emit.rewrite_onnx import rewrite
from nas.emit.to_onnx import random_network
from nas.export.library.of_file import compile_file
from nas.export.library.policies import PolicyLibraries
from nas.run.reporting import Add, Quiet
from nas.tune.setup.libraries import times_files, with_files
from nas.verification.library_checks import compiled_for
from supernet.families.family import Family
from supernet.imported.import_onnx import import_onnx
from supernet.tasks.loading import load_images
from tests.hw_profiles.transports.pipes import stand_in
from tests.hw_profiles.transports.sshd import served, why_not
from tests.hw_profiles.tvm_cpu.test_aarch64_agent import COMPILER, EMULATOR, Emulated
from tests.nas.export.test_policy_library import REAL_ERROR, all_in, answers, calibrated, images, residual
from tests.nas.exported import write_exported
from tests.nas.tune.networks import image_network
from tests.waiting import wait_until

needs_cc = pytest.mark.skipif(
    shutil.which("cc") is None, reason="needs a C compiler: apt-get install gcc libc6-dev"
)
needs_aarch64 = pytest.mark.skipif(
    not (shutil.which(COMPILER) and shutil.which(EMULATOR)),
    reason=f"needs {COMPILER} and {EMULATOR}: apt-get install gcc-aarch64-linux-gnu qemu-user",
)
PLAN = MeasurePlan(rounds=2, sessions=1, waiting_s=0.0, energy_s=0.0)
SMALL = ("--budget", "20s", "--files", "2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("board")


@pytest.fixture
def board(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A device of one board; what one test has tuned there, the others take."""
    monkeypatch.setenv(PROGRAM, stand_in(folder))
    board_kind.boards_of.cache_clear()
    return f"ssh:pi@board/tvm:database={folder / 'kernels'},folder={folder / 'cache'}"


def printed(capsys: pytest.CaptureFixture[str], *words: str | Path) -> Any:
    assert main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
@needs_cc
def test_a_file_is_compiled_here_and_served_there(
    board: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.onnx"
    path.write_bytes(image_network())
    [row] = printed(capsys, "bench", path, "--device", board, "--seconds", "0.2")["settings"]
    assert (row["threads"], row["batch"], row["counted"]) == (1, 1, "images")
    assert row["calls"] > 0
    assert 0 < row["percentiles_s"]["50"] < 0.1
    assert main(["bench", str(path), "--device", board, "--threads", "2"]) == 2
    assert "mine.onnx as a library takes one example at a time on one thread" in capsys.readouterr().err
    given = tmp_path / "given.npz"
    np.savez(given, picture=np.zeros((1, 4, 8, 8), np.float32))
    assert main(["bench", str(path), "--device", board, "--inputs", str(given)]) == 2
    assert "picture" in capsys.readouterr().err


@pytest.mark.slow
@needs_cc
def test_the_same_through_a_real_sshd(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if reason := why_not():
        pytest.skip(reason)
    path = tmp_path / "mine.onnx"
    path.write_bytes(image_network())
    (tmp_path / "sshd").mkdir()
    with served(tmp_path / "sshd") as server:
        monkeypatch.setenv(PROGRAM, server.program())
        board_kind.boards_of.cache_clear()
        device = f"ssh:talks/tvm:database={folder / 'kernels'},folder={tmp_path / 'cache'}"
        [row] = printed(capsys, "bench", path, "--device", device, "--seconds", "0.2")["settings"]
        board_kind.boards_of.cache_clear()  # the connection ends before the server does
    assert row["calls"] > 0
    assert 0 < row["percentiles_s"]["50"] < 0.1
    wait_until(lambda: not list((tmp_path / "cache").glob("agent-*")))  # it takes itself away


@pytest.mark.slow
@needs_cc
def test_a_model_is_tuned_for_a_board_and_looked_at_again_there(
    board: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.onnx").write_bytes(residual())
    data, run = tmp_path / "samples.npz", tmp_path / "run"
    np.savez(data, image=images(160))
    words = ["tune", str(tmp_path / "mine.onnx"), "--data", str(data), "--device", board, "-o", str(run)]
    assert main([*words, *SMALL]) == 0
    front = json.loads((run / "front.json").read_text())
    assert front["original"]["title"] == "the original in fp32, as a library"
    assert front["original"]["latency"]["ratio"] == 1.0
    assert {reference["name"] for reference in front["references"]} == {"int8"}  # no recipe makes libraries
    network = next(path.parent for path in (run / "export").glob("*/model.so"))
    manifest = json.loads((network / "manifest.json").read_text())
    assert manifest["device"]["board"]["address"] == "ssh:pi@board"
    assert manifest["latency"]["through"] == "model.so"
    capsys.readouterr()
    there = ("--device", board, "--run-library")
    found = {f["what"]: f for f in printed(capsys, "verify", network, *there, "--data", data)[network.name]}
    assert found["answers of the library"]["holds"] is True
    assert "100.00 %" in found["agreement"]["now"]
    assert "on ssh:pi@board, " in found["latency of the library"]["now"]
    unasked = printed(capsys, "verify", network, "--device", board)[network.name]
    assert "--run-library" in next(f["now"] for f in unasked if f["what"] == "library")
    [row] = printed(capsys, "bench", network, *there, "--seconds", "0.1")["settings"]
    assert row["calls"] > 0


@pytest.mark.slow
@needs_cc
def test_a_network_without_a_library_is_compiled_and_one_that_cannot_be_is_refused(
    family: Family,
    board: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("nas.verification.places.WAITING_S", 0.0)
    data = load_images("digits", seed=0)
    for formats in ("fp32", "int8"):
        work = family.workload(family.extremes()[f"smallest/{formats}"])
        network = random_network(work, rng=np.random.default_rng(0))
        c, h, w = network.workload.in_shape
        image = Input((h, w, c), data.mean, data.std)
        folder = write_exported(tmp_path / formats / "export", network, image, data)
        words = ["verify", str(folder), "--device", board, "--data", "digits"]
        if formats == "fp32":
            found = {f["what"]: f for f in printed(capsys, *words)[folder.name]}
            assert found["answers of the library"]["holds"] is True
            assert "on ssh:pi@board, " in found["latency of the library"]["now"]
            assert "accuracy of the library" in found
        else:
            assert main(words) == 2
            [line] = capsys.readouterr().err.splitlines()
            assert "no model.so" in line
            assert "cannot be compiled here: " in line
            assert "is quantized already (" in line


def test_verifying_shows_how_far_its_kernels_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They take minutes; nothing that takes as long is silent."""
    shown = list[tuple[str, int, float]]()

    class Bars(Quiet):
        @contextmanager
        def progress(self) -> Iterator[Add]:
            yield lambda title, total, end_s=0.0: lambda done, note: shown.append((title, total, done))

    def tuned(libraries: PolicyLibraries, layers: Sequence[Layer], on_done: Callable[[int], None]) -> None:
        on_done(1)
        raise TrilobitError("this is as far as it goes")

    (tmp_path / "model.onnx").write_bytes(residual())
    monkeypatch.setattr(PolicyLibraries, "tune_kernels", tuned)
    device = open_device(f"tvm:database={tmp_path / 'kernels'}")
    place = SimpleNamespace(runtime=device.runtime, name="a board")
    manifest = SimpleNamespace(input=None)
    with (
        pytest.raises(TrilobitError, match=r"cannot be compiled here: this is as far as it goes"),
        compiled_for(tmp_path, manifest, place, Bars()),  # type: ignore[arg-type]
    ):
        pass
    assert [(title, done) for title, _, done in shown] == [("tune kernels", 0), ("tune kernels", 1)]
    assert shown[0][1] > 1


@needs_cc
def test_only_boards_that_answer_are_tuned_for(board: str) -> None:
    device = with_files(open_device(board))
    assert device.runtime is not None
    assert not times_files(device.runtime)  # this machine's times are others
    here = with_files(open_device("tvm"))
    assert here.runtime is not None
    assert times_files(here.runtime)


def test_boards_of_a_tracker_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.onnx"
    path.write_bytes(image_network())
    assert main(["bench", str(path), "--device", "tvm:tracker=127.0.0.1:1,key=pi"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "only say how long their own networks take" in line
    assert "ssh:USER@HOST/tvm" in line
    with pytest.raises(TrilobitError, match="only say how long they take: reach the board over ssh or adb"):
        with_files(open_device("tvm:tracker=127.0.0.1:1,key=pi"))


@pytest.mark.slow
@needs_aarch64
def test_policies_answer_on_another_processor_as_they_do_here(tmp_path: Path) -> None:
    """In fp32 but for the order of sums, in integers to the last bit; what they take is at least said."""
    uname = tmp_path / "bin" / "uname"
    uname.parent.mkdir()
    uname.write_text("#!/bin/sh\necho aarch64\n")
    uname.chmod(0o700)
    boards = Boards([Emulated(tmp_path)], NativeAgent(agent_program, str(tmp_path / "files")))
    runtime = TvmHere(boards, HOST, tmp_path / "tuned").on(boards)
    model, x = import_onnx(residual()), images(3)
    quantization = calibrated(model)
    libraries = PolicyLibraries.of(runtime, tuned=False)
    plain = libraries.library(quantization, {})
    assert "-mtriple=aarch64-linux-gnu" in plain.target
    there = single_output(runtime.compile(Artifact(plain.code, "library")), x)
    assert np.abs(there - answers(rewrite(quantization, {}), x)).max() < REAL_ERROR
    policy = all_in(model, "int8")
    code = libraries.write(quantization, policy)
    integers = single_output(runtime.compile(Artifact(code, "library")), x)
    local = open_device(f"tvm:database={tmp_path / 'own'}").runtime
    assert local is not None
    own = PolicyLibraries.of(local, tuned=False).write(quantization, policy)
    np.testing.assert_array_equal(integers, single_output(local.compile(Artifact(own, "library")), x))
    device = with_files(MeasuredDevice(runtime, BoardTransport(boards), alone))
    assert isinstance(device, MeasuredDevice)
    [measured] = device.transport.sample(device.runtime, [Artifact(code, "library")], [None], PLAN)
    assert measured.samples_s
    (tmp_path / "mine.onnx").write_bytes(residual())
    built = compile_file(tmp_path / "mine.onnx", runtime)
    served = runtime.compile(Artifact(built.code, "library"))
    assert np.abs(single_output(served, x) - there).max() < REAL_ERROR
    boards.close()
