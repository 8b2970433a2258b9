"""What `nas train` adds to training: stopping on signals, curves, several processes."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from nas.cli.main import main
from nas.run.reporting import PlainReporter
from nas.run.stopping import SIGNALS, stop_on_signals
from nas.stages.tensorboard import HINT, scalar_log
from nas.stages.train import _scalars
from supernet.train.loop import Progress

# -- stopping -----------------------------------------------------------------------------------------


def be_told_twice(told: signal.Signals) -> None:
    with stop_on_signals() as stop:
        assert not stop()
        os.kill(os.getpid(), told)
        assert stop()
        os.kill(os.getpid(), told)


@pytest.mark.usefixtures("signals_of_a_terminal")
@pytest.mark.parametrize("told", SIGNALS)
def test_a_signal_is_remembered_and_a_second_one_interrupts(told: signal.Signals) -> None:
    before = [signal.getsignal(one) for one in SIGNALS]
    with pytest.raises(KeyboardInterrupt):
        be_told_twice(told)
    assert [signal.getsignal(one) for one in SIGNALS] == before


def test_ignored_signals_stay_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_on_signals() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert not stop()
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_are_never_told() -> None:
    said: list[bool] = []

    def ask() -> None:
        with stop_on_signals() as stop:
            said.append(stop())

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert said == [False]


# -- curves -------------------------------------------------------------------------------------------


@pytest.fixture
def lines() -> list[str]:
    return []


def test_curves_are_written_and_steps_done_again_replace_their_former_values(
    tmp_path: Path, lines: list[str]
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for first, last, loss in ((1, 6, 0.5), (4, 8, 0.25)):  # killed after step 6, resumed after step 3
        with scalar_log(tmp_path, PlainReporter(lines.append)) as write:
            for step in range(first, last + 1):
                write(step, {"train/loss": loss})
        time.sleep(1.01)  # files are read in the order of their names, which count whole seconds
    events = EventAccumulator(str(tmp_path)).Reload()
    found = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert found == [(step, 0.5) for step in (1, 2, 3)] + [(step, 0.25) for step in range(4, 9)]
    assert lines == []


def test_nothing_is_written_where_there_is_nothing(tmp_path: Path, lines: list[str]) -> None:
    with scalar_log(tmp_path / "a", PlainReporter(lines.append)) as write:
        write(1, {})
    with scalar_log(tmp_path / "b", PlainReporter(lines.append), muted=True) as write:
        write(1, {"train/loss": 0.5})
    assert not list(tmp_path.iterdir())


def test_without_tensorboard_it_says_how_to_get_it(
    tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with scalar_log(tmp_path / "curves", PlainReporter(lines.append)) as write:
        write(1, {"train/loss": 0.5})
    assert lines == [HINT]
    assert not list(tmp_path.iterdir())


def test_curves_of_a_step() -> None:
    step = Progress(3, 9, 0.5, 1e-3, 32, {"largest": 0.9, "smallest": 0.8})
    assert _scalars(step, 100.0, "texts") == {
        "train/loss": 0.5,
        "train/learning_rate": 1e-3,
        "train/texts_per_s": 100.0,
        "validation/largest": 0.9,
        "validation/smallest": 0.8,
    }
    assert set(_scalars(Progress(1, 9, 0.5, 1e-3, 32), 0.0, "images")) == {
        "train/loss",
        "train/learning_rate",
    }
    assert _scalars(Progress(9, 9, float("nan")), 0.0, "images") == {}  # found finished


# -- torchrun -----------------------------------------------------------------------------------------


def test_only_training_uses_several_processes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    said = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert main(["run", "-o", str(tmp_path / "run")]) == 2
    complaint = capsys.readouterr().err
    assert "`nas run` runs in one process, torchrun started 2; only `nas train` uses several" in complaint
    assert not (tmp_path / "run").exists()
