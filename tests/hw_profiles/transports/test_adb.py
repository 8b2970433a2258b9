"""Devices over adb: the real client, against a stand-in for its server."""

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.plugin import choose, open_device
from hw_profiles.runtimes.transports import adb as adb_module
from hw_profiles.runtimes.transports.adb import FOLDER, AdbBoard, adb_board
from hw_profiles.runtimes.transports.board import BoardLost
from tests.hw_profiles.transports.adb_stand_in import StandIn, StandInBoard, folder_of_tools, serving

CLIENT = shutil.which("adb")
needs_adb = pytest.mark.skipif(CLIENT is None, reason="needs adb: apt-get install adb")
RUN_S = 60.0


@pytest.fixture
def board(tmp_path: Path) -> StandInBoard:
    (tmp_path / "device").mkdir()
    return StandInBoard(tmp_path / "device", path=folder_of_tools(tmp_path / "bin"))


@pytest.fixture
def server(board: StandInBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    with serving(board) as started:
        for name, value in {**started.environment, "HOME": str(tmp_path)}.items():
            monkeypatch.setenv(name, value)
        yield started


def said(board: AdbBoard, command: list[str], data: bytes = b"") -> tuple[int, bytes, bytes]:
    process = board.start(command)
    output, error = process.communicate(data, timeout=RUN_S)
    return process.returncode, output, error


@needs_adb
def test_commands_keep_their_words_streams_and_exit_codes(server: StandIn) -> None:
    words = [
        "sh",
        "-c",
        'cat; printf "%s|" "$@"; echo odd >&2; exit 7',
        "sh",
        "a b",
        "$HOME",
        "'",
        "*",
        "\\n",
        "",
    ]
    data = bytes(range(256)) * 2000
    code, output, error = said(adb_board("board-1"), words, data)
    assert code == 7
    assert output == data + b"a b|$HOME|'|*|\\n||"
    assert error == b"odd\n"


@needs_adb
def test_a_file_is_copied_and_may_be_run(server: StandIn, board: StandInBoard) -> None:
    adb_board("board-1").copy(b"#!/bin/sh\necho runs\n", f"{FOLDER}/x/program")
    assert said(adb_board("board-1"), [f"{FOLDER}/x/program"])[:2] == (0, b"runs\n")
    assert board.sent == ["program"]


@needs_adb
def test_pull_and_stat_are_answered_too(server: StandIn, board: StandInBoard, tmp_path: Path) -> None:
    """The stand-in is what the tests trust."""
    (board.root / "big").write_bytes(os.urandom(200_000))
    subprocess.run(["adb", "-s", "board-1", "pull", "/data/local/tmp/big", str(tmp_path / "got")], check=True)
    assert (tmp_path / "got").read_bytes() == (board.root / "big").read_bytes()


@needs_adb
def test_a_full_disk_is_said_to_be_full(server: StandIn, board: StandInBoard) -> None:
    board.free_bytes = 1000
    with pytest.raises(BoardLost, match=r"adb:board-1: no room for 0.1 MB in .*; make room") as lost:
        adb_board("board-1").copy(b"x" * 100_000, f"{FOLDER}/x/program")
    assert not lost.value.again


@needs_adb
@pytest.mark.parametrize(
    ("serial", "state", "expected", "again"),
    [
        (
            "board-1",
            "unauthorized",
            r"has not allowed this computer: unlock it .*adb sees board-1 \(unauthorized\)",
            False,
        ),
        ("board-1", "offline", r"is offline: plug it in again", True),
        ("board-2", "device", r"adb:board-2 is not there; adb sees board-1 \(device\)", True),
    ],
)
def test_a_device_that_cannot_be_used_says_why_and_what_to_do(
    server: StandIn, board: StandInBoard, serial: str, state: str, expected: str, again: bool
) -> None:
    board.state = state
    asked = adb_board(serial)
    code, output, error = said(asked, ["true"])
    failure = asked.failure(code, (output + error).decode())
    assert failure.again is again
    with pytest.raises(BoardLost, match=expected):
        raise failure
    with pytest.raises(BoardLost, match=expected):
        asked.copy(b"x", f"{FOLDER}/x")


@needs_adb
def test_when_the_client_is_killed_the_command_s_input_ends(server: StandIn, board: StandInBoard) -> None:
    process = adb_board("board-1").start(["sh", "-c", "echo begun; cat; echo ended > /data/local/tmp/note"])
    assert process.stdout
    assert process.stdout.readline() == b"begun\n"
    process.kill()
    process.communicate()
    for _ in range(600):
        if (board.root / "note").exists():
            return
        threading.Event().wait(0.05)
    pytest.fail("it goes on")


@needs_adb
def test_when_the_device_goes_the_client_ends(server: StandIn, board: StandInBoard) -> None:
    process = adb_board("board-1").start(["sh", "-c", "echo begun; cat"])
    assert process.stdout
    assert process.stdout.readline() == b"begun\n"
    server.unplug(board)
    _, error = process.communicate(timeout=RUN_S)
    assert "adb:board-1" in str(adb_board("board-1").failure(process.returncode, error.decode()))


def test_without_adb_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(adb_module.PROGRAM, "/none/adb -P 1")
    with pytest.raises(TrilobitError, match=r"cannot run /none/adb .*: install Android's platform-tools"):
        adb_board("board-1").start(["true"])
    assert "is not there" in str(adb_board("board-1").failure(1, "error: device 'board-1' not found"))


def test_what_went_wrong_there_is_quoted() -> None:
    board = AdbBoard("board-1")
    assert str(board.failure(0, "")) == "adb:board-1 was lost (its connection ended)"
    assert str(board.failure(3, "one\nMemoryError: two\n")) == "adb:board-1 was lost (MemoryError: two)"
    assert str(board.failure(9, "")) == "adb:board-1 was lost (exit code 9)"


@pytest.mark.parametrize("serial", ["", "-e", "a b", "x;y", "ü"])
def test_a_serial_number_is_letters_and_digits(serial: str) -> None:
    with pytest.raises(TrilobitError, match="a device is written adb:SERIAL/RUNTIME"):
        adb_board(serial)


def test_a_device_is_one_string_with_the_options_of_its_runtime() -> None:
    choice = choose("adb:192.168.1.7:5555/tvm:aarch64-linux-gnu:cortex-a55,hang_s=5")
    assert choice.options.target == "aarch64-linux-gnu:cortex-a55"
    assert (choice.options.hang_s, choice.options.folder) == (5.0, FOLDER)
    assert str(choose(str(choice))) == str(choice)
    assert choose("adb:ABC123/ort:threads=4").options.threads == 4
    with pytest.raises(TrilobitError, match=r"'table' cannot run on a board"):
        choose("adb:ABC123/table")


def test_a_tracker_is_another_way() -> None:
    with pytest.raises(TrilobitError, match="by its address or by a tracker, not by both"):
        open_device("adb:ABC123/tvm:tracker=localhost:9190,key=k")
