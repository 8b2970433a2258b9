"""The Python interface on a run that the command made: the same folder, the same results."""

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest

import nas

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def own_run(finished_run: Path, tmp_path: Path) -> Path:
    """A finished run that the test may change."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def test_a_search_finds_what_the_command_did_and_does_not_do_it_again(own_run: Path, config: Path) -> None:
    before = (own_run / "front.json").read_bytes()
    lines: list[str] = []
    sections = tomllib.loads(config.read_text())
    front = nas.search(folder=own_run, config=sections, reporter=nas.PlainReporter(lines.append))
    assert sum("already there" in line for line in lines) == 5
    assert (own_run / "front.json").read_bytes() == before
    assert {network.id for network in front} == {network.id for network in nas.load(own_run / "front.json")}
    assert not (own_run / "lock.json").exists()


def test_what_a_search_gives_is_a_table_a_figure_and_networks(finished_run: Path) -> None:
    pandas = pytest.importorskip("pandas")
    run = nas.load(finished_run)
    assert isinstance(run, nas.RunFolder)
    front = run.front
    table = front.to_frame()
    assert isinstance(table, pandas.DataFrame)
    assert list(table.index) == [network.id for network in front]
    assert table.latency.is_monotonic_increasing
    assert {"accuracy", "latency", "size", "predicted_latency", "low_bit"} <= {*table.columns}
    assert len(run.profile.to_frame()) == len(run.profile) > 100
    assert [*run.exported.to_frame().test_accuracy] == [network.test_accuracy for network in run.exported]
    names = [trace.name for trace in front.plot().data]
    assert {"front, replayed", "front, predicted"} <= {*names}
    moved = nas.Front(finished_run.parent / "front.json", front.file).plot()  # of no run folder
    assert "front, measured" in [trace.name for trace in moved.data]


def test_networks_are_chosen_by_limits(finished_run: Path) -> None:
    front = nas.load(finished_run / "front.json")
    assert isinstance(front, nas.Front)
    most_accurate = max(front, key=lambda network: network.accuracy)
    quickest = min(front, key=lambda network: network.latency_s)
    assert front.best().accuracy == most_accurate.accuracy
    assert front.fastest().latency_s == quickest.latency_s
    assert front.best(latency=quickest.latency_s).id == quickest.id
    assert (
        front.best(latency=f"{1e6 * most_accurate.latency_s * 1.001:.9f}us").accuracy
        == most_accurate.accuracy
    )
    assert front.fastest(accuracy=most_accurate.accuracy).accuracy == most_accurate.accuracy
    assert front.best(latency="100%", macs="100%").latency_s <= front.largest.latency_s
    assert front["knee"].id in {network.id for network in front}
    with pytest.raises(nas.TrilobitError, match=r"no network of the front has latency <= .*; the nearest, "):
        front.best(latency="1ns")
    with pytest.raises(nas.TrilobitError, match="unknown objective 'speed'"):
        front.best(speed=1.0)


@pytest.mark.usefixtures("confined_here")
def test_a_network_is_saved_whether_or_not_the_run_has_exported_it(own_run: Path, tmp_path: Path) -> None:
    front = nas.load(own_run).front
    exported = {network.id for network in nas.load(own_run).exported}
    there = next(network for network in front if network.id in exported)
    assert repr(there).startswith(f"Network({there.id}: accuracy=")
    assert len(repr(there)) < 200
    model = there.save(tmp_path / "there.onnx")
    assert model.read_bytes() == (own_run / "export" / there.id / "model.onnx").read_bytes()
    shutil.rmtree(own_run / "export")
    folder = there.save(tmp_path / "made")  # exported again, elsewhere
    assert not (own_run / "export").exists()
    assert nas.verify(folder, latency=False).holds
    assert onnxruntime.InferenceSession(folder / "model.onnx").get_inputs()
    with pytest.raises(nas.TrilobitError, match="exists already"):
        there.save(folder)
    with pytest.raises(nas.TrilobitError, match="not in its run folder"):
        nas.Network(there.entry, tmp_path / "front.json").save(tmp_path / "x.onnx")


@pytest.mark.usefixtures("confined_here")
def test_exports_are_verified_and_timed(own_run: Path, tmp_path: Path) -> None:
    front = nas.load(own_run).front
    exported = nas.export(front, pick="knee", folder=tmp_path / "out", config={"dynamic_batch": True})
    [network] = exported
    assert network.id == front["knee"].id
    assert nas.load(tmp_path / "out") == exported
    verification = nas.verify(network, data="digits", latency=False)
    assert verification.holds
    findings = verification.findings[network.folder.name]
    assert all(isinstance(finding, nas.Finding) for finding in findings)
    assert len(verification.to_frame()) == len(findings)
    timed = nas.bench(network, batch=(1, 2), seconds=0.05)
    assert [setting.batch for setting in timed.settings] == [1, 2]
    assert (timed.to_frame().p50_s > 0).all()
    network.model.write_bytes(network.model.read_bytes() + b" ")
    with pytest.raises(nas.TrilobitError, match=r"size of model.onnx was .* export again"):
        nas.verify(network).require()


def test_what_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere", Path(__file__)):
        with pytest.raises(nas.TrilobitError, match="nothing that can be opened; give an ONNX file"):
            nas.load(path)
    with pytest.raises(nas.TrilobitError, match="not a run folder"):
        nas.export(tmp_path)
    with pytest.raises(nas.TrilobitError, match=r"search\.rounds"):
        nas.search(folder=tmp_path / "run", config={"search": {"rounds": 0}})
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_what_only_an_extra_brings_is_asked_for_in_one_line(
    start: Start, without_extras: dict[str, str], finished_run: Path, tmp_path: Path
) -> None:
    environment = without_extras
    asked = {
        "tvm": ("profile", "--device", "tvm"),
        "pymoo": ("search", "--engine", "nsga2"),
        "sign": ("export", "--sign", __file__),
    }
    own_run = shutil.copytree(finished_run, tmp_path / "run")
    for extra, words in asked.items():
        printed, complaint = start(*words, "-o", own_run, env=environment).communicate(timeout=100)
        assert f"pip install 'trilobit[{extra}]'" in complaint.splitlines()[-1], (printed, complaint)
    code = f"import nas; nas.load({str(finished_run)!r}).front.to_frame()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert "pip install 'trilobit[frames]'" in done.stderr
    printed, complaint = start("devices", env=environment).communicate(timeout=100)
    assert complaint == ""
    assert re.search(r"tvm .*not usable here: .*trilobit\[tvm\]", printed)
