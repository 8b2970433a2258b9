"""How the agent in C gets to a board and goes again, and what is said where it cannot."""

import os
from pathlib import Path

import pytest

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import map_layer
from hw_profiles.graph.workload import single
from hw_profiles.measure.measurement import MeasurePlan
from hw_profiles.runtimes.plugin import open_device
from hw_profiles.runtimes.runtime import Job
from hw_profiles.runtimes.transports.board import BoardLost
from hw_profiles.runtimes.transports.native_agent import NativeAgent
from hw_profiles.runtimes.transports.ssh import PROGRAM
from hw_profiles.runtimes.tvm_cpu.agent_program import agent_program
from tests.hw_profiles.native.made_up import Here
from tests.hw_profiles.transports.pipes import stand_in


@pytest.fixture
def content(agent: Path) -> bytes:
    return agent.read_bytes()


def test_it_is_taken_there_and_takes_itself_away(content: bytes, tmp_path: Path) -> None:
    machines: list[str] = []

    def program_for(machine: str) -> bytes:
        machines.append(machine)
        return content

    client = NativeAgent(program_for)(Here(tmp_path))
    folder = tmp_path / ".cache" / "trilobit" / "board"
    [copy] = folder.glob("agent-*")
    assert copy.read_bytes() == content
    assert machines == [client.facts.machine]
    client.close()
    assert not list(folder.glob("agent-*"))


def test_a_copy_that_a_board_kept_when_it_lost_its_power_goes_next_time(
    content: bytes, tmp_path: Path
) -> None:
    old, young = tmp_path / "agent-old", tmp_path / "agent-young"
    for path in (old, young):
        path.write_bytes(b"an agent")
    os.utime(old, (0, 0))
    NativeAgent(lambda machine: content, str(tmp_path))(Here(tmp_path)).close()
    assert not old.exists()
    assert young.exists()  # it may be about to start


def test_a_program_for_another_processor_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(BoardLost, match="does not run programs"):
        NativeAgent(lambda machine: b"no program", str(tmp_path))(Here(tmp_path))


def test_where_programs_cannot_run_another_folder_is_asked_for(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = b"#!/bin/sh\nexit 126\n"
    with pytest.raises(
        BoardLost, match=r"does not run programs in .*: name another folder there: folder=/PATH"
    ):
        NativeAgent(lambda machine: script, str(tmp_path))(Here(tmp_path))
    assert not list(tmp_path.glob("agent-*"))


def test_without_a_folder_that_can_be_written_it_says_so(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BoardLost, match="was lost"):
        NativeAgent(lambda machine: content, str(tmp_path / "file"))(Here(tmp_path))


def test_there_is_no_agent_for_every_processor() -> None:
    with pytest.raises(TrilobitError, match="no kernels for 'riscv64'; for aarch64 and x86_64 there are"):
        agent_program("riscv64")


def test_it_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compilers: list[str] = []

    def compiled(compiler: str) -> bytes:
        compilers.append(compiler)
        return b"a program"

    monkeypatch.setattr("hw_profiles.runtimes.tvm_cpu.agent_program.compiled", compiled)
    for _ in range(2):  # by two processes
        agent_program.cache_clear()
        assert agent_program("x86_64") == b"a program"
    agent_program.cache_clear()
    assert len(compilers) == 1


def test_a_board_over_ssh_needs_no_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a program that does what ssh would on a host that is this machine."""
    monkeypatch.setenv(PROGRAM, stand_in(tmp_path))
    options = f"folder={tmp_path / 'board'},database={tmp_path / 'tuned'}"
    device = open_device(f"ssh:pi@board/tvm:{options}")
    layer = map_layer("add", (4, 2, 2), 4, activation_format="int8")
    [row] = device.measure([Job(single(layer), bytes)], MeasurePlan(rounds=2, sessions=1, waiting_s=0.0))
    assert row.error is None
    assert row.median_s > 0
    assert device.describe().board.address == "ssh:pi@board"  # type: ignore[union-attr]
