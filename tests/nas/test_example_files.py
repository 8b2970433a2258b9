"""The configurations in examples/ can be read, and their commands are what they say."""

from pathlib import Path

import pytest

from nas.cli.command_line import parse_words
from nas.cli.main import TEXTS
from nas.run.config_file import parse_config, read_config, read_document
from nas.run.defaults import with_defaults
from supernet.families.family import FAMILIES
from supernet.train.config import NONE

EXAMPLES = Path(__file__).parents[2] / "examples"
COMMAND = "#   nas "


@pytest.fixture(params=sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def example(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def words_of(example: Path) -> list[str]:
    """Return the words of the command in an example's head; none where it has none."""
    lines = [line for line in example.read_text().splitlines() if line.startswith(COMMAND)]
    return lines[0].removeprefix(COMMAND).split() if lines else []


def test_it_can_be_read(example: Path) -> None:
    config = read_config(example)
    assert config.space.name in FAMILIES


def test_its_command_can_be_parsed_and_has_it(example: Path) -> None:
    if words := words_of(example):
        arguments = parse_words(words, TEXTS)
        assert not isinstance(arguments, str)
        assert EXAMPLES.parent / arguments.config == example


def test_what_goes_on_begins_with_weights_of_its_own_space(example: Path) -> None:
    """Without settings for random weights: no note says that something is left out."""
    words = words_of(example)
    if not example.stem.endswith("-more"):
        assert "--init" not in words
        return
    init = words[words.index("--init") + 1]
    document = read_document(example)
    told = {**document, "train": {**document["train"], "init": init}}
    filled, note = with_defaults(told)
    assert (filled, note) == (told, "")
    assert parse_config(filled, origin="").train.init == init != NONE
