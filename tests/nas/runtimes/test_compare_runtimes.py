"""`nas compare-runtimes`: files on runtimes, timed in the same turns."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hw_profiles.errors import TrilobitError
from hw_profiles.files import write_atomic
from hw_profiles.measure.measurement import Measurement, MeasurePlan
from hw_profiles.runtimes.transports.ssh import PROGRAM
from nas.cli.compare_runtimes import advice, table_of
from nas.cli.main import main
from nas.runtimes.comparison import RuntimeComparison, compared
from nas.runtimes.contestants import Contestant, best_mixes, installed
from nas.runtimes.plot import draw
from nas.serving.side_by_side import Timing
from supernet.data.samples import Samples
from tests.hw_profiles.transports.pipes import stand_in
from tests.nas.tune import fronts
from tests.nas.tune.exported import ID, write_tuned
from tests.nas.tune.networks import CHANNELS, SIZE, image_network

QUICK = MeasurePlan(rounds=3, sessions=1, waiting_s=0.0, energy_s=0.0)
TWICE = ("--device", "ort", "--device", "ort:threads=2")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "mine.onnx"
    path.write_bytes(image_network())
    return path


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.runtimes.comparison.MeasurePlan", lambda **_: QUICK)


def times(*seconds: float, spread: float = 0.01) -> Timing:
    return Timing(Measurement(tuple(s * (1 + spread * (i % 3 - 1)) for i, s in enumerate(seconds * 9))), 0.0)


def result(model: Path, *timings: Timing) -> RuntimeComparison:
    """The same file on as many runtimes."""
    contestants = [Contestant("mine", "fp32", model, f"engine{i}", "Engine", {}) for i in range(len(timings))]
    return compared(contestants, timings)


@pytest.mark.usefixtures("confined_here")
def test_a_file_is_timed_on_several_runtimes_in_the_same_turns(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "plot.svg"
    assert main(["compare-runtimes", str(model), *TWICE, "--plot", str(plot), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [file["device"] for file in said["files"]] == ["ort", "ort:threads=2"]
    assert {file["formats"] for file in said["files"]} == {"fp32"}
    first, second = (file["latency"] for file in said["files"])
    assert (first["ratio"], first["ratio_iqr"]) == (1.0, 0.0)
    assert second["median_s"] > 0
    assert [file["difference"] < 1e-5 for file in said["files"]] == [True, True]
    assert said["fastest"]
    assert plot.read_text().count("<rect") == 1 + len(said["files"])


@pytest.mark.usefixtures("confined_here")
def test_the_mix_of_a_tune_joins_its_original(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = np.random.default_rng(0).normal(size=(8, 1, CHANNELS, SIZE, SIZE)).astype(np.float32)
    run = tmp_path / "run"
    write_tuned(run / "export", model.read_bytes(), Samples({"image": images}))
    front = fronts.front(candidates=[fronts.network(ID, ["/layer0"], 0.5, 0.01)])
    (run / "front.json").write_text(json.dumps({"schema": "tuned/1", **front.to_json()}))
    (run / "run.toml").write_text('[model]\nsource = "mine.onnx"\n')
    write_atomic(run / "original.onnx", model.read_bytes())
    np.savez(run / "example.npz", image=images[0])
    [mix] = best_mixes(run, ("knee",), run_library=False)
    assert (mix.network, mix.formats, mix.metric, mix.quality) == (ID, "1 int8", "kl", 0.01)
    assert main(["compare-runtimes", str(model), str(run), "--device", "ort", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [(file["network"], file["formats"]) for file in said["files"]] == [
        ("mine", "fp32"),
        (ID, "1 int8"),
    ]


@pytest.mark.usefixtures("confined_here")
def test_runtimes_of_one_board_are_compared_there_and_of_two_machines_nowhere(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(PROGRAM, stand_in(tmp_path))
    options = f"python={sys.executable},folder={tmp_path / 'cache'}"
    there = (f"ssh:pi@board/ort:{options}", f"ssh:pi@board/ort:threads=2,{options}")
    words = ["compare-runtimes", str(model), "--device", there[0], "--device"]
    assert main([*words, "ort"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "several machines, whose times are not compared in one table" in line
    assert line.endswith("ort on this machine): give --device of one machine, and a command for each")
    assert main([*words, there[1], "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["machine"] == "ssh:pi@board"
    assert [file["error"] for file in said["files"]] == ["", ""]
    assert all(file["latency"]["median_s"] > 0 for file in said["files"])


def test_those_that_are_as_fast_as_measurements_tell_are_named(model: Path) -> None:
    clear = result(model, times(2e-3), times(1e-3), times(3e-3))
    assert clear.fastest == (1,)
    assert "use this one: fp32 on engine1, 2.00 x as fast as the first" in advice(clear)
    assert "as fast as far as" not in advice(clear)
    close = replace(times(1e-3), measured=Measurement((0.97e-3, 1.005e-3, 1.05e-3) * 3))
    alike = result(model, times(1e-3), close)
    assert set(alike.fastest) == {0, 1}
    assert "as fast as far as this tells: fp32 on engine" in advice(alike)


def front(model: Path, seconds: dict[str, tuple[float, ...]]) -> RuntimeComparison:
    """Three networks on runtimes, by what each takes there."""
    contestants, timings = [], []
    for number in range(3):
        path = model.with_name(f"network{number}.onnx")
        path.write_bytes(model.read_bytes())
        for device, of_networks in seconds.items():
            quality = 0.9 + 0.01 * number
            contestant = Contestant(f"net{number}", "3 int8", path, device, device, {}, "accuracy", quality)
            contestants.append(contestant)
            seconds_of = of_networks[number]
            failing = Timing(Measurement(error="it has no such operation"))
            timings.append(failing if seconds_of != seconds_of else times(seconds_of))
    return compared(contestants, timings)


def test_of_a_front_the_runtime_is_recommended_that_is_the_fastest_in_the_mean(model: Path) -> None:
    comparison = front(model, {"slow": (1e-3, 2e-3, 4e-3), "quick": (0.5e-3, 1e-3, 5e-3)})
    quick, slow = comparison.runtimes
    assert (quick.device, quick.fastest, quick.files) == ("quick", 2, 3)
    assert quick.ratio == pytest.approx(1.25 ** (1 / 3))
    assert slow.ratio == pytest.approx(4 ** (1 / 3))
    assert "use this one: quick, the fastest for 2 of 3 files that all run, 1.47 x as fast" in advice(
        comparison
    )
    drawing = draw(comparison)
    assert drawing.count("<polyline") == 2
    assert drawing.count("<circle") == 6 + 2
    assert len({row for row in table_of(comparison).rows}) == 6


def test_a_runtime_that_runs_few_of_the_files_does_not_keep_others_from_being_compared(model: Path) -> None:
    few = (1e-3, float("nan"), float("nan"))
    comparison = front(model, {"one": (1e-3, 2e-3, 4e-3), "other": (2e-3, 2e-3, 8e-3), "few": few})
    assert [(speed.device, speed.files) for speed in comparison.runtimes] == [("one", 3), ("other", 3)]


@pytest.mark.usefixtures("confined_here")
def test_networks_of_other_sizes_are_timed_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small, large = tmp_path / "small.onnx", tmp_path / "large.onnx"
    small.write_bytes(image_network())
    large.write_bytes(image_network(size=2 * SIZE))
    assert main(["compare-runtimes", str(small), str(large), "--device", "ort", "--json"]) == 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert [file["error"] for file in files] == ["", ""]


def test_one_file_on_runtimes_makes_no_front(model: Path) -> None:
    assert result(model, times(2e-3), times(1e-3)).runtimes == ()


def test_what_does_not_run_is_a_row_with_its_reason(model: Path) -> None:
    failing = Timing(Measurement(error="it has no such operation"))
    comparison = result(model, times(1e-3), failing)
    assert comparison.files[1].error == "it has no such operation"
    assert "fails" in table_of(comparison).rows[1]
    assert draw(comparison).count("<rect") == 2
    with pytest.raises(TrilobitError, match="on engine0: it has no such operation"):
        result(model, failing, times(1e-3))


def test_a_runtime_that_is_not_installed_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    for name in [name for name in sys.modules if name.startswith("hw_profiles.runtimes.openvino.")]:
        if not name.endswith((".plugin", ".options")):
            monkeypatch.delitem(sys.modules, name)
    choices, notes = installed(("ort", "openvino"))
    assert [choice.name for choice in choices] == ["ort"]
    assert notes == [
        "openvino is left out: the package openvino is not installed: pip install 'trilobit[openvino]'"
    ]


@pytest.mark.usefixtures("confined_here")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--plot", "plot.png"), "the plot is written as .svg"),
        (("--device", "tvm"), "runs no ONNX files; give the folder of a tune for it"),
        (("--device", "abacus"), "unknown device 'abacus'"),
        (("missing.onnx",), "missing.onnx: no such file"),
        (("another.onnx", "--data", "photos/"), "give its ONNX file alone"),
    ],
)
def test_what_is_asked_wrongly_is_told_in_one_line(
    model: Path, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare-runtimes", str(model), *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
