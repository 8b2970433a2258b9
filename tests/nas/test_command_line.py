"""What people type: help, what is mistyped, and that nothing of it needs an engine."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hw_profiles.errors import TrilobitError
from hw_profiles.options import Option
from nas.cli.command_line import EXAMPLES, HEADINGS, command_parser, parse_words
from nas.cli.flag import OPTIONS, Flag
from nas.cli.flags import OWN, RUN_GROUPS
from nas.cli.main import COMMANDS, main

TEXTS = {name: verb.text for name, verb in COMMANDS.items()}
ENGINES = ("torch", "onnx", "onnxruntime", "tvm", "optuna", "pymoo", "sklearn", "scipy", "plotly")
FLAGS = [
    *((group.commands[0], flag) for group in RUN_GROUPS for flag in group.flags),
    *((name, flag) for name, flags in OWN.items() for flag in flags),
]


LISTS = ("--help", "--version", "run --help", "formats", "formats --json")
REFUSED = (
    "run --engine nsga4 -o b1",
    "run --device abacus -o b1",
    "run --data imagefolder:/nope -o b1",
    "profile --from /nope -o b1",
    "run --threads 1000000 -o b1",
    "export -o b1",
    "report -o b1",
    "run nope.toml -o b1",
    "serach -o b1",
    "run --prior nowhere -o b1",
    "train --init nowhere.pt -o b1",
    "search --aim speed=3 -o b1",
    "export --pick fastest>=200% -o b1",
)
COMMANDS_IN_TURN = """
import contextlib, io, json, sys
sys.modules.update(dict.fromkeys({engines}))
from nas.cli.main import main
said = dict()
for words in {commands}:
    out, complaint = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(complaint):
        code = main(words.split())
    said[words] = code, out.getvalue(), complaint.getvalue()
print(json.dumps(said))
"""


@dataclass(frozen=True)
class Said:
    """What commands said, one after the other in a fresh interpreter that may import no engine.

    Attributes:
        folder: where they ran.
        of: (exit code, output, complaint) of each command.
    """

    folder: Path
    of: Mapping[str, tuple[int, str, str]]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Said:
    folder = tmp_path_factory.mktemp("without_engines")
    code = COMMANDS_IN_TURN.format(engines=ENGINES, commands=(*LISTS, *REFUSED))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return Said(folder, json.loads(done.stdout))


@pytest.mark.parametrize("words", LISTS)
def test_help_and_lists_need_no_engine(words: str, said: Said) -> None:
    code, output, complaint = said.of[words]
    assert (code, complaint.strip().startswith("nas:")) == (0, False), complaint
    assert output.strip()


@pytest.mark.parametrize("words", REFUSED)
def test_what_is_refused_needs_no_engine(words: str, said: Said) -> None:
    code, _, complaint = said.of[words]
    assert code == 2
    [line] = complaint.splitlines()
    assert line.startswith("nas: ")


def test_neither_leaves_anything(said: Said) -> None:
    assert not list(said.folder.iterdir())


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["serach"], "did you mean 'search'?"),
        (["run", "--epoch", "3"], "did you mean '--epochs'?"),
        (["run", "--maxlatency", "3ms"], "did you mean '--max-latency'?"),
        (["run", "--engine", "nsga4"], "did you mean 'nsga3' or 'nsga2'?"),
        (["run", "--objective", "acuracy"], "did you mean 'accuracy'?"),
        (["export", "-o", "{tmp}/phoots"], "did you mean 'photos'?"),
        (["report", "-o", "{tmp}/phoots"], "did you mean 'photos'?"),
    ],
)
def test_what_was_meant_is_suggested(
    words: list[str], hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "run.toml").touch()
    assert main([word.format(tmp=tmp_path) for word in words]) == 2
    assert hint in capsys.readouterr().err


def nonsense(option: Option) -> Iterator[str]:
    """What nobody can mean by this number, in words."""
    assert option.range is not None
    yield from (
        "nan",
        "inf",
        "-inf",
        "",
        " ",
        "x",
        "True",
        "\u0663",
        "1" * 100_000,
        "1e400",
        "0x10",
        "1_0",
    )
    yield from (f"{option.range.low - 1:f}", f"{option.range.high + 1:f}", f"{option.range.high * 10:f}")
    if option.range.above:
        yield f"{option.range.low:f}"
    if option.kind is int:
        yield f"{option.range.low + 0.5}"


def test_numbers_that_nobody_can_mean_are_refused_by_every_flag() -> None:
    offenders, numbers = [], 0
    for command, flag in FLAGS:
        option = OPTIONS.get(flag.key)
        if option is None or option.range is None:
            continue
        numbers += 1
        for text in nonsense(option):
            if option.range.besides is not None and text == "inf":
                continue
            try:
                parse_words(
                    [*command.split(), f"{flag.words.split()[-1]}={text}", *positionals(command)], TEXTS
                )
            except TrilobitError as error:
                if option.name not in str(error) or option.allowed not in str(error):
                    offenders.append(f"{flag.words} {text[:20]!r}: {str(error)[:200]}")
            else:
                offenders.append(f"{flag.words} {text[:20]!r} was accepted")
    assert numbers > 12
    assert not offenders, "\n".join(offenders)


def positionals(command: str) -> list[str]:
    return ["model.onnx"] if command == "bench" else []


def test_every_flag_sets_an_option_that_exists() -> None:
    assert {flag.key for _, flag in FLAGS if not flag.key.startswith("constraints.")} <= set(OPTIONS)


def test_defaults_and_ranges_stand_in_the_help() -> None:
    for name in COMMANDS:
        text = " ".join(command_parser(name, TEXTS[name]).format_help().split())
        for flag in flags_of(name):
            option = OPTIONS.get(flag.key)
            if option is not None and option.range is not None:
                assert str(option.range) in text, flag.words
        assert f"example: {EXAMPLES[name]}" in text


def flags_of(name: str) -> list[Flag]:
    shared = [flag for group in RUN_GROUPS if name in group.commands for flag in group.flags]
    return [*shared, *OWN.get(name, ())]


def test_examples_can_be_parsed() -> None:
    import shlex

    for example in EXAMPLES.values():
        assert not isinstance(parse_words(shlex.split(example)[1:], TEXTS), str)


def test_every_command_stands_under_a_heading() -> None:
    assert sorted(name for names in HEADINGS.values() for name in names) == sorted(COMMANDS)


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("nas ")


@pytest.mark.parametrize("path", ["/".join("d" * 2_000), "x" * 5_000, "a\0b"])
def test_paths_that_no_file_system_takes_are_refused(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "-o", path]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "is no path" in line


def test_a_missing_engine_is_one_line_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for name in [name for name in sys.modules if name.startswith("hw_profiles.runtimes.ort.runtime")]:
        monkeypatch.delitem(sys.modules, name)
    assert main(["profile", "-o", str(tmp_path / "run")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "the package onnxruntime is not installed: pip install 'onnxruntime" in line
    assert not (tmp_path / "run").exists()


def test_a_module_of_our_own_that_is_missing_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ModuleNotFoundError("No module named 'nas.nowhere'", name="nas.nowhere")

    monkeypatch.setattr("hw_profiles.registry.names", broken)
    monkeypatch.setattr("nas.cli.formats.names", broken)
    with pytest.raises(ModuleNotFoundError):
        main(["formats"])


def test_two_dashes_are_no_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--seed=--"]) == 2
    assert "`--` is no value" in capsys.readouterr().err
