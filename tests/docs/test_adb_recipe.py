"""docs/recipes/adb.md: every command and every device is one."""

import re
import shlex
from pathlib import Path

from hw_profiles.runtimes.plugin import choose
from nas.cli.command_line import parse_words
from nas.cli.main import TEXTS

PAGE = (Path(__file__).parents[2] / "docs/recipes/adb.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


def test_every_command_is_understood() -> None:
    assert len(COMMANDS) == 6
    for line in COMMANDS:
        assert not isinstance(parse_words(shlex.split(line)[1:], TEXTS), str)


def test_devices_are_devices() -> None:
    named = re.findall(r"(?:`|--device )((?:adb|ssh):[^`\s]*)", PAGE)
    assert len(named) > 6
    for text in named:
        assert choose(text).kind.artifact in ("library", "onnx")
