"""The `nas` command: words are read, one function of the table is called, and what ends it is one line."""

import argparse
import contextlib
import json
import sys
import traceback
from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import Any

from hw_profiles.errors import TrilobitError
from hw_profiles.redaction import printable, redacted
from nas.cli.command_line import parse_words
from nas.cli.commands import COMMANDS, TEXTS
from nas.cli.failures import in_one_line, is_expected
from nas.cli.interruption import interruptible
from nas.run.reporting import QUIET, PlainReporter, Reporter
from supernet.train.world import World, launched_world


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it worked, 2 for bad input or a broken file, 130 when interrupted."""
    sys.excepthook = _print_bug
    world = World()
    try:
        with interruptible():
            arguments = parse_words(sys.argv[1:] if argv is None else argv, TEXTS)
            if isinstance(arguments, str):  # help or the version
                print(arguments)
                return 0
            world = _launched(arguments.command)
            reporter = _reporter(arguments) if world.writes else QUIET
            with _joined(world):
                result = COMMANDS[arguments.command].function(arguments, reporter)
    except KeyboardInterrupt:
        if world.writes:
            print("nas: interrupted; the same command continues where this one stopped", file=sys.stderr)
        return 130
    except Exception as error:
        if not is_expected(error):
            raise
        which = f" (process {world.rank} of {world.size})" if world.size > 1 else ""
        print(f"nas{which}: {printable(redacted(in_one_line(error)))}", file=sys.stderr)
        return 2
    if arguments.json and world.writes:
        print(json.dumps(result, indent=1))
    return 0


def _reporter(arguments: argparse.Namespace) -> Reporter:
    """Return what speaks to people: on standard error where standard output carries JSON."""
    if COMMANDS[arguments.command].lines:
        return PlainReporter(partial(print, file=sys.stderr if arguments.json else sys.stdout))
    from rich.console import Console

    from nas.cli.console import ConsoleReporter

    return ConsoleReporter(Console(stderr=arguments.json, highlight=False))


def _print_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print the traceback of a bug as Python does, but for the passwords that its message may quote."""
    sys.stderr.write(redacted("".join(traceback.format_exception(kind, error, trace))))


def _launched(command: str) -> World:
    """Return the processes that torchrun started.

    Raises:
        TrilobitError: there are several, which only training can use.
    """
    world = launched_world()
    if world.size > 1 and command != "train":
        raise TrilobitError(
            f"`nas {command}` runs in one process, torchrun started {world.size}; only `nas train` uses "
            "several, and `nas run` goes on from what it leaves"
        )
    return world


def _joined(world: World) -> contextlib.AbstractContextManager[Any]:
    """Return the context in which the other processes are met, where there are any."""
    if world.size == 1:
        return contextlib.nullcontext()
    from supernet.train.parallel import joined_world

    return joined_world()


if __name__ == "__main__":
    sys.exit(main())
