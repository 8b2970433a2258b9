"""One process writes to a run folder at a time; what a dead one held is taken over."""

import os
import platform
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hw_profiles.documents import read_document, write_document
from hw_profiles.errors import TrilobitError
from nas.cli.interruption import interruptible
from nas.run import lock as lock_module
from nas.run.lock import FILE, LOST_S, Lock, locked

HOLD = """
import sys, time
from pathlib import Path
from nas.cli.interruption import interruptible
from nas.run.lock import locked
try:
    with interruptible(), locked(Path(sys.argv[1])):
        print("held", flush=True)
        time.sleep(60)
except KeyboardInterrupt:
    print("let go", flush=True)
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.usefixtures("signals_of_a_terminal")
def test_a_second_process_is_refused_with_owner_host_process_and_what_to_do(tmp_path: Path) -> None:
    process = holder(tmp_path)
    try:
        with pytest.raises(TrilobitError) as error, locked(tmp_path):
            pass
        text = str(error.value)
        for part in (str(tmp_path), platform.node(), f"process {process.pid}", "since 20", "with -o"):
            assert part in text
        assert "\n" not in text
        assert read_document(tmp_path / FILE, Lock).pid == process.pid
    finally:
        process.terminate()
        assert process.communicate(timeout=60)[0] == "let go\n"
    assert not (tmp_path / FILE).exists()


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    process = holder(tmp_path)
    process.kill()
    process.communicate(timeout=60)
    assert (tmp_path / FILE).exists()
    with locked(tmp_path):
        assert read_document(tmp_path / FILE, Lock).pid == os.getpid()
    assert not (tmp_path / FILE).exists()


def held_elsewhere(folder: Path, silent_s: float) -> Lock:
    with locked(folder):
        own = read_document(folder / FILE, Lock)
    other = replace(own, host="elsewhere", pid=1, owner="anna")
    write_document(folder / FILE, other)
    beat_s = time.time() - silent_s
    os.utime(folder / FILE, (beat_s, beat_s))
    return other


def test_another_machine_is_believed_while_it_gives_signs_of_life(tmp_path: Path) -> None:
    (tmp_path / "kept").touch()
    held_elsewhere(tmp_path, LOST_S / 2)
    with pytest.raises(TrilobitError, match=r"in use by anna on elsewhere \(process 1\)"), locked(tmp_path):
        pass
    held_elsewhere_long_ago = LOST_S + 60
    (tmp_path / FILE).unlink()
    held_elsewhere(tmp_path, held_elsewhere_long_ago)
    with locked(tmp_path):
        assert read_document(tmp_path / FILE, Lock).host == platform.node()


def test_a_number_that_another_process_got_later_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "kept").touch()
    with locked(tmp_path):
        own = read_document(tmp_path / FILE, Lock)
    write_document(tmp_path / FILE, replace(own, began_s=own.began_s - 3600))
    with locked(tmp_path):
        pass


def test_a_damaged_lock_holds_for_as_long_as_a_silent_one(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("{")
    with pytest.raises(TrilobitError, match="in use by another process"), locked(tmp_path):
        pass
    os.utime(tmp_path / FILE, (1, 1))
    with locked(tmp_path):
        pass


def test_a_command_that_writes_nothing_leaves_no_folder(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    with locked(folder):
        assert (folder / FILE).exists()
    assert list(tmp_path.iterdir()) == []
    with locked(folder):
        (folder / "run.toml").touch()
    assert [path.name for path in folder.iterdir()] == ["run.toml"]


@pytest.mark.usefixtures("signals_of_a_terminal")
@pytest.mark.parametrize("background", [False, True])
def test_a_process_whose_lock_was_taken_over_stops(
    background: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "kept").touch()
    monkeypatch.setattr(lock_module, "BEAT_S", 0.01)
    other = held_elsewhere(tmp_path, LOST_S * 2)

    def work() -> None:
        with interruptible(), locked(tmp_path):
            write_document(tmp_path / FILE, other)
            time.sleep(60)

    before = signal.getsignal(signal.SIGINT)
    if background:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(KeyboardInterrupt):
            work()
    finally:
        signal.signal(signal.SIGINT, before)
    assert "taken over by anna on elsewhere" in capsys.readouterr().err
    assert read_document(tmp_path / FILE, Lock) == other  # not ours to remove


@pytest.mark.usefixtures("signals_of_a_terminal")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_that_end_a_process_interrupt_it_once(number: signal.Signals) -> None:
    before = signal.getsignal(number)

    def ended() -> None:
        with interruptible():
            os.kill(os.getpid(), number)
            time.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        ended()
    assert signal.getsignal(number) is before
