"""docs/recipes/ssh.md: every command is one, and what takes seconds is run."""

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hw_profiles.runtimes.plugin import choose
from hw_profiles.runtimes.transports import board_kind
from hw_profiles.runtimes.transports.ssh import PROGRAM
from nas.checks.check import Input
from nas.cli.command_line import parse_words
from nas.cli.main import TEXTS, main
from nas.emit.to_onnx import random_network
from supernet.families.family import Family
from supernet.tasks.loading import load_images
from tests.hw_profiles.transports.sshd import served, why_not
from tests.nas.exported import write_exported

PAGE = Path(__file__).parents[2] / "docs/recipes/ssh.md"
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]


def test_every_command_is_understood() -> None:
    assert len(COMMANDS) == 6
    for line in COMMANDS:
        arguments = parse_words(shlex.split(line)[1:], TEXTS)
        assert not isinstance(arguments, str)
        device = line.partition("--device ")[2].partition(" ")[0]
        assert choose(device).kind.engine == "onnxruntime"


def test_devices_in_the_text_are_devices() -> None:
    named = re.findall(r"`(ssh:[^`]*)`", PAGE.read_text())
    assert len(named) > 4
    for text in named:
        choose(text)


@pytest.fixture
def raspberry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server where the board of the page is; its `python3` is the one that runs this."""
    if reason := why_not():
        pytest.skip(reason)
    (tmp_path / "sshd").mkdir()
    account = f"PATH={Path(sys.executable).parent}:$PATH; export XDG_CACHE_HOME={tmp_path / 'cache'}"
    with served(tmp_path / "sshd", {"raspberry": account}) as server:
        monkeypatch.setenv(PROGRAM, server.program())
        board_kind.boards_of.cache_clear()
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("raspberry")
def test_what_takes_seconds_works_as_written(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nas.verification.common_checks.WAITING_S", 0.0)
    data = load_images("digits", seed=0)
    network = random_network(
        family.workload(family.extremes()["smallest/int8"]), rng=np.random.default_rng(0)
    )
    c, h, w = network.workload.in_shape
    image = Input((h, w, c), data.mean, data.std)
    folder = write_exported(tmp_path / "runs/raspberry/export", network, image, data)
    for verb, more in (("profile", ["--budget", "4s"]), ("verify", []), ("bench", ["--seconds", "0.1"])):
        [line] = [line for line in COMMANDS if line.startswith(f"nas {verb}") and "raspberry/ort" in line]
        words = [word.replace("export/ID", f"export/{folder.name}") for word in shlex.split(line)[1:]]
        assert main([*words, *more]) == 0, capsys.readouterr().err
    assert list((tmp_path / "runs/raspberry/profiles").glob("ssh-raspberry-ort-cpu-1t.json"))
    assert (tmp_path / "cache/trilobit/board").is_dir()
