"""Damaged configurations and command lines: each is what somebody can mean, or refused in one line; nothing
is written either way.
"""

import shlex
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tomli_w

from nas.cli.command_line import EXAMPLES, parse_words
from nas.cli.flags import CONFIGURED, OWN, RUN_GROUPS
from nas.cli.given import given_options
from nas.cli.main import TEXTS
from nas.run.config import RunConfig, SearchSection
from nas.run.config_file import parse_config, read_config, render_config
from nas.run.configuration import configure
from tests.fuzz.mutations import (
    VALUES,
    Attempt,
    Mutation,
    attempt,
    damaged_bytes,
    damaged_documents,
    require_sound,
    try_out,
)

pytestmark = pytest.mark.slow

COUNT = 1_500
FULL = replace(
    RunConfig(),
    search=SearchSection(searcher="rnsga2", aims=("accuracy=95%,latency=0.3ms",)),
    constraints={"latency": "60%", "size": "200KB"},
)
FLAGS = [
    *((name, flag) for group in RUN_GROUPS for name in group.commands for flag in group.flags),
    *((name, flag) for name, flags in OWN.items() for flag in flags),
]
WORDS = (
    *(str(value) for value in VALUES if not isinstance(value, list | dict) and value != 10**400),
    *(
        "1" * 100_000,
        "1e400",
        "-inf",
        "0x10",
        "50%",
        "150%",
        "0.3ms",
        "3 miles",
        "none",
        "--",
        "-",
        "-h\0",
        "=",
        "knee",
    ),
    *(
        "latency=1ms",
        "fastest>=x",
        "a,b",
        "fp32,int8",
        "int8,int8",
        "ort",
        "recorded:",
        "recorded:nowhere",
        "\n",
        "x/" * 3_000,
    ),
)


def damaged_configurations() -> Iterator[Mutation]:
    text = render_config(FULL)
    rng = np.random.default_rng(0)
    yield from damaged_documents(tomllib.loads(text), count=COUNT, rng=rng, dumped=tomli_w.dumps)
    yield from damaged_bytes(text.encode(), count=COUNT, rng=rng)


def test_damaged_configurations_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    path, folder = tmp_path / "mine.toml", tmp_path / "run"

    def outcomes() -> Iterator[Attempt]:
        for mutation in damaged_configurations():
            path.write_bytes(mutation.data)
            yield try_out(mutation.how, lambda: read_config(path))
            if len(mutation.data) % 8 == 0:
                yield attempt(mutation.how, ["export", str(path), "-o", str(folder)])

    counts = require_sound(outcomes())
    assert counts["refused"] > COUNT / 2
    assert not folder.exists()


def test_what_is_read_from_a_damaged_configuration_can_be_written_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    for mutation in damaged_configurations():
        path.write_bytes(mutation.data)
        if try_out(mutation.how, lambda: read_config(path)).code == 0:
            config = read_config(path)
            config = replace(config, storage=RunConfig().storage)  # a password is not written
            assert parse_config(tomllib.loads(render_config(config)), origin="") == config, mutation.how


def damaged_command_lines(rng: np.random.Generator) -> Iterator[Sequence[str]]:
    """Flags of any command with any value, and examples with a word changed, left out or put in."""
    for _ in range(COUNT):
        command, flag = FLAGS[int(rng.integers(len(FLAGS)))]
        word = flag.words.split()[int(rng.integers(len(flag.words.split())))]
        value = WORDS[int(rng.integers(len(WORDS)))]
        joined = [f"{word}={value}"] if rng.integers(2) else [word, value]
        yield [*command.split(), *joined, *(["model.onnx"] if command == "bench" else [])]
    examples = [shlex.split(example)[1:] for example in EXAMPLES.values()]
    for _ in range(COUNT):
        words = list(examples[int(rng.integers(len(examples)))])
        place = int(rng.integers(len(words)))
        how = int(rng.integers(4))
        if how == 0:
            del words[place]
        elif how == 1:
            words.insert(place, WORDS[int(rng.integers(len(WORDS)))])
        elif how == 2:
            words[place] = WORDS[int(rng.integers(len(WORDS)))]
        else:
            letter = int(rng.integers(len(words[place])))
            words[place] = words[place][:letter] + words[place][letter + 1 :]
        yield words


def test_damaged_command_lines_are_understood_or_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def use(words: Sequence[str]) -> None:
        arguments = parse_words(words, TEXTS)
        if not isinstance(arguments, str) and arguments.command in CONFIGURED:
            configure(
                given_options(arguments), arguments.output, stage=arguments.command, file=arguments.config
            )

    lines = list(damaged_command_lines(np.random.default_rng(1)))
    counts = require_sound(try_out(" ".join(words)[:200], lambda words=words: use(words)) for words in lines)
    assert min(counts.values()) > COUNT / 10
    assert not list(tmp_path.iterdir())


def test_command_lines_that_mean_nothing_are_one_line_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [words for words in damaged_command_lines(np.random.default_rng(2)) if refused(words)][:300]
    require_sound(attempt(" ".join(words)[:200], words) for words in lines)
    assert len(lines) == 300
    assert not list(tmp_path.iterdir())


def refused(words: Sequence[str]) -> bool:
    return try_out("", lambda: parse_words(words, TEXTS)).code != 0
