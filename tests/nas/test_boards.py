"""Commands on a board: what they do here they do there. The board is this machine, behind what stands in for
ssh.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hw_profiles.profiles.profile_json import load_profile
from nas.checks.check import Input
from nas.cli.main import main
from nas.emit.to_onnx import random_network
from supernet.families.family import Family
from supernet.tasks.loading import load_images
from tests.hw_profiles.transports.pipes import board_here
from tests.nas.exported import write_exported


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A device of one board."""
    return board_here(tmp_path, monkeypatch)


@pytest.fixture
def exported(family: Family, tmp_path: Path) -> Path:
    """As `nas export` writes it, of random weights."""
    data = load_images("digits", seed=0)
    work = family.workload(family.extremes()["smallest/int8"])
    network = random_network(work, rng=np.random.default_rng(0))
    c, h, w = network.workload.in_shape
    return write_exported(tmp_path / "run" / "export", network, Input((h, w, c), data.mean, data.std), data)


def printed(capsys: pytest.CaptureFixture[str], *words: str | Path) -> Any:
    assert main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_a_shipped_file_is_checked_there(
    exported: Path, board: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers, accuracy and latency."""
    monkeypatch.setattr("nas.verification.common_checks.WAITING_S", 0.0)
    there = printed(capsys, "verify", exported, "--data", "digits", "--device", board)[exported.name]
    here = printed(capsys, "verify", exported, "--data", "digits")[exported.name]
    theirs, ours = ({each["what"]: each for each in findings} for findings in (there, here))
    assert list(theirs) == list(ours)
    latency = theirs.pop("latency")
    assert "on ssh:pi@board, " in latency["now"]
    assert "us" in latency["now"] or "ms" in latency["now"]
    assert theirs == {what: finding for what, finding in ours.items() if what != "latency"}


def test_a_file_is_served_there(exported: Path, board: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = printed(capsys, "bench", exported, "--device", board, "--seconds", "0.1", "--threads", "1,2")[
        "settings"
    ]
    assert [row["threads"] for row in rows] == [1, 2]
    assert all(row["calls"] > 0 and row["percentiles_s"]["50"] > 0 for row in rows)


def test_a_board_that_is_not_there_is_one_line(
    exported: Path, board: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["verify"], ["bench"]):
        assert main([*command, str(exported), "--device", "ssh:pi@board/ort:python=/nowhere"]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith("nas: ssh:pi@board has no Python (/nowhere)")


@pytest.mark.slow
def test_a_profile_is_made_there(board: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert (
        main(["profile", "--space", "digits-mbconv", "--budget", "5s", "--device", board, "-o", str(run)])
        == 0
    )
    [path] = (run / "profiles").glob("*.json")
    profile = load_profile(path)
    assert path.stem == profile.device.name == "ssh-pi-board-ort-cpu-1t"
    assert profile.device.board is not None
    assert profile.device.board.address == "ssh:pi@board"
    assert any(row.samples_s for row in profile.table.values())
