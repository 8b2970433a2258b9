"""Told to stop, training finishes its step, saves, and leaves nothing running; alone and under torchrun."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import tomli_w
import torch

DEADLINE_S = 240  # of several processes on a busy machine
STOPPED = "nas: interrupted; the same command continues where this one stopped\n"
TRAIN = {"epochs": 2, "batch_size": 32, "random_subnets": 0, "checkpoint_s": 1e9}
ALONE, TOGETHER = 66, 32  # steps of one process and of two
pytestmark = pytest.mark.usefixtures("signals_of_a_terminal")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture
def settings(tmp_path: Path, profile_file: Path) -> Path:
    path = tmp_path / "train.toml"
    path.write_text(tomli_w.dumps({"device": {"name": f"recorded:{profile_file}"}, "train": TRAIN}))
    return path


def wait_for_curves(process: "subprocess.Popen[str]", folder: Path) -> None:
    """Until the first step is done."""
    deadline = time.monotonic() + DEADLINE_S
    while not list((folder / "tensorboard").glob("events*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def saved_step(folder: Path) -> int:
    return int(torch.load(folder / "supernet" / "last.pt", weights_only=True)["step"])


@pytest.mark.slow
@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM])
def test_training_saves_before_it_leaves(
    start, nas, settings: Path, tmp_path: Path, told: signal.Signals
) -> None:
    folder = tmp_path / "run"
    process = start("train", settings, "-o", folder, start_new_session=True)
    wait_for_curves(process, folder)
    process.send_signal(told)
    _, complaint = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, complaint) == (130, STOPPED)
    assert 0 < saved_step(folder) < ALONE
    nas("train", "-o", folder)
    assert saved_step(folder) == ALONE


@pytest.mark.slow
def test_torchrun_leaves_one_checkpoint_and_no_orphan(nas, settings: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [*TORCHRUN, "-m", "nas.cli.main", "train", str(settings), "-o", str(folder)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, **options)
    wait_for_curves(process, folder)
    members = psutil.Process(process.pid).children(recursive=True)
    assert len(members) == 2
    process.send_signal(signal.SIGINT)  # as Ctrl-C does
    _, complaint = process.communicate(timeout=DEADLINE_S)
    assert complaint.count(STOPPED) == 1
    assert not psutil.wait_procs(members, timeout=10)[1]
    stopped = saved_step(folder)
    assert 0 < stopped < TOGETHER
    assert not (folder / "state.json").exists()
    assert len(list((folder / "tensorboard").iterdir())) == 1  # the first process alone writes

    lost = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, **options)
    deadline = time.monotonic() + DEADLINE_S
    while len(list((folder / "tensorboard").iterdir())) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    last = max(psutil.Process(lost.pid).children(recursive=True), key=lambda member: member.pid)
    last.kill()
    _, complaint = lost.communicate(timeout=DEADLINE_S)
    assert lost.returncode != 0
    assert "process 0 of 2 lost another one" in complaint or "process 1 of 2 lost another one" in complaint

    finished = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr
    assert saved_step(folder) == TOGETHER
    assert (folder / "state.json").exists()
    assert finished.stdout.count("train:") == 1
