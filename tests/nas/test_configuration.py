"""From the command line, a file and a folder to one configuration: what is kept, told and taken back."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import pytest

from hw_profiles.errors import TrilobitError
from nas.cli.main import main
from nas.run.config import RunConfig
from nas.run.config_file import read_config, render_config
from nas.run.recording import taken_back_if_refused
from nas.stages import pipeline


@pytest.fixture
def recorded(profile_file: Path) -> str:
    return f"recorded:{profile_file}"


@pytest.fixture
def profiled(recorded: str, tmp_path: Path) -> Path:
    folder = tmp_path / "b1"
    assert main(["profile", "--device", recorded, "--max-latency", "60%", "-o", str(folder)]) == 0
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -- validated first, written after -------------------------------------------------------------------


REFUSED = (
    "run --engine nsga4",
    "run --threads 0",
    "run --max-latency 1ns",  # found out by the preflight, on the device
    "export --pick ffffffff",
    "train --formats int8",
    "profile --device tvm --batch 3",
    "run --aim latency=1ms",
    "search --engine milp --architecture nowhere",
)


def test_an_option_that_is_refused_changes_no_byte(profiled: Path) -> None:
    before = contents(profiled)
    for words in REFUSED:
        assert main([*words.split(), "-o", str(profiled)]) == 2, words
        after = contents(profiled)
        assert {name: after.get(name) for name in before} == before, words
    assert main(["profile", "-o", str(profiled)]) == 0


@pytest.mark.parametrize("limit", ["1ns", "nsga4"])
def test_a_folder_in_which_nothing_could_be_done_is_not_there(
    limit: str, recorded: str, tmp_path: Path
) -> None:
    folder = tmp_path / "deep" / "b1"
    assert main(["run", "--device", recorded, "--max-latency", limit, "-o", str(folder)]) == 2
    assert not folder.exists()


def test_what_was_interrupted_keeps_its_configuration(
    recorded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setitem(pipeline._STAGES, "profile", interrupt)
    assert main(["profile", "--device", recorded, "-o", str(tmp_path / "run")]) == 130
    assert read_config(tmp_path / "run" / "run.toml").device.name == recorded


def test_what_fails_after_a_stage_has_ended_keeps_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("old")

    def work() -> NoReturn:
        with taken_back_if_refused(tmp_path):
            (tmp_path / "run.toml").write_text("new")
            (tmp_path / "state.json").write_text("profile is done")
            raise TrilobitError("later")

    with pytest.raises(TrilobitError, match="later"):
        work()
    assert (tmp_path / "run.toml").read_text() == "new"


# -- what the folder keeps ----------------------------------------------------------------------------


def test_what_is_taken_from_the_folder_is_said(profiled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["profile", "-o", str(profiled)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"from {profiled}/run.toml: device.name recorded:" in said
    assert "latency 60% (--reset starts from the defaults)" in said


def test_what_is_said_anew_is_not_taken_from_the_folder(
    profiled: Path, recorded: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["profile", "--max-latency", "50%", "--device", recorded, "-o", str(profiled)]) == 0
    assert "--reset" not in capsys.readouterr().out


def test_none_drops_a_limit(profiled: Path) -> None:
    assert dict(read_config(profiled / "run.toml").constraints) == {"latency": "60%"}
    assert main(["profile", "--max-latency", "none", "--max-size", "1MB", "-o", str(profiled)]) == 0
    assert dict(read_config(profiled / "run.toml").constraints) == {"size": "1MB"}


def test_reset_starts_from_the_defaults(profiled: Path, recorded: str) -> None:
    assert main(["profile", "--reset", "--device", recorded, "--seed", "3", "-o", str(profiled)]) == 0
    config = read_config(profiled / "run.toml")
    assert config.seed == 3
    assert not config.constraints


# -- what is allowed but hardly meant -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "comment"),
    [
        (["--max-latency", "150%"], "limit on latency 150%: the largest network needs less: no limit"),
        (["--from", "{profile}"], "--from: not used, since every unit is measured"),
    ],
)
def test_what_has_no_effect_is_commented(
    words: list[str], comment: str, recorded: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = recorded.removeprefix("recorded:")
    more = [word.format(profile=profile) for word in words]
    assert main(["profile", "--device", recorded, *more, "-o", str(tmp_path / "run")]) == 0
    assert comment in " ".join(capsys.readouterr().out.split())


def test_more_threads_than_cores_are_commented(monkeypatch: pytest.MonkeyPatch) -> None:
    from nas.cli.command_line import parse_words
    from nas.cli.given import given_options
    from nas.run.configuration import configure

    monkeypatch.setattr("os.cpu_count", lambda: 2)
    arguments = parse_words(["profile", "--threads", "64", "-o", "nowhere/run"], {"profile": "profile"})
    assert not isinstance(arguments, str)
    assert any(
        "this machine has 2 cores" in note
        for note in configure(given_options(arguments), arguments.output, stage="profile").notes
    )


# -- what is remembered of the command ----------------------------------------------------------------


def test_the_environment_keeps_the_command_without_passwords(recorded: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = [
        "profile",
        "--device",
        recorded,
        "--storage",
        "postgresql://me:s3cret@host/runs",
        "-o",
        str(folder),
    ]
    assert main(words) == 0
    text = (folder / "env.json").read_text()
    environment = json.loads(text)
    assert environment["command"].startswith("nas profile --device")
    assert "postgresql://me:***@host/runs" in environment["command"]
    assert "s3cret" not in text
    assert set(environment["versions"]) >= {"python", "torch", "numpy"}
    assert "apache-tvm" not in environment["versions"]
    assert ((Path(__file__).parents[2] / ".git").exists()) == (environment["commit"] is not None)
    assert environment["commit"] is None or len(environment["commit"].split("-")[0]) == 40


# -- being told to stop -------------------------------------------------------------------------------


@pytest.mark.usefixtures("signals_of_a_terminal")
@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_all_ways_to_stop_say_the_same(told: signal.Signals, tmp_path: Path) -> None:
    code = (
        "import sys, time; from nas.cli import main as cli; from dataclasses import replace\n"
        "def wait(*_):\n print('waiting', flush=True)\n time.sleep(60)\n"
        "cli.COMMANDS = {**cli.COMMANDS, 'devices': replace(cli.COMMANDS['devices'], function=wait)}\n"
        "sys.exit(cli.main(['devices']))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "waiting"
        time.sleep(0.05)
        process.send_signal(told)
        _, complaint = process.communicate(timeout=30)
    assert complaint == "nas: interrupted; the same command continues where this one stopped\n"
    assert process.returncode == 130


# -- files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("seed = " + "1" * 100_000, "not valid TOML"),
        ("seed = 0x" + "f" * 90_000, "seed must be a whole number"),
        ("a = " + "[" * 20_000 + "]" * 20_000, "not valid TOML"),
        ("[a" + ".a" * 20_000 + "]\nb = 1", ""),
        ("[search]\nobjectives = [[1]]", "search.objectives must be a list, each item one of"),
        ("#" * 1_000_001, "larger than"),
        ('storage = "postgresql://me:s3cret@host/runs"', "[storage] must be a table"),
    ],
)
def test_files_that_nobody_can_mean_are_one_line(
    text: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.toml").write_text(text)
    assert main(["run", str(tmp_path / "mine.toml"), "-o", str(tmp_path / "run")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert reason in line
    assert "s3cret" not in line
    assert len(line) < 1_000
    assert not (tmp_path / "run").exists()


def test_rendered_defaults_need_no_reset_note(tmp_path: Path, recorded: str) -> None:
    (tmp_path / "run.toml").write_text(render_config(RunConfig()))
    from nas.cli.command_line import parse_words
    from nas.cli.given import given_options
    from nas.run.configuration import configure

    arguments = parse_words(["profile", "-o", str(tmp_path)], {"profile": "profile"})
    assert not isinstance(arguments, str)
    assert not configure(given_options(arguments), arguments.output, stage="profile").notes
