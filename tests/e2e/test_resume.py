"""Killed in any stage and started again, a run ends with the front of one that nobody interrupted."""

import contextlib
import json
import os
import signal
import sqlite3
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.profiles.profile_json import load_profile
from nas.cli.main import main
from supernet.train import loop

DEADLINE_S = 90
POLL_S = 0.002
Begun = Callable[[Path], bool]


def evaluated(folder: Path, study: str) -> int:
    """Finished evaluations in the run's storage."""
    query = "SELECT count(*) FROM trials JOIN studies USING (study_id) WHERE study_name LIKE ?"
    try:
        with contextlib.closing(sqlite3.connect(f"file:{folder}/run.db?mode=ro", uri=True)) as database:
            return int(database.execute(query, (f"{study}-%",)).fetchone()[0])
    except sqlite3.OperationalError:  # not there yet, or just being made
        return 0


def done(folder: Path, stage: str) -> bool:
    path = folder / "state.json"
    return path.exists() and stage in json.loads(path.read_text())["stages"]


# When a stage has begun to leave something behind.
BEGUN: dict[str, Begun] = {
    "profile": lambda folder: any((folder / "profiles").glob("*.json")),
    "train": lambda folder: (folder / "supernet" / "last.pt").exists(),
    "sample": lambda folder: evaluated(folder, "supernet") >= 3,
    "fit": lambda folder: done(folder, "sample"),
    "search": lambda folder: evaluated(folder, "measured") >= 2,
    "export": lambda folder: any((folder / "export").glob("*/model.onnx")),
}


def kill_once(begun: Begun, process, folder: Path) -> None:
    """Kill the process as soon as `begun` says so, before it ends."""
    deadline = time.monotonic() + DEADLINE_S
    while not begun(folder):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(POLL_S)
    process.kill()
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL


# A replayed profile is there in no time; measuring one is interrupted below.
@pytest.mark.parametrize(
    "stage",
    ["train", "sample", "fit", "search", "export"],
)
@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_front(
    stage: str, start, nas, config: Path, finished_run: Path, tmp_path: Path
) -> None:
    command = ("run", config, "-o", tmp_path)
    kill_once(BEGUN[stage], start(*command), tmp_path)
    assert not done(tmp_path, stage)
    assert f"{stage}: already there" not in nas(*command)
    assert (tmp_path / "front.json").read_bytes() == (finished_run / "front.json").read_bytes()
    assert models(tmp_path) == models(finished_run)
    assert not [path for path in tmp_path.rglob("*.part")]


def models(folder: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in (folder / "export").glob("*/model.onnx")}


@pytest.mark.slow
def test_a_run_killed_in_every_stage_ends_with_the_same_front(
    start, nas, config: Path, finished_run: Path, tmp_path: Path
) -> None:
    command = ("run", config, "-o", tmp_path)
    for begun in BEGUN.values():
        kill_once(begun, start(*command), tmp_path)
    nas(*command)
    assert (tmp_path / "front.json").read_bytes() == (finished_run / "front.json").read_bytes()


def test_interrupting_says_how_to_go_on(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Told to end at the first checkpoint; `test_stop` tells processes."""
    save, checkpoint = loop.save_checkpoint, tmp_path / "supernet" / "last.pt"

    def save_and_interrupt(*arguments: Any) -> None:
        first = not checkpoint.exists()
        save(*arguments)
        if first:
            os.kill(os.getpid(), signal.SIGTERM)  # as Ctrl-C, which a job in the background ignores

    monkeypatch.setattr(loop, "save_checkpoint", save_and_interrupt)
    assert main(["train", str(config), "-o", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "nas: interrupted; the same command continues where this one stopped\n"
    assert checkpoint.exists()
    assert not [path for path in tmp_path.rglob("*.part")]


# -- measuring on this machine ------------------------------------------------------------------------

PLUGIN = """
    from supernet.families.mbconv import MBConvFamily, Stage

    def tiny(*, in_channels, classes):
        stages = (Stage(8, 1, (1,), (8, 16), (3,)),)
        return MBConvFamily("tiny", (8,), 8, stages, 16, in_channels, classes)
"""
QUICK = """
    [space]
    name = "tiny"
    [measure]
    rounds = 3
    waiting_s = 0.0
"""


@pytest.fixture
def plugin(tmp_path: Path) -> dict[str, str]:
    """The environment in which a package with a space of its own is installed."""
    site = tmp_path / "site"
    (site / "tiny_space-1.dist-info").mkdir(parents=True)
    (site / "tiny_space.py").write_text(textwrap.dedent(PLUGIN))
    metadata = site / "tiny_space-1.dist-info"
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-space\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[trilobit.spaces]\ntiny = tiny_space:tiny\n")
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(site)}


def profile(folder: Path) -> DeviceProfile:
    [path] = (folder / "profiles").glob("*.json")
    return load_profile(path)


@pytest.mark.slow
def test_killed_while_measuring_it_measures_only_what_is_missing(
    start, nas, plugin: dict[str, str], tmp_path: Path
) -> None:
    config, folder = tmp_path / "quick.toml", tmp_path / "run"
    config.write_text(textwrap.dedent(QUICK))
    command = ("profile", config, "-o", folder)
    kill_once(BEGUN["profile"], start(*command, env=plugin), folder)
    before = profile(folder)
    nas(*command, env=plugin)
    assert profile(folder).calibration is not None
    assert before.table.items() < profile(folder).table.items()
