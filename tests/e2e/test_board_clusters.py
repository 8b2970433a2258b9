"""Boards and a cluster in one command: workers evaluate on the supernet, and the command alone speaks to the
board, to which workers have no way. The board is this machine, behind what stands in for ssh.
"""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hw_profiles.runtimes.transports.board import BoardLost
from hw_profiles.runtimes.transports.boards import Boards
from nas.cli.main import main
from nas.evaluation import on_supernet
from nas.tune.evaluation import on_worker
from supernet.families.family import FAMILIES
from tests.e2e.small_classifier import tune_small
from tests.e2e.test_adb import LITTLE
from tests.hw_profiles.transports.pipes import board_here

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.slow

Places = dict[str, set[bool]]  # of what was done: whether workers did it


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A device of one board."""
    return board_here(tmp_path, monkeypatch)


@pytest.fixture
def scheduler() -> Iterator[str]:
    """Two workers, threads of this process."""
    settings = {"processes": False, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with distributed.LocalCluster(n_workers=2, protocol="tcp", host="127.0.0.1", **settings) as running:
        yield running.scheduler_address


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> Places:
    """Where boards were spoken to and networks simulated; workers do not reach a board."""
    seen: Places = {"board": set(), "supernet": set()}
    run, simulate = Boards.run, on_supernet.SupernetEvaluator.simulate

    def asked(self: Boards, use: Any) -> Any:
        seen["board"].add(at_work := by_a_worker())
        if at_work:
            raise BoardLost("ssh:pi@board cannot be reached (no route to host)", again=False)
        return run(self, use)

    def simulated(self: Any, candidate: Any) -> Any:
        seen["supernet"].add(by_a_worker())
        return simulate(self, candidate)

    monkeypatch.setattr(Boards, "run", asked)
    monkeypatch.setattr(on_supernet.SupernetEvaluator, "simulate", simulated)
    return seen


def by_a_worker() -> bool:
    return "Dask-Default-Threads" in threading.current_thread().name


@pytest.mark.usefixtures("confined_here")
def test_workers_evaluate_a_run_and_the_command_measures_and_asks_the_board(
    board: str,
    scheduler: str,
    places: Places,
    quick_measuring: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("nas.stages.profile.FITTED", 2)
    monkeypatch.setattr("nas.stages.profile.HELD_OUT", 1)
    monkeypatch.setitem(FAMILIES, "larger", "tests.e2e.test_adb:larger")  # type: ignore[call-overload]
    path, folder = tmp_path / "quick.toml", tmp_path / "run"
    path.write_text(quick_measuring + '[space]\nname = "larger"\nformats = ["fp32", "int8"]\n' + LITTLE)
    words = ["run", str(path), "--device", board, "--cluster", scheduler, "-o", str(folder)]
    assert main(words) == 0, capsys.readouterr().err
    said = capsys.readouterr()
    assert "this process alone speaks to ssh:pi@board" in said.out
    assert "is left out" not in said.out + said.err
    assert places == {"board": {False}, "supernet": {True}}
    manifest = json.loads(next((folder / "export").glob("*/manifest.json")).read_text())
    assert manifest["device"]["board"]["address"] == "ssh:pi@board"


@pytest.mark.usefixtures("confined_here")
def test_a_tune_for_a_board_needs_no_cluster_and_says_so(
    board: str, places: Places, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nobody = "tcp://127.0.0.1:1"
    shape = {"image": (1, 3, 12, 12), "scores": (1, 5)}
    folder = tune_small(tmp_path, "--device", board, "--cluster", nobody, **shape)
    out = capsys.readouterr().out
    assert f"cluster {nobody} has nothing to do: policies answer on ssh:pi@board, and this process" in out
    front = json.loads((folder / "front.json").read_text())
    assert front["candidates"]
    assert not on_worker._opened.cache_info().currsize
