"""The words of a command line, read: what is mistyped is told in one line, with what it might have been."""

import argparse
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hw_profiles.engines import version_of
from hw_profiles.errors import TrilobitError, did_you_mean, shown
from nas.cli.flags import CONFIGURED
from nas.cli.options import add_options

LONGEST_PATH, DEEPEST_PATH = 4_096, 500  # characters, and folders in each other
HEADINGS: Mapping[str, tuple[str, ...]] = {
    "a trained model of your own": ("inspect", "tune"),
    "find networks": ("run",),
    "its stages, one by one": ("profile", "train", "sample", "fit", "search", "export", "report"),
    "check what was exported": ("verify", "bench", "compare-runtimes"),
    "other machines": ("profile compare", "profile import"),
    "other spaces": ("spaces design", "import-ofa"),
    "what there is": ("devices", "spaces", "formats", "ops"),
}
EXAMPLES: Mapping[str, str] = {
    "run": "nas run --data imagefolder:photos.zip --max-latency 60% --max-size 200KB -o runs/photos",
    "tune": "nas tune detector.onnx --data photos/ --max-latency 60%",
    "inspect": "nas inspect detector.onnx --shape image=1x3x640x640",
    "profile": "nas profile --validate 10 -o runs/here",
    "train": "nas train --data imagefolder:photos.zip --init shipped:cifar-pooled --epochs 10 -o runs/own",
    "sample": "nas sample --strategy front -o runs/photos",
    "fit": "nas fit --report -o runs/photos",
    "search": "nas search --max-latency 0.3ms -o runs/photos",
    "export": "nas export --pick knee --pick 'fastest>=92%' -o runs/photos",
    "report": "nas report -o runs/photos",
    "bench": "nas bench runs/photos/export/ID --threads 1,2 --seconds 5",
    "compare-runtimes": "nas compare-runtimes runs/model-ort runs/model-openvino --plot runtimes.svg",
    "verify": "nas verify runs/photos/export",
    "devices": "nas devices",
    "spaces": "nas spaces",
    "formats": "nas formats",
    "ops": "nas ops",
    "spaces design": "nas spaces design --data digits --teacher runs/own --max-latency 40% -o designs/own",
    "profile compare": "nas profile compare A.json B.json --plot compare.html",
    "profile import": "nas profile import table.json -o phone.json",
    "import-ofa": "nas import-ofa ofa_mbv3_d234_e346_k357_w1.0",
}
_NEGATIVE = re.compile(r"-\.?\d[\d.]*[^\d.].*")  # with a unit: argparse knows numbers alone
_DESCRIPTION = "Find the networks that trade accuracy against measured latency and size best."


def parse_words(words: Sequence[str], texts: Mapping[str, str]) -> argparse.Namespace | str:
    """Return what a command line says, or the text that answers it: help, or the version.

    Args:
        texts: name of every command, and what it does.

    Raises:
        TrilobitError: a word that means nothing, or a value that is not allowed.
    """
    if not words or words[0] in ("-h", "--help", "help"):
        return overview(texts)
    if words[0] == "--version":
        return f"nas {version_of('trilobit') or 'from its sources'}"
    name, rest = _command(words, texts)
    parser = command_parser(name, texts[name])
    if "-h" in rest or "--help" in rest:
        return parser.format_help().rstrip()
    arguments, unknown = parser.parse_known_args(_joined(rest))
    if unknown:
        _refuse_unknown(name, unknown[0], parser)
    for value in vars(arguments).values():
        if value == []:  # what argparse makes of it
            raise TrilobitError(f"`--` is no value; `nas {name} --help` lists the options")
        _check_path(value)
    arguments.command, arguments.line = name, shlex.join(("nas", *words))
    return arguments


def _joined(words: Sequence[str]) -> list[str]:
    """Return words with values such as `-5s` joined to their options: they look like options, and what is
    wrong with them is not that they are missing.

    >>> _joined(["--budget", "-5s", "--seed", "-1"])
    ['--budget=-5s', '--seed', '-1']
    """
    joined = list[str]()
    for word in words:
        if _NEGATIVE.fullmatch(word) and joined and joined[-1].startswith("--") and "=" not in joined[-1]:
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def command_parser(name: str, text: str) -> argparse.ArgumentParser:
    """Return the parser of one command."""
    parser = _Parser(
        prog=f"nas {name}",
        description=f"{text[0].upper()}{text[1:]}.",
        usage=f"nas {name} [CONFIG.toml] [OPTION ...]" if name in CONFIGURED else None,
        epilog=f"example:\n  {EXAMPLES[name]}",
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    add_options(name, parser)
    return parser


def overview(texts: Mapping[str, str]) -> str:
    """Return all commands under their headings."""
    lines = ["usage: nas COMMAND [OPTION ...]", "", _DESCRIPTION]
    for heading, names in HEADINGS.items():
        lines += ["", f"{heading}:", *(f"  {name:<16} {texts[name]}" for name in names)]
    lines += [
        "",
        "example:",
        f"  {EXAMPLES['run']}",
        "",
        "`nas COMMAND --help` lists its options; `nas --version`.",
    ]
    return "\n".join(lines)


def _command(words: Sequence[str], texts: Mapping[str, str]) -> tuple[str, Sequence[str]]:
    """Return the command that the words begin with, which may have two, and the words after it."""
    for length in (2, 1):
        name = " ".join(words[:length])
        if name in texts:
            return name, words[length:]
    commands = ", ".join(texts)
    raise TrilobitError(
        f"unknown command {shown(words[0])}{did_you_mean(words[0], texts)}; known: {commands}"
    )


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Wider than usual, so that most options take one line."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=100)


class _Parser(argparse.ArgumentParser):
    """Its errors are one line, as all others."""

    def error(self, message: str) -> NoReturn:
        """Refuse a command line.

        Raises:
            TrilobitError: always.
        """
        line = " ".join(message.split()).removeprefix("argument ")
        raise TrilobitError(f"{line[:300]}; `{self.prog} --help` lists the options")


def _refuse_unknown(name: str, word: str, parser: argparse.ArgumentParser) -> NoReturn:
    flag = word.partition("=")[0]
    flags = [option for action in parser._actions for option in action.option_strings]
    kind = "option" if flag.startswith("-") else "word"
    raise TrilobitError(
        f"unknown {kind} {shown(flag)}{did_you_mean(flag, flags)}; `nas {name} --help` lists the options"
    )


def _check_path(path: Any) -> None:
    """Refuse a path that no file system takes.

    Raises:
        TrilobitError: it is too long, too deep, or holds a character that nobody sees.
    """
    if isinstance(path, Path):
        text = str(path)
        if len(text) > LONGEST_PATH or len(path.parts) > DEEPEST_PATH or not text.isprintable():
            raise TrilobitError(
                f"{shown(text)} is no path: at most {LONGEST_PATH:,} characters that can be printed, and "
                f"{DEEPEST_PATH} folders in each other"
            )
