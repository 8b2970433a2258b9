"""Joules of runs on a board, by the agent there: the same meters as on this machine."""

import sys
from pathlib import Path

import pytest

from hw_profiles.measure.energy.powercap import find_powercap
from hw_profiles.measure.energy.sensors import find_sensors
from hw_profiles.measure.measurement import MeasurePlan
from hw_profiles.runtimes.runtime import Artifact
from hw_profiles.runtimes.transports.boards import Boards
from tests.hw_profiles.transports.pipes import Pipe, agent, device, engine

PLAN = MeasurePlan(rounds=2, waiting_s=0.0, window_s=1e-4, energy_s=0.01)
JETSON = f"""#!{sys.executable}
import time
while True:
    print("RAM 2442/30536MB CPU [2%@729,off] VDD_IN 5000mW/5000mW VDD_SOC 980mW/980mW", flush=True)
    time.sleep(0.005)
"""


@pytest.mark.skipif(
    not isinstance(find_powercap(), str) or not isinstance(find_sensors(), str),
    reason="this machine has meters of its own, which come first",
)
def test_a_jetson_counts_joules_where_a_network_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tegrastats").write_text(JETSON)
    (tmp_path / "tegrastats").chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    boards = Boards([Pipe(modules=engine(tmp_path / "engine"))], agent(tmp_path))
    board = device(boards)
    assert board.describe().energy == "tegrastats: all that VDD_IN drew while it ran"
    [slow, rejected] = board.transport.sample(
        board.runtime, [Artifact(b"slow"), Artifact(b"reject")], [None, None], PLAN
    )
    boards.close()
    assert rejected.energy_j is None
    # 10 ms of sleep at 5 W, and whatever else it takes
    assert slow.energy_j is not None
    assert slow.energy_j > 0.04
